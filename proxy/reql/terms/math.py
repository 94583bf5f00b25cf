"""Arithmetic, bits, comparison and logic (terms/arith.cc, pred.cc). Numbers leave in canonical form.

One rule: the results are those of doubles, also where Python computes with ints.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import reduce as fold_left
from typing import Any, Final

from model import datum as d
from model import order
from model import pseudo_time as times
from model.errors import THE_TERM, Path, ReqlError
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, taken
from proxy.reql.registry import TermSpec, fail, special, term
from proxy.reql.streams import grouped_value, over_groups
from proxy.reql.values import PLAIN, as_bool, as_datum, as_integer, as_number, check_array_size

# ---- comparison and logic --------------------------------------------------------------------------------------


@term(Term.NOT, "not", "1", takes=(as_bool,))
def not_(env: Any, value: bool) -> bool:
    return not value


Loop = Callable[[Any, Any, Iterator[Any]], Any]
"""(env, first argument, the others, which are evaluated when they are asked for) -> result."""


def _chain(id: Term, args: str, loop: Loop, kinds: frozenset[type], fast: Callable[[Any, Any], Any]) -> None:
    """Declares a term over two or more data in turn. `fast` does for two of the same Python type out of `kinds`."""
    spec = TermSpec(
        id, id.name, int(args[0]), None, (as_datum,), body=lambda env, first, *others: loop(env, first, iter(others))
    )

    @special(id, id.name, args)
    def compile(compiler: Compiler, raw: list[Any], path: Path) -> Node:
        node = compiler.compile_call(spec, raw, path)
        if not any(argument.term == Term.ARGS for argument in node.arguments):
            node.run = _chain_runner(node.arguments, path, loop, kinds, fast)
        return node


def _chain_runner(
    nodes: list[Node], path: Path, loop: Loop, kinds: frozenset[type], fast: Callable[[Any, Any], Any]
) -> Callable[[Any], Any]:
    run_first = nodes[0].run

    def others(env: Any) -> Iterator[Any]:
        for node in nodes[1:]:
            yield taken(as_datum, env, node.run(env), node, path)

    def go_on(env: Any, first: Any, rest: Iterator[Any]) -> Any:
        try:
            return loop(env, first, rest)
        except ReqlError as error:
            if error.path is None:
                error.path = path
            raise

    def from_first(env: Any, first: Any) -> Any:
        if first.__class__ not in PLAIN:
            grouped = grouped_value(env, first)
            if grouped is not None:
                return over_groups(env, grouped, lambda held: go_on(env, held, others(env)))
            first = taken(as_datum, env, first, nodes[0], path)
        return go_on(env, first, others(env))

    if len(nodes) != 2:
        return lambda env: from_first(env, run_first(env))
    run_second, second = nodes[1].run, nodes[1]

    def run(env: Any) -> Any:
        left = run_first(env)
        if left.__class__ not in kinds:
            return from_first(env, left)
        right = run_second(env)
        if right.__class__ is left.__class__:
            try:
                return fast(left, right)
            except ReqlError as error:
                error.path = path
                raise
        return go_on(env, left, iter((taken(as_datum, env, right, second, path),)))

    return run


def _comparison(
    id: Term, holds: Callable[[Any, Any], bool], fast: Callable[[Any, Any], Any], inverted: bool = False
) -> None:
    """A term that is true when `holds` does for each pair of neighbours; the rest is not evaluated then."""

    def loop(env: Any, left: Any, others: Iterator[Any]) -> bool:
        for right in others:
            if not holds(left, right):
                return inverted
            left = right
        return not inverted

    _chain(id, "2..*", loop, frozenset((int, float, str)), fast)


_comparison(Term.EQ, order.equal, operator.eq)
_comparison(Term.NE, order.equal, operator.ne, inverted=True)
_comparison(Term.LT, lambda left, right: order.compare(left, right) < 0, operator.lt)
_comparison(Term.LE, lambda left, right: order.compare(left, right) <= 0, operator.le)
_comparison(Term.GT, lambda left, right: order.compare(left, right) > 0, operator.gt)
_comparison(Term.GE, lambda left, right: order.compare(left, right) >= 0, operator.ge)

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


def _add_texts(env: Any, first: str, others: Iterable[Any]) -> Any:
    """As `_add` one after the other, which would copy all that was added before for each."""
    parts = [first]
    for other in others:
        if other.__class__ is not str:
            return _add(env, first, other)  # which says what is wrong with it
        parts.append(other)
    return "".join(parts)


def _add_arrays(env: Any, first: list[Any], others: Iterable[Any]) -> Any:
    """As `_add_texts`."""
    out = [*first]
    for other in others:
        if other.__class__ is not list:
            return _add(env, first, other)
        check_array_size(env, len(out) + len(other))
        out += other
    return out


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
    return _product(left, right)


def _product(left: int | float, right: int | float) -> int | float:
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
    def loop(env: Any, total: Any, others: Iterator[Any]) -> Any:
        if apply is _add and total.__class__ in _IN_ONE:
            return _IN_ONE[total.__class__](env, total, others)
        for other in others:
            total = apply(env, total, other)
        return total

    fast = _FAST.get(id)
    _chain(id, "1..*", loop, frozenset() if fast is None else _NUMBERS, fast or operator.add)


def _fast_add(left: Any, right: Any) -> Any:
    total = left + right
    return total if total.__class__ is int and -d.MAX_INT <= total <= d.MAX_INT else d.number(total)


def _fast_sub(left: Any, right: Any) -> Any:
    total = left - right
    return total if total.__class__ is int and -d.MAX_INT <= total <= d.MAX_INT else d.number(total)


_IN_ONE: Final[dict[type, Callable[[Any, Any, Iterable[Any]], Any]]] = {str: _add_texts, list: _add_arrays}
_FAST: Final[dict[Term, Callable[[Any, Any], Any]]] = {Term.ADD: _fast_add, Term.SUB: _fast_sub, Term.MUL: _product}
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


def _as_bits(env: Any, value: Any) -> int:
    """A whole number whose bits may be used; 2**53 itself, as whose double 2**53 + 1 comes, may not."""
    bits = as_integer(env, value)
    if bits >= d.MAX_INT:
        fail(f"Integer too large: {bits}", THE_TERM)
    return bits


def _bitwise(id: Term, apply: Callable[[int, int], int]) -> None:
    @term(id, id.name, "1..*", takes=(_as_bits,))
    def bitwise(env: Any, *values: int) -> int | float:
        return d.number(fold_left(apply, values))


_bitwise(Term.BIT_AND, lambda left, right: left & right)
_bitwise(Term.BIT_OR, lambda left, right: left | right)
_bitwise(Term.BIT_XOR, lambda left, right: left ^ right)


@term(Term.BIT_NOT, "BIT_NOT", "1", takes=(_as_bits,))
def bit_not(env: Any, value: int) -> int | float:
    return d.number(~value)


@term(Term.BIT_SAL, "BIT_SAL", "2", takes=(_as_bits, as_integer))
def bit_sal(env: Any, value: int, places: int) -> int | float:
    """Shifts left; the result may go beyond 2**53 as a double."""
    _check_shift(places)
    try:
        return d.number(math.ldexp(value, places))
    except OverflowError:
        return d.number(math.inf if value > 0 or places >= 4096 else -math.inf)


@term(Term.BIT_SAR, "BIT_SAR", "2", takes=(_as_bits, as_integer))
def bit_sar(env: Any, value: int, places: int) -> int:
    """Shifts right, keeping the sign."""
    _check_shift(places)
    return value >> min(places, 64)


def _check_shift(places: int) -> None:
    if places < 0:
        fail("Cannot bit-shift by a negative value")
