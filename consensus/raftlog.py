"""The log as the Raft core sees it: what storage holds, and the newest part that is on its way there.

Entries stay in memory here until storage has them synced; only then are they read from storage. The
rule: an entry is never dropped from memory while an older write of the same index may still reach
the disk after it.
"""

from __future__ import annotations

from typing import Protocol

from consensus.messages import (
    ENTRY_OVERHEAD_BYTES,
    UNLIMITED,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Snapshot,
    entries_bytes,
    limit_entries,
)
from model.errors import Corrupt, RewindError


class Compacted(RewindError):
    """The log no longer goes back to this index; only a snapshot does."""


class Unavailable(RewindError):
    """The log does not reach this index yet."""


class SnapshotUnavailable(RewindError):
    """Storage has no snapshot ready now; the core asks again later."""


class Storage(Protocol):
    """What the core reads of the log on disk. Written only by whoever handles a `Ready`.

    Reads answer at once and see everything handed over so far, synced or not.
    """

    def initial_state(self) -> tuple[HardState, ConfState]:
        """The state to start from: empty for a new member; the configuration as of the last snapshot."""

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries in [low, high) up to `max_bytes`, but at least one. Raises `Compacted` when `low` is gone."""

    def term(self, index: int) -> int:
        """The term of an entry in [first_index - 1, last_index]. Raises `Compacted` or `Unavailable`."""

    def first_index(self) -> int:
        """The first index that `entries` can give; the one after the snapshot when the log is empty."""

    def last_index(self) -> int:
        """The last index of the log, or the snapshot's when the log is empty."""

    def snapshot(self) -> Snapshot:
        """The newest snapshot. Raises `SnapshotUnavailable` while it is being made."""


class RaftLog:
    """Entries of storage and memory as one log, with its commit, applying and applied indexes."""

    __slots__ = (
        "applied",
        "applying",
        "applying_bytes",
        "applying_paused",
        "committed",
        "entries",
        "last_index",
        "last_term",
        "max_applying_bytes",
        "offset",
        "offset_in_progress",
        "snapshot",
        "snapshot_in_progress",
        "storage",
    )

    def __init__(self, storage: Storage, max_applying_bytes: int = UNLIMITED) -> None:
        self.storage = storage
        first, last = storage.first_index(), storage.last_index()
        self.entries: list[Entry] = []
        """Not known to be synced: `entries[i]` has index `offset + i`."""
        self.offset = last + 1
        self.offset_in_progress = last + 1
        """Entries below this index were handed out to be written."""
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self.last_index = last
        self.last_term = storage.term(last)
        self.committed = self.applying = self.applied = first - 1
        self.max_applying_bytes = max_applying_bytes
        self.applying_bytes = 0
        self.applying_paused = False

    # -- reading

    def first_index(self) -> int:
        """The first index this log can give."""
        return self.snapshot.index + 1 if self.snapshot is not None else self.storage.first_index()

    def term(self, index: int) -> int:
        """The term at `index`. Raises `Compacted` or `Unavailable`."""
        if index == self.last_index:
            return self.last_term
        if index >= self.offset:
            if index > self.last_index:
                raise Unavailable(f"The log ends before index {index}.")
            return self.entries[index - self.offset].raft_term
        if self.snapshot is not None:
            if index == self.snapshot.index:
                return self.snapshot.raft_term
            raise Compacted(f"The log starts after index {index}.")
        if index + 1 < self.storage.first_index():
            raise Compacted(f"The log starts after index {index}.")
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """The term at `index`, or 0 where the log has none."""
        try:
            return self.term(index)
        except (Compacted, Unavailable):
            return 0

    def matches(self, index: int, raft_term: int) -> bool:
        """Whether this log has that entry."""
        try:
            return self.term(index) == raft_term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, index: int, raft_term: int) -> bool:
        """Whether a log that ends with that entry is at least as complete as this one."""
        return raft_term > self.last_term or (raft_term == self.last_term and index >= self.last_index)

    def read_from(self, low: int, max_bytes: int) -> list[Entry]:
        """Entries from `low` to the end, up to `max_bytes`. Raises `Compacted`."""
        if low > self.last_index:
            return []
        return self.slice(low, self.last_index + 1, max_bytes)

    def slice(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries in [low, high) up to `max_bytes`, but at least one. Raises `Compacted`."""
        offset = self.offset
        if low >= offset:
            if high > self.last_index + 1:
                raise Corrupt(f"Entries up to {high} were asked from a log that ends at {self.last_index}.")
            return limit_entries(self.entries[low - offset : high - offset], max_bytes)
        if low < self.first_index():
            raise Compacted(f"The log starts after index {low}.")
        cut = min(high, offset)
        stored = self.storage.entries(low, cut, max_bytes)
        if high <= offset or len(stored) < cut - low:
            return stored
        size = entries_bytes(stored)
        if size >= max_bytes:
            return stored
        fresh = limit_entries(self.entries[: high - offset], max_bytes - size)
        if len(fresh) == 1 and size + len(fresh[0].data) + ENTRY_OVERHEAD_BYTES > max_bytes:
            return stored
        return stored + fresh

    def conflict_by_term(self, index: int, raft_term: int) -> tuple[int, int]:
        """The last place at or before `index` where a log whose entry there has `raft_term` may agree with this one.

        Gives (index, term), with term 0 where this log cannot tell.
        """
        while index > 0:
            try:
                ours = self.term(index)
            except (Compacted, Unavailable):
                return index, 0
            if ours <= raft_term:
                return index, ours
            index -= 1
        return 0, 0

    # -- appending

    def append(self, entries: list[Entry]) -> None:
        """Put entries behind the log, or over its uncommitted end."""
        first = entries[0].index
        if first <= self.committed:
            raise Corrupt(f"Entries from index {first} would replace committed ones (up to {self.committed}).")
        if first == self.last_index + 1 and first >= self.offset:
            self.entries.extend(entries)
        elif first <= self.offset:
            self.entries = list(entries)
            self.offset = self.offset_in_progress = first
        else:
            del self.entries[first - self.offset :]
            self.entries.extend(entries)
            self.offset_in_progress = min(self.offset_in_progress, first)
        self.last_index = entries[-1].index
        self.last_term = entries[-1].raft_term

    def append_next(self, raft_term: int, data: bytes) -> int:
        """Put one normal entry of this member's own term behind the log; its index."""
        index = self.last_index + 1
        self.entries.append(Entry(index, raft_term, EntryKind.NORMAL, data))
        self.last_index = index
        self.last_term = raft_term
        return index

    def try_append(self, previous: int, previous_term: int, entries: list[Entry], committed: int) -> int | None:
        """Take a leader's entries after `previous`, if the logs agree there; the index now known to agree, or None."""
        if not self.matches(previous, previous_term):
            return None
        agreed = previous + len(entries)
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.raft_term):
                self.append(entries[position:])
                break
        self.commit_to(min(committed, agreed))
        return agreed

    def restore(self, snapshot: Snapshot) -> None:
        """Start over from a snapshot."""
        self.committed = snapshot.index
        self.entries = []
        self.offset = self.offset_in_progress = snapshot.index + 1
        self.snapshot = snapshot
        self.snapshot_in_progress = False
        self.last_index = snapshot.index
        self.last_term = snapshot.raft_term

    # -- on the way to storage

    def next_unstable(self) -> list[Entry]:
        """Entries that were not handed out to be written yet."""
        return self.entries[self.offset_in_progress - self.offset :]

    def has_next_unstable(self) -> bool:
        """Whether there are entries to write."""
        return self.offset_in_progress <= self.last_index and bool(self.entries)

    def next_snapshot(self) -> Snapshot | None:
        """The snapshot to write, unless it was handed out."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_unstable(self) -> None:
        """Everything to write was handed out."""
        if self.entries:
            self.offset_in_progress = self.last_index + 1
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, index: int, raft_term: int) -> None:
        """Entries up to that one are synced, and no older write of them is under way."""
        position = index - self.offset
        if position < 0 or position >= len(self.entries) or self.entries[position].raft_term != raft_term:
            return
        del self.entries[: position + 1]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """That snapshot is in storage."""
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    # -- committing and applying

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed; never goes back."""
        if index <= self.committed:
            return
        if index > self.last_index:
            raise Corrupt(
                f"Index {index} is committed, but this member's log ends at {self.last_index}.",
                "Its log was cut or lost: remove this member and add it again with an empty data folder.",
            )
        self.committed = index

    def appliable_index(self, allow_unstable: bool) -> int:
        """The last index that may be applied now: committed, and synced here unless `allow_unstable`."""
        return self.committed if allow_unstable else min(self.committed, self.offset - 1)

    def has_next_committed(self, allow_unstable: bool) -> bool:
        """Whether there are entries to apply."""
        return (
            self.applying < self.committed
            and (allow_unstable or self.applying < self.offset - 1)
            and not self.applying_paused
            and self.snapshot is None
        )

    def next_committed(self, allow_unstable: bool) -> list[Entry]:
        """The next entries to apply, within what `max_applying_bytes` leaves."""
        if not self.has_next_committed(allow_unstable):
            return []
        room = self.max_applying_bytes - self.applying_bytes
        return self.slice(self.applying + 1, self.appliable_index(allow_unstable) + 1, room)

    def accept_applying(self, index: int, size: int, allow_unstable: bool) -> None:
        """Entries up to `index` were handed out to be applied."""
        self.applying = index
        self.applying_bytes += size
        self.applying_paused = self.applying_bytes >= self.max_applying_bytes or index < self.appliable_index(
            allow_unstable
        )

    def applied_to(self, index: int, size: int) -> None:
        """Entries up to `index` are applied."""
        if index > self.committed or index < self.applied:
            raise Corrupt(
                f"Index {index} was applied, which is outside what is applied and committed"
                f" ({self.applied} to {self.committed})."
            )
        self.applied = index
        if index > self.applying:
            self.applying = index
        self.applying_bytes = max(0, self.applying_bytes - size)
        self.applying_paused = self.applying_bytes >= self.max_applying_bytes
