"""The log on disk as the Raft core reads it, and as the node writes it.

One rule: reads see all that was handed over, synced or not; what is not yet synced is answered from
memory, what is synced from memory while it is recent and from the files after that.

All methods are called on one thread, the reactor's. Syncs are reported on any thread.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from consensus.confchange import state_after
from consensus.messages import (
    EMPTY_HARD_STATE,
    ENTRY_OVERHEAD_BYTES,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Snapshot,
    decode_conf_change,
    decode_conf_state,
    encode_conf_state,
    limit_entries,
)
from consensus.raftlog import Compacted, SnapshotUnavailable, Unavailable
from model.errors import Corrupt, RewindError
from wal.chart import Chart
from wal.files import Files
from wal.reader import DAMAGE_HINT, EntryReader, open_log
from wal.record import FIRST_ENTRY_KIND, Kind, Record
from wal.segment import DEFAULT_SEGMENT_BYTES, Segment
from wal.syncs import Syncs
from wal.writer import LogWriter

DEFAULT_CACHE_BYTES: Final = 16 << 20  # of entries for followers that lag; older ones are read from the files
LET_GO_BYTES: Final = 256 << 10  # kept without followers: what the processor's own cache holds is written over sooner
_VOTE: Final = struct.Struct("<Q")
_KINDS: Final = {FIRST_ENTRY_KIND + kind: kind for kind in EntryKind}
_record: Final[Callable[[tuple[int, int, int, bytes]], Record]] = partial(tuple.__new__, Record)  # half of the time


class LogStore:
    """`applied_index` is what the state machine holds durably: where the core starts from.

    `installed`: the snapshot that the state machine took in last; if the server ended before the log went on
    from there, it does now. Raises Corrupt when the log is damaged or does not reach that index.
    """

    def __init__(
        self,
        folder: Path,
        applied_index: int = 0,
        *,
        installed: Snapshot | None = None,
        files: Files | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        syncs: Syncs | None = None,
    ) -> None:
        opened = open_log(folder, files)
        chart = opened.chart
        is_behind = installed is not None and installed.index == applied_index and _has_to_restart(chart, installed)
        if not is_behind and not chart.first_index - 1 <= applied_index <= chart.last_index:
            raise Corrupt(
                f"The log in {folder} has entries {chart.first_index} to {chart.last_index},"
                f" but the stored data is as of entry {applied_index}: part of the log or of the data is lost.",
                DAMAGE_HINT,
            )
        self.folder = folder
        self.broken = opened.broken
        self.on_failure: Callable[[RewindError], None] | None = None  # called on any thread
        self.synced_index = chart.last_index
        self.snapshot_source: Callable[[], Snapshot] | None = None
        self._first_index = chart.first_index
        self._last_index = chart.last_index
        self._terms = chart.terms
        self._hard_state = _hard_state_of(chart.hard_state, applied_index)
        self._written_state: HardState | None = self._hard_state
        self._cache: list[Entry] = []  # the newest entries, up to the last one
        self._cache_first = self._last_index + 1
        self._cache_bytes = 0
        self._cache_limit = cache_bytes
        self._pending: deque[int] = deque()  # the last index after each append that is not synced yet
        self._writer = LogWriter(opened, files=files, segment_bytes=segment_bytes, syncs=syncs, on_failure=self._report)
        self._reader = self._writer.reader()
        self._conf_state = self._conf_state_at(chart, applied_index)
        self._writer.start()
        if installed is not None and is_behind:
            self.restart_after(installed)

    # -- what the core reads

    def initial_state(self) -> tuple[HardState, ConfState]:
        """The hard state, and the configuration as of the applied index; both empty for a new member."""
        return self._hard_state, self._conf_state

    def first_index(self) -> int:
        """The first entry that is still there; one after the last if there is none."""
        return self._first_index

    def last_index(self) -> int:
        """The last entry handed over, synced or not."""
        return self._last_index

    def term(self, index: int) -> int:
        """The raft_term of an entry from the one before the first to the last. Raises Compacted, Unavailable."""
        if index > self._last_index:
            raise Unavailable(f"The log ends at entry {self._last_index}, before {index}.")
        if index < self._first_index - 1:
            raise Compacted(f"The log begins with entry {self._first_index}, after {index}.")
        return self._terms.term(index)

    def term_runs(self, low: int, high: int) -> list[tuple[int, int]]:
        """(first entry, raft_term) that cover the entries low to high, as far as they are there."""
        return self._terms.runs(low, high)

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries in [low, high), up to `max_bytes` but at least one; maybe fewer. Raises Compacted, Unavailable."""
        if low < self._first_index:
            raise Compacted(f"The log begins with entry {self._first_index}, after {low}.")
        if high > self._last_index + 1:
            raise Unavailable(f"The log ends at entry {self._last_index}, before {high - 1}.")
        first = self._cache_first
        if low >= first:
            return limit_entries(self._cache[low - first : high - first], max_bytes)
        return self.read_synced(low, min(high, first), max_bytes)

    def read_synced(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries read from the files; all of them have to be synced. For any thread. Raises Corrupt."""
        records = self._reader.read(low, high, max_bytes)
        found = [Entry(index, raft_term, _KINDS[kind], data) for kind, raft_term, index, data in records]
        return limit_entries(found, max_bytes)

    def snapshot(self) -> Snapshot:
        """The newest snapshot of the applied state. Raises SnapshotUnavailable."""
        if self.snapshot_source is None:
            raise SnapshotUnavailable("This member makes no snapshots.")
        return self.snapshot_source()

    # -- what the node writes

    @property
    def failed(self) -> RewindError | None:
        """Why nothing can be written any more, or None."""
        return self._writer.failed

    @property
    def queued_bytes(self) -> int:
        """Bytes handed over and not yet synced."""
        return self._writer.queued_bytes

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The log's files, oldest first."""
        return self._writer.segments

    @property
    def reader(self) -> EntryReader:
        """Reads synced entries as records, from any thread."""
        return self._reader

    def bootstrap(self, conf_state: ConfState) -> None:
        """Gives a new log its first configuration; the log of a member that has one is left alone."""
        if self._last_index or self._conf_state.voters or self._hard_state != EMPTY_HARD_STATE:
            raise RewindError(f"The log in {self.folder} already belongs to a group.")
        self._conf_state = conf_state
        self._writer.append([Record(Kind.CONF_STATE, 0, 0, encode_conf_state(conf_state))])

    def append(
        self, entries: Sequence[Entry], hard_state: HardState | None, on_synced: Callable[[], None] | None
    ) -> bool:
        """Appends entries, over the end of the log where they conflict with it, and the hard state.

        A hard state of which only the commit index is new waits for the next entries, and goes with them. A member
        that starts again takes the configuration as of what is durably applied, and it is the commit index that
        makes it apply the changes after that before it may campaign. While it goes with the next entries, no more
        than the last change can be unknown, and majorities before and after one change overlap; if two were, such a
        member could elect itself. `on_synced` is called once all is on disk, on any thread; then `mark_synced` has
        to be called on this one. False if there is nothing to write, so no call comes. Raises what made the log fail.
        """
        records: list[Record] = []
        if entries:
            self._append_entries(entries, records)
        if hard_state is not None:
            self._hard_state = hard_state
        state, written = self._hard_state, self._written_state
        if state is not written and (entries or written is None or not _same_promise(state, written)):
            records.append(Record(Kind.HARD_STATE, state.raft_term, state.commit, _VOTE.pack(state.vote)))
            self._written_state = state
        if not records:
            return False
        self._pending.append(self._last_index)
        self._writer.append(records, on_synced)
        return True

    def keep_commit(self, hard_state: HardState) -> None:
        """Takes a hard state of which only the commit index is new; it is written with the next entries, as above."""
        self._hard_state = hard_state

    def mark_synced(self) -> None:
        """The oldest append not yet marked is on disk."""
        self.synced_index = max(self.synced_index, self._pending.popleft())
        if self._cache_bytes > self._cache_limit:
            self._shrink_cache(self._cache_limit * 3 // 4, self.synced_index)  # by so much, to do it seldom

    def let_go(self, index: int) -> None:
        """Nobody will ask for the entries up to here, which are applied, until a follower comes."""
        if self._cache_bytes > LET_GO_BYTES:
            self._shrink_cache(0, index)

    def save_conf_state(self, index: int, conf_state: ConfState) -> None:
        """Keeps the configuration as of the applied entry `index`."""
        self._conf_state = conf_state
        self._writer.append([Record(Kind.CONF_STATE, 0, index, encode_conf_state(conf_state))])

    def restart_after(self, snapshot: Snapshot) -> None:
        """Drops all entries: the log goes on after a snapshot that the state machine holds durably.

        The next `append` writes the hard state in any case: once that is synced, this is.
        """
        self.save_conf_state(snapshot.index, snapshot.conf)
        self._writer.append([Record(Kind.RESTART, snapshot.raft_term, snapshot.index)])
        self._truncate_cache(self._cache_first - 1)
        self._cache_first = snapshot.index + 1
        self._pending = deque(snapshot.index for _ in self._pending)
        self._first_index = snapshot.index + 1
        self._last_index = self.synced_index = snapshot.index
        self._terms.restart(snapshot.index, snapshot.raft_term)
        self._written_state = None

    def release_before(self, index: int) -> None:
        """Lets go of the segments whose entries are all before `index`; the first index moves at once."""
        first = self._first_index
        for segment in self._writer.segments[1:]:
            if segment.first_index > index:
                break
            first = max(first, segment.first_index)
        if first > self._first_index:
            self._first_index = first
            self._terms.release_before(first - 1)
            self._writer.release_before(first)

    def roll(self) -> None:
        """Seals the open segment, so that it can be archived as a whole."""
        self._writer.roll()

    def close(self) -> None:
        """Writes what was handed over, with the commit index as it is, and ends the writer. Blocks for that."""
        if self._writer.failed is None and self._hard_state is not self._written_state:
            state = self._hard_state
            self._writer.append([Record(Kind.HARD_STATE, state.raft_term, state.commit, _VOTE.pack(state.vote))])
        self._writer.close()

    # -- inside

    def _conf_state_at(self, chart: Chart, applied_index: int) -> ConfState:
        """The configuration as of what was applied: later changes are applied again.

        A change is written down once it is applied, and what is applied can be on disk first: after a power cut, the
        changes in between are taken from the log.
        """
        known = [record for record in chart.conf_states if record.log_index <= applied_index]
        state, first = (decode_conf_state(known[-1].payload), known[-1].log_index + 1) if known else (ConfState(), 1)
        missed = [index for index in chart.special if first <= index <= applied_index]
        if not missed:
            return state
        entries = [self.read_synced(index, index + 1, 1)[0] for index in missed]
        return state_after(state, [decode_conf_change(entry.data) for entry in entries])

    def _report(self, error: RewindError) -> None:
        if self.on_failure is not None:
            self.on_failure(error)

    def _append_entries(self, entries: Sequence[Entry], records: list[Record]) -> None:
        first = entries[0].index
        if first <= self._last_index:
            self._truncate_after(first - 1, records)
        elif first > self._last_index + 1:
            raise Corrupt(f"Entry {first} was to follow entry {self._last_index} of the log.")
        note, size = self._terms.note, 0
        raft_term = self._terms.last_term
        for entry in entries:
            data = entry.data
            size += len(data)
            if entry.raft_term != raft_term:
                raft_term = entry.raft_term
                note(entry.index, raft_term)
            records.append(_record((FIRST_ENTRY_KIND + entry.kind, raft_term, entry.index, data)))
        self._cache.extend(entries)
        self._cache_bytes += size + ENTRY_OVERHEAD_BYTES * len(entries)
        self._last_index = entries[-1].index

    def _truncate_after(self, index: int, records: list[Record]) -> None:
        records.append(Record(Kind.TRUNCATE, self.term(index), index))
        self._terms.truncate_after(index)
        self._truncate_cache(index)
        self._last_index = index
        self.synced_index = min(self.synced_index, index)
        self._pending = deque(min(last, index) for last in self._pending)

    def _truncate_cache(self, index: int) -> None:
        keep = max(index + 1 - self._cache_first, 0)
        self._cache_bytes -= sum(ENTRY_OVERHEAD_BYTES + len(entry.data) for entry in self._cache[keep:])
        del self._cache[keep:]
        self._cache_first = min(self._cache_first, index + 1)

    def _shrink_cache(self, enough_bytes: int, last_index: int) -> None:
        """Forgets the oldest entries up to `last_index`, which are synced, until no more are left than that."""
        last, size, keep = last_index - self._cache_first, self._cache_bytes, 0
        while size > enough_bytes and keep <= last:
            size -= ENTRY_OVERHEAD_BYTES + len(self._cache[keep].data)
            keep += 1
        del self._cache[:keep]
        self._cache_first += keep
        self._cache_bytes = size


def _has_to_restart(chart: Chart, snapshot: Snapshot) -> bool:
    """Whether the log ends before the snapshot, or holds another leader's entry at its place."""
    if snapshot.index > chart.last_index:
        return True
    return chart.first_index <= snapshot.index and chart.terms.term(snapshot.index) != snapshot.raft_term


def _same_promise(one: HardState, other: HardState) -> bool:
    """Whether they differ in the commit index at most, which a restart finds out again."""
    return one.raft_term == other.raft_term and one.vote == other.vote


def _hard_state_of(record: Record | None, applied_index: int) -> HardState:
    """The hard state as written; its commit index may be behind what was applied."""
    if record is None:
        return HardState(commit=applied_index) if applied_index else EMPTY_HARD_STATE
    return HardState(record.raft_term, _VOTE.unpack(record.payload)[0], max(record.log_index, applied_index))
