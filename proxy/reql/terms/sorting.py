"""Sorting rows by functions, each ascending or descending (order_util.cc).

One rule: rows are sorted by native keys, all at once, and only where that fails row by row as RethinkDB does it, so
that a function is not asked about rows whose place is clear without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any, NamedTuple

from model import order
from model.errors import ReqlError, ReqlNonExistenceError
from proxy.reql.compiler import Node
from proxy.reql.ids import Term
from proxy.reql.registry import CONSTANT_NOW, SINGLE_SERVER, fail
from proxy.reql.streams import Rows
from proxy.reql.terms.fields import ABSENT, each_or, func_or_field
from proxy.reql.values import Func


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


def sort_rows(rows: Rows, comparisons: list[Comparison]) -> Rows:
    """The rows in order; equal rows stay in the order in which they came."""
    if len(rows) < 2:
        return list(rows)
    try:
        places: Any = range(len(rows))
        for comparison in reversed(comparisons):
            keys = _keys(comparison.func, rows)
            places = sorted(places, key=keys.__getitem__, reverse=comparison.descending)
        return [rows[place] for place in places]
    except ReqlError:
        return _sort_one_by_one(rows, comparisons)


def _keys(func: Func, rows: Rows) -> Any:
    values = each_or(func, rows, ABSENT)
    if ABSENT not in values:
        return order.sort_keys(values)
    present = order.sort_keys([value for value in values if value is not ABSENT])
    following = iter(present)
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


def _sort_one_by_one(rows: Rows, comparisons: list[Comparison]) -> Rows:
    return sorted(rows, key=cmp_to_key(compare_rows(comparisons)))


class Leading:
    """The first `count` rows of an order, out of rows that come in any order, without keeping all of them."""

    __slots__ = ("_comparisons", "_count", "_kept")

    def __init__(self, count: int, comparisons: list[Comparison]) -> None:
        self._count = count
        self._comparisons = comparisons
        self._kept: Rows = []

    def take(self, rows: Rows) -> None:
        """Adds rows."""
        self._kept += rows
        if len(self._kept) > 2 * self._count + 1024:
            self._kept = self.rows()

    def rows(self) -> Rows:
        return sort_rows(self._kept, self._comparisons)[: self._count]
