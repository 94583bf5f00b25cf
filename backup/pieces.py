"""Pieces of tables that several processes read at the same time: who takes which, and how a long one is cut in two.

One rule: every row is in exactly one piece, whatever is cut when. A piece is a range of keys; who has read enough of
it gives back the rest.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Final, NamedTuple

KEY_DIGITS: Final = 8  # bytes after the common beginning of two keys that are looked at


class Piece(NamedTuple):
    """Keys [low, high) of a table. number: no other piece has it."""

    number: int
    table_id: int
    low: bytes
    high: bytes


def middle(low: bytes, high: bytes) -> bytes | None:
    """A key between two, about half way by their bytes; None if there is none that short."""
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1
    length = shared + KEY_DIGITS
    first = int.from_bytes(low[:length].ljust(length, b"\0"), "big")
    last = int.from_bytes(high[:length].ljust(length, b"\0"), "big")
    half = ((first + last) // 2).to_bytes(length, "big").rstrip(b"\0")
    return half if low < half < high else None


class Pieces:
    """What is still to be read. All methods may be called by any thread."""

    def __init__(self, ranges: Iterable[tuple[int, bytes, bytes]], readers: int) -> None:
        """ranges: (table id, low, high), those that take longest first. readers: how many take pieces."""
        self._ready = threading.Condition()
        self._numbers = count()
        self._readers = readers
        self._waiting = deque(Piece(next(self._numbers), *found) for found in ranges)
        self._taken = 0
        self._is_over = False
        while self._waiting and len(self._waiting) < readers:
            if not self._cut(self._waiting.popleft()):
                break

    def take(self) -> Piece | None:
        """The next piece, maybe after others gave back a rest; None if there will be none."""
        with self._ready:
            while not self._waiting and self._taken and not self._is_over:
                self._ready.wait()
            if self._is_over or not self._waiting:
                return None
            self._taken += 1
            return self._waiting.popleft()

    def give_back(self, piece: Piece, rest: bytes | None) -> None:
        """A piece that was taken has been read, but for what comes from the key `rest` on; None: all of it."""
        with self._ready:
            self._taken -= 1
            if rest is not None:
                remaining = piece._replace(number=next(self._numbers), low=rest)
                if len(self._waiting) < self._readers - 1:
                    self._cut(remaining)
                else:
                    self._waiting.append(remaining)
            self._ready.notify_all()

    def end(self) -> None:
        """Nothing more is to be read; who waits is told."""
        with self._ready:
            self._is_over = True
            self._ready.notify_all()

    def _cut(self, piece: Piece) -> bool:
        """Puts the piece back in two, the first half before all others, if there is a key between; whether it was."""
        half = middle(piece.low, piece.high)
        if half is None:
            self._waiting.appendleft(piece)
            return False
        self._waiting.appendleft(piece._replace(high=half))
        self._waiting.append(piece._replace(number=next(self._numbers), low=half))
        return True
