"""order_by (terms/sort.cc; datum_stream/indexed_sort).

One rule: without an index all rows are read and sorted in memory, within the array limit; with one they come in its
order, and further fields only sort the rows under one and the same value.
"""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.errors import Path, ReqlCompileError, ReqlError, ReqlQueryLogicError
from model.keys import key_end, key_from_bytes
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, located
from proxy.reql.partial import decoder
from proxy.reql.registry import TERMS, fail, fail_limit, special
from proxy.reql.streams import (
    ArrayStream,
    Rows,
    Stream,
    TextRows,
    grouped_value,
    over_groups,
    plain_stream,
    slice_stream,
)
from proxy.reql.tables import IndexScan
from proxy.reql.terms.fields import fields_of
from proxy.reql.terms.sorting import Comparison, Sorter, comparisons_of, refuse_args, sort_rows, value_node
from proxy.reql.values import Selection, Table, TableSlice, as_string, check_array_size

NOT_A_TABLE = (
    "Indexed order_by can only be performed on a TABLE or TABLE_SLICE. Make sure order_by comes before any "
    "transformations (such as map) or filters."
)


class OrderBy(Node):
    """A compiled order_by. `limit` right behind it asks for `run_leading`."""

    __slots__ = ("_index",)

    def __init__(self, nodes: list[Node], index: Node | None, path: Path, raw: Any) -> None:
        determinism = index.determinism if index is not None else 0
        for node in nodes:
            determinism |= node.determinism
        optargs = {} if index is None else {"index": index}
        super().__init__(self._run, Term.ORDER_BY, path, raw, determinism, arguments=nodes, optargs=optargs)
        self._index = index

    def _run(self, env: Any) -> Any:
        return self.run_leading(env, None)

    def run_leading(self, env: Any, count: int | None) -> Any:
        """The term's value, of which no more than the first `count` rows will be needed."""
        first = self.arguments[0]
        if first.term == Term.ARGS:
            located(lambda env, node: refuse_args(node), env, first, self.path)
        value = first.run(env)
        try:
            grouped = grouped_value(env, value)
            if grouped is not None:
                return over_groups(env, grouped, lambda held: self._order(env, held, count))
            return self._order(env, value, count)
        except ReqlError as error:
            if error.path is None:
                error.path = first.path if error.at == 0 else self.path
            raise

    def _order(self, env: Any, value: Any, count: int | None) -> Any:
        comparisons = comparisons_of(env, self.arguments[1:])
        part: TableSlice | None = None
        stream: Stream | None = None
        if isinstance(value, (Table, TableSlice)):
            part = value if isinstance(value, TableSlice) else TableSlice(value)
        elif value.__class__ is Selection:
            part, stream = TableSlice(value.table), value.stream
        else:
            stream = plain_stream(env, value)
        if stream is not None and stream.is_exhausted():
            if self._index is None:
                _check_any(comparisons)
        elif self._index is not None:
            if part is None or stream is not None:
                fail(NOT_A_TABLE)
            part = self._sorted_part(env, part)
            if not comparisons:
                return part
            stream = IndexedSort(slice_stream(env, part), comparisons, part.index or "")
        else:
            if stream is None:
                assert part is not None
                stream = slice_stream(env, part)
            _check_any(comparisons)
            stream = _sorted(env, stream, comparisons, count)
        if part is not None:
            return Selection(part.table, stream)
        return [*stream.rows(env)] if stream.is_array or not stream.is_exhausted() else stream

    def _sorted_part(self, env: Any, part: TableSlice) -> TableSlice:
        """The slice in the order of the index."""
        assert self._index is not None
        descending = self._index.term == Term.DESC
        index = located(as_string, env, self._index.run(env), value_node(self._index).path)
        if part.sorting:
            raise ReqlQueryLogicError("Cannot perform multiple indexed ORDER_BYs on the same table.", part.table.path)
        if part.index is not None and part.index != index:
            raise ReqlQueryLogicError(
                f"Cannot order by index `{index}` after calling BETWEEN on index `{part.index}`.", part.table.path
            )
        sorting = -1 if descending else 1
        return TableSlice(part.table, index, part.low, part.high, part.low_open, part.high_open, sorting)


def _check_any(comparisons: list[Comparison]) -> None:
    if not comparisons:
        fail("Must specify something to order by.")


def _sorted(env: Any, stream: Stream, comparisons: list[Comparison], count: int | None) -> Stream:
    """All rows in order. Of stored rows no more is decoded than what they are compared by; they stay texts."""
    passed = 0
    reads = fields_of([comparison.func for comparison in comparisons])
    if reads is not None and stream.has_texts and not stream.operations:
        decode = decoder(reads)
        sorter = Sorter(comparisons, count, d.loads)
        while (texts := stream.source_texts(env)) is not None:
            passed += len(texts)
            check_array_size(env, passed)
            sorter.take(decode(texts), texts)
            env.fibers.breathe()
        return TextRows(sorter.rows())
    sorter = Sorter(comparisons, count)
    for rows in stream.chunks(env):
        passed += len(rows)
        check_array_size(env, passed)
        sorter.take(rows, rows)
    return ArrayStream(sorter.rows())


class IndexedSort(Stream):
    """Rows in the order of an index, and among those under one value in the order of comparisons."""

    __slots__ = ("_comparisons", "_name", "_next_key", "_waiting", "inner")

    def __init__(self, inner: Stream, comparisons: list[Comparison], name: str) -> None:
        super().__init__()
        self.inner = inner
        self.ordered = True
        self._comparisons = comparisons
        self._name = name
        self._waiting: Rows = []
        self._next_key = b""

    def source_chunk(self, env: Any) -> Rows | None:
        if not isinstance(self.inner, IndexScan):
            return self.inner.chunk(env)  # type: ignore[no-any-return]
        entries = self.inner.entries(env)
        if entries is None:
            rows, self._waiting = self._waiting, []
            return sort_rows(rows, self._comparisons) if rows else None
        texts = env.data.get_many(self.inner.source.table.table_id, entries[1])
        out: Rows = []
        waiting, current = self._waiting, self._next_key
        for entry, text in zip(entries[0], texts, strict=True):
            if text is None:
                continue
            key = entry[: key_end(entry)]
            if key != current:
                out += sort_rows(waiting, self._comparisons)
                waiting, current = [], key
            waiting.append(d.loads(text))
            if len(waiting) > env.array_limit:
                fail_limit(
                    f"Too many rows (> {env.array_limit}) with the same value for index `{self._name}`:\n"
                    f"{d.trunc_print(key_from_bytes(key))}"
                )
        self._waiting, self._next_key = waiting, current
        return out

    def close(self) -> None:
        self.inner.close()


@special(Term.ORDER_BY, "orderby", "1..*", optargs={"index": None})
def order_by(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, raw_optargs = compiler.split(raw, path)
    spec = TERMS[Term.ORDER_BY]
    nodes = [compiler.child(argument, (*path, at), Term.ORDER_BY, at == 0) for at, argument in enumerate(arguments)]
    if not nodes:
        raise ReqlCompileError(f"Expected {spec.arity()} but found 0.", path)
    return OrderBy(nodes, compiler.compile_optargs(spec, raw_optargs, path).get("index"), path, raw)
