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
from storage.rocks import RocksReader, RocksSettings

BLOCK_BYTES: Final = 1 << 20
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
        self.applied_index = self._reader.applied_index
        self.catalog = Catalog()
        load_catalog(self._reader, self.catalog)
        counts = scan(self._reader, COUNTS_LOW, COUNTS_HIGH)
        self.counts: dict[int, int] = {number_in(key): int.from_bytes(value, "big") for key, value in counts}

    def count(self, table_id: int) -> int:
        """The exact number of rows of a table."""
        return self.counts.get(table_id, 0)

    def blocks(self, table_id: int, low: bytes = b"", block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """A table's rows in key order from the key `low` on, in blocks of `block_bytes` bytes or a little more."""
        prefix = table_prefix(table_id)
        start, high = prefix + low, after(prefix)
        keys: list[bytes] = []
        rows: list[bytes] = []
        size = 0
        while True:
            more_keys, more_rows = self._reader.scan_chunk(start, high, CHUNK_ROWS, skip=PREFIX_BYTES)
            keys += more_keys
            rows += more_rows
            size += sum(map(len, more_keys)) + sum(map(len, more_rows))
            is_last = len(more_keys) < CHUNK_ROWS
            if keys and (is_last or size >= block_bytes):
                yield Block(table_id, keys, rows)
                keys, rows, size = [], [], 0
            if is_last:
                return
            start = prefix + more_keys[-1] + b"\0"

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
