"""Brings the rows of a checkpoint into a vault, by as many processes as there are cores to spare.

One rule: each process reads, packs and stores pieces of tables by itself; only names, sizes and hashes of blocks go
between them. Whoever did what, the blocks come out in the order of their keys, and hold all rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from backup.manifest import TableImage
from backup.packing import BlockWriter, Stored, begin_worker, end_at_once, interrupts_held, spare_workers, worker_vault
from backup.pieces import Piece, Pieces
from backup.vault import Vault
from model.catalog import Table
from model.errors import RewindError, UnfitArchive
from storage.image import Image

BLOCK_BYTES: Final = 4 << 20
PIECE_BYTES: Final = 16 << 20  # so much is read of a piece before who has nothing to do may take the rest
PIECE_BLOCKS: Final = 100  # numbers for the blocks of a piece; it has not more than PIECE_BYTES / BLOCK_BYTES + 1
APART_ROWS: Final = 100_000  # with fewer, processes that help would cost more than they bring
APART_BYTES_PER_S: Final = 64 << 20  # within a lower limit one process is fast enough
SIGN_OF_LIFE_S: Final = 5.0

Progress = Callable[[str, int, int], None]
"""Called with (what, rows done, bytes done) now and then."""


def capture_tables(
    image: Image, vault: Vault, tables: Sequence[Table], folder: str, max_bytes_per_s: int, progress: Progress
) -> list[TableImage]:
    """Stores the blocks of tables in a folder of the vault. max_bytes_per_s: 0 for no limit.

    Raises VaultUnavailable, UnfitArchive or Corrupt.
    """
    found: dict[int, list[Stored]] = {table.table_id: [] for table in tables}
    for stored in _Capture(image, vault, tables, folder, max_bytes_per_s, progress).run():
        found[stored.table_id].append(stored)
    for table in tables:
        if found[table.table_id]:
            vault.settle(f"{folder}/{table.uuid}")
    return [_table_image(image, table, found[table.table_id]) for table in tables]


def _table_image(image: Image, table: Table, stored: list[Stored]) -> TableImage:
    """The blocks in the order of their keys. Raises UnfitArchive if they do not hold all rows."""
    stored.sort(key=lambda one: one.low)
    rows, counted = sum(one.block.rows for one in stored), image.count(table.table_id)
    if rows != counted:
        raise UnfitArchive(f"Table {table.name} has {rows} rows in the checkpoint, but {counted} counted.")
    return TableImage(
        table.table_id,
        table.uuid,
        image.catalog.databases_by_uuid[table.database].name,
        table.name,
        rows,
        sum(one.block.row_bytes for one in stored),
        "",
        tuple(one.block for one in stored),
    )


class Read(NamedTuple):
    """The blocks that have arrived in the vault meanwhile, of whichever pieces; where the rest of the piece begins."""

    arrived: list[Stored]
    rest: bytes | None


class PieceReader:
    """Reads pieces in one process, not faster than allowed."""

    def __init__(self, image: Image, vault: Vault, folders: dict[int, str], bytes_per_s: int) -> None:
        """folders: where in the vault the blocks of each table are to be. bytes_per_s: 0 for no limit."""
        self._image = image
        self._writer = BlockWriter(vault)
        self._folders = folders
        self._bytes_per_s = bytes_per_s
        self._bytes = 0
        self._began_s = time.monotonic()

    def read(self, piece: Piece, tell: Callable[[int, int], None]) -> Read:
        """Reads the first PIECE_BYTES or so of a piece, and sends its blocks on their way.

        `tell(rows, bytes)` is called after each block, and now and then while it waits.
        """
        arrived: list[Stored] = []
        size = 0
        blocks = self._image.blocks(piece.table_id, piece.low, BLOCK_BYTES, piece.high)
        for number, (table_id, keys, rows) in enumerate(blocks, piece.number * PIECE_BLOCKS):
            arrived += self._writer.write(f"{self._folders[table_id]}/{number:08d}", table_id, keys, rows)
            row_bytes = sum(map(len, rows))
            size += row_bytes + sum(map(len, keys))
            tell(len(rows), row_bytes)
            self._wait_for_limit(row_bytes, lambda: tell(0, 0))
            if size >= PIECE_BYTES:
                return Read(arrived, keys[-1] + b"\0")
        return Read(arrived, None)

    def finish(self) -> list[Stored]:
        """Waits for the blocks that are still on their way."""
        return self._writer.finish()

    def _wait_for_limit(self, row_bytes: int, tell: Callable[[], None]) -> None:
        self._bytes += row_bytes
        while self._bytes_per_s:
            ahead_s = self._bytes / self._bytes_per_s - (time.monotonic() - self._began_s)
            if ahead_s <= 0:
                return
            time.sleep(min(ahead_s, SIGN_OF_LIFE_S))
            tell()

    def close(self) -> None:
        self._writer.close()


class _Capture:
    """One run, with the processes that help."""

    def __init__(
        self,
        image: Image,
        vault: Vault,
        tables: Sequence[Table],
        folder: str,
        max_bytes_per_s: int,
        progress: Progress,
    ) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._rows = self._bytes = 0
        self._stored: list[Stored] = []
        self._names = {table.table_id: table.name for table in tables}
        self._errors: list[Exception] = []
        largest_first = sorted(tables, key=lambda table: -image.count(table.table_id))
        ranges = [(table.table_id, *span) for table in largest_first if (span := image.span(table.table_id))]
        is_large = sum(image.count(table.table_id) for table in tables) >= APART_ROWS
        is_fast = not 0 < max_bytes_per_s < APART_BYTES_PER_S
        workers = spare_workers() if is_large and is_fast else 0
        share = -(-max_bytes_per_s // (1 + workers))
        self._pieces = Pieces(ranges, 1 + workers)
        folders = {table.table_id: f"{folder}/{table.uuid}" for table in tables}
        self._reader = PieceReader(image, vault, folders, share)
        begin = (vault, image.folder, folders, share)
        self._workers = [ProcessPoolExecutor(1, get_context("spawn"), _begin, begin) for _ in range(workers)]
        self._drivers = [
            threading.Thread(target=self._drive, name="worker", args=(worker,), daemon=True) for worker in self._workers
        ]

    def run(self) -> list[Stored]:
        """All blocks, in any order."""
        try:
            for driver in self._drivers:
                driver.start()
            while (piece := self._pieces.take()) is not None:
                self._take_in(piece, self._reader.read(piece, self._teller(piece)))
            self._stored += self._reader.finish()
            for driver in self._drivers:
                driver.join()
            if self._errors:
                raise self._errors[0]
        except BaseException:
            self._pieces.end()
            for worker in self._workers:
                end_at_once(worker)
            raise
        finally:
            self._reader.close()
            for worker in self._workers:
                worker.shutdown()
        return self._stored

    def _drive(self, worker: ProcessPoolExecutor) -> None:
        """In a thread: has another process read one piece after the other."""
        try:
            while (piece := self._pieces.take()) is not None:
                with interrupts_held():  # the first submission starts the process
                    reading = worker.submit(_read_apart, piece)
                read, rows, size = reading.result()
                self._teller(piece)(rows, size)
                self._take_in(piece, read)
            self._stored += worker.submit(_finish_apart).result()
        except (BrokenProcessPool, CancelledError):
            self._fail(RewindError("A process that packed rows has ended unexpectedly."))
        except Exception as error:
            self._fail(error)

    def _take_in(self, piece: Piece, read: Read) -> None:
        self._stored += read.arrived
        self._pieces.give_back(piece, read.rest)

    def _fail(self, error: Exception) -> None:
        self._errors.append(error)
        self._pieces.end()

    def _teller(self, piece: Piece) -> Callable[[int, int], None]:
        name = self._names[piece.table_id]
        return lambda rows, size: self._tell(name, rows, size)

    def _tell(self, what: str, rows: int, size: int) -> None:
        with self._lock:
            self._rows += rows
            self._bytes += size
            self._progress(what, self._rows, self._bytes)


_READER: PieceReader | None = None  # of a worker process


def _begin(vault: Vault, checkpoint: Path, folders: dict[int, str], bytes_per_s: int) -> None:
    global _READER
    begin_worker(vault)
    _READER = PieceReader(Image(checkpoint), worker_vault(), folders, bytes_per_s)


def _read_apart(piece: Piece) -> tuple[Read, int, int]:
    """What was read, and how many rows and bytes that were."""
    assert _READER is not None
    told: list[tuple[int, int]] = []
    read = _READER.read(piece, lambda rows, size: told.append((rows, size)))
    return read, sum(rows for rows, _ in told), sum(size for _, size in told)


def _finish_apart() -> list[Stored]:
    assert _READER is not None
    return _READER.finish()
