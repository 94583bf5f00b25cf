"""What the state machine is told about a secondary index: how its keys come out of rows.

One rule: these are shapes, spoken by who compiles index functions and by who keeps entries; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Fields = frozenset[str]
"""The names of a row's fields, where not all of them are meant."""

Rows = list[Any]
"""Rows, with as much of them decoded as was asked for."""

Decode = Callable[[Sequence[bytes]], Rows]
"""Rows' JSON texts -> rows."""


class IndexFunction(NamedTuple):
    """How the keys of one index are computed."""

    keys_of: Callable[[Rows], list[list[bytes]]]  # for each row the encoded index keys; [] for one without a value
    fields: Fields | None  # that alone decide a row's keys; None: it may be any
    decoder: Callable[[Fields | None], Decode]  # what decodes these fields; None: all
