"""Sorting rows by functions, each ascending or descending (order_util.cc).

One rule: rows are sorted by native keys, all at once, and only where a function fails row by row as RethinkDB does
it, so that no function is asked about rows whose place is clear without it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from functools import cmp_to_key
from typing import Any, Final, NamedTuple

from model import order
from model.errors import ReqlError, ReqlNonExistenceError
from proxy.reql.ids import Term
from proxy.reql.nodes import Node
from proxy.reql.registry import CONSTANT_NOW, SINGLE_SERVER, fail
from proxy.reql.streams import Rows
from proxy.reql.terms.fields import ABSENT, each_or, func_or_field
from proxy.reql.values import Func

ROWS_A_RUN: Final = 4096  # sorted at once: some milliseconds


class Comparison(NamedTuple):
    """Rows come in the order of func(row); those for which it is absent come first, or last if descending."""

    func: Func
    descending: bool


def value_node(node: Node) -> Node:
    """The node that gives the value of an argument, behind `asc` and `desc`."""
    return node.arguments[0] if node.term in (Term.ASC, Term.DESC) else node


def comparisons_of(env: Any, nodes: list[Node]) -> list[Comparison]:
    """Evaluates what rows are to be ordered by; errors without a path are the term's own."""
    out = []
    for node in nodes:
        refuse_args(node)
        value = node.run(env)
        source = value_node(node)
        try:
            func = func_or_field(env, value, source.path[:-1], source.path[-1])  # type: ignore[arg-type]
        except ReqlError as error:
            if error.path is None:
                error.path = source.path
            raise
        if func.determinism & ~(CONSTANT_NOW | SINGLE_SERVER):
            fail("Sorting by a non-deterministic function is not supported.")
        out.append(Comparison(func, node.term == Term.DESC))
    return out


def refuse_args(node: Node) -> None:
    if node.term == Term.ARGS:
        fail("r.args is not supported in an order_by or union command yet.")


class Sorter:
    """Rows to be put in order. Their keys are made as they come, so that only the sorting itself is left at the end.

    count: only so many rows of the beginning are wanted, and not many more are kept. decode: for rows that are kept
    as something else, how to get a row back.
    """

    __slots__ = ("_columns", "_comparisons", "_count", "_decode", "_kept")

    def __init__(
        self, comparisons: list[Comparison], count: int | None = None, decode: Callable[[Any], Any] | None = None
    ) -> None:
        self._comparisons = comparisons
        self._count = count
        self._decode = decode
        self._kept: list[Any] = []
        self._columns: list[list[Any]] | None = [[] for _ in comparisons]

    def take(self, rows: Rows, kept: list[Any]) -> None:
        """Adds rows, with what to keep of each."""
        self._kept += kept
        if self._columns is not None:
            try:
                for column, comparison in zip(self._columns, self._comparisons, strict=True):
                    column += each_or(comparison.func, rows, ABSENT)
            except ReqlError:
                self._columns = None  # perhaps nobody needs to know: compare row by row, which asks no more than needed
        if self._count is not None and len(self._kept) > 2 * self._count + 1024 and self._columns is not None:
            self._cut(self._order()[: self._count])

    def rows(self) -> list[Any]:
        """What was kept of the rows, in order; equal rows stay in the order in which they came."""
        kept = self._kept
        if len(kept) < 2:
            ordered = list(kept)
        elif self._columns is None:
            ordered = sort_one_by_one(kept, self._comparisons, self._decode)
        else:
            ordered = [kept[place] for place in self._order()]
        return ordered if self._count is None else ordered[: self._count]

    def _order(self) -> list[int]:
        assert self._columns is not None
        places = list(range(len(self._kept)))
        for column, comparison in zip(reversed(self._columns), reversed(self._comparisons), strict=True):
            places.sort(key=_keys(column).__getitem__, reverse=comparison.descending)
        return places

    def _cut(self, places: list[int]) -> None:
        assert self._columns is not None
        self._kept = [self._kept[place] for place in places]
        self._columns = [[column[place] for place in places] for column in self._columns]


def places_in_order(env: Any, keys: list[Any]) -> Iterator[int]:
    """Where the keys are, from the smallest on; others have a turn now and then, for tuples take long to compare."""
    runs = []
    for at in range(0, len(keys), ROWS_A_RUN):
        runs.append(sorted(range(at, min(at + ROWS_A_RUN, len(keys))), key=keys.__getitem__))
        env.fibers.breathe()
    merged = heapq.merge(*runs, key=keys.__getitem__)
    while places := list(itertools.islice(merged, ROWS_A_RUN)):
        yield from places
        env.fibers.breathe()


def sort_rows(rows: Rows, comparisons: list[Comparison]) -> Rows:
    """The rows in order."""
    sorter = Sorter(comparisons)
    sorter.take(rows, rows)
    return sorter.rows()


def _keys(values: list[Any]) -> Any:
    if ABSENT not in values:
        return order.sort_keys(values)
    following = iter(order.sort_keys([value for value in values if value is not ABSENT]))
    return [(0,) if value is ABSENT else (1, next(following)) for value in values]


def compare_rows(comparisons: list[Comparison]) -> Callable[[Any, Any], int]:
    """A function that compares two rows; it asks the functions one after the other, as far as needed."""

    def compare(left: Any, right: Any) -> int:
        for func, descending in comparisons:
            first, second = _value(func, left), _value(func, right)
            if first is ABSENT or second is ABSENT:
                sign = (second is ABSENT) - (first is ABSENT)
            else:
                sign = order.compare(first, second)
            if sign:
                return -sign if descending else sign
        return 0

    return compare


def _value(func: Func, row: Any) -> Any:
    try:
        return func.datum(row)
    except ReqlNonExistenceError:
        return ABSENT


def sort_one_by_one(
    kept: list[Any], comparisons: list[Comparison], decode: Callable[[Any], Any] | None = None
) -> list[Any]:
    """What is kept of rows in their order, by a function that asks about two rows at a time."""
    compare = compare_rows(comparisons)
    if decode is None:
        return sorted(kept, key=cmp_to_key(compare))
    rows = [decode(item) for item in kept]

    def compare_places(left: int, right: int) -> int:
        return compare(rows[left], rows[right])

    return [kept[place] for place in sorted(range(len(rows)), key=cmp_to_key(compare_places))]
