"""Where the fields of one row go into the text of another: learnt from one pair of rows, proven for each later one.

The longer text of a pair is cut in front of the fields that its neighbours in the order of names are known to be, the
other row's fields are put in between, and what lies behind the last cut is not looked at.

One rule: no row is put together before it is proven that each cut is between two of its own fields, and that exactly
the expected ones lie between two cuts. The rest follows from what holds for every stored row: its fields are sorted and
have different names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from model.datum import dumps
from model.kinds import PTYPE_KEY
from model.undecodable import UNDECODABLE

Fields = dict[str, msgspec.Raw]
Prove = Callable[[bytes], Any]

MOST_NAMES: Final = 64  # to be proven: of more it is cheaper to take the row apart
MOST_FALSE_PLACES: Final = 3
_END: Final = b"}"


class Seam:
    """Puts the fields of rows that all have the names `others` into texts of rows like one that has the names `base`.

    is_over: what is put in is laid over the text, so that it replaces fields of the same name; else it is laid under.
    """

    __slots__ = ("_shared", "_steps", "_template", "is_over", "others")

    def __init__(
        self, others: tuple[str, ...], is_over: bool, shared: list[str], steps: list[_Step], template: bytes
    ) -> None:
        self.others = others
        self.is_over = is_over
        self._shared = shared
        self._steps = steps
        self._template = template

    def join(self, text: bytes, other: Fields) -> bytes | None:
        """The merged row's text; None for a text that is not like the first one, or if objects have to be merged."""
        for name in self._shared:
            if bytes(other[name])[:1] == b"{":
                return None
        parts: list[Any] = []
        at = 0  # of what separates the next field from the one before
        for marker, prove, is_kept, names in self._steps:
            end = len(text) - 1 if marker is _END else text.find(marker, at)
            if prove is not None:
                segment = text[at + 1 : end]
                try:
                    prove(b"{%b}" % segment)
                except UNDECODABLE:
                    end = _later(text, at, end, marker, prove)
                    segment = text[at + 1 : end]
                if is_kept:
                    parts.append(segment)
            elif end > 0:
                return None
            if end < 0:
                return None
            for name in names:
                parts.append(other[name])
            at = end
        parts.append(text[at + 1 :])
        return self._template % tuple(parts)


def _later(text: bytes, begin: int, end: int, marker: bytes, prove: Prove) -> int:
    """The place of the marker where `end` was a false one, in an object inside; negative if there is none."""
    for _ in range(MOST_FALSE_PLACES):
        end = -1 if end < 0 else text.find(marker, end + 1)
        if end < 0:
            break
        try:
            prove(b"{%b}" % text[begin + 1 : end])
        except UNDECODABLE:
            continue
        return end
    return -1


# Up to which bytes it goes; what proves the text up to there, None if that is only the brace in front of the first
# field; whether it is kept; the fields that follow.
_Step = tuple[bytes, Prove | None, bool, list[str]]


def seam(base: Sequence[str], others: Sequence[str], is_over: bool, sure: str | None = None) -> Seam | None:
    """The seam for two rows with these names. None if there is none, or if it would be no gain.

    sure: a name that every base has. Where it is laid over the other row's, it need not be looked for.
    """
    names = list(base)
    if not names or PTYPE_KEY in base or PTYPE_KEY in others or names != sorted(names):
        return None
    wanted = sorted(name for name in others if is_over or name != sure)
    if not wanted or wanted[-1] < PTYPE_KEY:  # which must be proven not to be among the fields
        return None
    added: dict[int, list[str]] = {}  # in front of which field
    replaced: set[int] = set()
    cuts: set[int] = set()
    for name in wanted:
        at = bisect_left(names, name)
        if at == len(names) or names[at] != name:
            added.setdefault(at, []).append(name)
            cuts.add(at)
            continue
        cuts.add(at + 1)
        if is_over:
            replaced.add(at)
            if at:
                cuts.add(at)
    steps: list[_Step] = []
    fields: list[bytes] = []
    at = 0
    for cut in sorted(cuts):
        prove = None
        follow = added.get(cut, [])
        is_kept = at not in replaced
        if cut > at:
            prove = _proof(tuple(names[at:cut]))
            if prove is None:
                return None
            if is_kept:
                fields.append(b"%b")
            else:
                fields.append(_field(names[at]))
                follow = [names[at], *follow]
        fields += map(_field, added.get(cut, []))
        marker = _END if cut == len(names) else (b"," if cut else b"{") + dumps(names[cut]) + b":"
        steps.append((marker, prove, is_kept, follow))
        at = cut
    template = b"{" + b",".join(fields) + (b"}%b" if at == len(names) else b",%b")
    shared = [name for name in wanted if name in base]
    return Seam(tuple(others), is_over, shared, steps, template)


def _field(name: str) -> bytes:
    """One field of the template."""
    return dumps(name).replace(b"%", b"%%") + b":%b"


@lru_cache(maxsize=256)
def _proof(names: tuple[str, ...]) -> Prove | None:
    """A function that raises one of UNDECODABLE unless a text is an object of exactly these fields."""
    if len(names) > MOST_NAMES or not all(name and name.isascii() for name in names):
        return None  # msgspec takes other names for the empty one
    slots = [(f"f{at}", msgspec.Raw) for at in range(len(names))]
    rename = {slot: name for (slot, _), name in zip(slots, names, strict=True)}
    try:
        shape = msgspec.defstruct("shape", slots, rename=rename, forbid_unknown_fields=True, gc=False)
    except ValueError:  # a name that has to be escaped
        return None
    return msgspec.json.Decoder(shape).decode
