"""The one order of all data.

Types come in the order of their names (ARRAY, BOOL, NULL, NUMBER, OBJECT, PTYPE<BINARY>, PTYPE<GEOMETRY>,
PTYPE<TIME>, STRING), minval before and maxval after all. Arrays compare item by item, objects field by field in
the order of their keys, strings and binaries by bytes, times by their epoch whatever the zone, geometries as
objects. RethinkDB compares a geometry with an object as two objects, too, which makes its order circular
(object < binary < geometry, which may be before the object); here a geometry is after every object.

One rule: `compare`, `sort_key`, `hashable_key` and the key bytes of `model.keys` never disagree (tests/laws).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from model.keys import (
    bound_key,
    index_key_bytes,
    index_keys,
    key_end,
    key_from_bytes,
    key_range,
    prefix_range,
    primary_key_bytes,
)
from model.kinds import BINARY, GEOMETRY, PTYPE_KEY, TIME, Datum
from model.pseudo_binary import binary_bytes

__all__ = [
    "bound_key",
    "compare",
    "equal",
    "hashable_key",
    "index_key_bytes",
    "index_keys",
    "key_end",
    "key_from_bytes",
    "key_range",
    "prefix_range",
    "primary_key_bytes",
    "sort_key",
    "sort_keys",
]

SortKey = tuple[Any, ...]

_ARRAY, _BOOL, _NULL, _NUMBER, _OBJECT, _BINARY, _GEOMETRY, _TIME, _STRING = range(1, 10)


def sort_key(datum: Datum) -> SortKey:
    """A key that Python compares as RethinkDB compares the data; hashable, equal for equal data."""
    kind = type(datum)
    if kind is str:
        return (_STRING, datum)
    if kind is int or kind is float:
        return (_NUMBER, datum)
    if kind is bool:
        return (_BOOL, datum)
    if datum is None:
        return (_NULL,)
    if kind is list:
        return (_ARRAY, tuple([sort_key(item) for item in datum]))
    if kind is dict:
        name = datum.get(PTYPE_KEY)
        if name == TIME:
            return (_TIME, datum["epoch_time"])
        if name == BINARY:
            return (_BINARY, binary_bytes(datum))
        rank = _GEOMETRY if name == GEOMETRY else _OBJECT
        return (rank, tuple([(key, sort_key(datum[key])) for key in sorted(datum)]))
    return (datum.rank,)


_NUMBERS: Final = frozenset((int, float))
_STRINGS: Final = frozenset((str,))


def sort_keys(data: Sequence[Datum]) -> Sequence[Any]:
    """Keys for all of the data at once; where all are numbers or all are strings, the data themselves."""
    kinds = set(map(type, data))
    if kinds <= _NUMBERS or kinds <= _STRINGS:
        return data
    return [sort_key(datum) for datum in data]


def compare(left: Datum, right: Datum) -> int:
    """-1, 0 or 1 as left is before, equal to or after right."""
    kind, other = type(left), type(right)
    comparable = kind in _PLAIN if kind is other else kind in _NUMBERS and other in _NUMBERS
    if not comparable:
        left, right = sort_key(left), sort_key(right)
    return int(left > right) - int(left < right)


_PLAIN: Final = frozenset((int, float, str))


def equal(left: Datum, right: Datum) -> bool:
    """Whether RethinkDB calls the two equal: 1 and 1.0 and -0.0 and 0 are, 1 and true are not."""
    kind, other = type(left), type(right)
    if kind in _PLAIN or other in _PLAIN:
        return bool(left == right) and (kind is other or (kind in _NUMBERS and other in _NUMBERS))
    if kind is not other:
        return False
    if kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    if kind is dict:
        name = left.get(PTYPE_KEY)
        if name is not None and name == right.get(PTYPE_KEY) == TIME:
            return bool(left["epoch_time"] == right["epoch_time"])
        return left.keys() == right.keys() and all(equal(item, right[key]) for key, item in left.items())
    return bool(left == right)


def hashable_key(datum: Datum) -> Any:
    """A key for sets and dicts, the same for equal data and for no others; strings and numbers are their own."""
    kind = type(datum)
    return datum if kind in _PLAIN else sort_key(datum)
