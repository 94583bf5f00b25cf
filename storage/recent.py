"""Values that were read of late, in memory: a row that is read, changed and applied is looked for in the engine once.

One rule: it holds nothing but what the engine holds. Whatever writes to the engine says so here, before anybody reads.

Two generations take turns: what is read goes into the young one, and once that is full it becomes the old one, whose
values come back only if they are asked for again. That costs a dict's step per read, and no bookkeeping of ages. What
was not asked for again leaves bit by bit, as new values come: to free a whole generation at once takes milliseconds.

Where there is a ring (storage/ring) with far more room, which costs more to look into, what leaves goes there. Many
rows that are asked for once in a while, as by an index of a large table, are at home there once it was full here: to
take each of them in, and let go of another, costs more than to find it in the ring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from storage.ring import Ring

OVERHEAD_BYTES: Final = 200  # of a value in memory: two objects' heads, and its place in a dict
LARGEST_SHARE: Final = 64  # a value may have so small a part of all the room

_UNKNOWN: Final[Any] = object()


class RecentValues:
    """Reads through `read`, with at most about `limit_bytes` of values kept; None is a value, too. One thread.

    read_many: as `read`, of many keys at once.
    ring: where those are kept that have no room here, if there is one.
    """

    __slots__ = (
        "_behind", "_largest_bytes", "_leaving", "_limit_bytes", "_old", "_read", "_read_many", "_ring", "_young",
        "_young_bytes",
    )  # fmt: skip

    def __init__(
        self,
        read: Callable[[bytes], bytes | None],
        read_many: Callable[[Sequence[bytes]], list[bytes | None]],
        limit_bytes: int,
        ring: Ring | None,
    ) -> None:
        self._read = read
        self._read_many = read_many
        self._limit_bytes = limit_bytes // 2  # of one generation
        self._largest_bytes = limit_bytes // LARGEST_SHARE
        self._young: dict[bytes, bytes | None] = {}
        self._young_bytes = 0
        self._old: dict[bytes, bytes | None] = {}
        self._leaving: dict[bytes, bytes | None] = {}  # nobody looks in here
        self._ring = ring
        self._behind: Ring | None = None  # the ring, once it was full here

    def get(self, key: bytes) -> bytes | None:
        """The value, as `read` gives it."""
        value: bytes | None = self._young.get(key, _UNKNOWN)
        if value is not _UNKNOWN:
            return value
        value = self._old.pop(key, _UNKNOWN)
        if value is _UNKNOWN:
            value = self._behind.get(key) if self._behind is not None else None
            if value is None:
                value = self._read(key)
        self._keep(key, value)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys."""
        if self._behind is not None:
            found = list(map(self._behind.get, keys))
            if None in found:
                self._look_beside(self._behind, keys, found)
        else:
            found = list(map(self._young.get, keys))
            if None in found:
                self._look_further(keys, found)
        return found

    def _look_further(self, keys: Sequence[bytes], found: list[bytes | None]) -> None:
        """Fills in what is not in the young generation, or is there as None, and keeps it."""
        places: list[int] = []
        for at, value in enumerate(found):
            if value is None:
                key = keys[at]
                value = self._young.get(key, _UNKNOWN)
                if value is _UNKNOWN:
                    value = self._old.pop(key, _UNKNOWN)
                    if value is _UNKNOWN:
                        places.append(at)
                        continue
                    self._keep(key, value)
                found[at] = value
        for key, value in self._fill_in(keys, found, places):
            if key not in self._young:  # it may have been asked for twice
                self._keep(key, value)

    def _look_beside(self, ring: Ring, keys: Sequence[bytes], found: list[bytes | None]) -> None:
        """Fills in what is not in the ring, and puts it there."""
        young, old, put = self._young, self._old, ring.put
        places: list[int] = []
        for at, value in enumerate(found):
            if value is None:
                key = keys[at]
                value = young.get(key, _UNKNOWN)
                if value is _UNKNOWN:
                    value = old.get(key, _UNKNOWN)
                if value is _UNKNOWN:
                    places.append(at)
                elif value is not None:
                    found[at] = value
                    put(key, value)
        for key, value in self._fill_in(keys, found, places):
            if value is not None:
                put(key, value)

    def _fill_in(
        self, keys: Sequence[bytes], found: list[bytes | None], places: Sequence[int]
    ) -> list[tuple[bytes, bytes | None]]:
        """Reads the values for some of the places."""
        if not places:
            return []
        wanted = [keys[at] for at in places]
        values = self._read_many(wanted)
        for at, value in zip(places, values, strict=True):
            found[at] = value
        return list(zip(wanted, values, strict=True))

    def written(self, rows: Mapping[bytes, bytes | None]) -> None:
        """These keys have new values; those that nobody has read are of no interest, and no more are new keys'.

        A load would push out all that is read otherwise, and few rows are read right after they were inserted.
        """
        young, old, leaving, behind = self._young, self._old, self._leaving, self._behind
        known: list[bytes] = []
        for key in rows:  # to keep one may move the others: first nothing of before is left of any
            if behind is not None:
                leaving.pop(key, None)
                behind.discard(key)
            if key in young:
                before = young.pop(key)
                self._young_bytes -= _size(key, before)
            else:
                before = old.pop(key, None)
            if before is not None:
                known.append(key)
        for key in known:
            self._keep(key, rows[key])

    def forget(self) -> None:
        """Anything may have changed, and the ring has forgotten all."""
        self._young = {}
        self._young_bytes = 0
        self._old = {}
        self._leaving = {}
        self._behind = None

    def _keep(self, key: bytes, value: bytes | None) -> None:
        size = OVERHEAD_BYTES + len(key) + (len(value) if value is not None else 0)  # as `_size`, which is a call more
        if size > self._largest_bytes:
            return
        if self._young_bytes + size > self._limit_bytes:
            self._leaving, self._old, self._young, self._young_bytes = self._old, self._young, {}, 0
            self._behind = self._ring
        self._young[key] = value
        self._young_bytes += size
        leaving = self._leaving
        if leaving:
            while leaving and size > 0:
                left, was = leaving.popitem()
                size -= _size(left, was)
                if was is not None and self._behind is not None:
                    self._behind.put(left, was)


def _size(key: bytes, value: bytes | None) -> int:
    return OVERHEAD_BYTES + len(key) + (len(value) if value is not None else 0)
