"""Numbers: arithmetic of doubles, bits, comparison, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import math

import pytest
from rethinkdb import r

from model.errors import ReqlError


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.expr(1) + 2, 3),
        (r.add(1, 2, 3), 6),
        (r.expr("a") + "b", "ab"),
        (r.add([1], [2]), [1, 2]),
        (r.expr([1, 2]) * 2, [1, 2, 1, 2]),
        (2 * r.expr([1]), [1, 1]),
        (r.expr(1) / 4, 0.25),
        (r.expr(4) / 2, 2),
        (r.expr(9007199254740992) + 1, 9007199254740992),
        (r.expr(-7) % 3, -1),
        (r.expr(7) % -3, 1),
        (r.floor(-1.5), -2),
        (r.ceil(-1.5), -1),
        (r.round(2.5), 3),
        (r.round(-2.5), -3),
        (r.round(0.49999999999999994), 0),
        (r.expr(5).bit_and(3), 1),
        (r.expr(5).bit_or(3), 7),
        (r.expr(5).bit_xor(3), 6),
        (r.bit_not(5), -6),
        (r.expr(1).bit_sal(64), 18446744073709551616.0),
        (r.expr(-8).bit_sar(100), -1),
        (r.lt(1, 2, 3), True),
        (r.lt(1, 3, 2), False),
        (r.eq(1, 1.0, 1), True),
        (r.ne(1, 1, 2), True),
        (r.expr(1) == True, False),  # noqa: E712
        (r.expr(None) < 1, True),
        (r.expr([1]) < True, True),
        (~r.expr(None), True),
    ],
)
def test_values(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize("query", [r.expr(0) * -1, r.expr(0) / -5, r.ceil(-0.5), r.round(-0.2), r.floor(-0.0)])
def test_zero_keeps_its_sign(run, query):
    assert math.copysign(1, run(query)) == -1


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr(1) + "a", "Expected type NUMBER but found STRING.", ()),
        (r.expr("a") + 1, "Expected type STRING but found NUMBER.", ()),
        (r.expr({}) + 1, "Expected type NUMBER but found OBJECT.", ()),
        (r.expr(1) / 0, "Cannot divide by zero.", ()),
        (r.expr(1e308) * 10, "Non-finite number: inf", ()),
        (r.expr(1e308) / 1e-10, "Non-finite number: inf", ()),
        (r.expr(1).bit_sal(2000), "Non-finite number: inf", ()),
        (r.expr([1]) * -1, "Cannot multiply an ARRAY by a negative number.", ()),
        (r.expr([1]) * 1.5, "Number not an integer: 1.5", ()),
        (r.expr(1) % 0, "Cannot take a number modulo 0.", ()),
        (r.expr(1) % 1.5, "Number not an integer: 1.5", (1,)),
        (r.expr(9007199254740992).bit_and(1), "Integer too large: 9007199254740992", ()),
        (r.expr(1).bit_sal(-1), "Cannot bit-shift by a negative value", ()),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)


def test_comparing_stops_at_the_first_that_does_not_hold(run):
    assert run(r.lt(2, 1, r.error("not reached"))) is False
    assert run(r.ne(1, 2, r.error("not reached"))) is True


def test_large_products_respect_the_array_limit(run):
    with pytest.raises(ReqlError, match="Array over size limit `10`"):
        run(r.expr([1]) * 11, array_limit=10)


def test_many_texts_and_arrays_are_added_in_one(run):
    numbers = r.range(40_000).coerce_to("array")
    assert run(r.add(r.args(numbers.map(lambda number: [number, number]))).count()) == 80_000
    assert run(r.add(r.args(numbers.map(lambda number: number.coerce_to("string")))))[:7] == "0123456"
    with pytest.raises(ReqlError, match="Array over size limit `10`"):
        run(r.add([1] * 5, [2] * 5, [3]), array_limit=10)


@pytest.mark.parametrize("first", ["a", [1]])
def test_what_cannot_be_added_is_told_as_of_two(run, first):
    for wrong, words in (
        (1, "Expected type "),
        (None, "Expected type "),
        (r.epoch_time(1), "Expected type NUMBER but"),
    ):
        with pytest.raises(ReqlError, match=words) as of_two:
            run(r.add(first, wrong))
        with pytest.raises(ReqlError, match=words) as of_many:
            run(r.add(first, first, wrong))
        assert of_many.value.message == of_two.value.message
