"""Brings back a moment into an empty folder of rows: an image, then the log, by the code that applies live writes.

One rule: the folder gets its name only when the moment is reached; what was interrupted is thrown away by the
next attempt.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backup.image_loading import Loading
from backup.manifest import LogSlice
from backup.plan import Plan, Replay
from backup.shelf import read_slice
from backup.vault import Vault
from consensus.messages import EntryKind
from model.catalog import Catalog
from model.effect import time_of
from model.errors import Overloaded, UnfitArchive
from storage.bulk import BulkLoad
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

READ_AHEAD: Final = 4  # slices fetched and unpacked while one is being applied
APPLY_ENTRIES: Final = 500
STALL_RETRY_S: Final = 0.005

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of how many) now and then."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The moment that was reached."""

    log_index: int
    raft_term: int
    time_ms: int
    rows: int
    entries: int


def rebuild(vault: Vault, plan: Plan, folder: Path, progress: Progress, workers: int = 0) -> Rebuilt:
    """Makes `folder` hold the planned moment, or not exist: UnfitArchive, Corrupt or VaultUnavailable say why.

    workers: processes that help with large images (see backup/image_loading); 0: none.
    """
    loading = folder.with_name(folder.name + ".rebuilding")
    shutil.rmtree(loading, ignore_errors=True)
    try:
        with sound_effects():
            _load_image(vault, plan, loading, progress, workers)
            rebuilt = _replay(vault, plan, loading, progress)
        loading.rename(folder)
        return rebuilt
    finally:
        shutil.rmtree(loading, ignore_errors=True)


@contextmanager
def sound_effects() -> Iterator[None]:
    """What is whole but cannot be, as someone may have made it on purpose, is refused as UnfitArchive."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        raise UnfitArchive(f"The vault holds effects that no server makes: {error!r}.") from error


def image_catalog(plan: Plan) -> Catalog:
    """The catalog of the plan's image."""
    catalog = Catalog()
    for effect in plan.image.catalog:
        catalog.apply(effect)
    catalog.next_id = max(catalog.next_id, plan.image.next_id)
    return catalog


def _load_image(vault: Vault, plan: Plan, folder: Path, progress: Progress, workers: int) -> None:
    load = BulkLoad(folder)
    try:
        Loading(vault, workers).load(plan.image.tables, load, progress)
        load.finish(image_catalog(plan), plan.image.log_index)
    except BaseException:
        load.cancel()
        raise


def _replay(vault: Vault, plan: Plan, folder: Path, progress: Progress) -> Rebuilt:
    engine = RocksEngine(folder, RocksSettings())
    try:
        machine = Machine(engine)
        time_ms, term, applied = plan.image.time_ms, plan.image.raft_term, 0
        waiting: list[tuple[int, bytes]] = []
        total = plan.last_index - plan.image.log_index
        for index, entry_term, entry_ms, payload in entries_of(vault, plan):
            waiting.append((index, payload))
            time_ms, term = entry_ms or time_ms, entry_term
            applied += 1
            if len(waiting) >= APPLY_ENTRIES:
                apply_patiently(machine, waiting)
                waiting = []
                progress("log", applied, total)
        if waiting:
            apply_patiently(machine, waiting)
        rows = sum(machine.store.count(table_id) for table_id in machine.catalog.tables)
        machine.flush()
        return Rebuilt(machine.applied_index, term, time_ms, rows, applied)
    finally:
        engine.close()


def apply_patiently(machine: Machine, entries: Sequence[tuple[int, bytes]]) -> None:
    """As `apply`, but waits where the engine stalls: rows come faster from a vault than some disks take them."""
    while True:
        try:
            return machine.apply(entries)
        except Overloaded:
            time.sleep(STALL_RETRY_S)


def _slices_of(vault: Vault, plan: Plan) -> Iterator[tuple[Replay, LogSlice]]:
    """The slices of a plan in order, a few of them read ahead."""
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="vault") as pool:
        under_way = deque(pool.submit(read_slice, vault, replay.piece) for replay in plan.replays[:READ_AHEAD])
        try:
            for at, replay in enumerate(plan.replays):
                part = under_way.popleft().result()
                for following in plan.replays[at + READ_AHEAD : at + READ_AHEAD + 1]:
                    under_way.append(pool.submit(read_slice, vault, following.piece))
                yield replay, part
        finally:
            pool.shutdown(cancel_futures=True)


def entries_of(vault: Vault, plan: Plan) -> Iterator[tuple[int, int, int, bytes]]:
    """(log_index, raft_term, time_ms or 0, payload) of what is to be replayed; conf changes come with no payload."""
    for replay, part in _slices_of(vault, plan):
        if part.cluster_id != plan.image.cluster_id:
            raise UnfitArchive(f"{replay.piece.name} is of another cluster ({part.cluster_id}).")
        for index, term, kind, data in part.entries:
            if not replay.first_index <= index <= replay.last_index:
                continue
            payload = data if kind == EntryKind.NORMAL else b""
            time_ms = time_of(payload) if payload else 0
            if plan.until_ms is not None and time_ms > plan.until_ms:
                return
            yield index, term, time_ms, payload
