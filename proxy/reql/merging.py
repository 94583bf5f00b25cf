"""Rows laid over each other as the texts they are stored as: their fields are found, not decoded.

One rule: it gives up whatever is not plain, where the data themselves have to be merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from model.kinds import PTYPE_KEY
from model.undecodable import UNDECODABLE

Fields = dict[str, msgspec.Raw]

_fields: Final = msgspec.json.Decoder(Fields).decode
_value: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def rows_fields(texts: Sequence[bytes]) -> list[Fields] | None:
    """The texts of the fields of each row; None if they cannot be told, or if one is no plain row."""
    try:
        rows = list(map(_fields, texts))
    except UNDECODABLE:
        return None
    return None if any(PTYPE_KEY in row for row in rows) else rows


def field_values(rows: Sequence[Fields], name: str, instead: Any) -> list[Any]:
    """The datum in one field of each row, `instead` for rows without it."""
    return [_value(row[name]) if name in row else instead for row in rows]


def merged_texts(lefts: Sequence[Fields], rights: Sequence[Sequence[Fields] | None]) -> list[bytes] | None:
    """Each of its right rows laid over a left one; a right row may be that of several. None has a literal in it.

    None if the data have to be looked at: right rows are none that are plain, or
    both rows of a pair have an object in one field.
    """
    out: list[bytes] = []
    for left, rows in zip(lefts, rights, strict=True):
        if rows is None:
            return None
        objects = [name for name, text in left.items() if bytes(text)[:1] == b"{"]
        for right in rows:
            if objects and any(bytes(right[name])[:1] == b"{" for name in objects if name in right):
                return None
            out.append(_encode({**left, **right}))
    return out
