"""Brings the rows of a checkpoint into a vault, by as many processes as there are cores to spare.

One rule: each process reads, packs and stores pieces of tables by itself; only names, sizes and hashes of blocks go
between them. What comes out does not depend on who did what: blocks in the order of their keys, and sums.
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
from storage.rows import HASH_MODULUS

BLOCK_BYTES: Final = 4 << 20
PIECE_BYTES: Final = 64 << 20  # so much is read of a piece before who has nothing to do may take the rest
PIECE_BLOCKS: Final = 100  # numbers for the blocks of a piece; it has not more than PIECE_BYTES / BLOCK_BYTES + 1
APART_ROWS: Final = 100_000  # with fewer, processes that help would cost more than they bring
APART_BYTES_PER_S: Final = 64 << 20  # within a lower limit one process is fast enough
SIGN_OF_LIFE_S: Final = 5.0

Progress = Callable[[str, int, int], None]
"""Called with (what, rows done, bytes done) now and then."""


class Part(NamedTuple):
    """What was stored of a piece, and the key at which the rest of it begins; None: that is all."""

    piece: Piece
    stored: list[Stored]
    rest: bytes | None


def capture_tables(
    image: Image, vault: Vault, tables: Sequence[Table], folder: str, max_bytes_per_s: int, progress: Progress
) -> list[TableImage]:
    """Stores the blocks of tables in a folder of the vault. max_bytes_per_s: 0 for no limit.

    Raises VaultUnavailable, UnfitArchive or Corrupt.
    """
    parts = _Capture(image, vault, tables, folder, max_bytes_per_s, progress).run()
    for table in tables:
        if any(part.stored for part in parts[table.table_id]):
            vault.settle(f"{folder}/{table.uuid}")
    return [_table_image(image, table, parts[table.table_id]) for table in tables]


def _table_image(image: Image, table: Table, parts: list[Part]) -> TableImage:
    """The blocks of all parts in the order of their keys. Raises UnfitArchive if they are not all rows."""
    stored = [one for part in sorted(parts, key=lambda part: part.piece.low) for one in part.stored]
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
        f"{sum(one.row_hash for one in stored) % HASH_MODULUS:064x}",
        tuple(one.block for one in stored),
    )


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

    def read(self, piece: Piece, tell: Callable[[int, int], None]) -> Part:
        """Stores the first PIECE_BYTES or so of a piece. `tell(rows, bytes)`: after each block, and while it waits."""
        stored: list[Stored] = []
        size, rest = 0, None
        blocks = self._image.blocks(piece.table_id, piece.low, BLOCK_BYTES, piece.high)
        for number, (_, keys, rows) in enumerate(blocks, piece.number * PIECE_BLOCKS):
            stored += self._writer.write(f"{self._folders[piece.table_id]}/{number:08d}", keys, rows)
            row_bytes = sum(map(len, rows))
            size += row_bytes + sum(map(len, keys))
            tell(len(rows), row_bytes)
            self._wait_for_limit(row_bytes, lambda: tell(0, 0))
            if size >= PIECE_BYTES:
                rest = keys[-1] + b"\0"
                break
        return Part(piece, stored + self._writer.finish(), rest)

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
        self._parts: dict[int, list[Part]] = {table.table_id: [] for table in tables}
        self._names = {table.table_id: table.name for table in tables}
        self._errors: list[Exception] = []
        largest_first = sorted(tables, key=lambda table: -image.count(table.table_id))
        ranges = [(table.table_id, *span) for table in largest_first if (span := image.span(table.table_id))]
        is_large = sum(image.count(table.table_id) for table in tables) >= APART_ROWS
        is_fast = not 0 < max_bytes_per_s < APART_BYTES_PER_S
        helpers = spare_workers() if is_large and is_fast else 0
        share = -(-max_bytes_per_s // (1 + helpers))
        self._pieces = Pieces(ranges, 1 + helpers)
        folders = {table.table_id: f"{folder}/{table.uuid}" for table in tables}
        self._reader = PieceReader(image, vault, folders, share)
        self._workers: ProcessPoolExecutor | None = None
        if helpers:
            context, begin = get_context("spawn"), (vault, image.folder, folders, share)
            self._workers = ProcessPoolExecutor(helpers, context, _begin, begin)
        self._drivers = [threading.Thread(target=self._drive, name="helper", daemon=True) for _ in range(helpers)]

    def run(self) -> dict[int, list[Part]]:
        """The parts of each table, in any order."""
        try:
            for driver in self._drivers:
                driver.start()
            while (piece := self._pieces.take(self._tell_again, SIGN_OF_LIFE_S)) is not None:
                self._take_in(self._reader.read(piece, self._teller(piece)))
            if self._errors:
                raise self._errors[0]
        except BaseException:
            self._pieces.end()
            if self._workers is not None:
                end_at_once(self._workers)
            raise
        finally:
            self._pieces.end()
            self._reader.close()
            if self._workers is not None:
                for driver in self._drivers:
                    driver.join()
                self._workers.shutdown(wait=True)
        return self._parts

    def _drive(self) -> None:
        """In a thread: has another process read one piece after the other."""
        workers = self._workers
        assert workers is not None
        try:
            while (piece := self._pieces.take(lambda: None, SIGN_OF_LIFE_S)) is not None:
                with interrupts_held():  # the first submission starts the processes
                    reading = workers.submit(_read_apart, piece)
                part = reading.result()
                blocks = [one.block for one in part.stored]
                self._teller(piece)(sum(block.rows for block in blocks), sum(block.row_bytes for block in blocks))
                self._take_in(part)
        except (BrokenProcessPool, CancelledError):
            self._fail(RewindError("A process that packed rows has ended unexpectedly."))
        except Exception as error:
            self._fail(error)

    def _take_in(self, part: Part) -> None:
        self._parts[part.piece.table_id].append(part)
        self._pieces.give_back(part.piece, part.rest)

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

    def _tell_again(self) -> None:
        self._tell("rows", 0, 0)


_READER: PieceReader | None = None  # of a worker process


def _begin(vault: Vault, checkpoint: Path, folders: dict[int, str], bytes_per_s: int) -> None:
    global _READER
    begin_worker(vault)
    _READER = PieceReader(Image(checkpoint), worker_vault(), folders, bytes_per_s)


def _read_apart(piece: Piece) -> Part:
    assert _READER is not None
    return _READER.read(piece, lambda rows, size: None)
