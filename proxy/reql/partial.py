"""Decoding no more of a stored row than what a query reads of it.

One rule: when it is not certain which fields a function reads, it reads all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, TypedDict

import msgspec

from model import datum as d
from model.index_function import Decode, Fields
from model.undecodable import UNDECODABLE
from proxy.reql.ids import Term
from proxy.reql.values import Func

NO_FIELDS: Final[Fields] = frozenset()
_GETS: Final = frozenset({int(Term.BRACKET), int(Term.GET_FIELD), int(Term.HAS_FIELDS), int(Term.PLUCK)})
_ROW: Final = (int(Term.VAR), int(Term.IMPLICIT_VAR))


class _ReadsAll(Exception):
    """The function does more with its row than getting fields by name."""


def fields_read(func: Func) -> Fields | None:
    """The fields that a function of one row reads of it; None: all of them, or it is not known."""
    if not func.slots and func.arity == 0:
        return NO_FIELDS
    raw = func.raw
    try:
        if len(func.slots) != 1 or raw.__class__ is not list or raw[0] != Term.FUNC:
            return None
        variables, body = raw[1]
        found: set[str] = set()
        _walk(body, variables[1][0], found)
    except (_ReadsAll, LookupError, TypeError, ValueError):
        return None
    return frozenset(found)


def _walk(raw: Any, variable: Any, found: set[str]) -> None:
    """Collects the fields that are read of the row; nested functions are looked into as if they were part of it."""
    kind = raw.__class__
    if kind is dict:
        for value in raw.values():
            _walk(value, variable, found)
        return
    if kind is not list:
        if kind is str or kind is int or kind is float or kind is bool or raw is None or isinstance(raw, list):
            return  # a literal, or the place of one
        raise _ReadsAll
    term, arguments = raw[0], raw[1] if len(raw) > 1 else []
    if term in _ROW:
        if term == Term.IMPLICIT_VAR or arguments[0] == variable:
            raise _ReadsAll
        return
    if term == Term.DATUM:
        return
    if term in _GETS and arguments.__class__ is list and _is_row(arguments[0], variable) and len(raw) == 2:
        names = arguments[1:]
        if any(name.__class__ is not str for name in names):
            raise _ReadsAll
        found.update(names)
        return
    for part in raw[1:]:
        for value in part.values() if part.__class__ is dict else part:
            _walk(value, variable, found)


def _is_row(raw: Any, variable: Any) -> bool:
    if raw.__class__ is not list or raw[0] not in _ROW:
        return False
    return bool(raw[0] == Term.IMPLICIT_VAR or raw[1][0] == variable)


def decode_all(texts: Sequence[bytes]) -> list[Any]:
    """Whole rows."""
    return list(map(d.loads, texts))


@lru_cache(maxsize=512)
def decoder(fields: Fields) -> Decode:
    """A function that decodes these fields of rows, and leaves out all others."""
    if not fields:
        return lambda texts: [{} for _ in texts]
    if not all(map(str.isascii, fields)):
        return decode_all  # msgspec takes other names for the empty one
    # The names come out of a query, which a TypedDict's functional form takes and no type checker can know.
    shape = TypedDict("shape", dict.fromkeys(sorted(fields), Any), total=False)  # type: ignore[misc]
    decode = msgspec.json.Decoder(shape).decode

    def decode_fields(texts: Sequence[bytes]) -> list[Any]:
        try:
            return list(map(decode, texts))
        except UNDECODABLE:
            return decode_all(texts)

    return decode_fields
