"""When to make the applied state durable, and how much of the log may go then.

One rule: an entry is released only when the durable state covers it and nobody who still needs it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DEFAULT_FLUSH_BYTES: Final = 256 << 20
DEFAULT_FLUSH_S: Final = 300.0
DEFAULT_KEEP_ENTRIES: Final = 100_000


def _everything_may_go() -> int | None:
    return None


@dataclass(slots=True)
class FlushPolicy:
    """A flush is due after `every_bytes` of applied entries, or `every_s` after the last one if any were applied.

    `keep_from()`: the first entry that an archive or anybody else still needs, or None. For members that lag,
    the last `keep_entries` entries stay; one that lags more gets a snapshot.
    """

    every_bytes: int = DEFAULT_FLUSH_BYTES
    every_s: float = DEFAULT_FLUSH_S
    keep_entries: int = DEFAULT_KEEP_ENTRIES
    keep_from: Callable[[], int | None] = _everything_may_go
    durable_index: int = 0
    _bytes: int = 0
    _last_s: float = 0.0

    def begin(self, durable_index: int, now_s: float) -> None:
        """The state is durable as of that index."""
        self.durable_index = durable_index
        self._last_s = now_s

    def add(self, size: int) -> None:
        """Entries of that many bytes were applied."""
        self._bytes += size

    def is_due(self, applied_index: int, now_s: float) -> bool:
        return applied_index > self.durable_index and (
            self._bytes >= self.every_bytes or now_s - self._last_s >= self.every_s
        )

    def started(self) -> None:
        """A flush has begun; what is applied from now on counts for the next one."""
        self._bytes = 0

    def flushed(self, durable_index: int, now_s: float) -> None:
        """A flush has ended."""
        self.durable_index = durable_index
        self._last_s = now_s

    def release_point(self, covered_index: int, slowest_match: int | None) -> int:
        """The first entry to keep. `slowest_match`: the last entry that every other member has, if this one leads."""
        keep = covered_index + 1
        if slowest_match is not None and slowest_match < covered_index:
            keep = max(slowest_match + 1, keep - self.keep_entries)
        needed = self.keep_from()
        return keep if needed is None else min(keep, needed)
