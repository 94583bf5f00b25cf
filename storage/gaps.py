"""Where nothing is: ranges of keys that are slow to pass over, for they are full of what was deleted.

What is deleted stays in RocksDB until it is merged away, and a scan passes all of it by: 0.3 µs each. Who takes rows
from the beginning of an order and deletes them, as from a queue, would wait longer for each next one.

One rule: a gap holds no key. Whoever writes keys says so here before anybody reads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Final, Protocol

from storage.layout import PREFIX_BYTES, after

SLOW_STEP_S: Final = 30e-6  # a step that takes longer has passed by much that was deleted
MOST_GAPS: Final = 64  # of one table or index: a scan begins anew behind each
_WITH_GAPS: Final = (b"r", b"i")  # rows and index entries: what has one prefix for all


class Cursor(Protocol):
    """What a RocksDB iterator can do."""

    def seek(self, key: bytes) -> None: ...
    def seek_for_prev(self, key: bytes) -> None: ...
    def next(self) -> None: ...
    def prev(self) -> None: ...
    def valid(self) -> bool: ...
    def key(self) -> bytes: ...
    def status(self) -> None: ...


class _Gaps:
    """The gaps of one table or index, [lows[n], highs[n]), in their order; they neither overlap nor touch."""

    __slots__ = ("highs", "lows")

    def __init__(self) -> None:
        self.lows: list[bytes] = []
        self.highs: list[bytes] = []

    def add(self, low: bytes, high: bytes) -> None:
        first = bisect_left(self.highs, low)
        last = bisect_right(self.lows, high)
        if first < last:
            low, high = min(low, self.lows[first]), max(high, self.highs[last - 1])
        self.lows[first:last] = [low]
        self.highs[first:last] = [high]
        if len(self.lows) > MOST_GAPS:
            at = 0 if first else MOST_GAPS  # the one farthest from here
            del self.lows[at], self.highs[at]

    def inside(self, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]:
        """Those that [low, high) has a part of."""
        first, last = bisect_right(self.highs, low), bisect_left(self.lows, high)
        return list(zip(self.lows[first:last], self.highs[first:last], strict=True))

    def put(self, key: bytes) -> None:
        """There is something under a key now."""
        at = bisect_right(self.lows, key) - 1
        if at >= 0 and key < self.highs[at]:
            low, high, behind = self.lows[at], self.highs[at], key + b"\0"
            parts = [(start, end) for start, end in ((low, key), (behind, high)) if start < end]
            if len(self.lows) >= MOST_GAPS:
                del parts[1:]  # what is cut into ever smaller pieces is a gap no more
            self.lows[at : at + 1] = [start for start, _ in parts]
            self.highs[at : at + 1] = [end for _, end in parts]


class Gaps:
    """The gaps of an engine, as far as they are known."""

    __slots__ = ("_by_prefix",)

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, _Gaps] = {}

    def __bool__(self) -> bool:
        return bool(self._by_prefix)

    def knows(self, low: bytes) -> bool:
        """Whether there are gaps in the table or index that a key is of."""
        return low[:PREFIX_BYTES] in self._by_prefix

    def pieces(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """The parts of [low, high) that may hold something, in their order, or in reverse."""
        known = self._by_prefix.get(low[:PREFIX_BYTES])
        gaps = [] if known is None else known.inside(low, high)
        for start, end in reversed(gaps) if reverse else gaps:
            if reverse:
                if end < high:
                    yield end, high
                high = start
            else:
                if low < start:
                    yield low, start
                low = end
        if low < high:
            yield low, high

    def add(self, low: bytes, high: bytes) -> None:
        """[low, high) was found to be empty; nothing is remembered of ranges across tables or indexes."""
        prefix = low[:PREFIX_BYTES]
        if low[:1] in _WITH_GAPS and len(prefix) == PREFIX_BYTES and low < high <= after(prefix):
            self._by_prefix.setdefault(prefix, _Gaps()).add(low, high)

    def find(self, cursor: Cursor, low: bytes, high: bytes, rows: int, reverse: bool) -> None:
        """Goes through [low, high) by a cursor, so many rows of it: where a step is slow, there is a gap.

        What was slow the first time as it came from the disk is fast by now. Raises what the cursor's status does.
        """
        step = cursor.prev if reverse else cursor.next
        edge = high if reverse else low  # all up to here was passed
        for at in range(rows + 1 if low < high else 0):
            began_s = perf_counter()
            if at:
                step()
            elif reverse:
                cursor.seek_for_prev(high)
                if cursor.valid() and cursor.key() >= high:
                    step()
            else:
                cursor.seek(low)
            is_slow = perf_counter() - began_s > SLOW_STEP_S
            key = cursor.key() if cursor.valid() else None
            if key is None:
                cursor.status()  # what cannot be read is not empty
            elif not low <= key < high:
                key = None
            if is_slow and reverse:
                self.add(low if key is None else key + b"\0", edge)
            elif is_slow:
                self.add(edge, high if key is None else key)
            if key is None:
                return
            edge = key if reverse else key + b"\0"

    def written(self, rows: Mapping[bytes, bytes | None]) -> None:
        """These keys of the engine have other values, or None."""
        of = self._by_prefix.get
        for key, value in rows.items():
            known = of(key[:PREFIX_BYTES])
            if known is not None and value is not None:
                known.put(key)

    def forget(self) -> None:
        """Anything may have come."""
        self._by_prefix.clear()
