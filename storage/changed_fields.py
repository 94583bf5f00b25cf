"""Which fields a change of a row touches, so that indexes that look at none of them need not be asked.

One rule: fields whose texts are equal are equal, and nothing else is known. Texts that differ may still hold equal
values, and what cannot be compared counts as touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from model.index_function import Fields
from model.undecodable import UNDECODABLE

Differing = Callable[[bytes, bytes], Collection[str]]
"""Two texts of a row -> those of the fields that they may differ in."""

_plain: Final = re.compile(r"[ !#-\[\]-~]+").fullmatch  # msgspec takes no other names for a struct's fields


def can_be_compared(fields: Fields) -> bool:
    """Whether `differing` knows these fields by their names."""
    return all(map(_plain, fields))


@lru_cache(maxsize=512)
def differing(fields: Fields) -> Differing:
    """A function that compares these fields of rows, which can be compared; 2 µs for two rows of 1.4 KB."""
    names = sorted(fields)
    places = [f"field{number}" for number in range(len(names))]
    shape = msgspec.defstruct("shape", [(place, *_raw(name)) for place, name in zip(places, names, strict=True)])
    decode = msgspec.json.Decoder(shape).decode
    named = dict(zip(places, names, strict=True))

    def fields_of_both(old: bytes, new: bytes) -> Collection[str]:
        try:
            before, now = decode(old), decode(new)
        except UNDECODABLE:
            return fields
        if before == now:
            return ()
        return [name for place, name in named.items() if getattr(before, place) != getattr(now, place)]

    return fields_of_both


def union(sets: Iterable[Fields | None]) -> Fields:
    """The fields of all that are known."""
    return frozenset().union(*(fields for fields in sets if fields is not None))


def _raw(name: str) -> tuple[Any, Any]:
    return msgspec.Raw | msgspec.UnsetType, msgspec.field(name=name, default=msgspec.UNSET)
