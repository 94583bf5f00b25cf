"""Values by key in two large pieces of memory of their own: a log that overwrites its oldest, and a table of places.

One rule: what is found here was put here under that very key, and not discarded since. The key stands before its value
in the log, so that a place that leads elsewhere is found out.

    place (8 bytes)   position in the log, in units of 64 bytes, ever growing | bytes of the value | of the key | hash
    log               key value, key value, ... each from a new unit on

Python's objects would do the same: a dict of bytes. For small values they take twice the memory, to let go of the
oldest means to free them one by one where they lie, and a dict of millions that grows holds up everything for a tenth
of a second. Here nothing is freed, and nothing grows: a value is found in 0.5 µs, in 1 µs among millions.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Final

UNIT_BITS: Final = 6
UNIT_BYTES: Final = 1 << UNIT_BITS
TAG: Final = 0xF  # of the hash: without, a place that another key shares would cost a look into the log
TAG_SHIFT: Final = 59  # far from the bits that choose the place
KEY_SHIFT: Final = 4
MOST_KEY_BYTES: Final = 0xFF
VALUE_SHIFT: Final = 12
MOST_VALUE_BYTES: Final = 0x3FFFF
POSITION_SHIFT: Final = 30
BEGIN_SHIFT: Final = POSITION_SHIFT - UNIT_BITS  # from a place to where in the log it leads
LAST_POSITION: Final = 1 << (64 - POSITION_SHIFT)  # 1 TB was put by then: all is forgotten
BYTES_PER_PLACE: Final = 128
LEAST_BYTES: Final = 4096
NEIGHBOURS: Final = (0, 1, 2, 3)  # a key has four places, in one line of the processor's cache
LARGEST_SHARE: Final = 64  # a value may have so small a part of the log
RENEWED_SHARE: Final = 4  # what is asked for in the oldest quarter of the log is put anew


def _memory(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel that has no huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)  # places and values lie anywhere: fewer pages are fewer misses
    return memory


class Ring:
    """At most `limit_bytes` of keys and values, rounded down to a power of two, and a sixteenth more for the places.

    None of it is taken from the system before it is used. One thread.
    """

    __slots__ = ("_bytes", "_data", "_head", "_largest", "_oldest", "_places", "_renewed", "_slots")

    def __init__(self, limit_bytes: int) -> None:
        size = 1 << max(limit_bytes, LEAST_BYTES).bit_length() - 1
        self._data = _memory(size)
        self._bytes = size - UNIT_BYTES  # also a mask: of where in the log a unit is
        self._places = size // BYTES_PER_PLACE - 1  # a mask, too
        self._largest = min(MOST_VALUE_BYTES, size // LARGEST_SHARE)
        self._begin_anew()

    def get(self, key: bytes) -> bytes | None:
        """The value; None if it is not here, or no more."""
        hashed = hash(key)
        slot = self._slots[hashed & self._places]
        if slot >= self._renewed and slot & TAG == hashed >> TAG_SHIFT & TAG:
            begin = slot >> BEGIN_SHIFT & self._bytes
            middle = begin + len(key)
            if self._data[begin:middle] == key and slot >> KEY_SHIFT & MOST_KEY_BYTES == len(key):
                return self._data[middle : middle + (slot >> VALUE_SHIFT & MOST_VALUE_BYTES)]
        return self._look_further(key, hashed)

    def put(self, key: bytes, value: bytes) -> None:
        """Keeps a value. One that is large for the log is not kept; of a key that is here, it is the same."""
        hashed = hash(key)
        is_large = len(key) > MOST_KEY_BYTES or len(key) + len(value) > self._largest
        if is_large or self._find(key, hashed) >= 0:
            return
        place = hashed & self._places
        if self._slots[place] >= self._oldest:
            place = min([place ^ neighbour for neighbour in NEIGHBOURS], key=self._slots.__getitem__)
        self._write(place, key, value)

    def discard(self, key: bytes) -> None:
        """The key has another value, or none any more."""
        place = self._find(key, hash(key))
        if place >= 0:
            self._slots[place] = 0

    def forget(self) -> None:
        """Nothing is here any more."""
        self._move(self._head + (self._bytes >> UNIT_BITS) + 1)

    def _look_further(self, key: bytes, hashed: int) -> bytes | None:
        place = self._find(key, hashed)
        if place < 0:
            return None
        slot = self._slots[place]
        middle = (slot >> BEGIN_SHIFT & self._bytes) + len(key)
        value = self._data[middle : middle + (slot >> VALUE_SHIFT & MOST_VALUE_BYTES)]
        if slot < self._renewed:
            self._write(place, key, value)
        return value

    def _find(self, key: bytes, hashed: int) -> int:
        """The place of a key; -1 if it has none."""
        tag = hashed >> TAG_SHIFT & TAG
        first = hashed & self._places
        for neighbour in NEIGHBOURS:
            slot = self._slots[first ^ neighbour]
            if slot & TAG == tag and slot >= self._oldest:
                begin = slot >> BEGIN_SHIFT & self._bytes
                if self._data[begin : begin + len(key)] == key and slot >> KEY_SHIFT & MOST_KEY_BYTES == len(key):
                    return first ^ neighbour
        return -1

    def _write(self, place: int, key: bytes, value: bytes) -> None:
        entry = key + value
        units = len(entry) + UNIT_BYTES - 1 >> UNIT_BITS
        begin = self._head << UNIT_BITS & self._bytes
        if begin + len(entry) > self._bytes + UNIT_BYTES:  # there is no room before the end
            self._head += self._bytes + UNIT_BYTES - begin >> UNIT_BITS
            begin = 0
        position = self._head
        self._data[begin : begin + len(entry)] = entry
        self._move(position + units)
        if position < self._head:  # else all positions were used up
            self._slots[place] = (
                position << POSITION_SHIFT
                | len(value) << VALUE_SHIFT
                | len(key) << KEY_SHIFT
                | hash(key) >> TAG_SHIFT & TAG
            )

    def _move(self, head: int) -> None:
        """What comes next goes to `head`; what was there, one round ago, is gone."""
        if head >= LAST_POSITION:
            self._begin_anew()
            return
        self._head = head
        units = (self._bytes >> UNIT_BITS) + 1
        self._oldest = head - units << POSITION_SHIFT
        self._renewed = head - units + units // RENEWED_SHARE << POSITION_SHIFT

    def _begin_anew(self) -> None:
        self._slots = memoryview(_memory((self._places + 1) * 8)).cast("Q")
        self._head = 0
        # A place that nobody has used is 0, and so less than the oldest.
        self._move((self._bytes >> UNIT_BITS) + 2)
