"""Bytes to text, with RethinkDB's words for bytes that are no UTF-8.

One rule: text in data is always valid UTF-8, so bytes become text only here or in a JSON parser.
"""

from __future__ import annotations

from model.errors import ReqlQueryLogicError

_SMALLEST = {2: 0x80, 3: 0x800, 4: 0x10000}


def as_text(raw: bytes) -> str:
    """The text; raises ReqlQueryLogicError that says what is wrong and where."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        at, reason = _first_fault(raw, error.start)
        begin = raw[: min(at, 20)].decode(errors="ignore")
        raise ReqlQueryLogicError(
            f"String `{begin}` (truncated) is not a UTF-8 string; {reason} at position {at}."
        ) from None


def _first_fault(raw: bytes, start: int) -> tuple[int, str]:
    """(position, reason) of the fault in the character that begins at `start`."""
    first = raw[start]
    length = 2 if first >> 5 == 0b110 else 3 if first >> 4 == 0b1110 else 4 if first >> 3 == 0b11110 else 0
    if not length:
        return start, "Invalid initial byte seen"
    code = first & (0x7F >> length)
    for at in range(start + 1, start + length):
        if at >= len(raw):
            return at, "Expected continuation byte, saw end of string"
        if raw[at] >> 6 != 0b10:
            return at, "Expected continuation byte, saw something else"
        code = code << 6 | raw[at] & 0x3F
    if code < _SMALLEST[length]:
        return start, "Overlong encoding seen"
    return start, "Non-Unicode character encoded (beyond U+10FFFF)"
