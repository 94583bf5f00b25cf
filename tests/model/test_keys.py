"""What may be a key, and RethinkDB's words for what may not."""

from __future__ import annotations

import pytest

from model.errors import ReqlError, ReqlNonExistenceError
from model.keys import bound_key, index_key_bytes, index_keys, key_from_bytes, key_range, primary_key_bytes
from model.kinds import MAXVAL, MINVAL
from model.pseudo_binary import make_binary
from model.pseudo_time import make_time

POINT = {"$reql_type$": "GEOMETRY", "type": "Point", "coordinates": [0, 0]}


@pytest.mark.parametrize(
    "key", ["k" * 127, "é" * 63, 0, -1.5, True, ["a" * 60, "b" * 60], [1] * 5, make_time(5), make_binary(b"k" * 120)]
)
def test_primary_keys_that_rethinkdb_takes(key):
    assert key_from_bytes(primary_key_bytes(key)) == key


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("k" * 128, f'Primary key too long (max 127 characters): "{"k" * 128}"'),
        ("é" * 64, f'Primary key too long (max 127 characters): "{"é" * 64}"'),
        ([1] * 20, "Primary key too long (max 127 characters): [\n\t1,"),
        (make_binary(b"k" * 130), "Primary key too long (max 127 characters): "),
        (make_binary(b"\0" * 64), "Primary key too long (max 127 characters): "),
        ("a\0b", 'String "a\\x00b" (truncated) contains NULL byte at offset 1 in index key.'),
        (["a\0"], 'String "a\\x00" (truncated) contains NULL byte at offset 1 in index key.'),
        ({"a": 1}, "Primary keys must be either a number, string, bool, pseudotype or array (got type OBJECT):\n{"),
        (
            [{"a": 1}],
            "Array keys can only contain numbers, strings, bools,  pseudotypes, or arrays "
            '(got {\n\t"a":\t1\n} of type OBJECT).',
        ),
        (POINT, "Cannot use a geometry value as a key value in a primary or non-geospatial secondary index."),
        ([POINT], "Cannot use a geometry value as a key value in a primary or non-geospatial secondary index."),
    ],
)
def test_primary_keys_that_it_refuses(key, message):
    with pytest.raises(ReqlError) as caught:
        primary_key_bytes(key)
    assert caught.value.message.startswith(message)


def test_null_is_the_absence_of_a_key():
    for make in (primary_key_bytes, index_key_bytes):
        for key in (None, [None]):
            with pytest.raises(ReqlNonExistenceError):
                make(key)


def test_the_same_moment_and_the_two_zeros_are_one_key():
    assert primary_key_bytes(make_time(1, "+05:00")) == primary_key_bytes(make_time(1))
    assert primary_key_bytes(-0.0) == primary_key_bytes(0)
    assert primary_key_bytes(1) != primary_key_bytes(True)


def test_index_keys_may_be_long_and_hold_nulls():
    assert key_from_bytes(index_key_bytes(["x" * 1000, "a\0b\x01"])) == ["x" * 1000, "a\0b\x01"]


@pytest.mark.parametrize("value", [None, {"a": 1}, [None], POINT, MINVAL, [MAXVAL]])
def test_a_row_without_a_fit_value_is_not_in_the_index(value):
    assert index_keys(value, multi=False) == []


def test_a_multi_index_has_a_key_for_each_fit_item():
    assert index_keys([1, None, "a", 1], multi=True) == [index_key_bytes(item) for item in (1, "a", 1)]
    assert index_keys("a", multi=True) == [index_key_bytes("a")]
    assert index_keys([1, "a"], multi=False) == [index_key_bytes([1, "a"])]


def test_bounds_take_extrema_at_any_depth():
    low, high = key_range(["a", MINVAL], ["a", MAXVAL])
    assert low < index_key_bytes(["a", 5]) < high
    assert not low < index_key_bytes(["b"]) < high
    low, high = key_range(MINVAL, MAXVAL, low_open=True, primary=True)
    assert low <= primary_key_bytes([]) and primary_key_bytes("z") < high


def test_bounds_of_a_wrong_type_are_refused():
    with pytest.raises(ReqlError, match=r"^Secondary keys must be .* \(got null of type NULL\)\.$"):
        bound_key(None, primary=False)
    with pytest.raises(ReqlError, match=r"^Primary keys must be .* \(got type NULL\)"):
        bound_key(None, primary=True)
