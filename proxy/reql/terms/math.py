"""Arithmetic, comparison and logic (terms/arith.cc, pred.cc). Numbers leave in canonical form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from model import datum as d
from model import order
from proxy.reql.ids import Term
from proxy.reql.registry import term
from proxy.reql.values import as_bool, as_datum


@term(Term.NOT, "not", "1", takes=(as_bool,))
def not_(env: Any, value: bool) -> bool:
    return not value


@term(Term.EQ, "eq", "2..*", takes=(as_datum,))
def eq(env: Any, first: Any, *others: Any) -> bool:
    return all(order.equal(first, other) for other in others)


@term(Term.NE, "ne", "2..*", takes=(as_datum,))
def ne(env: Any, first: Any, *others: Any) -> bool:
    return not eq(env, first, *others)


def _ordered(id: Term, name: str, holds: Any) -> None:
    @term(id, name, "2..*", takes=(as_datum,))
    def compare(env: Any, *values: Any) -> bool:
        return all(holds(order.compare(left, right)) for left, right in pairwise(values))


_ordered(Term.LT, "lt", lambda sign: sign < 0)
_ordered(Term.LE, "le", lambda sign: sign <= 0)
_ordered(Term.GT, "gt", lambda sign: sign > 0)
_ordered(Term.GE, "ge", lambda sign: sign >= 0)


@term(Term.ADD, "add", "1..*", takes=(as_datum,))
def add(env: Any, first: Any, *others: Any) -> Any:
    """The sum of numbers; strings and arrays are joined."""
    total = first
    for other in others:
        if total.__class__ in (int, float):
            d.expect(other, "NUMBER")
            total = d.number(total + other)
        else:
            if total.__class__ not in (str, list):
                d.expect(total, "NUMBER")
            d.expect(other, d.type_name(total))
            total = total + other
    return total
