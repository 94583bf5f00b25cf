"""Laws of data: canonical form, text and merging."""

from __future__ import annotations

import copy
import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from model.datum import (
    canonical,
    drop_literals,
    dumps,
    has_literals,
    json_text,
    loads,
    merge,
    merge_plain,
    number,
    parse_json,
    print_datum,
)
from model.errors import ReqlError
from model.grisu import digits_of
from model.order import equal
from tests.laws.data import data, numbers


@given(data)
def test_what_is_canonical_stays_as_it_is(datum):
    before = copy.deepcopy(datum)
    assert repr(canonical(copy.deepcopy(datum))) == repr(before)


@given(data)
def test_a_stored_row_reads_back_the_same_and_is_written_the_same(datum):
    row = dumps(datum)
    again = loads(row)
    assert repr(canonical(copy.deepcopy(again))) == repr(again)
    assert equal(again, datum)
    assert dumps(again) == row


@given(data)
def test_every_text_form_is_json_of_the_same_datum(datum):
    for text in (json_text(datum), print_datum(datum), dumps(datum)):
        assert equal(canonical(json.loads(text)), datum)
        assert equal(parse_json(text), datum)


@given(st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_ints_just_when_a_double_is_whole_and_exact(value):
    result = number(value)
    assert result == float(value)
    whole = float(value).is_integer() and abs(value) <= 2**53 and str(float(value)) != "-0.0"
    assert type(result) is (int if whole else float) or abs(value) == 2**53 + 1


@given(numbers)
def test_a_number_s_text_has_the_same_value(value):
    assert float(json_text(value)) == value


@given(st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False))
def test_the_digits_of_a_number_are_17_at_most_and_read_back(value):
    digits, place = digits_of(value)
    assert len(digits) <= 17
    assert digits[0] != "0"
    assert float(f"{digits}e{place}") == value


@given(data, data)
def test_merging_leaves_its_arguments_alone(left, right):
    before = copy.deepcopy((left, right))
    with suppress(ReqlError):  # what would be no time or no geometry is refused
        merge(left, right)
    assert (left, right) == before


@given(st.dictionaries(st.text("abc", max_size=2), data, max_size=4), data)
def test_a_literal_replaces_and_an_empty_one_removes(left, value):
    assert merge(left, {"a": {"$reql_type$": "LITERAL", "value": value}})["a"] == value
    assert "a" not in merge(left, {"a": {"$reql_type$": "LITERAL"}})


@given(data, data)
def test_without_literals_a_plain_merge_is_the_same(left, right):
    assert not has_literals(right)
    with suppress(ReqlError):
        assert dumps(merge_plain(left, right)) == dumps(merge(left, right))


@given(data)
def test_without_literals_nothing_is_dropped(datum):
    assert drop_literals(datum) is datum
