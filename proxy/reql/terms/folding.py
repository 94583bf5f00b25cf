"""fold: an accumulator led through a sequence, which may emit rows on its way (terms/seq.cc, datum_stream/fold)."""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.errors import Path, ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.registry import fail, term
from proxy.reql.streams import Rows, Stream, plain_stream, settle
from proxy.reql.values import Func, as_datum, as_func, in_turns


@term(
    Term.FOLD,
    "fold",
    "3",
    takes=(None, as_datum, as_func),
    optargs={"emit": as_func, "final_emit": as_func},
    grouped="stream",
    wants_path=True,
)
def fold(
    env: Any,
    value: Any,
    base: Any,
    func: Func,
    *,
    path: Path,
    emit: Func | None = None,
    final_emit: Func | None = None,
) -> Any:
    """The accumulator at the end (through `final_emit`), or with `emit` the stream of all that was emitted."""
    if func.arity is not None and func.arity not in (0, 2):
        fail("The accumulator function passed to `fold` should expect 2 arguments")
    stream = plain_stream(env, value)
    if emit is not None:
        return settle(env, Folded(stream, base, func, emit, final_emit, path))
    accumulator = base
    for rows in stream.chunks(env):
        for row in in_turns(env, rows):
            accumulator = func.datum(accumulator, row)
    return accumulator if final_emit is None else final_emit.datum(accumulator)


class Folded(Stream):
    """What `emit(old accumulator, row, new accumulator)` gives for each row, and `final_emit(accumulator)` last."""

    __slots__ = ("_accumulator", "_emit", "_final_emit", "_func", "inner")

    def __init__(self, inner: Stream, base: Any, func: Func, emit: Func, final_emit: Func | None, path: Path) -> None:
        super().__init__(inner.is_array, inner.is_infinite, path)
        self.inner = inner
        self._accumulator = base
        self._func = func
        self._emit = emit
        self._final_emit = final_emit
        self.ordered = True

    def source_chunk(self, env: Any) -> Rows | None:
        rows = self.inner.chunk(env)
        if rows is None:
            final_emit, self._final_emit = self._final_emit, None
            return None if final_emit is None else self._emitted(final_emit.datum(self._accumulator))
        step, emit = self._func.datum, self._emit.datum
        accumulator = self._accumulator
        out: Rows = []
        for row in in_turns(env, rows):
            previous, accumulator = accumulator, step(accumulator, row)
            out += self._emitted(emit(previous, row, accumulator))
        self._accumulator = accumulator
        return out

    def _emitted(self, items: Any) -> Rows:
        if items.__class__ is not list:
            try:
                d.expect(items, "ARRAY")
            except ReqlQueryLogicError as error:
                error.path = self.path
                raise
        return items  # type: ignore[no-any-return]

    def close(self) -> None:
        self.inner.close()
