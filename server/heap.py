"""The C library's heap, which RocksDB's blocks and memtables and Python's larger objects are in.

One rule: what is set here holds for the whole process, and is set before it has threads.
"""

from __future__ import annotations

import ctypes
from typing import Final

M_ARENA_MAX: Final = -8  # of glibc's malloc.h


def share_one_heap() -> bool:
    """One heap for all threads. Whether that was possible: only glibc has more than one.

    glibc gives threads heaps of their own, and what one has freed is of no use to the others. With the flushes and
    compactions of RocksDB that was 60 MB of 946 with a million rows of 1 KB (the mean of five loads). Sharing costs
    nothing that could be measured, as all but those run in one thread.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_ARENA_MAX, 1))


def give_back() -> None:
    """Gives the heap's free pages back to the system, where the C library can: a fifth of a millisecond for each MB.

    A query of 60 MB leaves 100 MB that are free in small pieces all over the heap, which it would keep.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
