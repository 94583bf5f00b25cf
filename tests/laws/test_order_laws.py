"""Laws of the order: all its forms agree, and keys of bytes sort as the data do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.keys import after_prefix, bound_key, index_key_bytes, key_end, key_from_bytes, key_range, prefix_range
from model.order import compare, equal, hashable_key, sort_key, sort_keys
from tests.laws.data import bounds, data, keys, numbers, strings


def sign(left, right):
    return (left > right) - (left < right)


@given(data, data)
def test_all_forms_of_the_order_agree(left, right):
    order = compare(left, right)
    assert order == -compare(right, left)
    assert order == sign(sort_key(left), sort_key(right))
    assert equal(left, right) == (order == 0)
    assert (hashable_key(left) == hashable_key(right)) == (order == 0)
    if order == 0:
        assert hash(hashable_key(left)) == hash(hashable_key(right))


@given(data, data, data)
def test_the_order_is_transitive(first, second, third):
    first, second, third = sorted((first, second, third), key=sort_key)
    assert compare(first, second) <= 0 <= compare(third, second)
    assert compare(first, third) <= 0


@given(st.one_of(st.lists(data, max_size=6), st.lists(numbers, max_size=6), st.lists(strings, max_size=6)))
def test_sorting_by_many_keys_at_once_is_sorting_by_each(values):
    marked = sorted(range(len(values)), key=lambda at: sort_keys(values)[at])
    assert marked == sorted(range(len(values)), key=lambda at: sort_key(values[at]))


@given(bounds, bounds)
def test_key_bytes_sort_as_the_data_do(left, right):
    assert sign(bound_key(left, primary=False), bound_key(right, primary=False)) == compare(left, right)


@given(keys)
def test_a_key_decodes_to_an_equal_datum(datum):
    raw = index_key_bytes(datum)
    assert compare(key_from_bytes(raw), datum) == 0
    assert index_key_bytes(key_from_bytes(raw)) == raw


@given(keys, st.binary(max_size=6), st.binary(max_size=3))
def test_a_key_ends_where_it_ends_whatever_follows(datum, after, before):
    raw = index_key_bytes(datum)
    assert key_end(before + raw + after, len(before)) == len(before) + len(raw)
    assert compare(key_from_bytes(raw + after), datum) == 0


@given(keys, keys, st.binary(max_size=6))
def test_a_prefix_range_holds_the_entries_of_one_key(datum, other, after):
    low, high = prefix_range(index_key_bytes(datum))
    assert (low <= index_key_bytes(other) + after < high) == equal(datum, other)


@given(bounds, bounds, keys, st.booleans(), st.booleans(), st.binary(max_size=6))
def test_a_key_range_holds_what_lies_between(low, high, datum, low_open, high_open, after):
    first, end = key_range(low, high, low_open, high_open)
    above = compare(datum, low) > 0 if low_open else compare(datum, low) >= 0
    below = compare(datum, high) < 0 if high_open else compare(datum, high) <= 0
    assert (first <= index_key_bytes(datum) + after < end) == (above and below)


@given(st.binary(min_size=1, max_size=6).filter(lambda raw: raw.strip(b"\xff")), st.binary(max_size=6))
def test_nothing_lies_between_a_prefix_and_its_end(prefix, other):
    assert (prefix <= other < after_prefix(prefix)) == other.startswith(prefix)
