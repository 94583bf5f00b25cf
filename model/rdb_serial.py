"""RethinkDB's own binary serialisation of small values, as far as its function blobs contain them.

A function that captured variables carries their values in this form (RethinkDB's
`rdb_protocol/serialize_datum.cc`). One rule: bytes come from strangers, so every length is checked
against what is left before anything is taken, and nesting is bounded.

    varint        base 128, low group first, high bit = more follows; at most 64 bits
    string        varint length, bytes
    datum         type byte, then
      1 ARRAY     varint count, datums                      (written before RethinkDB 2.1)
      2 BOOL      byte                     3 NULL           nothing
      4 DOUBLE    8 bytes, little endian   5 OBJECT         varint count, (string, datum)*   (old)
      6 STR       string                   7 INT_NEGATIVE   varint of the absolute value
      8 INT_POSITIVE varint                9 BINARY         string
     10 BUF_ARRAY varint size, varint count, offsets of all but the first element, datums
     11 BUF_OBJECT the same with (string, datum)*
     13 MINVAL   14 MAXVAL
"""

from __future__ import annotations

import binascii
import math
import struct
from typing import Any

from model.errors import UnfitArchive
from model.pseudo_binary import binary_bytes, make_binary

DATUM_DEPTH_MAX = 100
_INTEGER_MAX = 2**53
_VARINT_SHIFT_MAX = 63
(
    _ARRAY,
    _BOOL,
    _NULL,
    _DOUBLE,
    _OBJECT,
    _STR,
    _INT_NEGATIVE,
    _INT_POSITIVE,
    _BINARY,
    _BUF_ARRAY,
    _BUF_OBJECT,
) = range(1, 12)


class SerialReader:
    """Takes values off the front of `data`; every method raises UnfitArchive where bytes are missing or senseless."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    @property
    def remaining(self) -> int:
        return len(self.data) - self.offset

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size < 0 or size > self.remaining:
            raise UnfitArchive(f"{size} bytes expected at offset {self.offset}, {self.remaining} are left.")
        start = self.offset
        self.offset += size
        return self.data[start : self.offset]

    def byte(self, low: int, high: int, what: str) -> int:
        """One byte that must lie in [low, high]; `what` names it in the error."""
        value = self.take(1)[0]
        if not low <= value <= high:
            raise UnfitArchive(f"{what} is {value}, expected {low} to {high}.")
        return value

    def integer(self, size: int, signed: bool = False) -> int:
        """A little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def varint(self) -> int:
        """An unsigned integer of at most 64 bits in base 128."""
        value = shift = 0
        while True:
            group = self.take(1)[0]
            value |= (group & 0x7F) << shift
            if group < 0x80:
                break
            if shift == _VARINT_SHIFT_MAX:
                raise UnfitArchive(f"A number at offset {self.offset} is longer than 64 bits.")
            shift += 7
        if value >> 64:
            raise UnfitArchive(f"A number at offset {self.offset} is larger than 64 bits.")
        return value

    def count(self) -> int:
        """A varint that counts things of at least one byte each, so it cannot exceed what is left."""
        count = self.varint()
        if count > self.remaining:
            raise UnfitArchive(f"{count} elements announced at offset {self.offset}, {self.remaining} bytes are left.")
        return count

    def string(self) -> bytes:
        return self.take(self.varint())

    def text(self) -> str:
        try:
            return self.string().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnfitArchive(f"A string before offset {self.offset} is not UTF-8.") from error

    def datum(self, depth: int = 0) -> Any:
        """A value as a driver's JSON would hold it. MINVAL, MAXVAL and uninitialised values do not occur in scopes."""
        if depth > DATUM_DEPTH_MAX:
            raise UnfitArchive(f"A value is nested deeper than {DATUM_DEPTH_MAX} levels.")
        kind = self.byte(_ARRAY, _BUF_OBJECT, "The type of a value")
        if kind == _NULL:
            return None
        if kind == _BOOL:
            return self.byte(0, 1, "A boolean") == 1
        if kind in (_DOUBLE, _INT_NEGATIVE, _INT_POSITIVE):
            return self._number(kind)
        if kind == _STR:
            return self.text()
        if kind == _BINARY:
            return make_binary(self.string())
        return self._container(kind, depth)

    def _number(self, kind: int) -> int | float:
        if kind == _DOUBLE:
            number: float = struct.unpack("<d", self.take(8))[0]
            if not math.isfinite(number):
                raise UnfitArchive("A number is not finite.")
            return number
        magnitude = self.varint()
        if magnitude > _INTEGER_MAX:
            raise UnfitArchive(f"The integer {magnitude} is beyond 2^53.")
        if kind == _INT_POSITIVE:
            return magnitude
        return -magnitude if magnitude else -0.0

    def _container(self, kind: int, depth: int) -> Any:
        end = None
        if kind in (_BUF_ARRAY, _BUF_OBJECT):
            size = self.varint()
            if size > self.remaining:
                raise UnfitArchive(f"A value of {size} bytes announced, {self.remaining} are left.")
            end = self.offset + size
            count = self.count()
            self.take(max(count - 1, 0) * _offset_size(size))
        else:
            count = self.count()
        result: Any
        if kind in (_ARRAY, _BUF_ARRAY):
            result = [self.datum(depth + 1) for _ in range(count)]
        else:
            result = {self.text(): self.datum(depth + 1) for _ in range(count)}
        if end is not None and self.offset != end:
            raise UnfitArchive("A value is not as long as it says.")
        return result


def varint_bytes(value: int) -> bytes:
    """`value` (not negative) in base 128."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def string_bytes(value: bytes) -> bytes:
    return varint_bytes(len(value)) + value


def datum_bytes(value: Any) -> bytes:
    """The serialisation that RethinkDB 2.1 and later write; objects in key order, as RethinkDB keeps them."""
    if value is None:
        return bytes([_NULL])
    if isinstance(value, bool):
        return bytes([_BOOL, value])
    if isinstance(value, int | float):
        return _number_bytes(value)
    if isinstance(value, str):
        return bytes([_STR]) + string_bytes(value.encode("utf-8"))
    if isinstance(value, list):
        return bytes([_BUF_ARRAY]) + _container_bytes([datum_bytes(item) for item in value])
    if isinstance(value, dict):
        if value.get("$reql_type$") == "BINARY":
            return bytes([_BINARY]) + string_bytes(_binary(value))
        pairs = sorted((key.encode("utf-8"), item) for key, item in value.items())
        return bytes([_BUF_OBJECT]) + _container_bytes([string_bytes(key) + datum_bytes(item) for key, item in pairs])
    raise TypeError(f"not a datum: {type(value).__name__}")


def _number_bytes(value: int | float) -> bytes:
    if isinstance(value, float) and not (value.is_integer() and abs(value) <= _INTEGER_MAX):
        return bytes([_DOUBLE]) + struct.pack("<d", value)
    if abs(value) > _INTEGER_MAX:
        return bytes([_DOUBLE]) + struct.pack("<d", float(value))
    negative = math.copysign(1.0, value) < 0
    return bytes([_INT_NEGATIVE if negative else _INT_POSITIVE]) + varint_bytes(abs(int(value)))


def _binary(value: dict[str, Any]) -> bytes:
    try:
        return binary_bytes(value)
    except (KeyError, TypeError, binascii.Error) as error:
        raise TypeError("not a binary pseudo-type") from error


def _container_bytes(elements: list[bytes]) -> bytes:
    """Size, count, offset table, elements. The offsets' width follows from the whole size, and adds to it."""
    count = varint_bytes(len(elements))
    content = sum(map(len, elements))
    gaps = max(len(elements) - 1, 0)
    size = width = 0
    for width in (1, 2, 4, 8):
        size = content + len(count) + gaps * width
        if size < 1 << (8 * width):
            break
    table = bytearray()
    offset = 0
    for element in elements[:gaps]:
        offset += len(element)
        table += offset.to_bytes(width, "little")
    return varint_bytes(size) + count + bytes(table) + b"".join(elements)


def _offset_size(inner_size: int) -> int:
    return next(width for width in (1, 2, 4, 8) if inner_size < 1 << (8 * width))
