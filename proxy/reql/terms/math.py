"""Arithmetic, bits, comparison and logic (terms/arith.cc, pred.cc). Numbers leave in canonical form.

One rule: the results are those of doubles, also where Python computes with ints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from model import datum as d
from model import order
from model import pseudo_time as times
from model.errors import Path
from proxy.reql.compiler import Compiler, Node, located
from proxy.reql.ids import Term
from proxy.reql.registry import TermSpec, fail, special, term
from proxy.reql.streams import grouped_value, over_groups
from proxy.reql.values import PLAIN, as_bool, as_datum, as_integer, as_number, check_array_size

# ---- comparison and logic --------------------------------------------------------------------------------------


@term(Term.NOT, "not", "1", takes=(as_bool,))
def not_(env: Any, value: bool) -> bool:
    return not value


def _comparison(id: Term, holds: Callable[[Any, Any], bool], inverted: bool = False) -> None:
    """Declares a term that is true when `holds` does for each pair of neighbours; the rest is not evaluated then."""

    def body(env: Any, first: Any, second: Any, *others: Any) -> bool:
        holding = holds(first, second)
        if holding and others:
            holding = all(holds(left, right) for left, right in pairwise((second, *others)))
        return holding is not inverted

    spec = TermSpec(id, id.name, 2, None, (as_datum,), body=body)

    @special(id, id.name, "2..*")
    def compile(compiler: Compiler, raw: list[Any], path: Path) -> Node:
        node = compiler.compile_call(spec, raw, path)
        nodes = node.arguments
        if len(nodes) == 2 or any(argument.term == Term.ARGS for argument in nodes):
            return node

        def run(env: Any) -> Any:
            first = nodes[0].run(env)
            grouped = None if first.__class__ in PLAIN else grouped_value(env, first)
            if grouped is not None:
                return over_groups(env, grouped, lambda held: decide(env, held))
            return decide(env, located(as_datum, env, first, nodes[0].path))

        def decide(env: Any, left: Any) -> bool:
            for argument in nodes[1:]:
                right = located(as_datum, env, argument.run(env), argument.path)
                if not holds(left, right):
                    return inverted
                left = right
            return not inverted

        node.run = run
        return node


_comparison(Term.EQ, order.equal)
_comparison(Term.NE, order.equal, inverted=True)
_comparison(Term.LT, lambda left, right: order.compare(left, right) < 0)
_comparison(Term.LE, lambda left, right: order.compare(left, right) <= 0)
_comparison(Term.GT, lambda left, right: order.compare(left, right) > 0)
_comparison(Term.GE, lambda left, right: order.compare(left, right) >= 0)

# ---- arithmetic ------------------------------------------------------------------------------------------------

_NUMBERS: Final = frozenset((int, float))


def _expect_numbers(left: Any, right: Any) -> None:
    d.expect(left, "NUMBER")
    d.expect(right, "NUMBER")


def _add(env: Any, left: Any, right: Any) -> Any:
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        return d.number(left + right)
    if d.is_ptype(left, d.TIME) or d.is_ptype(right, d.TIME):
        time, seconds = (left, right) if d.is_ptype(left, d.TIME) else (right, left)
        d.expect(seconds, "NUMBER")
        return times.add_seconds(time, seconds)
    if isinstance(left, str):
        d.expect(right, "STRING")
        return left + str(right)
    if isinstance(left, list):
        d.expect(right, "ARRAY")
        check_array_size(env, len(left) + len(right))
        return [*left, *right]
    _expect_numbers(left, right)
    raise AssertionError("numbers were added above")


def _sub(env: Any, left: Any, right: Any) -> Any:
    if d.is_ptype(left, d.TIME):
        if d.is_ptype(right, d.TIME):
            return times.difference(left, right)
        d.expect(right, "NUMBER")
        return times.add_seconds(left, -right)
    _expect_numbers(left, right)
    return d.number(left - right)


def _mul(env: Any, left: Any, right: Any) -> Any:
    if left.__class__ is list or right.__class__ is list:
        array, count = (left, right) if left.__class__ is list else (right, left)
        d.expect(count, "NUMBER")
        copies = d.to_int(count)
        if copies < 0:
            fail("Cannot multiply an ARRAY by a negative number.")
        check_array_size(env, copies * len(array))
        return array * copies
    _expect_numbers(left, right)
    product = left * right
    if product == 0:
        return d.number(float(left) * float(right))  # 0 * -1 is -0.0
    return d.number(product)


def _div(env: Any, left: Any, right: Any) -> Any:
    _expect_numbers(left, right)
    if right == 0:
        fail("Cannot divide by zero.")
    try:
        return d.number(left / right)
    except OverflowError:
        return d.number(math.copysign(math.inf, left) * math.copysign(1.0, right))


def _arithmetic(id: Term, apply: Callable[[Any, Any, Any], Any]) -> None:
    @term(id, id.name, "1..*", takes=(as_datum,))
    def arithmetic(env: Any, total: Any, *others: Any) -> Any:
        for other in others:
            total = apply(env, total, other)
        return total


_arithmetic(Term.ADD, _add)
_arithmetic(Term.SUB, _sub)
_arithmetic(Term.MUL, _mul)
_arithmetic(Term.DIV, _div)


@term(Term.MOD, "mod", "2", takes=(as_integer, as_integer))
def mod(env: Any, left: int, right: int) -> int:
    """The remainder with the sign of the dividend, as in C."""
    if right == 0:
        fail("Cannot take a number modulo 0.")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


# ---- rounding --------------------------------------------------------------------------------------------------


def _with_sign_of(result: int, value: float) -> int | float:
    """The whole number, where zero keeps the sign of what was rounded."""
    return d.number(math.copysign(0.0, value) if result == 0 else float(result))


@term(Term.FLOOR, "floor", "1", takes=(as_number,))
def floor(env: Any, value: int | float) -> int | float:
    return value if value.__class__ is int else _with_sign_of(math.floor(value), value)


@term(Term.CEIL, "ceil", "1", takes=(as_number,))
def ceil(env: Any, value: int | float) -> int | float:
    return value if value.__class__ is int else _with_sign_of(math.ceil(value), value)


@term(Term.ROUND, "round", "1", takes=(as_number,))
def round_(env: Any, value: int | float) -> int | float:
    """To the nearest whole number; halves go away from zero."""
    if value.__class__ is int:
        return value
    below = math.floor(value)
    rest = value - below
    return _with_sign_of(below + 1 if rest > 0.5 or (rest == 0.5 and value > 0) else below, value)


# ---- bits ------------------------------------------------------------------------------------------------------


def _checked_bits(value: int) -> int:
    """A whole number whose bits may be used; 2**53 itself, as whose double 2**53 + 1 comes, may not."""
    if value >= d.MAX_INT:
        fail(f"Integer too large: {value}")
    return value


def _bitwise(id: Term, apply: Callable[[int, int], int]) -> None:
    @term(id, id.name, "1..*", takes=(as_integer,))
    def bitwise(env: Any, *values: int) -> int | float:
        total = _checked_bits(values[0])
        for value in values[1:]:
            total = apply(total, _checked_bits(value))
        return d.number(total)


_bitwise(Term.BIT_AND, lambda left, right: left & right)
_bitwise(Term.BIT_OR, lambda left, right: left | right)
_bitwise(Term.BIT_XOR, lambda left, right: left ^ right)


@term(Term.BIT_NOT, "BIT_NOT", "1", takes=(as_integer,))
def bit_not(env: Any, value: int) -> int | float:
    return d.number(~_checked_bits(value))


@term(Term.BIT_SAL, "BIT_SAL", "2", takes=(as_integer, as_integer))
def bit_sal(env: Any, value: int, places: int) -> int | float:
    """Shifts left; the result may go beyond 2**53 as a double."""
    _check_shift(value, places)
    try:
        return d.number(math.ldexp(value, places))
    except OverflowError:
        return d.number(math.inf if value > 0 or places >= 4096 else -math.inf)


@term(Term.BIT_SAR, "BIT_SAR", "2", takes=(as_integer, as_integer))
def bit_sar(env: Any, value: int, places: int) -> int:
    """Shifts right, keeping the sign."""
    _check_shift(value, places)
    return value >> min(places, 64)


def _check_shift(value: int, places: int) -> None:
    _checked_bits(value)
    if places < 0:
        fail("Cannot bit-shift by a negative value")
