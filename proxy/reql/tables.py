"""Stored tables as terms see them: keys to bytes, ranges to scans, rows as the texts they are stored as.

One rule: a scan holds nothing between chunks but the last key it gave, so that an idle cursor costs no memory and
pins no data (as in RethinkDB, a long read is not one point in time).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from model import datum as d
from model.catalog import Index
from model.catalog import Table as CatalogTable
from model.errors import ReqlError, ReqlOpFailedError, ReqlQueryLogicError
from model.keys import bound_key, key_range, prefix_range, primary_key_bytes
from proxy.reql.ids import Term
from proxy.reql.nodes import Node
from proxy.reql.permissions import SYSTEM_DB
from proxy.reql.streams import FIRST_CHUNK, MAX_CHUNK, IteratorStream, Rows, Stream, chunked
from proxy.reql.traffic import Traffic
from proxy.reql.values import Table, TableSlice

FIRST_ENTRIES: Final = 64  # of an index at first: they are small, and a lookup is to come to its end in one chunk
NOWHERE: Final = (b"", b"")  # a range without keys
MOST_RANGES: Final = 32  # of an index that are looked into between two breaths


class StoredTable:
    """A table of the catalog; the TableSource port over the stored data."""

    __slots__ = ("db_name", "primary_key", "table", "traffic", "uuid")

    def __init__(self, table: CatalogTable, db_name: str, traffic: Traffic) -> None:
        self.table = table
        self.traffic = traffic
        self.db_name = db_name
        self.uuid = table.uuid
        self.primary_key = table.primary_key

    def get(self, env: Any, key: Any) -> bytes | None:
        """The row's JSON text; raises RethinkDB's errors for data that cannot be keys."""
        encoded = primary_key_bytes(key)
        if env.permissions is not None:
            env.permissions.require("read", self.table.database, self.uuid)
        table_id = self.table.table_id
        if not env.read_prepared:
            env.read_prepared = env.data.prepare_get(env.read_mode, table_id, encoded)
        self.traffic.read += 1
        row: bytes | None = env.data.get(table_id, encoded)
        return row

    def get_many(self, env: Any, keys: Sequence[Any]) -> list[bytes | None]:
        encoded = [primary_key_bytes(key) for key in keys]
        self.prepare_read(env)
        self.traffic.read += len(encoded)
        rows: list[bytes | None] = env.data.get_many(self.table.table_id, encoded)
        return rows

    def count(self, env: Any) -> int:
        """The exact number of rows, without reading them."""
        self.prepare_read(env)
        rows: int = env.data.count(self.table.table_id)
        return rows

    def doc_counts(self, env: Any) -> list[int]:
        """The number of rows in each shard as RethinkDB estimates it: one too many for each of its 8 hash shards
        that has any. Shards are configuration only, so they share the rows evenly."""
        count = self.count(env)
        shards = self.table.options.get("shards", 1)
        whole, rest = divmod(count + min(count, 8), shards)
        return [whole + (at < rest) for at in range(shards)]

    def prepare_read(self, env: Any) -> None:
        """To be called before each look at rows: the user must be allowed to, still."""
        if env.permissions is not None:
            env.permissions.require("read", self.table.database, self.uuid)
        env.prepare_read()

    def index(self, env: Any, name: str) -> Index:
        """The secondary index of that name, when it can be read."""
        index = self.table.indexes.get(name)
        if index is None:
            raise ReqlOpFailedError(f"Index `{name}` was not found on table `{self.db_name}.{self.table.name}`.")
        if not env.data.index_ready(index.index_id):
            raise ReqlOpFailedError(
                f"Index `{name}` on table `{self.db_name}.{self.table.name}` "
                "was accessed before its construction was finished."
            )
        return index

    def ordered_index(self, env: Any, name: str) -> Index:
        """`index`, for what needs its order, which geospatial indexes do not have."""
        index = self.index(env, name)
        if index.definition.get("geo"):
            raise ReqlQueryLogicError(
                f"Index `{name}` is a geospatial index.  Only get_nearest and get_intersecting can use a geospatial "
                "index."
            )
        return index

    def stream(self, env: Any, table: Table, part: TableSlice) -> Stream:
        """The rows of a slice, in the slice's order if it has one. What cannot be read fails when it is read."""
        try:
            if part.index is None or part.index == self.primary_key:
                bounds = key_range(part.low, part.high, part.low_open, part.high_open, primary=True)
                scan: Stream = TableScan(self, bounds, part)
            else:
                index = self.ordered_index(env, part.index)
                bounds = key_range(part.low, part.high, part.low_open, part.high_open)
                scan = IndexScan(self, index, bounds, part)
        except ReqlError as error:
            scan = TableScan(self, NOWHERE, part) if part.is_empty else UnreadableRows(error)
        scan.ordered = part.sorting != 0
        return scan

    def get_all(self, env: Any, table: Table, keys: list[Any], index_name: str | None) -> Stream:
        """The rows under any of the keys, as often as the key is given."""
        if index_name is None or index_name == self.primary_key:
            return KeyedRows(self, [primary_key_bytes(key) for key in keys], keys)
        try:
            self.index(env, index_name)
            ranges = list(map(_entries, keys))
            return KeyedIndexRows(self, self.ordered_index(env, index_name), keys, ranges)
        except ReqlError as error:
            return UnreadableRows(error)


class TableScan(Stream):
    """Rows in the order of their primary keys. `part` is the slice that was asked for (for `changes` and plans)."""

    __slots__ = ("_done", "_high", "_limit", "_low", "_reverse", "part", "source")
    has_texts = True

    def __init__(self, source: StoredTable, bounds: tuple[bytes, bytes], part: TableSlice) -> None:
        super().__init__()
        self.source = source
        self.part = part
        self._low, self._high = bounds
        self._done = self._low >= self._high
        self._reverse = part.sorting < 0
        self._limit = FIRST_CHUNK

    def expect(self, rows: int) -> None:
        self._limit = max(1, min(rows, MAX_CHUNK))

    def source_texts(self, env: Any) -> list[bytes] | None:
        if self._done:
            return None
        self.source.prepare_read(env)
        limit = self._limit
        rows, last = env.data.scan_rows(self.source.table.table_id, self._low, self._high, limit, self._reverse)
        self.source.traffic.read += len(rows)
        if len(rows) < limit:
            self._done = True
        elif self._reverse:
            self._high = last
        else:
            self._low = last + b"\x00"
        self._limit = min(limit * 4, MAX_CHUNK)
        return rows  # type: ignore[no-any-return]

    def is_over(self) -> bool:
        return self._done and not self._expanding

    def is_exhausted(self) -> bool:
        return self.part.is_empty

    def source_chunk(self, env: Any) -> Rows | None:
        texts = self.source_texts(env)
        return None if texts is None else list(map(d.loads, texts))


class IndexScan(Stream):
    """Rows in the order of a secondary index. `values` gives the indexed values instead of the rows."""

    __slots__ = ("_done", "_high", "_limit", "_low", "_reverse", "index", "part", "source", "values")
    has_texts = True

    def __init__(self, source: StoredTable, index: Index, bounds: tuple[bytes, bytes], part: TableSlice) -> None:
        super().__init__()
        self.source = source
        self.index = index
        self.part = part
        self.values = False
        self._low, self._high = bounds
        self._done = self._low >= self._high
        self._reverse = part.sorting < 0
        self._limit = FIRST_ENTRIES

    def expect(self, rows: int) -> None:
        self._limit = max(1, min(rows, MAX_CHUNK))

    def entries(self, env: Any) -> tuple[list[bytes], list[bytes]] | None:
        """The next index keys and primary keys; None at the end."""
        if self._done:
            return None
        self.source.prepare_read(env)
        limit = self._limit
        index_keys, keys = env.data.scan_index_chunk(self.index.index_id, self._low, self._high, limit, self._reverse)
        self._passed(len(keys), index_keys[-1] if index_keys else b"")
        return index_keys, keys

    def _passed(self, count: int, last: bytes) -> None:
        """Goes on behind so many entries."""
        self.source.traffic.read += count
        limit = self._limit
        if count < limit:
            self._done = True
        elif self._reverse:
            self._high = last
        else:
            self._low = last + b"\x00"
        self._limit = min(limit * 4, MAX_CHUNK)

    def skip_to(self, low: bytes) -> None:
        """Leaves out all entries before `low` (index key bytes): how `distinct` jumps from value to value."""
        self._low = low

    def source_texts(self, env: Any) -> list[bytes] | None:
        if self._done:
            return None
        source = self.source
        source.prepare_read(env)
        rows, count, last = env.data.scan_index_rows(
            self.index.index_id, source.table.table_id, self._low, self._high, self._limit, self._reverse
        )
        self._passed(count, last)
        return rows  # type: ignore[no-any-return]

    def is_over(self) -> bool:
        return self._done and not self._expanding

    def is_exhausted(self) -> bool:
        return self.part.is_empty

    def source_chunk(self, env: Any) -> Rows | None:
        texts = self.source_texts(env)
        return None if texts is None else list(map(d.loads, texts))


class KeyedRows(Stream):
    """get_all by primary key."""

    __slots__ = ("_at", "_encoded", "keys", "source")
    has_texts = True

    def __init__(self, source: StoredTable, encoded: list[bytes], keys: list[Any]) -> None:
        super().__init__()
        self.source = source
        self.keys = keys
        self._encoded = sorted(encoded)
        self._at = 0

    def source_texts(self, env: Any) -> list[bytes] | None:
        at = self._at
        if at >= len(self._encoded):
            return None
        self.source.prepare_read(env)
        self._at = at + MAX_CHUNK
        self.source.traffic.read += min(MAX_CHUNK, len(self._encoded) - at)
        rows = env.data.get_many(self.source.table.table_id, self._encoded[at : at + MAX_CHUNK])
        return [row for row in rows if row is not None]

    def is_over(self) -> bool:
        return self._at >= len(self._encoded) and not self._expanding

    def source_chunk(self, env: Any) -> Rows | None:
        texts = self.source_texts(env)
        return None if texts is None else list(map(d.loads, texts))


def _entries(key: Any) -> tuple[bytes, bytes]:
    """The range of an index's entries under a key."""
    return prefix_range(bound_key(key, primary=False))


class KeyedIndexRows(Stream):
    """get_all by secondary index: one range for each key, in the order of the keys' bytes."""

    __slots__ = ("_high", "_limit", "_low", "_ranges", "_wanted", "index", "keys", "source")
    has_texts = True

    def __init__(self, source: StoredTable, index: Index, keys: list[Any], ranges: list[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.source = source
        self.index = index
        self.keys = keys
        self._ranges = sorted(ranges, reverse=True)
        self._low = self._high = b""  # what is left of a range that was begun
        self._wanted = self._limit = FIRST_ENTRIES

    def expect(self, rows: int) -> None:
        self._wanted = max(1, min(rows, MAX_CHUNK))

    def source_texts(self, env: Any) -> list[bytes] | None:
        if not self._low and not self._ranges:
            return None
        source = self.source
        source.prepare_read(env)
        table_id, index_id = source.table.table_id, self.index.index_id
        rows: list[bytes] = []
        for _ in range(MOST_RANGES):
            if not self._low:
                if not self._ranges:
                    break
                self._low, self._high = self._ranges.pop()
                self._limit = self._wanted
            limit = self._limit
            more, count, last = env.data.scan_index_rows(index_id, table_id, self._low, self._high, limit)
            source.traffic.read += count
            rows += more
            self._low = last and last + b"\x00"
            if last:
                self._limit = min(limit * 4, MAX_CHUNK)
            if len(rows) >= self._wanted:
                break
        return rows

    def is_over(self) -> bool:
        return not self._low and not self._ranges and not self._expanding

    def source_chunk(self, env: Any) -> Rows | None:
        texts = self.source_texts(env)
        return None if texts is None else list(map(d.loads, texts))


STORED: Final = (TableScan, IndexScan, KeyedRows, KeyedIndexRows)
"""Rows as they are stored: what RethinkDB's shards read, and work on themselves."""


class UnreadableRows(Stream):
    """What cannot be read, which only who reads it is told. It is found out by the reading, which is no term."""

    __slots__ = ("error",)

    def __init__(self, error: ReqlError) -> None:
        super().__init__()
        error.path = ()
        self.error = error

    def source_chunk(self, env: Any) -> Rows | None:
        raise self.error


class ComputedRows(IteratorStream):
    """Rows of a system table as they were at one moment; `again` computes them anew, for changefeeds."""

    __slots__ = ("_is_empty", "again", "source")

    def __init__(self, source: Any, again: Callable[[Any], Rows], rows: Rows) -> None:
        super().__init__(chunked(rows))
        self.source = source
        self.again = again
        self._is_empty = not rows

    def is_exhausted(self) -> bool:
        return self._is_empty


def names_are_fixed(node: Node) -> bool:
    """Whether a compiled `table` stands for the same stored table as long as the catalog stays as it is."""
    databases = [*node.arguments[:-1], *node.optargs.values()]
    return (
        set(node.optargs) <= {"db"}
        and node.arguments[-1].constant.__class__ is str
        and all(d.term == Term.DB and d.arguments[0].constant.__class__ is str for d in databases)
        and all(d.arguments[0].constant != SYSTEM_DB for d in databases)
    )
