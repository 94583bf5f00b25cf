"""Bytes that are no text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ReqlQueryLogicError
from model.utf8 import as_text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xff", "Invalid initial byte seen at position 0."),
        (b"ab\x80", "Invalid initial byte seen at position 2."),
        (b"a\xc3", "Expected continuation byte, saw end of string at position 2."),
        (b"a\xc3b", "Expected continuation byte, saw something else at position 2."),
        (b"\xc0\x80", "Overlong encoding seen at position 0."),
        (b"\xf4\x90\x80\x80", "Non-Unicode character encoded (beyond U+10FFFF) at position 0."),
    ],
)
def test_faults(raw, reason):
    with pytest.raises(ReqlQueryLogicError) as caught:
        as_text(raw)
    assert caught.value.message.endswith(f"(truncated) is not a UTF-8 string; {reason}")


@given(st.text())
def test_text_comes_back(text):
    assert as_text(text.encode()) == text


@given(st.binary(max_size=6))
def test_all_bytes_are_either_text_or_refused(raw):
    try:
        assert as_text(raw).encode() == raw
    except ReqlQueryLogicError as error:
        assert "is not a UTF-8 string" in error.message
