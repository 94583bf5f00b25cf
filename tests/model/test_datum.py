"""Data as it comes in and goes out."""

from __future__ import annotations

import pytest

from model.datum import canonical, checked_object, dumps, loads, merge, number, parse_json, to_int
from model.errors import ReqlNonExistenceError, ReqlQueryLogicError
from model.kinds import MAXVAL, MINVAL, expect, raw_type_name, type_name

LITERAL = "$reql_type$"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1.0", "1"), ("-0.0", "-0.0"), ("9007199254740993", "9007199254740992"), ("1e3", "1000"), ("1.5", "1.5")],
)
def test_numbers_come_in_as_doubles(given, expected):
    assert repr(parse_json(given)) == expected


def test_numbers_beyond_2_to_53_are_floats():
    assert (
        repr(parse_json("[123456789012345678, 36893488147419103232]"))
        == "[1.2345678901234568e+17, 3.6893488147419103e+19]"
    )


@pytest.mark.parametrize(("value", "text"), [(1e308 * 10, "inf"), (-1e308 * 10, "-inf"), (10**400, "inf")])
def test_numbers_must_be_finite(value, text):
    with pytest.raises(ReqlQueryLogicError, match=f"^Non-finite number: {text}$"):
        number(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "Number not an integer: 1.5"),
        (1e300, "Number not an integer (>2^53): 1.0000000000000000525e+300"),
        (-1e300, "Number not an integer (<-2^53): -1.0000000000000000525e+300"),
    ],
)
def test_whole_numbers_are_asked_for(value, message):
    with pytest.raises(ReqlQueryLogicError) as caught:
        to_int(value)
    assert caught.value.message == message
    assert to_int(-0.0) == 0


@pytest.mark.parametrize(
    ("datum", "name"),
    [
        (1, "NUMBER"),
        (1.5, "NUMBER"),
        (True, "BOOL"),
        (None, "NULL"),
        ("", "STRING"),
        ([], "ARRAY"),
        ({}, "OBJECT"),
        ({LITERAL: "TIME"}, "PTYPE<TIME>"),
        (MINVAL, "MINVAL"),
        (MAXVAL, "MAXVAL"),
    ],
)
def test_types_have_rethinkdb_s_names(datum, name):
    assert type_name(datum) == name


def test_only_binaries_have_a_raw_type_of_their_own():
    assert raw_type_name({LITERAL: "TIME"}) == "OBJECT"
    assert raw_type_name({LITERAL: "BINARY"}) == "PTYPE<BINARY>"


def test_a_wrong_null_is_an_absence_and_a_wrong_value_is_not():
    with pytest.raises(ReqlNonExistenceError, match=r"^Expected type STRING but found NULL\.$"):
        expect(None, "STRING")
    with pytest.raises(ReqlQueryLogicError, match=r"^Expected type STRING but found NUMBER\.$"):
        expect(1, "STRING")


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        ({LITERAL: "DUCK"}, "Unknown $reql_type$ `PTYPE<DUCK>`."),
        (
            {LITERAL: 1},
            'Error: Field `$reql_type$` must be a string (got `1` of type NUMBER):\n{\n\t"$reql_type$":\t1\n}',
        ),
        ({LITERAL: "LITERAL", "x": 1}, "Invalid literal term with illegal key `x`."),
        ({LITERAL: "BINARY", "a": 1}, "Invalid binary pseudotype: illegal `a` key."),
        ({LITERAL: "BINARY"}, "Invalid binary pseudotype: lacking `data` key."),
        ({LITERAL: "BINARY", "data": "a"}, "Invalid base64 length: 1 character remaining, cannot decode a full byte."),
        ({LITERAL: "BINARY", "data": "a-"}, "Invalid base64 character found: '-'."),
        ({LITERAL: "BINARY", "data": "YQ==YQ"}, "Invalid base64 format, data found after padding character '='."),
        ({LITERAL: "GEOMETRY", "type": "Point"}, "Field `coordinates` not found in geometry object."),
        ({LITERAL: "GEOMETRY", "coordinates": []}, "Field `type` not found in geometry object."),
        ({LITERAL: "GEOMETRY", "x": 1}, "Unrecognized field `x` found in geometry object."),
        ({LITERAL: "GEOMETRY", "coordinates": 1}, "Expected type ARRAY but found NUMBER."),
    ],
)
def test_invalid_pseudo_types_are_refused_in_rethinkdb_s_words(datum, message):
    with pytest.raises(ReqlQueryLogicError) as caught:
        canonical(datum)
    assert caught.value.message == message


def test_pseudo_types_come_into_their_one_form_at_any_depth():
    datum = canonical(
        {"a": [{LITERAL: "BINARY", "data": " YQ\n"}, {LITERAL: "TIME", "epoch_time": 1.23456, "timezone": "Z"}]}
    )
    assert datum["a"][0]["data"] == "YQ=="
    assert datum["a"][1] == {LITERAL: "TIME", "epoch_time": 1.235, "timezone": "+00:00"}


def test_literals_are_data_only_where_they_are_expected():
    literal = {LITERAL: "LITERAL", "value": 1}
    assert canonical({"a": literal}) == {"a": literal}
    with pytest.raises(ReqlQueryLogicError, match=r"^Stray literal keyword found"):
        checked_object(literal)


def test_rows_are_json_with_sorted_keys():
    assert dumps({"b": 1, "a": -0.0, "é": "é"}) == '{"a":-0.0,"b":1,"é":"é"}'.encode()


def test_rows_may_be_deeper_than_the_fast_printer_goes():
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    assert dumps(deep) == b"[" * 401 + b"]" * 401
    assert loads(dumps(deep)) == deep


@pytest.mark.parametrize(("datum", "name"), [([MINVAL], "minval"), ({"a": {"b": MAXVAL}}, "maxval")])
def test_extrema_have_no_json(datum, name):
    with pytest.raises(ReqlQueryLogicError, match=f"^Cannot convert `r.{name}` to JSON.$"):
        dumps(datum)


def test_merging_goes_into_objects_but_not_into_arrays_or_binaries():
    binary = {LITERAL: "BINARY", "data": "YQ=="}
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2], "d": 3}}) == {"a": {"b": 1, "c": [2], "d": 3}}
    assert merge({"a": {"b": 1}}, {"a": binary}) == {"a": binary}
    assert merge({"a": binary}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert merge(1, {"a": 1}) == {"a": 1}


def test_merging_into_a_time_must_leave_a_time():
    time = {LITERAL: "TIME", "epoch_time": 1, "timezone": "+00:00"}
    assert merge({"a": time}, {"a": {"epoch_time": 2}})["a"]["epoch_time"] == 2
    with pytest.raises(ReqlQueryLogicError, match="unrecognized field `b`"):
        merge({"a": time}, {"a": {"b": 2}})


def test_literals_inside_arrays_are_unwrapped():
    assert merge({}, {"a": [{LITERAL: "LITERAL", "value": 1}, {LITERAL: "LITERAL"}, 2]}) == {"a": [1, 2]}
