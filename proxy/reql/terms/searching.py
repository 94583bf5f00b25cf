"""Terms that look for something in a sequence: is_empty, contains, offsets_of (terms/arr.cc)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model import order
from model.errors import Path
from proxy.reql.feeds.cursor import wait_for_news
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.registry import term
from proxy.reql.streams import Rows, Stream, plain_stream, settle
from proxy.reql.terms.matching import Predicate
from proxy.reql.values import Func, as_bool, as_datum, in_turns


@term(Term.IS_EMPTY, "is_empty", "1")
def is_empty(env: Any, value: Any) -> bool:
    stream = plain_stream(env, value)
    try:
        while (rows := stream.chunk(env)) is not None:
            if rows:
                return False
            if stream.notes():
                wait_for_news(env)
            env.fibers.breathe()
        return True
    finally:
        stream.close()


# ---- contains --------------------------------------------------------------------------------------------------


@term(Term.CONTAINS, "contains", "1..*")
def contains(env: Any, value: Any, *wanted: Any) -> bool:
    """Whether there is a row for each of the values and functions; a row counts for one value and one function."""
    stream = plain_stream(env, value)
    funcs = [want for want in wanted if isinstance(want, Func)]
    data = [argument(as_datum, env, want, at) for at, want in enumerate(wanted, 1) if not isinstance(want, Func)]
    try:
        if len(data) == 1 and not funcs:
            return _contains_one(env, stream, data[0])
        for rows in stream.chunks(env):
            for row in in_turns(env, rows):
                _drop_first(data, [order.equal(want, row) for want in data])
                _drop_first(funcs, (as_bool(env, func.datum(row)) for func in funcs))
                if not data and not funcs:
                    return True
        return False
    finally:
        stream.close()


def _contains_one(env: Any, stream: Stream, wanted: Any) -> bool:
    equal = order.equal
    if wanted.__class__ is str:
        return any(wanted in rows for rows in stream.chunks(env))
    return any(equal(wanted, row) for rows in stream.chunks(env) for row in rows)


def _drop_first(wanted: list[Any], holds: Iterable[bool]) -> None:
    """Takes the first that holds out of the list; the last takes its place, as in RethinkDB."""
    for at, held in enumerate(holds):
        if held:
            wanted[at] = wanted[-1]
            wanted.pop()
            return


# ---- offsets_of ------------------------------------------------------------------------------------------------


class Offsets(Stream):
    """The positions of the rows for which a condition holds."""

    __slots__ = ("_holds", "_passed", "inner")

    def __init__(self, inner: Stream, holds: Any, path: Path) -> None:
        super().__init__(inner.is_array, inner.is_infinite, inner.path if inner.path is not None else path)
        self.inner = inner
        self._holds = holds
        self._passed = 0
        self.ordered = True

    def source_chunk(self, env: Any) -> Rows | None:
        rows = self.inner.chunk(env)
        if rows is None:
            return None
        passed = self._passed
        self._passed += len(rows)
        holds = self._holds
        return [at for at, row in enumerate(rows, passed) if holds(row)]

    def close(self) -> None:
        self.inner.close()


@term(Term.OFFSETS_OF, "offsets_of", "2", wants_path=True)
def offsets_of(env: Any, value: Any, wanted: Any, *, path: Path) -> Any:
    if isinstance(wanted, Func):
        holds: Any = Predicate(wanted).holds
    else:
        datum = argument(as_datum, env, wanted, 1)

        def holds(row: Any) -> bool:
            return order.equal(row, datum)

    return settle(env, Offsets(plain_stream(env, value), holds, path))
