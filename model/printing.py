"""Data as text, letter for letter as RethinkDB prints it in messages, `to_json_string` and `coerce_to`.

One rule: what a driver only parses may be printed faster (`model.datum.dumps`); what a person or a
program reads as text comes from here. RethinkDB prints with rapidjson, whose floats and escapes
differ from other printers, and whose pretty printer loses its indentation around binaries.
"""

from __future__ import annotations

import math
import re
from typing import Final

import orjson

from model.errors import ReqlQueryLogicError
from model.grisu import digits_of
from model.kinds import BINARY, MINVAL, PTYPE_KEY, Datum, Extremum

TRUNCATE_AT: Final = 300  # bytes of a datum that fit in a message

# Fractions, exponents, control characters; it may also hit text in a string, which is only slower.
_UNLIKE_RAPIDJSON: Final = re.compile(rb"\d[.eE][+-]?\d|\\u00[01][0-9a-f]")


def number_text(number: int | float) -> str:
    """A number as rapidjson writes it: plain digits for 1e-6 <= |x| < 1e21, else an exponent without `+`."""
    if type(number) is int:
        return str(number)
    if number == 0:
        return "-0.0" if math.copysign(1, number) < 0 else "0.0"
    sign = "-" if number < 0 else ""
    digits, place = digits_of(abs(number))
    point = len(digits) + place  # how many digits stand before the decimal point
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * place}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1}"


def printf_g(number: float) -> str:
    """A number as C's `%.20g` prints it, the form in most messages about numbers."""
    return f"{float(number):.20g}"


def string_text(text: str) -> str:
    """A JSON string in quotes; control characters in upper-case hexadecimal."""
    raw = orjson.dumps(text).decode()
    if "\\u00" in raw:
        raw = re.sub(r"(?<!\\)((?:\\\\)*)\\u00(1[0-9a-f]|0[0-9a-f])", lambda m: f"{m[1]}\\u00{m[2].upper()}", raw)
    return raw


def refuse_extremum(datum: Extremum) -> ReqlQueryLogicError:
    """The error for `r.minval` or `r.maxval` where JSON is wanted."""
    return ReqlQueryLogicError(f"Cannot convert `r.{'minval' if datum is MINVAL else 'maxval'}` to JSON.")


def json_text(datum: Datum) -> str:
    """Compact JSON with sorted keys, exactly as `to_json_string` gives it."""
    try:
        raw = orjson.dumps(datum, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raw = b""  # too deep for orjson, or an extremum
    if raw and not _UNLIKE_RAPIDJSON.search(raw):
        return raw.decode()
    out: list[str] = []
    _write(datum, out)
    return "".join(out)


def _write(datum: Datum, out: list[str]) -> None:
    kind = type(datum)
    if kind is str:
        out.append(string_text(datum))
    elif kind is list:
        out.append("[")
        for place, item in enumerate(datum):
            if place:
                out.append(",")
            _write(item, out)
        out.append("]")
    elif kind is dict:
        out.append("{")
        for place, key in enumerate(sorted(datum)):
            out.append(f",{string_text(key)}:" if place else f"{string_text(key)}:")
            _write(datum[key], out)
        out.append("}")
    else:
        out.append(_scalar_text(datum))


def _scalar_text(datum: Datum) -> str:
    if datum is None:
        return "null"
    if datum is True:
        return "true"
    if datum is False:
        return "false"
    if type(datum) is Extremum:
        raise refuse_extremum(datum)
    return number_text(datum)


def print_datum(datum: Datum) -> str:
    """JSON over several lines, indented with tabs, with a tab after each colon: the form in messages."""
    kind = type(datum)
    if kind is str:
        return string_text(datum)
    if kind is not list and kind is not dict:
        return _scalar_text(datum)
    out: list[str] = []
    _write_pretty(datum, out, 0)
    return "".join(out)


def _is_binary(datum: Datum) -> bool:
    return type(datum) is dict and datum.get(PTYPE_KEY) == BINARY


def _write_pretty(datum: Datum, out: list[str], depth: int) -> None:
    """Binaries stand compact, without the line break, indent or tab that would come before them."""
    kind = type(datum)
    if kind is str:
        out.append(string_text(datum))
    elif kind is list:
        indent = "\n" + "\t" * (depth + 1)
        out.append("[")
        for place, item in enumerate(datum):
            if place:
                out.append(",")
            if not _is_binary(item):
                out.append(indent)
            _write_pretty(item, out, depth + 1)
        out.append(indent[:-1] + "]" if datum else "]")
    elif kind is dict:
        if datum.get(PTYPE_KEY) == BINARY:
            _write(datum, out)
            return
        indent = "\n" + "\t" * (depth + 1)
        out.append("{")
        for place, key in enumerate(sorted(datum)):
            item = datum[key]
            out.append(f"{',' if place else ''}{indent}{string_text(key)}:{'' if _is_binary(item) else chr(9)}")
            _write_pretty(item, out, depth + 1)
        out.append(indent[:-1] + "}" if datum else "}")
    else:
        out.append(_scalar_text(datum))


def truncate(text: str) -> str:
    """At most 300 bytes of text; what is longer ends in `...`."""
    if len(text) * 4 <= TRUNCATE_AT:
        return text
    raw = text.encode()
    if len(raw) <= TRUNCATE_AT:
        return text
    return raw[: TRUNCATE_AT - 3].decode(errors="ignore") + "..."


def trunc_print(datum: Datum) -> str:
    """`print_datum`, cut to 300 bytes."""
    return truncate(print_datum(datum))


def quoted_bytes(raw: bytes) -> str:
    """Bytes in quotes for a message, everything but printable ASCII escaped."""
    escapes = {34: '\\"', 92: "\\\\", 10: "\\n", 9: "\\t", 13: "\\r"}
    return '"' + "".join(escapes.get(b) or (chr(b) if 32 <= b <= 126 else f"\\x{b:02x}") for b in raw) + '"'


def is_finite(number: float) -> bool:
    """Whether the number can be a datum at all."""
    return math.isfinite(number)
