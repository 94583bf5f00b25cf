"""group and ungroup (terms/seq.cc, type_manip.cc; shards.cc for how rows find their groups)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from model import datum as d
from model import order
from model.errors import Path, ReqlError, ReqlQueryLogicError, ReqlResourceLimitError
from model.index_function import Fields
from model.keys import key_end, key_from_bytes, key_range
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.registry import fail, term, unevaluated
from proxy.reql.streams import Operation, Rows, Stream, as_stream, grouped_value
from proxy.reql.tables import IndexScan, StoredTable, UnreadableRows
from proxy.reql.terms.fields import FieldFunc, each_or, fields_of, func_or_field
from proxy.reql.values import Func, Table, TableSlice, as_bool, as_string, as_table, check_array_size, wrong_kind

Groups = dict[Any, tuple[Any, Rows]]


class Group(Operation):
    """Divides rows by the values of functions; by all elements of those that are arrays, if `multi`."""

    __slots__ = ("_funcs", "_multi")
    keeps_rows = True

    def __init__(self, funcs: list[Func], multi: bool, path: Path) -> None:
        super().__init__("group", path)
        self._funcs = funcs
        self._multi = multi

    def apply(self, env: Any, rows: Rows) -> Groups:
        return self.divide(env, rows, [each_or(func, rows, None) for func in self._funcs])

    def reads(self) -> Fields | None:
        return fields_of(self._funcs)

    def divide(self, env: Any, rows: Rows, columns: list[list[Any]]) -> Groups:
        """The groups of rows whose values are in columns, one column for each function."""
        groups: Groups = {}
        if self._multi:
            for row, values in zip(rows, zip(*columns, strict=True), strict=True):
                for group in _combinations(values):
                    _put(groups, group, row)
        elif len(columns) == 1:
            hashable = order.hashable_key
            for row, group in zip(rows, columns[0], strict=True):
                key = group if group.__class__ is str else hashable(group)
                found = groups.get(key)
                if found is None:
                    groups[key] = (group, [row])
                else:
                    found[1].append(row)
        else:
            for row, values in zip(rows, zip(*columns, strict=True), strict=True):
                _put(groups, list(values), row)
        if len(groups) > env.array_limit:
            raise ReqlResourceLimitError(f"Too many groups (> {env.array_limit}).", ())
        return groups


def _put(groups: Groups, group: Any, row: Any) -> None:
    key = order.hashable_key(group)
    found = groups.get(key)
    if found is None:
        groups[key] = (group, [row])
    else:
        found[1].append(row)


def _combinations(values: tuple[Any, ...]) -> list[Any]:
    """All groups of a row: every choice of elements from those of its values that are arrays."""
    choices = [(value or [None]) if value.__class__ is list else [value] for value in values]
    if len(choices) == 1:
        return list(choices[0])
    return [list(choice) for choice in product(*choices)]


class GroupByIndex(Group):
    """Divides the rows of an `IndexedRows`, by an index besides functions."""

    __slots__ = ()

    def apply(self, env: Any, rows: Rows) -> Groups:
        plain = [row for _, row in rows]
        columns = [each_or(func, plain, None) for func in self._funcs]
        return self.divide(env, plain, [*columns, [value for value, _ in rows]])


class IndexedRows(Stream):
    """(value in the index, row) in the order of an index; a row comes for each of its values."""

    __slots__ = ("_scan", "_source", "_value")

    def __init__(self, env: Any, source: StoredTable, part: TableSlice) -> None:
        super().__init__()
        assert part.index is not None
        index = source.ordered_index(env, part.index)
        self._source = source
        self._scan = IndexScan(source, index, key_range(part.low, part.high, part.low_open, part.high_open), part)
        self._value = value_reader(index.definition)
        self.ordered = True

    def source_chunk(self, env: Any) -> Rows | None:
        entries = self._scan.entries(env)
        if entries is None:
            return None
        texts = env.data.get_many(self._source.table.table_id, entries[1])
        value = self._value
        rows = ((key, d.loads(text)) for key, text in zip(entries[0], texts, strict=True) if text is not None)
        return [(value(key, row), row) for key, row in rows]


def value_reader(definition: dict[str, Any]) -> Callable[[bytes, Any], Any]:
    """(index key, row) -> the indexed value. A time's zone is not in its key: then the row is asked again."""
    from proxy.reql.index_functions import compile_function, index_values

    function: Func | None = None
    multi = bool(definition.get("multi"))

    def read(key: bytes, row: Any) -> Any:
        nonlocal function
        key = key[: key_end(key)]
        value = key_from_bytes(key)
        if b"PT" not in key:
            return value
        if function is None:
            function = compile_function(definition["function"])
        return next((found for found in index_values(function, multi, row) if order.equal(found, value)), value)

    return read


@term(Term.GROUP, "group", "1..*", optargs={"index": None, "multi": unevaluated}, grouped="stream", wants_path=True)
def group(env: Any, value: Any, *by: Any, path: Path, **optargs: Any) -> Stream:
    """A grouped stream: all that follows is done to each group."""

    def multi() -> bool:
        return "multi" in optargs and argument(as_bool, env, optargs["multi"](), "multi")

    funcs = [func_or_field(env, func, path, at) for at, func in enumerate(by, 1)]
    stream: Stream | None = None
    if "index" in optargs:
        name = argument(as_string, env, optargs["index"], "index")
        table: Table = argument(as_table, env, value, 0)
        if name == table.source.primary_key:
            funcs.append(FieldFunc(env, name, path))
            stream = as_stream(env, TableSlice(table, name))
        elif isinstance(table.source, StoredTable):
            try:
                stream = IndexedRows(env, table.source, TableSlice(table, name, sorting=1))
            except ReqlError as error:
                stream = UnreadableRows(error)
            return stream.add(GroupByIndex(funcs, multi(), path))
        else:
            stream = as_stream(env, TableSlice(table, name, sorting=1))
    if stream is None:
        stream = as_stream(env, value)
    if not funcs:
        fail("Cannot group by nothing.")
    if stream.grouped:
        raise ReqlQueryLogicError(
            "Cannot call `group` on the output of `group` (did you mean to `ungroup`?).", stream.path
        )
    return stream.add(Group(funcs, multi(), path))


@term(Term.UNGROUP, "ungroup", "1", grouped="never")
def ungroup(env: Any, value: Any) -> list[Any]:
    """An array of {group, reduction}."""
    grouped = grouped_value(env, value)
    if grouped is None:
        error = wrong_kind("GROUPED_DATA", value)
        error.at = 0
        raise error
    check_array_size(env, len(grouped.groups))
    return [{"group": group, "reduction": held} for group, held in grouped.items()]
