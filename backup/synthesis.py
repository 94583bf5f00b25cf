"""Makes a new base image out of an older one and the log, away from the server.

One rule: the new image is captured by the same code as any other, from rows that were rebuilt by the same code as a
restore; it says which image it came from.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from backup.capture import Order, capture
from backup.manifest import ImageManifest
from backup.plan import Stop, plan_restore
from backup.rebuild import rebuild
from backup.shelf import look
from backup.vault import Vault
from backup.verify import need_room
from model.errors import RewindError
from storage.image import Image

Progress = Callable[[str, int, int], None]


def synthesise(
    vault: Vault, scratch: Path, name: Callable[[int, int], str], version: str, progress: Progress
) -> ImageManifest:
    """The new image, of the newest moment that the vault holds. name(time_ms, log_index) gives its name.

    Raises RewindError if there is nothing newer than the newest image.
    """
    shelf = look(vault)
    plan = plan_restore(shelf.images, shelf.slices, Stop(newest=True), shelf.marks)
    if not plan.replays:
        raise RewindError(f"The newest image {plan.image.image} is the newest moment that {vault.url} holds.")
    need_room(scratch, plan.image.row_bytes)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        rebuilt = rebuild(vault, plan, scratch, progress)
        order = Order(
            name(rebuilt.time_ms, rebuilt.log_index),
            plan.image.cluster_id,
            rebuilt.raft_term,
            rebuilt.time_ms,
            version,
            parent=plan.image.image,
        )
        with Image(scratch) as image:
            return capture(image, vault, order, lambda what, rows, size: progress(what, rows, rebuilt.rows)).manifest
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
