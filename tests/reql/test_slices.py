"""nth, slice, limit, skip, and looking for rows: is_empty, contains, offsets_of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rethinkdb import r

ROWS = [{"id": i, "a": i % 3} for i in range(300)]


@pytest.fixture(scope="module")
def t(world_of_module):
    world_of_module.make_table("t", ROWS)
    world_of_module.make_table("empty", [])
    return r.table("t")


@pytest.fixture(scope="module")
def run(world_of_module, t):
    return world_of_module.run


@pytest.fixture
def world(world_of_module):
    return world_of_module


class TestSlices:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 320), st.integers(-1, 320), st.booleans(), st.booleans())
    def test_of_streams_are_those_of_lists(self, run, t, left, right, left_open, right_open):
        if right == -1 and right_open:
            return  # refused, as the end of a stream is not known
        query = t.order_by(index="id").slice(
            left,
            right,
            left_bound="open" if left_open else "closed",
            right_bound="open" if right_open else "closed",
        )
        end = len(ROWS) if right == -1 else right + (not right_open)
        assert run(query) == ROWS[left + left_open : max(end, 0)]

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 9), max_size=6), st.integers(-8, 8), st.integers(-8, 8))
    def test_of_arrays_and_strings_count_from_the_end_where_negative(self, run, items, left, right):
        size = len(items)
        low = left if left >= 0 else max(size + left, 0)
        high = right if right >= 0 else max(size + right, 0)
        assert run(r.expr(items).slice(left, right)) == items[low : max(low, high)]
        text = "".join(map(str, items))
        assert run(r.expr(text).slice(left, right)) == text[low : max(low, high)]

    def test_limit_and_skip_on_operations(self, run, t):
        evens = [row for row in ROWS if row["a"] == 0]
        assert run(t.filter({"a": 0}).skip(3).limit(4)) == evens[3:7]
        assert run(t.order_by(index="id").skip(290)["id"]) == list(range(290, 300))
        assert run(t.limit(1).type_of()) == "SELECTION<STREAM>"

    def test_refuse_negative_bounds_of_streams(self, failure, t):
        assert failure(t.slice(-2, -1))[1:] == ("Cannot use a negative left index on a stream.", [])
        assert failure(t.slice(2, -2))[1:] == ("Cannot use a right index < -1 on a stream.", [])
        assert failure(t.limit(-1))[1:] == ("LIMIT takes a non-negative argument (got -1)", [])
        assert failure(r.expr(1).slice(1, 2))[1:] == ("Expected ARRAY, BINARY, or STRING, but found NUMBER.", [0])


class TestNth:
    def test_of_arrays_and_streams(self, run, t):
        assert run(r.expr([1, 2, 3]).nth(-1)) == 3
        assert run(t.order_by(index="id")[250]) == ROWS[250]
        assert run(t.order_by(index="id").nth(-1)) == ROWS[-1]
        assert run(t.nth(0).type_of()) == "SELECTION<OBJECT>"

    def test_beyond_the_end(self, failure, t):
        assert failure(t.nth(300)) == ("ReqlNonExistenceError", "Index out of bounds: 300", [])
        assert failure(t.nth(-2))[1:] == ("Cannot use an index < -1 (-2) on a stream.", [])


class TestSearches:
    def test_is_empty_looks_no_further_than_needed(self, run, t):
        assert run(r.range().is_empty()) is False
        assert run(t.filter({"a": 9}).is_empty()) is True
        assert run(r.table("empty").is_empty()) is True

    def test_contains_counts_each_row_once_per_value_and_function(self, run, t):
        assert run(r.expr([1, 1]).contains(1, 1)) is True
        assert run(r.expr([1]).contains(1, 1)) is False
        assert run(r.expr([1]).contains(1, lambda x: x == 1)) is True
        assert run(t["id"].contains(7, 250, lambda x: x > 298)) is True
        assert run(r.expr([1]).contains(True)) is False
        assert run(r.expr([]).contains()) is False

    def test_contains_lets_absence_through(self, failure):
        got = failure(r.expr([{}]).contains(lambda row: row["a"] == 1))
        assert got == ("ReqlNonExistenceError", "No attribute `a` in object:", [1, 1, 0])

    def test_offsets_of_values_and_conditions(self, run, t):
        assert run(r.expr([1, 2, 1]).offsets_of(1)) == [0, 2]
        assert run(t.order_by(index="id").offsets_of(lambda row: row["id"] > 297)) == [298, 299]
        assert run(r.expr([{"a": 1}, {}]).offsets_of(lambda row: row["a"] == 1)) == [0]
