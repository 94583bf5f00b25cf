"""A restore drill: the newest moment of a vault is really restored, timed, compared, and thrown away.

One rule: its duration is what a restore takes from this vault on this machine; nothing is left out of it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backup.manifest import ImageManifest
from backup.plan import EndsEarly, LogGap, Plan, Stop, plan_restore
from backup.rebuild import rebuild
from backup.shelf import Shelf, look
from backup.vault import Vault
from backup.verify import Report, compare, need_room, rebuilt_rows
from storage.image import Image

Progress = Callable[[str, int, int], None]


def drill(vault: Vault, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Restores, compares with what the manifests say, and tells how long it took. Raises what a restore raises.

    restore_seconds: the proven time to restore. problems: differences, in words; none is as it should be.
    """
    began_s = time.monotonic()
    shelf = look(vault)
    plan = plan_restore(shelf.images, shelf.slices, Stop(newest=True), shelf.marks)
    need_room(scratch, plan.image.row_bytes)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    report = Report("rows")
    try:
        rebuilt = rebuild(vault, plan, scratch, progress)
        restore_s = time.monotonic() - began_s
        with Image(scratch) as found:
            counted = {table_id: sum(len(part.rows) for part in found.blocks(table_id)) for table_id in found.counts}
            for table_id, count in found.counts.items():
                if counted[table_id] != count:
                    report.add(f"table number {table_id} has {counted[table_id]} rows, but counts {count}")
            if found.applied_index == plan.image.log_index:
                report.problems += compare(found, plan.image)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    steps = _through_the_log(shelf, plan.image)
    if steps is not None:
        rebuilt_rows(vault, steps, plan.image, scratch, progress, report)
    return {
        "image": plan.image.image,
        "log_index": rebuilt.log_index,
        "time_ms": rebuilt.time_ms,
        "rows": rebuilt.rows,
        "bytes": plan.image.row_bytes,
        "entries": rebuilt.entries,
        "restore_seconds": round(restore_s, 3),
        "compared_with_log": steps is not None,
        "problems": report.problems,
    }


def _through_the_log(shelf: Shelf, image: ImageManifest) -> Plan | None:
    """From the image before, by the log, to an image: what proves the log. None where there is no such way."""
    before = [older for older in shelf.images if older.is_whole and older.log_index < image.log_index]
    if not before:
        return None
    try:
        return plan_restore(before[-1:], shelf.slices, Stop(index=image.log_index))
    except (LogGap, EndsEarly):
        return None
