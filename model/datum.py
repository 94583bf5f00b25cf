"""Data: what comes in is made canonical once, so that everything later may trust it.

A datum is canonical when its numbers are ints if whole and at most 2**53 in size (but -0.0 stays a
float) and floats otherwise, always finite, and its pseudo-types are valid and in their one form.
One rule: whatever comes from a driver goes through `canonical`; what is read back from storage was
canonical when written and is only parsed (`loads`).

This module is the door to the rest of the family: kinds (names), printing (text), pseudo_*.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import orjson

from model import pseudo_binary, pseudo_geometry, pseudo_time
from model.errors import ReqlQueryLogicError, ReqlResourceLimitError
from model.kinds import (
    BINARY,
    GEOMETRY,
    GROUPED_DATA,
    LITERAL,
    MAXVAL,
    MINVAL,
    PTYPE_KEY,
    TIME,
    Datum,
    Extremum,
    expect,
    fail_typed,
    is_number,
    is_object,
    is_ptype,
    raw_type_name,
    type_name,
)
from model.printing import json_text, number_text, print_datum, printf_g, refuse_extremum, trunc_print

__all__ = [
    "ABSENT",
    "BINARY",
    "GEOMETRY",
    "GROUPED_DATA",
    "LITERAL",
    "MAXVAL",
    "MAX_INT",
    "MINVAL",
    "PTYPE_KEY",
    "TIME",
    "Datum",
    "canonical",
    "checked_object",
    "drop_literals",
    "dumps",
    "expect",
    "fail_typed",
    "has_literals",
    "is_number",
    "is_object",
    "is_ptype",
    "json_text",
    "loads",
    "merge",
    "merge_plain",
    "number",
    "number_text",
    "parse_json",
    "print_datum",
    "printf_g",
    "raw_type_name",
    "to_int",
    "trunc_print",
    "type_name",
]

MAX_INT: Final = 2**53  # the largest number up to which every whole double is exact

ABSENT: Final = object()  # what a literal without a value comes to: the field is dropped


def number(value: int | float) -> int | float:
    """A computed number in canonical form; raises ReqlQueryLogicError if it is not finite."""
    if type(value) is int:
        if -MAX_INT <= value <= MAX_INT:
            return value
        try:
            value = float(value)
        except OverflowError:
            value = math.inf if value > 0 else -math.inf
    if -MAX_INT <= value <= MAX_INT:
        whole = int(value)
        if whole == value and (whole or math.copysign(1.0, value) > 0):
            return whole
        return value
    if value - value != 0:
        text = "nan" if value != value else "inf" if value > 0 else "-inf"
        raise ReqlQueryLogicError(f"Non-finite number: {text}")
    return value


def to_int(value: int | float) -> int:
    """The whole number in a NUMBER datum; raises `Number not an integer ...`."""
    if type(value) is int:
        return value
    if value == 0:
        return 0  # -0.0
    size = " (<-2^53)" if value < -MAX_INT else " (>2^53)" if value > MAX_INT else ""
    raise ReqlQueryLogicError(f"Number not an integer{size}: {printf_g(value)}")


def canonical(value: Any) -> Datum:
    """What a JSON parser gave, as a datum. Containers are changed in place; literals may stay anywhere.

    Raises ReqlQueryLogicError for numbers beyond a double and for invalid pseudo-types.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            kind = type(item)
            if kind is str:
                continue
            if kind is int:
                if not -MAX_INT <= item <= MAX_INT:
                    value[key] = number(item)
            elif kind is float:
                if item.is_integer() or item - item != 0:
                    value[key] = number(item)
            elif kind is dict or kind is list:
                value[key] = canonical(item)
        return checked_object(value, literal_ok=True) if PTYPE_KEY in value else value
    if kind is list:
        for place, item in enumerate(value):
            kind = type(item)
            if kind is str:
                continue
            if kind is int:
                if not -MAX_INT <= item <= MAX_INT:
                    value[place] = number(item)
            elif kind is float:
                if item.is_integer() or item - item != 0:
                    value[place] = number(item)
            elif kind is dict or kind is list:
                value[place] = canonical(item)
        return value
    return number(value) if kind is int or kind is float else value


def checked_object(datum: dict[str, Any], literal_ok: bool = False) -> dict[str, Any]:
    """An object just put together: if it claims to be a pseudo-type, it is validated and put in its one form.

    Raises RethinkDB's error for an unknown or invalid pseudo-type, and for a literal unless `literal_ok`.
    """
    name = datum.get(PTYPE_KEY, ABSENT)
    if name is ABSENT:
        return datum
    if type(name) is not str:
        raise ReqlQueryLogicError(
            f"Error: Field `{PTYPE_KEY}` must be a string (got `{trunc_print(name)}` of type {type_name(name)}):\n"
            f"{trunc_print(datum)}"
        )
    if name == TIME:
        return pseudo_time.validated(datum)
    if name == BINARY:
        return pseudo_binary.validated(datum)
    if name == GEOMETRY:
        return pseudo_geometry.validated(datum)
    if name == LITERAL:
        if not literal_ok:
            raise ReqlQueryLogicError(
                "Stray literal keyword found: literal is only legal inside of the object passed to merge or update "
                "and cannot nest inside other literals."
            )
        for key in sorted(datum):
            if key not in (PTYPE_KEY, "value"):
                raise ReqlQueryLogicError(f"Invalid literal term with illegal key `{key}`.")
        return datum
    raise ReqlQueryLogicError(f"Unknown {PTYPE_KEY} `PTYPE<{name}>`.")


def _refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


def dumps(datum: Datum) -> bytes:
    """JSON with sorted keys, as a driver is sent it and as a row is stored.

    Extrema raise ReqlQueryLogicError, more than 1024 levels ReqlResourceLimitError.
    """
    try:
        return orjson.dumps(datum, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        _find_extremum(datum)
        # Deeper than orjson writes (254 levels): the standard library is slower and goes on.
        text = json.dumps(datum, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    try:
        orjson.loads(text)  # what is written has to be readable
    except orjson.JSONDecodeError:
        raise ReqlResourceLimitError("A value cannot be nested more than 1024 levels deep.") from None
    return text


def _find_extremum(datum: Datum) -> None:
    if type(datum) is Extremum:
        raise refuse_extremum(datum)
    if type(datum) is list:
        for item in datum:
            _find_extremum(item)
    elif type(datum) is dict:
        for key in sorted(datum):
            _find_extremum(datum[key])


loads: Final = orjson.loads  # a stored row: canonical already


def parse_json(text: bytes | str) -> Datum:
    """Any JSON text as a canonical datum; raises ValueError for bad JSON, ReqlQueryLogicError for bad data."""
    return canonical(orjson.loads(text))


def has_literals(datum: Datum) -> bool:
    """Whether there is a literal at any depth. Data have none, but for the arguments of merge and update."""
    kind = type(datum)
    if kind is dict:
        if PTYPE_KEY in datum:
            return bool(datum[PTYPE_KEY] == LITERAL)
        for item in datum.values():
            kind = type(item)
            if (kind is dict or kind is list) and has_literals(item):
                return True
    elif kind is list:
        for item in datum:
            kind = type(item)
            if (kind is dict or kind is list) and has_literals(item):
                return True
    return False


def drop_literals(datum: Datum) -> Datum:
    """The datum with every literal replaced by its value; ABSENT if it is itself a literal without one.

    The argument is left alone; it is the result if there are no literals in it.
    """
    if not has_literals(datum):
        return datum
    if type(datum) is list:
        items = [drop_literals(item) for item in datum]
        return [item for item in items if item is not ABSENT]
    if datum.get(PTYPE_KEY) == LITERAL:
        return datum.get("value", ABSENT)
    dropped = {key: drop_literals(item) for key, item in datum.items()}
    return checked_object({key: item for key, item in dropped.items() if item is not ABSENT})


def merge(left: Datum, right: Datum) -> Datum:
    """`left` with `right` laid over it, objects into objects at every depth; literals in `right` replace outright.

    Neither argument is changed. ABSENT if `right` is a literal without a value and there is nothing to merge into.
    """
    if type(left) is not dict or type(right) is not dict:
        return drop_literals(right)
    if (PTYPE_KEY in left or PTYPE_KEY in right) and not (is_object(left) and is_object(right)):
        return drop_literals(right)
    merged = {**left, **right}
    for key, item in right.items():
        kind = type(item)
        if kind is not dict and kind is not list:
            continue
        if kind is dict and key in left and item.get(PTYPE_KEY) != LITERAL and is_object(item):
            merged[key] = merge(left[key], item)
        elif has_literals(item):
            value = drop_literals(item)
            if value is ABSENT:
                del merged[key]
            else:
                merged[key] = value
    return checked_object(merged) if PTYPE_KEY in merged else merged


def check_layer(layer: Datum) -> None:
    """Raises RethinkDB's error for a whole object of a pseudo-type that is to be merged into another object."""
    if type(layer) is dict and PTYPE_KEY in layer and is_object(layer) and layer[PTYPE_KEY] != LITERAL:
        raise ReqlQueryLogicError(f"Cannot merge objects of type `{type_name(layer)}`.")


def merge_plain(left: Datum, right: Datum) -> Datum:
    """`merge` where it is known that there are no literals in `right`: only fields that both have are looked at."""
    if type(left) is not dict or type(right) is not dict or PTYPE_KEY in left or PTYPE_KEY in right:
        return merge(left, right)
    merged = {**left, **right}
    for key in left if len(left) < len(right) else right:
        if key in left and type(right.get(key)) is dict:
            merged[key] = merge(left[key], right[key])
    return merged
