"""Lookups in secondary indexes of late: which entries there are under one key, as a list that needs no search.

One rule: what is kept is what a scan of the engine would give. Whoever writes entries says so here before anybody
reads, and what is kept under a key that one of them begins with is let go of. To find those keys, the lengths that
keys have are known for each index: numbers have one, texts a few.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable
from typing import Final

from storage.layout import PREFIX_BYTES
from storage.ring import Ring

NAME: Final = b"\0"  # what a lookup's key in the ring begins with; those of the engine begin with letters
MOST_LENGTHS: Final = 16  # of one index: a write of an entry has to look for each

Scan = Callable[[bytes, bytes, int], tuple[list[bytes], bytes]]


def is_lookup(low: bytes, high: bytes) -> bool:
    """Whether [low, high) is all entries of a secondary index that begin with `low`."""
    return low.startswith(b"i") and high[:-1] == low[:-1] and high[-1] == low[-1] + 1 and len(low) >= PREFIX_BYTES


class RecentLookups:
    """Looks entries up through `scan`, which gives the values of [low, high) and the last key if there may be more.

    The lists are in `ring`, which forgets them by itself.
    """

    __slots__ = ("_lengths", "_ring", "_scan")

    def __init__(self, scan: Scan, ring: Ring) -> None:
        self._scan = scan
        self._ring = ring
        self._lengths: dict[bytes, set[int]] = {}  # of what was looked up, by the index's prefix

    def values(self, low: bytes, high: bytes, limit: int) -> tuple[list[bytes], bytes]:
        """What `scan` gives for a range that `is_lookup`."""
        kept = self._ring.get(NAME + low)
        if kept is not None:
            values: list[bytes] = marshal.loads(kept)  # written here and in this process: nobody else's bytes
            if len(values) < limit:
                return values, b""
        values, last = self._scan(low, high, limit)
        if not last:
            lengths = self._lengths.setdefault(low[:PREFIX_BYTES], set())
            if len(low) in lengths or len(lengths) < MOST_LENGTHS:
                lengths.add(len(low))
                self._ring.put(NAME + low, marshal.dumps(values))
        return values, last

    def written(self, keys: Iterable[bytes]) -> None:
        """These keys of the engine have other values, or none any more."""
        if self._lengths:
            lengths_of, discard = self._lengths.get, self._ring.discard
            for key in keys:
                lengths = lengths_of(key[:PREFIX_BYTES])
                if lengths is not None:
                    for length in lengths:
                        discard(NAME + key[:length])

    def forget(self) -> None:
        """Anything may have changed, and the ring has forgotten all."""
        self._lengths.clear()
