"""A checkpoint as a stream: what base images, snapshots, exports and verification read.

One rule: an image is of one log index and needs nothing but its folder, so any process may read it while
the server goes on writing. The folder is hard links at first; it pins disk space until it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from model.catalog import Catalog
from storage.documents import load_catalog
from storage.engine import scan
from storage.layout import COUNTS_HIGH, COUNTS_LOW, PREFIX_BYTES, after, number_in, table_prefix
from storage.rocks import RocksReader
from storage.rocks_options import RocksSettings

BLOCK_BYTES: Final = 1 << 20
FIRST_ROWS: Final = 16  # whose sizes tell how many to read at a time from then on
CHUNK_ROWS: Final = 512
READAHEAD_BYTES: Final = 2 << 20


class Block(NamedTuple):
    """Rows of one table that follow each other in key order."""

    table_id: int
    keys: list[bytes]
    rows: list[bytes]


class Image:
    """A checkpoint folder, opened read-only. Raises Corrupt if it is none or cannot be read."""

    def __init__(self, folder: Path, cache_bytes: int = 32 << 20) -> None:
        self._reader = RocksReader(folder, RocksSettings(cache_bytes=cache_bytes))
        self._reader.readahead_bytes = READAHEAD_BYTES
        self.folder = folder
        self.applied_index = self._reader.applied_index
        self.catalog = Catalog()
        load_catalog(self._reader, self.catalog)
        counts = scan(self._reader, COUNTS_LOW, COUNTS_HIGH)
        self.counts: dict[int, int] = {number_in(key): int.from_bytes(value, "big") for key, value in counts}

    def count(self, table_id: int) -> int:
        """The exact number of rows of a table."""
        return self.counts.get(table_id, 0)

    def span(self, table_id: int) -> tuple[bytes, bytes] | None:
        """[low, high) of the keys of a table; None if it has no rows."""
        low = table_prefix(table_id)
        high = after(low)
        first, _ = self._reader.scan_chunk(low, high, 1, skip=PREFIX_BYTES)
        last, _ = self._reader.scan_chunk(low, high, 1, reverse=True, skip=PREFIX_BYTES)
        return (first[0], last[0] + b"\0") if first and last else None

    def blocks(
        self, table_id: int, low: bytes = b"", block_bytes: int = BLOCK_BYTES, high: bytes = b""
    ) -> Iterator[Block]:
        """A table's rows in key order from the key `low` on, up to but without `high` if that is given.

        In blocks of `block_bytes` bytes or a little more: how many rows are read at a time follows from their sizes.
        """
        prefix = table_prefix(table_id)
        take = self._reader.reel(prefix + low, prefix + high if high else after(prefix))
        keys: list[bytes] = []
        rows: list[bytes] = []
        size, chunk = 0, FIRST_ROWS
        while True:
            found = take(chunk)
            keys += [key[PREFIX_BYTES:] for key, _ in found]
            rows += [row for _, row in found]
            more = sum([len(key) + len(row) for key, row in found]) - PREFIX_BYTES * len(found)
            size += more
            is_last = len(found) < chunk
            if keys and (is_last or size >= block_bytes):
                yield Block(table_id, keys, rows)
                keys, rows, size = [], [], 0
            if is_last:
                return
            chunk = max(1, min(CHUNK_ROWS, (block_bytes - size) * len(found) // max(more, 1)))

    def all_blocks(self) -> Iterator[Block]:
        """The blocks of all tables, by table id."""
        for table_id in sorted(self.catalog.tables):
            yield from self.blocks(table_id)

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
