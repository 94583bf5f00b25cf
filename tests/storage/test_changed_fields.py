"""Which fields two texts of a row differ in: never too few, whatever the fields and the texts."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.changed_fields import can_be_compared, differing, union

NAMES = ["a", "b", "id", "a b", "A", "a.b", "field0"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)
ROWS = st.dictionaries(st.sampled_from([*NAMES, "ä", 'quo"te', "back\\slash"]), VALUES, max_size=6)


@given(ROWS, ROWS, st.sets(st.sampled_from(NAMES)))
def test_fields_that_are_not_named_have_equal_texts(old: dict, new: dict, fields: set[str]) -> None:
    found = differing(frozenset(fields))(orjson.dumps(old), orjson.dumps(new))
    texts = [{name: orjson.dumps(row[name]) for name in fields if name in row} for row in (old, new)]
    assert set(found) == {name for name in fields if texts[0].get(name) != texts[1].get(name)}


def test_equal_numbers_of_other_kinds_differ() -> None:
    """True and 1 are equal in Python, and not the same key."""
    look = differing(frozenset(["n"]))
    assert list(look(b'{"n":1}', b'{"n":true}')) == ["n"]
    assert list(look(b'{"n":1}', b'{"n":1.0}')) == ["n"]
    assert list(look(b'{"n":1}', b'{"n":1,"m":2}')) == []
    assert list(look(b'{"n":1}', b"{}")) == ["n"]


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b'{"n":\xff}'])
def test_what_cannot_be_read_may_differ_in_all(text: bytes) -> None:
    assert set(differing(frozenset(["n", "m"]))(b'{"n":1,"m":1}', text)) == {"n", "m"}


def test_names_that_would_be_written_in_another_way_are_not_compared() -> None:
    assert can_be_compared(frozenset(NAMES)) and can_be_compared(frozenset())
    for name in ["", "ä", 'quo"te', "back\\slash", "line\n", "\x7f"]:
        assert not can_be_compared(frozenset(["a", name])), name
    plain = frozenset(chr(code) for code in range(32, 127) if chr(code) not in '"\\')
    row = orjson.dumps(dict.fromkeys(plain, 1))
    assert can_be_compared(plain) and set(differing(plain)(row, b"{}")) == plain


def test_union() -> None:
    assert union([frozenset("ab"), None, frozenset("bc")]) == frozenset("abc")
    assert union([None]) == frozenset()
