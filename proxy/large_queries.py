"""Parsing a large query piece by piece: nearly always it is a term with one long array, as inserts are.

orjson has a tree of the whole text in memory beside what it makes of it: an insert of 60 MB took 60 MB more for a
moment.

One rule: what comes out, or is raised, is what `orjson.loads` gives for the whole text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from model.undecodable import UNDECODABLE

LARGE_QUERY_BYTES: Final = 4 << 20
PIECE_BYTES: Final = 256 << 10


class _Array(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """[id, [...]]: how an array is written out."""

    term: msgspec.Raw
    items: list[msgspec.Raw]


class _Arguments(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    first: msgspec.Raw
    array: _Array


class _Term(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """[id, [first argument, array], optargs]"""

    term: msgspec.Raw
    arguments: _Arguments
    optargs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Query(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    kind: msgspec.Raw
    term: _Term
    optargs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode: Final = msgspec.json.Decoder(_Query).decode


def loads_large(body: bytes) -> Any:
    """The query's JSON as Python objects. Raises orjson.JSONDecodeError."""
    try:
        query = _decode(body)
    except UNDECODABLE:  # it is something else, or no JSON
        return orjson.loads(body)
    term = query.term
    first, array = term.arguments.first, term.arguments.array
    outer = [_loads(term.term), [_loads(first), [_loads(array.term), _items(array.items, len(body))]]]
    if term.optargs is not msgspec.UNSET:
        outer.append(_loads(term.optargs))
    whole = [_loads(query.kind), outer]
    if query.optargs is not msgspec.UNSET:
        whole.append(_loads(query.optargs))
    return whole


def _loads(text: msgspec.Raw) -> Any:
    return orjson.loads(memoryview(text))


def _items(texts: list[msgspec.Raw], size: int) -> list[Any]:
    """The items of an array; so many at once that a piece has about `PIECE_BYTES`."""
    out: list[Any] = []
    count = max(1, len(texts) * PIECE_BYTES // size)
    for at in range(0, len(texts), count):
        out += orjson.loads(b"[%b]" % b",".join(texts[at : at + count]))
    return out
