"""Terms that pick by position: nth, slice, limit, skip (terms/arr.cc, rewrites.cc; datum_stream/slice).

One rule: what is left out of a stored table is never decoded.
"""

from __future__ import annotations

from typing import Any, Final

from model import datum as d
from model.errors import Path
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, located
from proxy.reql.picking import as_small_integer, nth, slice_datum
from proxy.reql.registry import TermSpec, fail, special, term
from proxy.reql.streams import Rows, Stream, is_sequence, keep, over_groups, plain_stream
from proxy.reql.terms.ordering import OrderBy
from proxy.reql.terms.select import BOUNDS, open_bound
from proxy.reql.values import Grouped, SingleSelection, Value, as_integer


class Slice(Stream):
    """Rows number `left` up to before `right` (None: to the end) of another stream."""

    __slots__ = ("_passed", "inner", "left", "right")

    def __init__(self, inner: Stream, left: int, right: int | None) -> None:
        super().__init__(inner.is_array, inner.is_infinite and right is None, inner.path)
        self.inner = inner
        self.left = left
        self.right = right
        self.ordered = inner.ordered
        self._passed = 0
        if right is not None and not inner.operations:
            inner.expect(right)

    @property
    def has_texts(self) -> bool:  # type: ignore[override]
        """Whether rows come as they are stored."""
        return self.inner.keeps_texts()

    def source_chunk(self, env: Any) -> Rows | None:
        if self.has_texts:
            texts = self.source_texts(env)
            return None if texts is None else list(map(d.loads, texts))
        return None if self._is_done() else self._within(self.inner.chunk(env))

    def source_texts(self, env: Any) -> list[bytes] | None:
        return None if self._is_done() else self._within(self.inner.texts(env))

    def _is_done(self) -> bool:
        right = self.right
        return right is not None and (self.left >= right or self._passed >= right)

    def is_over(self) -> bool:
        return (self._is_done() or self.inner.is_over()) and not self._expanding

    def is_exhausted(self) -> bool:
        return self.right is not None and self.left >= self.right

    def _within(self, rows: list[Any] | None) -> list[Any] | None:
        """Those of the next rows that are in the slice."""
        if rows is None:
            return None
        begin = self.left - self._passed
        end = len(rows) if self.right is None else self.right - self._passed
        self._passed += len(rows)
        if begin <= 0 and end >= len(rows):
            return rows
        return rows[max(begin, 0) : max(end, 0)]

    def notes(self) -> list[int]:
        return self.inner.notes()

    def close(self) -> None:
        self.inner.close()


@term(Term.NTH, "nth", "2", grouped="stream")
def nth_(env: Any, value: Any, index: Any) -> Any:
    return nth(env, value, index)


def _slice_stream(env: Any, value: Any, left: int, right: int | None) -> Any:
    stream = plain_stream(env, value)
    return keep(value, Slice(stream, left, right), env)


@term(Term.SLICE, "slice", "2..3", takes=(None, as_integer), optargs=BOUNDS)
def slice_(env: Any, value: Any, left: int, right: int | None = None, **optargs: Any) -> Any:
    """Part of an array, string, binary or stream. Negative bounds count from the end."""
    left_open = open_bound(optargs, "left_bound", False)
    if right is None:
        right, right_open = -1, False
    else:
        right_open = open_bound(optargs, "right_bound", True)
    return _slice(env, value, left, left_open, right, right_open)


def _slice(env: Any, value: Any, left: int, left_open: bool, right: int, right_open: bool) -> Any:
    if value.__class__ is SingleSelection:
        value = value.datum()
    if not isinstance(value, Value):
        return slice_datum(value, left, left_open, right, right_open)
    if not is_sequence(value):
        fail("Cannot slice non-sequences.", 0)
    if left < 0:
        fail("Cannot use a negative left index on a stream.")
    if right < -1:
        fail("Cannot use a right index < -1 on a stream.")
    if right == -1:
        if right_open:
            fail("Cannot slice to an open right index of -1 on a stream.")
        return _slice_stream(env, value, left + left_open, None)
    return _slice_stream(env, value, left + left_open, right + (not right_open))


@term(Term.SKIP, "skip", "2", takes=(None, as_integer), optargs={"left_bound": None})
def skip(env: Any, value: Any, count: int, **optargs: Any) -> Any:
    """All but the first `count`."""
    return _slice(env, value, count, open_bound(optargs, "left_bound", False), -1, False)


def limit(env: Any, value: Any, count: int) -> Any:
    """The first `count`."""
    stream = plain_stream(env, value)
    if count < 0:
        fail(f"LIMIT takes a non-negative argument (got {count})")
    return keep(value, Slice(stream, 0, count), env)


_LIMIT: Final = TermSpec(Term.LIMIT, "limit", 2, 2, takes=(None, as_small_integer), body=limit)


@special(Term.LIMIT, "limit", "2")
def compile_limit(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """As any term; but right behind an order_by it says how many rows are to be kept while sorting."""
    node = compiler.compile_call(_LIMIT, raw, path)
    if isinstance(node.arguments[0], OrderBy) and node.arguments[1].term == Term.DATUM:
        node.run = _leading(node.arguments[0], node.arguments[1], path, node.run)
    return node


def _leading(order_by: OrderBy, number: Node, path: Path, run_plainly: Any) -> Any:
    def run(env: Any) -> Any:
        count = number.run(env)
        if count.__class__ is not int or not 0 <= count < 2**31:
            return run_plainly(env)  # to its error
        value = order_by.run_leading(env, count)
        if value.__class__ is Grouped:
            return over_groups(env, value, lambda held: limit(env, held, count))
        return located(lambda env, value: limit(env, value, count), env, value, path)

    return run
