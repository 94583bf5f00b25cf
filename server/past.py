"""Serves a moment of the past, read-only, over the driver protocol: `rewinddb at`.

One rule: it is a server like any other, on a copy of its own that is thrown away at the end; only its log takes
nothing from drivers. So every query that reads means what it meant then.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backup.plan import Plan
from backup.rebuild import Progress
from backup.timeline import format_time
from backup.vault import Vault
from conf.settings import load
from proxy.reql import terms as _terms  # noqa: F401  (the terms come before what compiles them
from proxy.reql.index_functions import index_function
from server.new_cluster import NewCluster, restore_folder
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

BUILD_S: Final = 0.25  # between two looks at how far the indexes are


@dataclass(frozen=True, slots=True)
class Place:
    """Where the past is served. scratch: the folder for its copy; None for the system's folder of temporary files."""

    driver_port: int
    address: str
    scratch: Path | None


def serve_past(
    vault: Vault,
    plan: Plan,
    place: Place,
    progress: Progress,
    now_ms: Callable[[], int],
    on_ready: Callable[[NewCluster], None],
) -> int:
    """Rebuilds the moment, builds its indexes, serves it until told to stop; the exit code."""
    with scratch_folder(place.scratch) as scratch:
        made = restore_folder(vault, plan, scratch / "data", progress, now_ms)
        build_indexes(made.data_dir / "rows", progress)
        on_ready(made)
        return _serve(made, place)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder that is gone at the end, also when the process is told to stop before it serves."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    scratch = Path(tempfile.mkdtemp(prefix="rewinddb-at-", dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def build_indexes(rows: Path, progress: Progress) -> int:
    """Builds all secondary indexes of a folder of rows that nobody serves; how many there are."""
    engine = RocksEngine(rows, RocksSettings(cache_bytes=64 << 20))
    try:
        machine = Machine(engine, index_function)
        total = len(machine.indexes_waiting)
        while machine.build_step(BUILD_S):
            progress("indexes", total - len(machine.indexes_waiting), total)
        machine.flush()
        return total
    finally:
        engine.close()


def _serve(made: NewCluster, place: Place) -> int:
    from server import logs
    from server.daemon import RECURSION_LIMIT, Daemon, install_reactor
    from server.folder import DataFolder

    sys.setrecursionlimit(RECURSION_LIMIT)
    logs.set_up("warning", "text", "", "")
    flags: dict[str, Any] = {
        "server.data_dir": str(made.data_dir),
        "driver.port": place.driver_port,
        "driver.address": place.address,
        "cluster.port": 0,
        "http.enabled": False,
    }
    folder = DataFolder(made.data_dir)
    try:
        daemon = Daemon(load(None, flags), folder, install_reactor())
        when = format_time(made.rebuilt.time_ms)
        daemon.refuse_writes(f"This server shows the past, as of {when}, and cannot be written to.")
        return daemon.run()
    finally:
        folder.close()
