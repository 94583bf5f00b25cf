"""The order of types, as RethinkDB 2.4.4 sorts them."""

from __future__ import annotations

import itertools

from model.kinds import MAXVAL, MINVAL
from model.order import compare, equal, hashable_key
from model.pseudo_binary import make_binary
from model.pseudo_time import make_time

ASCENDING = [
    MINVAL,
    [],
    [1],
    [1, 0],
    [2],
    False,
    True,
    None,
    -1.5,
    0,
    1,
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"b": 0},
    make_binary(b""),
    make_binary(b"\xff"),
    {"$reql_type$": "GEOMETRY", "coordinates": [0, 1], "type": "Point"},
    {"$reql_type$": "GEOMETRY", "coordinates": [0, 2], "type": "Point"},
    make_time(1),
    make_time(2),
    "",
    "a",
    "a\0",
    "b",
    "\uffff",
    "\U0001f600",
    MAXVAL,
]


def test_every_pair_is_in_order():
    for (left, before), (right, after) in itertools.product(enumerate(ASCENDING), repeat=2):
        assert compare(before, after) == (left > right) - (left < right)
        assert equal(before, after) == (left == right)


def test_equal_but_not_identical():
    assert equal(1, 1.0) and equal(0, -0.0)
    assert equal(make_time(1, "+01:00"), make_time(1))
    assert not equal(1, True) and not equal([0], [False]) and not equal({"a": 1}, {"a": True})
    assert hashable_key(1) != hashable_key(True) and hashable_key("a") != hashable_key(["a"])
