"""inner_join, outer_join, eq_join and zip (terms/rewrites.cc, datum_stream/eq_join)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

from model import order
from model.datum import dumps, expect, loads, merge, merge_plain
from model.errors import Path, ReqlCompileError, ReqlError
from model.index_function import Decode
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.merging import Merger, field_values, rows_fields
from proxy.reql.nodes import Node, argument, located
from proxy.reql.partial import decode_all, decoder
from proxy.reql.registry import TERMS, fail, special, term
from proxy.reql.streams import (
    IteratorStream,
    Operation,
    RowOperation,
    Rows,
    Stream,
    as_stream,
    chunked,
    over_groups,
    plain_stream,
    settle,
    to_list,
)
from proxy.reql.tables import StoredTable
from proxy.reql.terms.fields import ABSENT, FieldFunc, each_or, fields_of, func_or_field
from proxy.reql.terms.sequences import ConcatMap
from proxy.reql.values import (
    Func,
    Grouped,
    NativeFunc,
    as_bool,
    as_func_or_constant,
    as_string,
    as_table,
    in_turns,
)

# ---- inner_join and outer_join ---------------------------------------------------------------------------------

Pairs = Callable[[Any], Any]  # a row of the left side -> its rows in the join
Condition = Callable[[], Func]


class Right:
    """The right side of a join, which is read again for each row of the left side.

    What reads nothing but tables is kept, as long as an array of it would be within the array limit.
    """

    __slots__ = ("_env", "_kept", "_may_keep", "_node", "_path")

    def __init__(self, env: Any, node: Node, path: Path) -> None:
        self._env = env
        self._node = node
        self._path = path
        self._kept: Rows | None = None
        self._may_keep = _only_reads(node)

    def chunks(self) -> Iterator[Rows]:
        env = self._env
        if self._kept is not None:
            yield from chunked(self._kept)
            return
        try:
            stream = plain_stream(env, self._node.run(env))
        except ReqlError as error:
            if error.path is None:
                error.path = self._node.path if error.at == 0 else self._path
            raise
        seen: Rows | None = [] if self._may_keep else None
        for rows in stream.chunks(env):
            if seen is not None:
                seen += rows
                if len(seen) > env.array_limit:
                    seen, self._may_keep = None, False
            yield rows
        self._kept = seen


def _only_reads(node: Node) -> bool:
    """Whether it gives the same rows whenever it runs in one query, writes by others aside."""
    spec = TERMS.get(node.term)
    own = 0 if spec is None or node.term in (Term.TABLE, Term.DB, Term.GET, Term.GET_ALL) else spec.determinism
    return not own and all(map(_only_reads, [*node.arguments, *node.optargs.values()]))


def _join(id: Term, name: str, pairs_of: Callable[[Any, Condition, Right], Pairs]) -> None:
    @special(id, name, "3")
    def join(compiler: Compiler, raw: list[Any], path: Path) -> Node:
        arguments, raw_optargs = compiler.split(raw, path)
        spec = TERMS[id]
        if len(arguments) != 3:
            raise ReqlCompileError(f"Expected {spec.arity()} but found {len(arguments)}.", path)
        nodes = [compiler.child(argument, (*path, at), id, at == 0) for at, argument in enumerate(arguments)]
        compiler.compile_optargs(spec, raw_optargs, path)

        def run(env: Any) -> Any:
            value = nodes[0].run(env)
            if value.__class__ is Grouped:
                return located(
                    lambda env, grouped: over_groups(env, grouped, lambda held: apply(env, held)), env, value, path
                )
            return apply(env, value)

        def apply(env: Any, value: Any) -> Any:
            try:
                stream = as_stream(env, value)
            except ReqlError as error:
                if error.path is None:
                    error.path = nodes[0].path if error.at == 0 else path
                raise
            pairs = _Pairs(env, nodes[2], Right(env, nodes[1], path), pairs_of)
            return located(lambda env, joined: settle(env, joined), env, stream.add(pairs.operation(path)), path)

        determinism = nodes[0].determinism | nodes[1].determinism | nodes[2].determinism
        return Node(run, id, path, raw, determinism, arguments=nodes)


class _Pairs:
    """The function that a join maps over its left side. The condition is evaluated when the first pair needs it."""

    __slots__ = ("_env", "_func", "_node", "_pairs")

    def __init__(self, env: Any, node: Node, right: Right, pairs_of: Callable[[Any, Condition, Right], Pairs]) -> None:
        self._env = env
        self._node = node
        self._func: Func | None = None
        self._pairs = pairs_of(env, self._condition, right)

    def operation(self, path: Path) -> ConcatMap:
        return ConcatMap(NativeFunc(self._env, self._pairs, 1, path), path)

    def _condition(self) -> Func:
        if self._func is None:
            self._func = located(as_func_or_constant, self._env, self._node.run(self._env), self._node.path)
        return self._func


def _matching(env: Any, condition: Condition, right: Right, left_row: Any) -> Iterator[Rows]:
    for rows in right.chunks():
        func = condition()
        yield [
            {"left": left_row, "right": row} for row in in_turns(env, rows) if as_bool(env, func.datum(left_row, row))
        ]


def _inner(env: Any, condition: Condition, right: Right) -> Pairs:
    return lambda row: IteratorStream(_matching(env, condition, right, row))


def _outer(env: Any, condition: Condition, right: Right) -> Pairs:
    def pairs(row: Any) -> Rows:
        found = to_list(env, IteratorStream(_matching(env, condition, right, row)))
        return found or [{"left": row}]

    return pairs


_join(Term.INNER_JOIN, "inner_join", _inner)
_join(Term.OUTER_JOIN, "outer_join", _outer)


# ---- eq_join ---------------------------------------------------------------------------------------------------


LITERAL_MARK: Final = b'{"$reql_type$":"LITERAL"'
PIECE_ROWS: Final = 48  # joined at once: so many whole rows and what is made of them stay in the processor's cache


class EqJoin(Stream):
    """Pairs of a row and the rows of a table that its key finds. They come in the order of the left side.

    is_plain: no row of the right side that was found so far has a literal in it, which `zip` would have to look for.
    zip: the operation that merges the pairs, if it comes first. Where nothing else is done to stored rows, the pairs
    are made of the rows' texts.
    """

    __slots__ = ("_func", "_index", "_left_fields", "_merger", "_table", "_waiting", "inner", "is_plain", "zip")

    def __init__(self, inner: Stream, func: Func, table: Any, index: str, path: Path) -> None:
        super().__init__(inner.is_array, inner.is_infinite, path)
        self.inner = inner
        self.is_plain = isinstance(table.source, StoredTable)
        self.zip: Operation | None = None
        self.ordered = True
        self._func = func
        self._table = table
        self._index = index
        self._left_fields: Decode | None = None
        self._merger = Merger(table.source.primary_key)
        self._waiting: list[Any] = []

    def source_chunk(self, env: Any) -> Rows | None:
        rows = self._piece(self.inner.chunk, env)
        if rows is None:
            return None
        names, matches = self._matches(env, each_or(self._func, rows, ABSENT))
        found = {name: list(map(loads, texts)) for name, texts in matches.items()}
        return [{"left": row, "right": right} for row, name in zip(rows, names, strict=True) for right in found[name]]

    def texts(self, env: Any) -> list[bytes] | None:
        operations = self.operations
        if not self.inner.keeps_texts() or (operations and operations != [self.zip]):
            return super().texts(env)
        lefts = self._piece(self.inner.texts, env)
        if lefts is None:
            return None
        if operations:
            return self._zipped_texts(env, lefts)
        names, matches = self._matches(env, self._keys_in(lefts))
        return [
            b'{"left":%b,"right":%b}' % (left, right)
            for left, name in zip(lefts, names, strict=True)
            for right in matches[name]
        ]

    def _zipped_texts(self, env: Any, lefts: list[bytes]) -> list[bytes]:
        func = self._func
        merger = self._merger
        field: Any = func.key if isinstance(func, FieldFunc) and func.key.__class__ is str else None
        rows = rows_fields(lefts) if field is not None and merger.takes_lefts_apart else None
        keys = self._keys_in(lefts) if rows is None else field_values(rows, field, ABSENT)
        names, matches = self._matches(env, keys)
        merged = merger.texts(lefts, rows, names, matches) if self.is_plain else None
        if merged is None:
            pairs = [
                {"left": loads(left), "right": loads(right)}
                for left, name in zip(lefts, names, strict=True)
                for right in matches[name]
            ]
            merged = [dumps(row) for row in self._operate(env, pairs, 0)]
        return merged

    def _piece(self, more: Callable[[Any], Any], env: Any) -> Any:
        """The next few rows of the left side."""
        rows = self._waiting or more(env)
        if rows is None:
            return None
        self._waiting = rows[PIECE_ROWS:]
        return rows[:PIECE_ROWS]

    def _keys_in(self, lefts: list[bytes]) -> list[Any]:
        """The key of each row, of which no more is decoded than that needs."""
        decode = self._left_fields
        if decode is None:
            fields = fields_of([self._func])
            decode = self._left_fields = decode_all if fields is None else decoder(fields)
        try:
            return each_or(self._func, decode(lefts), ABSENT)
        except ReqlError:  # which may show the row
            return each_or(self._func, decode_all(lefts), ABSENT)

    def _matches(self, env: Any, keys: list[Any]) -> tuple[list[Any], dict[Any, list[bytes]]]:
        """A name for each key, equal for equal keys, and for each name the texts of the rows that it finds."""
        hashable = order.hashable_key
        names = [
            key if key.__class__ is str else ABSENT if key is None or key is ABSENT else hashable(key) for key in keys
        ]
        wanted = {name: key for name, key in zip(names, keys, strict=True) if name is not ABSENT}
        found = self._find(env, list(wanted.values())) if wanted else []
        matches: dict[Any, list[bytes]] = dict(zip(wanted, found, strict=True))
        matches[ABSENT] = []
        return names, matches

    def _find(self, env: Any, keys: list[Any]) -> list[list[bytes]]:
        """The texts of the table's rows under each key."""
        table = self._table
        source = table.source
        if self._index == source.primary_key:
            found = [[] if text is None else [text] for text in source.get_many(env, keys)]
        else:
            found = [_all_texts(env, source.get_all(env, table, [key], self._index)) for key in keys]
        if self.is_plain:  # a search through all of them is four times as fast as one through each
            self.is_plain = LITERAL_MARK not in b"".join(chain.from_iterable(found))
        return found

    def zipped(self, env: Any, rows: Rows) -> Rows:
        """What `zip` makes of the rows that came last."""
        if not self.is_plain:
            return _zipped(env, rows)
        return [merge_plain(row["left"], row["right"]) for row in rows]

    def close(self) -> None:
        self.inner.close()


def _all_texts(env: Any, stream: Stream) -> list[bytes]:
    out: list[bytes] = []
    while (texts := stream.texts(env)) is not None:
        out += texts
        env.fibers.breathe()
    return out


@term(Term.EQ_JOIN, "eqjoin", "3", optargs={"index": None, "ordered": as_bool}, grouped="stream", wants_path=True)
def eq_join(env: Any, value: Any, by: Any, table: Any, *, path: Path, ordered: bool = False, **optargs: Any) -> Any:
    """Joins each row with the rows of a table whose primary key or index has the value of a field or function."""
    stream = plain_stream(env, value)
    table = argument(as_table, env, table, 2)
    func = func_or_field(env, by, path, 1)
    index = table.source.primary_key
    if "index" in optargs:
        index = argument(as_string, env, optargs["index"], "index")
    return settle(env, EqJoin(stream, func, table, index, path))


# ---- zip -------------------------------------------------------------------------------------------------------


def _zipped(env: Any, rows: Rows) -> Rows:
    return [_zip_row(row) for row in rows]


def _zip_row(row: Any) -> Any:
    expect(row, "OBJECT")
    if "left" not in row:
        fail("ZIP can only be called on the result of a join.")
    return merge(row["left"], row["right"]) if "right" in row else row["left"]


@term(Term.ZIP, "zip", "1", wants_path=True)
def zip_(env: Any, value: Any, *, path: Path) -> Any:
    """Merges both sides of a join."""
    stream = as_stream(env, value)
    if isinstance(stream, EqJoin) and not stream.operations:
        stream.zip = RowOperation("zip", path, stream.zipped)
        return settle(env, stream.add(stream.zip))
    return settle(env, stream.add(RowOperation("zip", path, _zipped)))
