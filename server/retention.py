"""How much of the log is kept although the stored rows cover it: for looking back, and for archives to come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class SegmentLike(Protocol):
    """A file of the log (`wal.segment.Segment`)."""

    first_index: int
    end: int


class Segmented(Protocol):
    """A log in files, oldest first (`consensus.logstore.LogStore`)."""

    @property
    def segments(self) -> Sequence[SegmentLike]: ...


class KeptLog:
    """Keeps whole segments from the newest back, up to `retain_bytes` of records, and what `needs` ask for."""

    def __init__(self, store: Segmented, retain_bytes: int) -> None:
        self._store = store
        self._retain_bytes = retain_bytes
        self.needs: list[Callable[[], int | None]] = []  # each gives the first entry that somebody needs, or None

    def newest(self, size: int) -> int | None:
        """The first entry of the newest segments that have at most `size` bytes together, or of the open one."""
        total = 0
        first = None
        for segment in reversed(self._store.segments):
            total += segment.end
            if total > size and first is not None:
                break
            first = segment.first_index
        return first

    def first_index(self) -> int | None:
        """The first entry to keep; None if the rest may decide."""
        wanted = (self._retained(), *(need() for need in self.needs))
        return min((index for index in wanted if index is not None), default=None)

    def _retained(self) -> int | None:
        return self.newest(self._retain_bytes) if self._retain_bytes else None


class CatchUp:
    """What members that lag still need of the log, up to `size` bytes; who lags more gets a snapshot.

    slowest: the last entry that every other member has; None where this server does not lead, or is alone.
    """

    def __init__(self, kept: KeptLog, size: int, slowest: Callable[[], int | None]) -> None:
        self._kept = kept
        self._size = size
        self._slowest = slowest

    def first_index(self) -> int | None:
        """The first entry to keep, or None."""
        slowest = self._slowest()
        if slowest is None:
            return None
        return max(slowest + 1, self._kept.newest(self._size) or 0)
