"""Terms on sequences: map, filter, concat_map, count and the like (terms/seq.cc)."""

from __future__ import annotations

from typing import Any

from model.errors import Path, ReqlNonExistenceError
from proxy.reql.ids import Term
from proxy.reql.registry import term
from proxy.reql.streams import MapRows, RowOperation, Rows, Terminal, as_stream, keep, run_terminal, settle
from proxy.reql.values import Func, Table, as_bool, as_func, as_func_or_constant


@term(Term.MAP, "map", "2", takes=(None, as_func), grouped="stream", wants_path=True)
def map_(env: Any, value: Any, func: Func, *, path: Path) -> Any:
    return settle(env, as_stream(env, value).add(MapRows(func, path)))


class Count(Terminal):
    __slots__ = ()

    def begin(self, env: Any) -> int:
        return 0

    def step(self, env: Any, accumulator: int, rows: Rows) -> int:
        return accumulator + len(rows)


@term(Term.COUNT, "count", "1..2", grouped="stream")
def count(env: Any, value: Any, what: Any = None) -> Any:
    if isinstance(value, Table):
        return value.source.count(env)
    return run_terminal(env, as_stream(env, value), Count())


@term(Term.FILTER, "filter", "2", takes=(None, as_func_or_constant), grouped="stream")
def filter_(env: Any, value: Any, func: Func) -> Any:
    stream = as_stream(env, value)

    def apply(env: Any, rows: Rows) -> Rows:
        return [row for row in rows if passes(env, func, row)]

    return keep(value, stream.add(RowOperation("filter", (), apply, func)), env)


def passes(env: Any, func: Func, row: Any) -> bool:
    """Whether a row stays: the predicate's truth, or the match with an object; what is absent does not match."""
    try:
        result = func.datum(row)
        return as_bool(env, result)
    except ReqlNonExistenceError:
        return False
