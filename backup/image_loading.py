"""Brings the blocks of an image into a folder of rows: fetched, verified, sorted into files; in threads, or in
processes where that pays.

One rule: a table counts as loaded only when every block was, in its order, what its hash in the manifest says, and
their rows are as many as the manifest says. The hash over all rows says no more than that, at the price of a fifth of
the time: verification and drills compare it (backup/verify).
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeVar

from backup.capture import read_block
from backup.manifest import Block, TableImage
from backup.packing import begin_worker, end_at_once, interrupts_held, worker_vault
from backup.vault import Vault
from model.errors import RewindError, UnfitArchive
from storage.bulk import BulkLoad, SortedFile, write_sorted
from storage.rocks_options import DEFAULT_SETTINGS, RocksSettings

Found = TypeVar("Found")

READ_AHEAD: Final = 4  # blocks fetched and unpacked while one is being loaded
RUN_BYTES: Final = 48 << 20  # of rows that one process makes one file of
APART_ROWS: Final = 300_000  # with fewer, processes that help would cost more than they bring
MAX_WORKERS: Final = 8

Progress = Callable[[str, int, int], None]


def all_workers() -> int:
    """How many processes may help where nothing else is to be served: one for each core."""
    cores = os.cpu_count() or 1
    return min(cores, MAX_WORKERS) if cores > 1 else 0


class Loading:
    """How tables are loaded. workers: processes; 0 for threads of this one. is_packed: see storage/bulk."""

    def __init__(self, vault: Vault, workers: int, settings: RocksSettings = DEFAULT_SETTINGS, is_packed: bool = True):
        self._vault = vault
        self._workers = workers
        self._settings = settings
        self._is_packed = is_packed

    def load(self, tables: Sequence[TableImage], load: BulkLoad, progress: Progress) -> None:
        """Adds the rows of all tables. Raises UnfitArchive, VaultUnavailable, Corrupt or DiskFull."""
        total = sum(table.rows for table in tables)
        ordered = sorted(tables, key=lambda table: table.table_id)
        if self._workers and total >= APART_ROWS:
            self._load_apart(ordered, load, progress, total)
            return
        loaded = 0
        for table in ordered:
            for keys, rows in verified_rows(self._vault, table):
                load.add(table.table_id, keys, rows)
                loaded += len(rows)
                progress(table.name, loaded, total)

    def _load_apart(self, tables: Sequence[TableImage], load: BulkLoad, progress: Progress, total: int) -> None:
        """Processes make a file of each run of blocks; they are adopted in the order of their keys."""
        pool = ProcessPoolExecutor(self._workers, get_context("spawn"), begin_worker, (self._vault,))
        try:
            runs = ((table, run) for table in tables for run in runs_of(table.blocks))
            waiting: deque[tuple[TableImage, Future[SortedFile | None]]] = deque()

            def submit(count: int) -> None:
                for table, run in islice(runs, count):
                    job = (run, table.table_id, load.new_file(), self._settings, self._is_packed)
                    waiting.append((table, pool.submit(_load_run, *job)))

            with interrupts_held():  # the first submission starts them
                submit(2 * self._workers)
            loaded = 0
            counts: Counter[int] = Counter()
            while waiting:
                table, future = waiting.popleft()
                file = _result(future)
                submit(1)
                if file is not None:
                    load.adopt(file)
                    counts[table.table_id] += file.rows
                    loaded += file.rows
                    progress(table.name, loaded, total)
            for table in tables:
                check_count(table, counts[table.table_id])
        except BaseException:
            end_at_once(pool)
            raise
        pool.shutdown(wait=True)


def runs_of(blocks: Sequence[Block]) -> Iterator[tuple[Block, ...]]:
    """The blocks of a table in their order, in runs of about RUN_BYTES of rows."""
    run: list[Block] = []
    size = 0
    for block in blocks:
        run.append(block)
        size += block.row_bytes
        if size >= RUN_BYTES:
            yield tuple(run)
            run, size = [], 0
    if run:
        yield tuple(run)


def _load_run(
    run: tuple[Block, ...], table_id: int, path: Path, settings: RocksSettings, is_packed: bool
) -> SortedFile | None:
    """In a worker process: a file of the rows of a run of blocks; None if they hold none."""
    return write_sorted(path, table_id, read_ahead(read_block, worker_vault(), run), settings, is_packed)


def _result(future: Future[SortedFile | None]) -> SortedFile | None:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RewindError("A process that loaded rows has ended unexpectedly.") from error


def read_ahead(read: Callable[[Vault, Block], Found], vault: Vault, blocks: Sequence[Block]) -> Iterator[Found]:
    """What `read` gives of each block, in order; some are read ahead in threads."""
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="vault") as pool:
        under_way = deque(pool.submit(read, vault, block) for block in blocks[:READ_AHEAD])
        following = iter(blocks[READ_AHEAD:])
        try:
            while under_way:
                part = under_way.popleft().result()
                under_way.extend(pool.submit(read, vault, block) for block in islice(following, 1))
                yield part
        finally:
            pool.shutdown(cancel_futures=True)


def verified_rows(vault: Vault, table: TableImage) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """The blocks of a table in order, each with the hash and the number of rows that the manifest says."""
    count = 0
    for keys, rows in read_ahead(read_block, vault, table.blocks):
        count += len(rows)
        yield keys, rows
    check_count(table, count)


def check_count(table: TableImage, count: int) -> None:
    """Raises UnfitArchive unless that many rows are the table's."""
    if count != table.rows:
        raise UnfitArchive(
            f"Table {table.database}.{table.name} does not come back as it was: {count} rows for {table.rows}."
        )
