"""Keys of bytes that sort as the data do, for rows and secondary indexes.

Format 1: a letter for the type, then
    A items, 00 | B f or t | N eight bytes, a double made sortable | PB bytes, 00 | PT eight bytes, the epoch |
    S UTF-8, 00 | @ minval | [ maxval
with 00 and 01 in text and binaries written as 01 01 and 01 02. The letters are RethinkDB's, the order is
that of `model.order`.

One rule: no key is the beginning of another one, so a key can be followed by anything, and all that begins
with a key lies in one `prefix_range`. Unlike RethinkDB's, index keys are never cut short.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from model.errors import ReqlError, ReqlQueryLogicError
from model.kinds import BINARY, GEOMETRY, MAXVAL, MINVAL, PTYPE_KEY, TIME, Datum, Extremum, fail_typed, type_name
from model.printing import print_datum, printf_g, quoted_bytes, trunc_print
from model.pseudo_binary import binary_bytes, make_binary
from model.pseudo_time import make_time

MAX_PRIMARY_KEY: Final = (
    128  # bytes in RethinkDB's own writing of a key: the message says 127, without its first letter
)
_LOOKED_AT: Final = 250  # RethinkDB looks at no item of an array beyond so many bytes

_pack_double: Final = struct.Struct(">d").pack
_unpack_double: Final = struct.Struct(">d").unpack
_ZERO: Final = b"\x80" + bytes(7)
_FLIP: Final = (1 << 64) - 1


def _double_key(value: int | float) -> bytes:
    """Eight bytes that sort as the numbers do; -0.0 is 0."""
    if value > 0:
        return _pack_double(-value)  # the same bits with the sign set: above every negative number
    if value == 0:
        return _ZERO
    return (int.from_bytes(_pack_double(value), "big") ^ _FLIP).to_bytes(8, "big")


def _double_from_key(raw: bytes) -> int | float:
    value: float
    if raw[0] & 0x80:
        value = abs(_unpack_double(raw)[0])
    else:
        value = _unpack_double((int.from_bytes(raw, "big") ^ _FLIP).to_bytes(8, "big"))[0]
    return int(value) if abs(value) <= 2**53 and value == int(value) else value


def _escape(raw: bytes) -> bytes:
    if b"\x00" in raw or b"\x01" in raw:
        return raw.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return raw


def _unescape(raw: bytes) -> bytes:
    if b"\x01" in raw:
        return raw.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    return raw


def _encode(datum: Datum) -> bytes:
    """Key bytes of what a key may hold, extrema included; callers have refused null and plain objects."""
    kind = type(datum)
    if kind is str:
        if len(datum) < MAX_PRIMARY_KEY and datum.isascii() and datum.isprintable():  # a third of what follows
            return f"S{datum}\0".encode()
        raw: bytes = datum.encode()
        return b"S" + (_escape(raw) if b"\x00" in raw or b"\x01" in raw else raw) + b"\x00"
    if kind is int or kind is float:
        return b"N" + (_pack_double(-datum) if datum > 0 else _double_key(datum))
    if kind is bool:
        return b"Bt" if datum else b"Bf"
    if kind is list:
        return b"A" + b"".join(map(_encode, datum)) + b"\x00"
    if kind is Extremum:
        return b"@" if datum is MINVAL else b"["
    if datum[PTYPE_KEY] == TIME:
        return b"PT" + _double_key(datum["epoch_time"])
    return b"PB" + _escape(binary_bytes(datum)) + b"\x00"


# ---- what may be a key -----------------------------------------------------------------------------------------


def _check_ptype(datum: dict[str, Any]) -> None:
    name = datum[PTYPE_KEY]
    if name == GEOMETRY:
        raise ReqlQueryLogicError(
            "Cannot use a geometry value as a key value in a primary or non-geospatial secondary index."
        )
    if name not in (TIME, BINARY):
        raise ReqlQueryLogicError(
            f"Cannot use pseudotype {type_name(datum)} as a primary or secondary key value .",
        )


def _check_text(text: str) -> None:
    at = text.find("\x00")
    if at >= 0:
        raw = text.encode()
        raise ReqlQueryLogicError(
            f"String {quoted_bytes(raw[:20])} (truncated) contains NULL byte at offset {raw.index(0)} in index key."
        )


def _check_items(items: list[Datum], extrema_ok: bool, nulls_ok: bool) -> None:
    for item in items:
        kind = type(item)
        if kind is list:
            _check_items(item, extrema_ok, nulls_ok)
        elif kind is str:
            if not nulls_ok:
                _check_text(item)
        elif kind is Extremum:
            if not extrema_ok:
                raise ReqlQueryLogicError("Cannot use `r.minval` or `r.maxval` in an index key.")
        elif kind is dict and PTYPE_KEY in item:
            _check_ptype(item)
        elif kind is dict or item is None:
            fail_typed(
                item,
                "Array keys can only contain numbers, strings, bools,  pseudotypes, or arrays "
                f"(got {print_datum(item)} of type {type_name(item)}).",
            )


def _rethinkdb_size(datum: Datum, before: int = 0) -> int:
    """How many bytes RethinkDB's own key of the datum has, after `before` bytes; past its limit any number does."""
    kind = type(datum)
    if kind is str:
        return before + 1 + len(datum.encode())
    if kind is bool:
        return before + 2
    if kind is list:
        size = before + 1
        for item in datum:
            if size >= _LOOKED_AT:
                break
            size = _rethinkdb_size(item, size) + 1
        return size
    if kind is int or kind is float:
        return before + 18 + len(printf_g(datum))
    if kind is Extremum:
        return before + 1
    if datum[PTYPE_KEY] == TIME:
        return before + 24 + len(printf_g(datum["epoch_time"]))
    return before + 8 + len(_escape(binary_bytes(datum)))


def _check_primary(datum: Datum) -> None:
    kind = type(datum)
    if kind is list:
        _check_items(datum, extrema_ok=True, nulls_ok=False)
    elif kind is str:
        _check_text(datum)
    elif kind is dict and PTYPE_KEY in datum:
        _check_ptype(datum)
    elif kind is dict or datum is None:
        fail_typed(
            datum,
            "Primary keys must be either a number, string, bool, pseudotype or array "
            f"(got type {type_name(datum)}):\n{trunc_print(datum)}",
        )


def primary_key_bytes(datum: Datum) -> bytes:
    """The storage key of the row with this primary key; raises RethinkDB's errors for what cannot be one."""
    kind = type(datum)
    if kind is str:
        if len(datum) < MAX_PRIMARY_KEY and datum.isascii() and datum.isprintable():  # a third of what follows
            return f"S{datum}\0".encode()
        raw: bytes = datum.encode()
        if len(raw) < MAX_PRIMARY_KEY and b"\x00" not in raw:
            return b"S" + (raw if b"\x01" not in raw else _escape(raw)) + b"\x00"
    elif kind is int or kind is float:
        return b"N" + _double_key(datum)
    _check_primary(datum)
    if kind is not bool and _rethinkdb_size(datum) > MAX_PRIMARY_KEY:
        raise ReqlQueryLogicError(
            f"Primary key too long (max {MAX_PRIMARY_KEY - 1} characters): {print_datum(datum)}",
        )
    return _encode(datum)


def index_key_bytes(datum: Datum) -> bytes:
    """The key of a secondary index entry; raises RethinkDB's errors for what cannot be indexed."""
    kind = type(datum)
    if kind is str or kind is int or kind is float:
        return _encode(datum)
    if kind is list:
        _check_items(datum, extrema_ok=False, nulls_ok=True)
    elif kind is dict and PTYPE_KEY in datum:
        _check_ptype(datum)
    elif kind is dict or datum is None or kind is Extremum:
        fail_typed(
            datum,
            "Secondary keys must be a number, string, bool, pseudotype, or array "
            f"(got type {type_name(datum)}):\n{trunc_print(datum)}",
        )
    return _encode(datum)


def index_keys(value: Datum, multi: bool) -> list[bytes]:
    """All index keys for what an index function gave: items that cannot be indexed are left out, as RethinkDB does."""
    keys: list[bytes] = []
    for item in value if multi and type(value) is list else (value,):
        try:
            keys.append(index_key_bytes(item))
        except ReqlError:
            continue
    return keys


# ---- bounds ----------------------------------------------------------------------------------------------------


def bound_key(datum: Datum, primary: bool) -> bytes:
    """The key of a bound of `between`, or of what `get_all` looks for in an index. Extrema are welcome anywhere."""
    if primary:
        _check_primary(datum)
        return _encode(datum)
    kind = type(datum)
    if kind is list:
        _check_items(datum, extrema_ok=True, nulls_ok=True)
    elif kind is dict and PTYPE_KEY in datum:
        _check_ptype(datum)
    elif kind is dict or datum is None:
        fail_typed(
            datum,
            "Secondary keys must be a number, string, bool, pseudotype, or array "
            f"(got {print_datum(datum)} of type {type_name(datum)}).",
        )
    return _encode(datum)


def after_prefix(key: bytes) -> bytes:
    """The first bytes after everything that begins with `key` (which is never all FF)."""
    trimmed = key.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def prefix_range(key: bytes) -> tuple[bytes, bytes]:
    """[low, high) of all that begins with `key`: the entries of an index with that very key."""
    return key, after_prefix(key)


def key_range(
    low: Datum, high: Datum, low_open: bool = False, high_open: bool = True, primary: bool = False
) -> tuple[bytes, bytes]:
    """[low, high) of key bytes for `between`, whatever follows the keys in an index. Empty if low >= high."""
    low_key, high_key = bound_key(low, primary), bound_key(high, primary)
    return (after_prefix(low_key) if low_open else low_key, high_key if high_open else after_prefix(high_key))


# ---- back to data ----------------------------------------------------------------------------------------------


def key_end(raw: bytes, at: int = 0) -> int:
    """Where the key that begins at `at` ends."""
    letter = raw[at : at + 1]
    if letter == b"S":
        return raw.index(0, at) + 1
    if letter == b"N":
        return at + 9
    if letter == b"B":
        return at + 2
    if letter == b"P":
        return at + 10 if raw[at + 1 : at + 2] == b"T" else raw.index(0, at) + 1
    if letter == b"A":
        at += 1
        while raw[at]:
            at = key_end(raw, at)
    return at + 1


def _decode(raw: bytes, at: int) -> tuple[Datum, int]:
    letter, end = raw[at : at + 1], key_end(raw, at)
    if letter == b"S":
        return _unescape(raw[at + 1 : end - 1]).decode(), end
    if letter == b"N":
        return _double_from_key(raw[at + 1 : end]), end
    if letter == b"B":
        return raw[at + 1 : end] == b"t", end
    if letter == b"P":
        if raw[at + 1 : at + 2] == b"T":
            return make_time(_double_from_key(raw[at + 2 : end])), end
        return make_binary(_unescape(raw[at + 2 : end - 1])), end
    if letter == b"A":
        items: list[Datum] = []
        at += 1
        while raw[at]:
            item, at = _decode(raw, at)
            items.append(item)
        return items, end
    return (MINVAL if letter == b"@" else MAXVAL), end


def key_from_bytes(raw: bytes) -> Datum:
    """The datum at the beginning of `raw`, equal to what was encoded; zones of times and the sign of 0 are not kept."""
    return _decode(raw, 0)[0]
