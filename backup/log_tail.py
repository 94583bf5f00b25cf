"""Follows the log in a data folder from another process, while the server writes it.

One rule: an entry is given out only if its raft_term is the one that the server says its index has. Log index and
raft_term together name an entry, so what a lost leader wrote and had to take back is passed over.

The server says up to where the log is committed and synced, and keeps what is not yet read. Reading is sequential:
a place in a file is kept between calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from model.errors import RewindError
from wal.files import Files, OsFiles
from wal.record import FIRST_ENTRY_KIND, Record, read_run
from wal.segment import parse_name

READ_BYTES: Final = 1 << 20


class EntriesGone(RewindError):
    """The log no longer holds the entry that is to be read next."""


class Known(NamedTuple):
    """What the server says of its log: entries up to `last_index` are committed and synced.

    first_index: the oldest entry that is still there. terms: (first entry, raft_term) by ascending entry, covering
    all that is read.
    """

    first_index: int
    last_index: int
    terms: Sequence[tuple[int, int]]

    def term(self, index: int) -> int | None:
        """The raft_term of an entry; None if nothing is said of it."""
        at = bisect_right(self.terms, index, key=lambda start: start[0]) - 1
        return self.terms[at][1] if at >= 0 else None


class LogTail:
    """The log from one entry on."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._folder = folder
        self._files = files or OsFiles()
        self._handle = -1
        self._number = 0  # of the segment that is open
        self._offset = 0
        self._next = 0  # the entry that the place in the file is for

    def read(self, first: int, known: Known, max_bytes: int) -> list[Record]:
        """Entries from `first` to `known.last_index`, up to `max_bytes` of payload but at least one if there is any.

        Raises EntriesGone if the log begins later, OSError if it cannot be read.
        """
        if first > known.last_index:
            return []
        if first < known.first_index:
            raise EntriesGone(f"The log begins with entry {known.first_index}; entry {first} is gone.")
        if self._handle < 0 or first != self._next:
            self._find(first)
        found: list[Record] = []
        while sum(len(record.payload) for record in found) < max_bytes:
            if not self._read_some(known, found, max_bytes) or self._next > known.last_index:
                break
        return found

    def close(self) -> None:
        if self._handle >= 0:
            self._files.close(self._handle)
            self._handle = -1

    def _segments(self) -> list[tuple[int, int, Path]]:
        """(number, first entry, path), oldest first."""
        parsed = ((parse_name(name), name) for name in self._files.names(self._folder))
        return sorted((*numbers, self._folder / name) for numbers, name in parsed if numbers)

    def _find(self, first: int) -> None:
        """Opens the newest segment that begins at or before the entry: what is wanted lies there or further on."""
        fit = [segment for segment in self._segments() if segment[1] <= first]
        if not fit:
            raise EntriesGone(f"No file of the log holds entry {first} any more.")
        self._open(fit[-1])
        self._next = first

    def _open(self, segment: tuple[int, int, Path]) -> None:
        self.close()
        number, _, path = segment
        try:
            self._handle = self._files.open(path, writable=False)
        except FileNotFoundError as error:
            raise EntriesGone(f"{path.name} was released while it was looked for.") from error
        self._number = number
        self._offset = 0

    def _read_some(self, known: Known, found: list[Record], max_bytes: int) -> bool:
        """Takes one read's worth of entries; False where the log ends for now."""
        following = [segment for segment in self._segments() if segment[0] > self._number]
        # Whether there is a later segment is asked before the read: if there is, this one has all it will ever have.
        data = self._files.pread(self._handle, READ_BYTES, self._offset)
        records, offsets, end, needed = read_run(data, self._number)
        if not records and needed > len(data):
            data = self._files.pread(self._handle, needed, self._offset)
            records, offsets, end, needed = read_run(data, self._number)
        size = sum(len(record.payload) for record in found)
        for record, offset in zip(records, offsets, strict=True):
            if record.kind < FIRST_ENTRY_KIND or record.raft_term != known.term(record.log_index):
                continue
            if record.log_index > known.last_index or (found and size >= max_bytes):
                self._offset += offset
                return False
            if record.log_index < self._next:
                continue
            if record.log_index > self._next:
                raise EntriesGone(f"Entry {self._next} is not in the log; entry {record.log_index} follows.")
            found.append(record)
            size += len(record.payload)
            self._next += 1
        self._offset += end
        if records:
            return True
        if not following:
            return False
        self._open(following[0])
        return True
