"""Terms that make sequences of sequences: map, concat_map, filter, zip, range (terms/seq.cc)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from model import datum as d
from model.errors import Path, ReqlCompileError, ReqlError
from model.index_function import Fields
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.literals import is_func
from proxy.reql.nodes import Node, located, place_of, taken
from proxy.reql.registry import TERMS, fail, special, term
from proxy.reql.streams import (
    MAX_CHUNK,
    MapRows,
    Operation,
    Rows,
    Stream,
    as_stream,
    keep,
    over_groups,
    plain_stream,
    settle,
)
from proxy.reql.terms.matching import Predicate
from proxy.reql.values import (
    Func,
    Grouped,
    NativeFunc,
    as_array,
    as_bool,
    as_func,
    as_func_or_constant,
    as_integer,
    in_turns,
    wrong_kind,
)

# ---- map -------------------------------------------------------------------------------------------------------


@term(Term.MAP, "map", "2..*", grouped="stream", wants_path=True)
def map_(env: Any, *arguments: Any, path: Path) -> Any:
    """Applies a function to each row, or to the rows of several sequences side by side."""
    values, last = arguments[:-1], arguments[-1]
    count = len(values)
    streams = [as_stream(env, value, at) for at, value in enumerate(values)]
    if not isinstance(last, Func):
        error = wrong_kind("FUNCTION", last)
        error.at = count
        raise error
    if last.arity and last.arity != count:
        fail(
            f"The function passed to `map` expects {last.arity} argument{'' if last.arity == 1 else 's'}, "
            f"but {count} sequence{' was' if count == 1 else 's were'} found."
        )
    if count == 1:
        return settle(env, streams[0].add(MapRows(last, path)))
    return settle(env, SideBySide([plain_stream(env, stream) for stream in streams], last, path))


class SideBySide(Stream):
    """func(first row of each stream), then of the second rows, until one of the streams ends."""

    __slots__ = ("_func", "_waiting", "streams")

    def __init__(self, streams: list[Stream], func: Func, path: Path) -> None:
        super().__init__(
            all(stream.is_array for stream in streams), all(stream.is_infinite for stream in streams), path
        )
        self.streams = streams
        self._func = func
        self._waiting: list[Rows] = [[] for _ in streams]

    def source_chunk(self, env: Any) -> Rows | None:
        waiting = self._waiting
        for at, stream in enumerate(self.streams):
            if not waiting[at]:
                rows = stream.chunk(env)
                if rows is None:
                    return None
                waiting[at] = rows
        size = min(map(len, waiting))  # 0: one of them, maybe a changefeed, has nothing yet
        call = self._func.datum
        rows_of_each = [*zip(*(islice(rows, size) for rows in waiting), strict=True)]
        out = [call(*rows) for rows in in_turns(env, rows_of_each)]
        self._waiting = [rows[size:] for rows in waiting]
        return out

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


# ---- concat_map ------------------------------------------------------------------------------------------------


class ConcatMap(Operation):
    """Gives the rows of the sequence that func(row) is, for each row."""

    __slots__ = ()
    expands = True

    def __init__(self, func: Func, path: Path) -> None:
        super().__init__("concat_map", path, func)

    def expand(self, env: Any, rows: Rows) -> Iterator[Rows]:
        call = self.func.call
        out: Rows = []
        for row in rows:
            value = call(row)
            if value.__class__ is list:
                out += value
                if len(out) >= MAX_CHUNK:
                    yield out
                    out = []
                continue
            if out:
                yield out
                out = []
            inner = self._stream(env, value)
            try:
                yield from inner.chunks(env)
            finally:
                inner.close()
        if out:
            yield out

    def apply(self, env: Any, rows: Rows) -> Rows:
        return [row for piece in self.expand(env, rows) for row in piece]

    def _stream(self, env: Any, value: Any) -> Stream:
        """A sequence as a stream; what is none is blamed on the function, or where it was no sequence on its term."""
        try:
            return plain_stream(env, value)
        except ReqlError as error:
            if error.path is None:
                path = self.func.path
                error.path = path if error.at is not None else path[:-1]
            raise


@term(Term.CONCAT_MAP, "concatmap", "2", takes=(None, as_func), grouped="stream", wants_path=True)
def concat_map(env: Any, value: Any, func: Func, *, path: Path) -> Any:
    return settle(env, as_stream(env, value).add(ConcatMap(func, path)))


# ---- filter ----------------------------------------------------------------------------------------------------


class Filter(Operation):
    """Leaves out rows. `func` is the condition, `default` what to do where something is absent, if that was said."""

    __slots__ = ("_predicate", "default")
    keeps_rows = True

    def __init__(self, predicate: Predicate, path: Path, default: Func | None = None) -> None:
        super().__init__("filter", path, predicate.func)
        self._predicate = predicate
        self.default = default

    def apply(self, env: Any, rows: Rows) -> Rows:
        return self._predicate.keep(rows)

    def reads(self) -> Fields | None:
        return self._predicate.reads() if self.default is None else None  # an error of the default shows the row


@special(Term.FILTER, "filter", "2", optargs={"default": None})
def filter_(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """Leaves out rows for which a condition does not hold. `default` is only looked at where something is absent."""
    arguments, raw_optargs = compiler.split(raw, path)
    spec = TERMS[Term.FILTER]
    nodes = [
        compiler.child(argument, (*path, at), Term.FILTER, at == 0, literal_ok=not is_func(argument) if at else None)
        for at, argument in enumerate(arguments)
    ]
    spread = any(node.term == Term.ARGS for node in nodes)
    if not spread and len(nodes) != 2:
        raise ReqlCompileError(f"Expected {spec.arity()} but found {len(nodes)}.", path)
    default = compiler.compile_optargs(spec, raw_optargs, path)["default"] if raw_optargs else None

    def run(env: Any) -> Any:
        value = nodes[0].run(env)
        if spread:
            value, condition = _spread(env, nodes, value, path)
            return _filter(env, value, condition, (), path, default)
        if value.__class__ is Grouped:
            return located(
                lambda env, grouped: over_groups(env, grouped, lambda held: apply(env, held)), env, value, path
            )
        return apply(env, value)

    def apply(env: Any, value: Any) -> Any:
        return _filter(env, value, nodes[1].run(env), nodes, path, default)

    determinism = 0
    for node in [*nodes, *([default] if default is not None else [])]:
        determinism |= node.determinism
    return Node(run, Term.FILTER, path, raw, determinism, arguments=nodes)


def _spread(env: Any, nodes: list[Node], first: Any, path: Path) -> tuple[Any, Any]:
    """The two arguments where `r.args` is among them."""
    values: list[Any] = []
    for at, node in enumerate(nodes):
        value = node.run(env) if at else first
        values += taken(as_array, env, value, node, path) if node.term == Term.ARGS else [value]
    if len(values) != 2:
        located(_refuse_count, env, len(values), path)
    return values[0], values[1]


def _refuse_count(env: Any, count: int) -> None:
    fail(f"Expected 2 arguments but found {count}.")


def _filter(env: Any, value: Any, condition: Any, nodes: Sequence[Node], path: Path, default: Node | None) -> Any:
    """nodes: those of the two arguments, unless they come out of `r.args`."""
    if nodes:
        func = taken(as_func_or_constant, env, condition, nodes[1], path)
    else:
        func = located(as_func_or_constant, env, condition, path)
    if func.__class__ is NativeFunc and not func.path:
        func.path = nodes[1].path if nodes else path
    default_func = None
    decide = None
    if default is not None:
        default_func = NativeFunc(env, lambda *_: default.run(env), None, default.path, default.determinism)

        def decide() -> bool:
            return located(as_bool, env, default.run(env), default.path)  # type: ignore[no-any-return]

    try:
        stream = as_stream(env, value)
        return keep(value, stream.add(Filter(Predicate(func, decide), path, default_func)), env)
    except ReqlError as error:
        if error.path is None:
            error.path = place_of(env, nodes[0]) if nodes and error.at == 0 else path
        raise


# ---- range -----------------------------------------------------------------------------------------------------


RANGE_BATCH: Final = 500


class Numbers(Stream):
    """Whole numbers from `start` up to before `stop`; stop None: without end."""

    __slots__ = ("_next", "_start", "_stop")

    def __init__(self, start: int, stop: int | None, path: Path) -> None:
        super().__init__(is_infinite=stop is None, path=path)
        self._start = self._next = start
        self._stop = stop
        self.ordered = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left."""
        return self._stop is not None and self._next >= self._stop

    def is_exhausted(self) -> bool:
        return self.is_empty and not self.operations

    @property
    def ends_batch(self) -> bool:
        """RethinkDB sends at most so many numbers at a time: what fails later leaves the reader those before it."""
        return (self._next - self._start) % RANGE_BATCH == 0 and not self.is_empty

    def source_chunk(self, env: Any) -> Rows | None:
        start = self._next
        stop = d.MAX_INT + 1 if self._stop is None else self._stop
        if start >= stop:
            if self._stop is None:
                fail("`range` out of safe double bounds.")
            return None
        batch_end = start + RANGE_BATCH - (start - self._start) % RANGE_BATCH
        self._next = min(start + MAX_CHUNK, stop, batch_end)
        return list(range(start, self._next))


@term(Term.RANGE, "range", "0..2", takes=(as_integer,), wants_path=True)
def range_(env: Any, *bounds: int, path: Path) -> Stream:
    if not bounds:
        return Numbers(0, None, path)
    start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds
    return Numbers(start, stop, path)
