"""JSON text, with the words of RethinkDB's parser for what is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ReqlQueryLogicError
from model.rapidjson import BadJson, parse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The document is empty."),
        ("  ", "The document is empty."),
        ("1 2", "The document root must not follow by other values."),
        ("01", "The document root must not follow by other values."),
        ("-", "Invalid value."),
        ("nan", "Invalid value."),
        ("tru", "Invalid value."),
        ("[1,]", "Invalid value."),
        ("{", "Missing a name for object member."),
        ("{'a': 1}", "Missing a name for object member."),
        ('{"a":1,}', "Missing a name for object member."),
        ('{"a" 1}', "Missing a colon after a name of object member."),
        ('{"a":1 "b"', "Missing a comma or '}' after an object member."),
        ("[1,2", "Missing a comma or ']' after an array element."),
        ('"a', "Missing a closing quotation mark in string."),
        ('"\\x"', "Invalid escape character in string."),
        ('"\n"', "Invalid escape character in string."),
        ('"\\u12g4"', "Incorrect hex digit after \\u escape in string."),
        ('"\\ud800"', "The surrogate pair in string is invalid."),
        ("1.", "Miss fraction part in number."),
        ("1e", "Miss exponent in number."),
        ("1e400", "Number too big to be stored in double."),
        ("[" * 3000, "Invalid value."),
        ("[" * 3000 + "]" * 3000, "The document is nested deeper than 1000 levels."),
        ('"\\udc00"', "Unspecific syntax error."),
    ],
)
def test_faults(text, message):
    with pytest.raises(BadJson) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_key_may_not_come_twice():
    with pytest.raises(ReqlQueryLogicError, match=r'^Duplicate key "a" in JSON\.$'):
        parse('[{"a":1,"b":{"a":2},"a":3}]')
    assert parse('{"a":{"a":1}}') == {"a": {"a": 1}}


def test_large_whole_numbers_in_objects_are_doubles():
    assert repr(parse('{"a":123456789012345678901234567890}')) == "{'a': 1.2345678901234568e+29}"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_json_is_read(value):
    assert parse(json.dumps(value)) == json.loads(json.dumps(value), parse_int=float)


@given(st.text('[]{}",:1.e-tn\\u ', max_size=12))
def test_the_reason_is_found_for_all_that_is_not_json(text):
    try:
        parse(text)
    except BadJson as error:
        assert str(error) != "Unspecific syntax error."
    except ReqlQueryLogicError:
        pass
