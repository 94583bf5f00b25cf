"""Writes of many queries that become one entry of the log: those that come while one turn of the reactor lasts.

One rule: what is gathered has no place in the log yet, so it has one fate. Either all of it is proposed, or none of
it and everybody is told the same error.

An entry of its own costs a write of one row as much as its share of the disk: the core, the log's record, staging
and settling, and applying it. None of that grows with a few rows more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model.effect import Effect
from proxy.answers import Done

MAX_ROWS: Final = 64  # an entry is applied in one go
MAX_BYTES: Final = 256 << 10
EFFECT_BYTES: Final = 64  # of an effect beside its row, about

Tell = Callable[[Done], object]
"""Calls `done` once the writes are applied, or with what became of them."""


class Gathering:
    """The effects of one entry to come, and who waits for it."""

    __slots__ = ("_size", "_tell", "_waiting", "effects", "writers")

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.writers: list[Any] = []  # fibers that have written nothing else yet
        self._size = 0
        self._waiting: list[Done] = []
        self._tell: Tell | None = None  # once it is closed

    def add(self, effect: Effect, row: bytes | None) -> bool:
        """One more write; `row` is what it makes of its row. Whether that was the last: it is full."""
        effects = self.effects
        effects.append(effect)
        self._size += EFFECT_BYTES if row is None else EFFECT_BYTES + len(row)
        return self._size >= MAX_BYTES or len(effects) >= MAX_ROWS

    def wait(self, done: Done) -> None:
        """Calls `done()` once the writes are applied, or with the error that came of them."""
        if self._tell is None:
            self._waiting.append(done)
        else:
            self._tell(done)

    def close(self, tell: Tell) -> None:
        """It was proposed, or refused; all who wait, and who will, are left to `tell`."""
        self._tell = tell
        for done in self._waiting:
            tell(done)
