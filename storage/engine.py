"""The port to an ordered key-value store, and the reference store in memory.

One rule: an engine holds bytes under bytes and one number, the applied index; a `WriteSet` and the
applied index that goes with it become visible together and survive a crash together, or not at all.
Durability is not the engine's: between two flushes a crash takes it back to the last one, and the log
brings it forward again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from sortedcontainers import SortedDict  # type: ignore[import-untyped]

SCAN_ROWS: Final = 512  # rows per chunk of `scan`: large enough to hide the seek, small enough for the CPU cache


class WriteSet:
    """Changes that belong together. Ranges are deleted first; then each key of `rows` gets its last value.

    `rows` maps a key to its new value, or to None to delete it.
    """

    __slots__ = ("ranges", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.ranges: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows[key] = None

    def delete_range(self, low: bytes, high: bytes) -> None:
        """Deletes [low, high), including what this set has put there so far."""
        for key in [key for key in self.rows if low <= key < high]:
            del self.rows[key]
        self.ranges.append((low, high))


class Reader(Protocol):
    """What can be read of a store, live or at a fixed point. Keys are compared as bytes."""

    applied_index: int

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys; None where there is none."""

    def scan_chunk(
        self, low: bytes, high: bytes, limit: int, reverse: bool = False, skip: int = 0
    ) -> tuple[list[bytes], list[bytes]]:
        """At most `limit` (keys, values) of [low, high), the lowest first, or the highest first in reverse.

        Each key comes without its first `skip` bytes. To go on, the caller passes the last whole key + b"\\0" as
        `low`, or in reverse the last whole key as `high`.
        Fewer than `limit` rows means that the range holds no more.
        """

    def scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        """As `scan_chunk`, for who needs the keys only to go on: the values, and the last whole key where there may be
        more (b"" where there is none)."""


class View(Reader, Protocol):
    """A fixed point-in-time read. It pins memory and files: close it."""

    def close(self) -> None: ...


class Engine(Reader, Protocol):
    """A store. One thread reads and writes it; `flush` and `checkpoint` may run on another."""

    def write(self, changes: WriteSet, applied_index: int) -> None:
        """Makes the changes, atomically with the applied index.

        Raises Overloaded (nothing was written; try again after a moment) or DiskFull or Corrupt.
        """

    def view(self) -> View: ...

    def flush(self) -> int:
        """Makes durable what was written before the call; the applied index that it covers. Blocks."""

    def checkpoint(self, folder: Path) -> int:
        """Writes a whole consistent image into `folder`, which must not exist; the applied index in it.

        Raises Overloaded when what belongs together (`whole`) is not ended in a while.
        """

    def whole(self) -> AbstractContextManager[object]:
        """Inside, several writes belong together: no checkpoint is taken between them."""

    def sizes(self) -> dict[str, int]:
        """Bytes and counters for statistics; the keys depend on the engine."""

    def close(self) -> None: ...


def scan(reader: Reader, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) of [low, high) in order, read chunk by chunk: later writes ahead of it show."""
    while True:
        keys, values = reader.scan_chunk(low, high, SCAN_ROWS, reverse)
        yield from zip(keys, values, strict=True)
        if len(keys) < SCAN_ROWS:
            return
        if reverse:
            high = keys[-1]
        else:
            low = keys[-1] + b"\0"


class _MemoryReader:
    def __init__(self, table: SortedDict, applied_index: int) -> None:
        self._table = table
        self.applied_index = applied_index

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._table.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._table.get(key) for key in keys]

    def scan_chunk(
        self, low: bytes, high: bytes, limit: int, reverse: bool = False, skip: int = 0
    ) -> tuple[list[bytes], list[bytes]]:
        if low >= high:
            return [], []
        keys = list(islice(self._table.irange(low, high, (True, False), reverse), limit))
        return [key[skip:] for key in keys], [self._table[key] for key in keys]

    def scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        keys, values = self.scan_chunk(low, high, limit, reverse)
        return values, keys[-1] if 0 < len(keys) == limit else b""

    def close(self) -> None:
        self._table = SortedDict()


class MemoryEngine(_MemoryReader):
    """The reference model: a sorted dict. Its flush makes a copy to which `crash` goes back."""

    def __init__(self) -> None:
        super().__init__(SortedDict(), 0)
        self._flushed: tuple[SortedDict, int] = (SortedDict(), 0)

    def write(self, changes: WriteSet, applied_index: int) -> None:
        table = self._table
        for low, high in changes.ranges:
            for key in list(table.irange(low, high, (True, False))):
                del table[key]
        for key, value in changes.rows.items():
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value
        self.applied_index = applied_index

    def view(self) -> _MemoryReader:
        return _MemoryReader(self._table.copy(), self.applied_index)

    def flush(self) -> int:
        self._flushed = (self._table.copy(), self.applied_index)
        return self.applied_index

    def crash(self) -> None:
        """Loses what was not flushed, as a killed process would."""
        table, self.applied_index = self._flushed
        self._table = table.copy()

    def checkpoint(self, folder: Path) -> int:
        folder.mkdir()
        rows = [(key.hex(), value.hex()) for key, value in self._table.items()]
        (folder / "memory.json").write_text(json.dumps({"applied_index": self.applied_index, "rows": rows}))
        return self.applied_index

    def whole(self) -> AbstractContextManager[object]:
        return nullcontext()

    def sizes(self) -> dict[str, int]:
        return {"rows": len(self._table), "live_bytes": sum(len(k) + len(v) for k, v in self._table.items())}
