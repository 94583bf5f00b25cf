"""What kinds of data there are, and the names that RethinkDB gives them.

One rule: a datum is a plain Python value (None, bool, int, float, str, list, dict); only the two
extrema have a class of their own. Pseudo-types are dicts with a `$reql_type$`.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from model.errors import ReqlNonExistenceError, ReqlQueryLogicError

Datum = Any

PTYPE_KEY: Final = "$reql_type$"
TIME: Final = "TIME"
BINARY: Final = "BINARY"
GEOMETRY: Final = "GEOMETRY"
LITERAL: Final = "LITERAL"
GROUPED_DATA: Final = "GROUPED_DATA"


class Extremum:
    """`r.minval` or `r.maxval`: below or above every other datum. There are two instances, compared with `is`."""

    __slots__ = ("name", "rank")

    def __init__(self, name: str, rank: int) -> None:
        self.name = name
        self.rank = rank

    def __repr__(self) -> str:
        return self.name

    def __copy__(self) -> Extremum:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Extremum:
        return self


MINVAL: Final = Extremum("MINVAL", 0)
MAXVAL: Final = Extremum("MAXVAL", 99)

_NAMES: Final[dict[type, str]] = {
    bool: "BOOL",
    int: "NUMBER",
    float: "NUMBER",
    str: "STRING",
    list: "ARRAY",
    type(None): "NULL",
}


def type_name(datum: Datum) -> str:
    """The type as `type_of` and messages print it: `NUMBER`, `OBJECT`, `PTYPE<TIME>`, `MINVAL` ..."""
    kind = type(datum)
    if kind is dict:
        return f"PTYPE<{datum[PTYPE_KEY]}>" if PTYPE_KEY in datum else "OBJECT"
    if kind is Extremum:
        return str(datum.name)
    return _NAMES[kind]


def raw_type_name(datum: Datum) -> str:
    """The type without regard to pseudo-types other than BINARY, which RethinkDB keeps as a type of its own."""
    if type(datum) is dict:
        return "PTYPE<BINARY>" if datum.get(PTYPE_KEY) == BINARY else "OBJECT"
    return type_name(datum)


def is_ptype(datum: Datum, name: str | None = None) -> bool:
    """Whether the datum is a pseudo-type (of that name, if one is given)."""
    if type(datum) is not dict or PTYPE_KEY not in datum:
        return False
    return name is None or datum[PTYPE_KEY] == name


def is_object(datum: Datum) -> bool:
    """Whether RethinkDB holds it as an object: any dict but a BINARY (a time or a geometry counts)."""
    return type(datum) is dict and datum.get(PTYPE_KEY) != BINARY


def is_number(datum: Datum) -> bool:
    """Whether it is a NUMBER; a Python bool is not."""
    kind = type(datum)
    return kind is int or kind is float


def fail_typed(datum: Datum, message: str) -> NoReturn:
    """Raises the error for a datum of the wrong type: non-existence for null (which `default` catches), else logic."""
    if datum is None:
        raise ReqlNonExistenceError(message)
    raise ReqlQueryLogicError(message)


def expect(datum: Datum, name: str) -> None:
    """Raises `Expected type NAME but found ...` unless the datum is a NUMBER, STRING, ARRAY, OBJECT, BOOL or BINARY."""
    if raw_type_name(datum) != name:
        fail_typed(datum, f"Expected type {name} but found {type_name(datum)}.")
