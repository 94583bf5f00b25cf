"""Rows laid over each other as the texts they are stored as: their fields are found, not decoded.

One rule: it gives up whatever is not plain, where the data themselves have to be merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from model.kinds import PTYPE_KEY
from model.undecodable import UNDECODABLE
from proxy.reql.seams import Fields, Seam, seam

WORTH_A_SEAM: Final = 8  # pairs: to make one costs as much as to take so many apart
MOST_SEAMS: Final = 4  # in one join: rows of which no two are alike have none

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


class Merger:
    """Merges the pairs of one join, piece by piece. Nearly all rows of a table have the same names: a pair that was
    taken apart shows the seam at which the next ones are joined.

    right_key: the primary key of the right rows' table, which each of them has.
    """

    __slots__ = ("_left_seams", "_right_key", "_seam")

    def __init__(self, right_key: str) -> None:
        self._right_key = right_key
        self._seam: Seam | None = None
        self._left_seams = MOST_SEAMS

    @property
    def takes_lefts_apart(self) -> bool:
        """Whether the next piece needs the fields of its left rows."""
        return self._seam is None or not self._seam.is_over

    def texts(
        self,
        lefts: Sequence[bytes],
        lefts_fields: Sequence[Fields] | None,
        names: Sequence[Any],
        matches: Mapping[Any, Sequence[bytes]],
    ) -> list[bytes] | None:
        """`merged_texts` of left rows and the right ones that are found under the name that each has.

        lefts_fields: of the left rows, if that was needed for something else.
        """
        if self._seam is not None and self._seam.is_over:
            rights = {name: rows_fields(texts) for name, texts in matches.items()}
            return self._laid_over(self._seam, lefts, [rights[name] for name in names])
        rows = rows_fields(lefts) if lefts_fields is None else lefts_fields
        if rows is None:
            return None
        if self._seam is not None:
            return self._laid_under(self._seam, rows, [matches[name] for name in names])
        rights = {name: rows_fields(texts) for name, texts in matches.items()}
        out = merged_texts(rows, [rights[name] for name in names])
        if out is not None and len(out) >= WORTH_A_SEAM and self._left_seams:
            self._left_seams -= 1
            self._seam = self._seam_of(lefts, rows, names, matches)
        return out

    def _seam_of(
        self,
        lefts: Sequence[bytes],
        rows: Sequence[Fields],
        names: Sequence[Any],
        matches: Mapping[Any, Sequence[bytes]],
    ) -> Seam | None:
        """The seam of the last pair. The longer text is the one that is not taken apart."""
        at = max(at for at, name in enumerate(names) if matches[name])
        right = matches[names[at]][-1]
        (fields,) = rows_fields([right]) or [{}]
        if len(lefts[at]) > len(right):
            return seam(list(rows[at]), list(fields), is_over=True)
        return seam(list(fields), list(rows[at]), is_over=False, sure=self._right_key)

    def _laid_over(
        self, found: Seam, lefts: Sequence[bytes], rights: Sequence[Sequence[Fields] | None]
    ) -> list[bytes] | None:
        """Fields of right rows put into the texts of left ones."""
        out: list[bytes] = []
        others, join = found.others, found.join
        misfits = 0
        for left, rows in zip(lefts, rights, strict=True):
            if rows is None:
                return None
            for right in rows:
                text = join(left, right) if tuple(right) == others else None
                if text is None:
                    misfits += 1
                    parts = rows_fields([left])
                    apart = None if parts is None else merged_texts(parts, [[right]])
                    if apart is None:
                        return None
                    text = apart[0]
                out.append(text)
        self._judge(misfits, len(out))
        return out

    def _laid_under(
        self, found: Seam, lefts: Sequence[Fields], rights: Sequence[Sequence[bytes]]
    ) -> list[bytes] | None:
        """Fields of left rows put into the texts of right ones."""
        out: list[bytes] = []
        others, join = found.others, found.join
        misfits = 0
        for left, texts in zip(lefts, rights, strict=True):
            is_like = tuple(left) == others
            for right in texts:
                text = join(right, left) if is_like else None
                if text is None:
                    misfits += 1
                    apart = merged_texts([left], [rows_fields([right])])
                    if apart is None:
                        return None
                    text = apart[0]
                out.append(text)
        self._judge(misfits, len(out))
        return out

    def _judge(self, misfits: int, count: int) -> None:
        """Looks for another seam if most rows do not have this one."""
        if misfits * 2 > count:
            self._seam = None
