"""Binaries: `{"$reql_type$": "BINARY", "data": base64}`.

One rule: `data` is always in the one form that RethinkDB prints (lines of 76 letters parted by
CR LF, padded), so that equal bytes are equal text.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, Final

from model.errors import ReqlQueryLogicError
from model.kinds import BINARY, PTYPE_KEY, expect

_SPACE: Final = re.compile(r"[\r\n \t]+")
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9+/]")
_LINE: Final = 76
_LINE_BYTES: Final = 57


def encode_base64(raw: bytes) -> str:
    """Base64 in lines of 76 letters."""
    if len(raw) <= _LINE_BYTES:
        return binascii.b2a_base64(raw, newline=False).decode()
    text = binascii.b2a_base64(raw, newline=False).decode()
    return "\r\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))


def decode_base64(text: str) -> bytes:
    """The bytes; white space is skipped, padding may lack. Raises ReqlQueryLogicError."""
    letters, _, after = text.partition("=")
    letters = _SPACE.sub("", letters)
    if illegal := _ILLEGAL.search(letters):
        raise ReqlQueryLogicError(f"Invalid base64 character found: '{illegal[0]}'.")
    if len(letters) % 4 == 1:
        raise ReqlQueryLogicError(
            "Invalid base64 length: 1 character remaining, cannot decode a full byte.",
        )
    if after.strip("=\r\n \t"):
        raise ReqlQueryLogicError("Invalid base64 format, data found after padding character '='.")
    return binascii.a2b_base64(letters + "=" * (-len(letters) % 4))


def make_binary(raw: bytes) -> dict[str, Any]:
    """The datum for these bytes."""
    return {PTYPE_KEY: BINARY, "data": encode_base64(raw)}


def binary_bytes(datum: dict[str, Any]) -> bytes:
    """The bytes of a (validated) binary datum."""
    return binascii.a2b_base64(datum["data"])


def validated(datum: dict[str, Any]) -> dict[str, Any]:
    """The binary in its one form; raises ReqlQueryLogicError when its fields are not those of a binary."""
    raw: bytes | None = None
    for key in sorted(datum):
        if key == PTYPE_KEY:
            continue
        if key != "data":
            raise ReqlQueryLogicError(f"Invalid binary pseudotype: illegal `{key}` key.")
        expect(datum["data"], "STRING")
        raw = decode_base64(datum["data"])
    if raw is None:
        raise ReqlQueryLogicError("Invalid binary pseudotype: lacking `data` key.")
    return make_binary(raw)
