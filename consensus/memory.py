"""A log in memory: the reference for the storage port, used by tests and by the simulation."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.messages import ConfState, Entry, HardState, Snapshot, limit_entries
from consensus.raftlog import Compacted, Unavailable
from model.errors import Corrupt


class MemoryStorage:
    """Implements `raftlog.Storage`; what is set is there at once."""

    def __init__(self) -> None:
        self._hard_state = HardState()
        self._snapshot = Snapshot()
        self._start, self._start_term = 0, 0
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState, ConfState]:
        """See `raftlog.Storage`."""
        return self._hard_state, self._snapshot.conf

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """See `raftlog.Storage`."""
        if low <= self._start:
            raise Compacted(f"The log starts after index {low}.")
        if high > self.last_index() + 1:
            raise Unavailable(f"The log ends before index {high - 1}.")
        first = self._start + 1
        return limit_entries(self._entries[low - first : high - first], max_bytes)

    def term(self, index: int) -> int:
        """See `raftlog.Storage`."""
        if index < self._start:
            raise Compacted(f"The log starts after index {index}.")
        if index == self._start:
            return self._start_term
        if index > self.last_index():
            raise Unavailable(f"The log ends before index {index}.")
        return self._entries[index - self._start - 1].raft_term

    def first_index(self) -> int:
        """See `raftlog.Storage`."""
        return self._start + 1

    def last_index(self) -> int:
        """See `raftlog.Storage`."""
        return self._start + len(self._entries)

    def snapshot(self) -> Snapshot:
        """See `raftlog.Storage`."""
        return self._snapshot

    def set_hard_state(self, state: HardState) -> None:
        """Keep term, vote and commit index."""
        self._hard_state = state

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the log, or over its end; what was compacted stays away."""
        if not entries or entries[-1].index <= self._start:
            return
        entries = entries[max(0, self._start + 1 - entries[0].index) :]
        position = entries[0].index - self._start - 1
        if position > len(self._entries):
            raise Corrupt(f"Entries from {entries[0].index} would leave a gap behind {self.last_index()}.")
        self._entries[position:] = entries

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Start over from a snapshot."""
        self._snapshot = snapshot
        self._start, self._start_term = snapshot.index, snapshot.raft_term
        self._entries = []

    def create_snapshot(self, index: int, conf: ConfState, data: bytes = b"") -> Snapshot:
        """Note that a snapshot covers everything up to `index`; the log stays."""
        self._snapshot = Snapshot(index, self.term(index), conf, data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget entries up to `index`."""
        if index <= self._start:
            raise Compacted(f"The log starts after index {index} already.")
        term = self.term(index)
        del self._entries[: index - self._start]
        self._start, self._start_term = index, term
