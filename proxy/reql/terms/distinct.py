"""distinct (terms/sort.cc; datum_stream/ordered_distinct).

One rule: along an index it jumps from value to value, however many rows are under each.
"""

from __future__ import annotations

from typing import Any, Final

from model import datum as d
from model import order
from model.errors import Path
from model.keys import after_prefix, key_end, key_range
from proxy.reql.ids import Term
from proxy.reql.registry import fail, term
from proxy.reql.streams import MAX_CHUNK, MapRows, RowOperation, Rows, Stream, plain_stream, slice_stream
from proxy.reql.tables import StoredTable
from proxy.reql.terms.fields import FieldFunc
from proxy.reql.terms.group import value_reader
from proxy.reql.terms.sorting import places_in_order
from proxy.reql.values import Table, TableSlice, as_string, check_array_size

FIRST_LOOK: Final = 8


class IndexedValues(Stream):
    """Each value of an index once, in its order."""

    __slots__ = ("_high", "_index", "_limit", "_low", "_reverse", "_source", "_value")

    def __init__(self, env: Any, source: StoredTable, part: TableSlice) -> None:
        super().__init__()
        assert part.index is not None
        self._source = source
        self._index = source.ordered_index(env, part.index)
        self._low, self._high = key_range(part.low, part.high, part.low_open, part.high_open)
        self._reverse = part.sorting < 0
        self._limit = FIRST_LOOK
        self._value = value_reader(self._index.definition)
        self.ordered = True

    def source_chunk(self, env: Any) -> Rows | None:
        if self._low >= self._high:
            return None
        self._source.prepare_read(env)
        limit = self._limit
        entries, keys = env.data.scan_index_chunk(self._index.index_id, self._low, self._high, limit, self._reverse)
        found: dict[bytes, int] = {}
        for at, entry in enumerate(entries):
            found.setdefault(entry[: key_end(entry)], at)
        if len(entries) < limit:
            self._low = self._high
        else:
            last = entries[-1][: key_end(entries[-1])]
            if self._reverse:
                self._high = last
            else:
                self._low = after_prefix(last)
            # Where many rows share a value there is nothing to gain from reading far ahead.
            self._limit = min(limit * 2, MAX_CHUNK) if len(found) * 2 > limit else FIRST_LOOK
        return [self._value(key, self._row(env, key, keys[at])) for key, at in found.items()]

    def _row(self, env: Any, key: bytes, primary_key: bytes) -> Any:
        """The row behind an entry, if it is needed to know the value."""
        if b"PT" not in key:
            return None
        text = env.data.get(self._source.table.table_id, primary_key)
        return None if text is None else d.loads(text)


@term(Term.DISTINCT, "distinct", "1", optargs={"index": as_string}, wants_path=True)
def distinct(env: Any, value: Any, *, path: Path, index: str | None = None) -> Any:
    """All different rows in order; of a table with `index` the different values of the index, as a stream."""
    if isinstance(value, (Table, TableSlice)):
        stream = _of_table(env, value if isinstance(value, TableSlice) else TableSlice(value), index, path)
        if stream is not None:
            return stream
    if index is not None:
        fail("Can only perform an indexed distinct on a TABLE.")
    found: dict[Any, Any] = {}
    hashable = order.hashable_key
    for rows in plain_stream(env, value).chunks(env):
        for row in rows:
            found.setdefault(hashable(row), row)
        check_array_size(env, len(found))
    values = list(found.values())
    kinds = set(map(type, found))
    if kinds <= {int, float} or kinds <= {str}:
        return sorted(values)
    keys = [key if key.__class__ is tuple else order.sort_key(key) for key in found]
    return [values[at] for at in places_in_order(env, keys)]


def _of_table(env: Any, part: TableSlice, index: str | None, path: Path) -> Stream | None:
    """Along an index; None if the slice is along another one."""
    primary_key = part.table.source.primary_key
    if index == primary_key:
        return slice_stream(env, part).add(MapRows(FieldFunc(env, primary_key, path), path))
    name = primary_key if index is None else index
    if part.index is not None and part.index != name:
        return None
    along = TableSlice(part.table, name, part.low, part.high, part.low_open, part.high_open, part.sorting or 1)
    if index is None:
        # Primary keys differ, so nothing is to be done; the operation says that this is no plain read any more.
        return slice_stream(env, along).add(RowOperation("distinct", path, lambda env, rows: rows))
    if isinstance(part.table.source, StoredTable):
        return IndexedValues(env, part.table.source, along)
    return slice_stream(env, along)
