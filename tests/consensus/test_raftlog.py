"""The log of storage and memory against one plain list, under random appends, syncs, snapshots and reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.memory import MemoryStorage
from consensus.messages import Entry, Snapshot, entries_bytes, limit_entries
from consensus.raftlog import Compacted, RaftLog, Unavailable
from model.errors import Corrupt


class LogModel(RuleBasedStateMachine):
    """`entries` is the whole log; writes reach storage in the order in which they were handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.log = RaftLog(self.storage)
        self.entries: list[Entry] = []
        self.start, self.start_term = 0, 0
        self.term = 1
        self.writes: list[tuple[list[Entry], Snapshot | None, int, tuple[int, int]]] = []
        self.writes_are_old = 0

    @property
    def last(self) -> int:
        return self.start + len(self.entries)

    @rule(count=st.integers(1, 4), back=st.integers(0, 3), newer=st.booleans())
    def append(self, count: int, back: int, newer: bool) -> None:
        """Entries behind the log, or over its uncommitted end in a newer term."""
        first = max(self.last + 1 - back, self.log.committed + 1)
        if newer or first <= self.last:
            self.term += 1
        new = [Entry(first + at, self.term, data=b"%d" % (first + at)) for at in range(count)]
        previous = first - 1
        agreed = self.log.try_append(previous, self.term_at(previous), new, self.log.committed)
        assert agreed == first + count - 1
        self.entries[first - self.start - 1 :] = new

    def term_at(self, index: int) -> int:
        return self.start_term if index == self.start else self.entries[index - self.start - 1].raft_term

    @rule(upto=st.integers(0, 100))
    def commit(self, upto: int) -> None:
        self.log.commit_to(min(self.log.committed + upto, self.last))

    @rule()
    def hand_out(self) -> None:
        """What a `Ready` gives to be written."""
        entries, snapshot = self.log.next_unstable(), self.log.next_snapshot()
        known = (self.log.last_index, self.log.last_term)
        self.log.accept_unstable()
        self.writes.append((entries, snapshot, self.term, known))

    @precondition(lambda self: self.writes)
    @rule()
    def sync(self) -> None:
        """The oldest write is on disk; if the term is still the same, memory may forget what it held."""
        entries, snapshot, term, known = self.writes.pop(0)
        if snapshot is not None:
            self.storage.apply_snapshot(snapshot)
            self.log.stable_snapshot_to(snapshot.index)
        self.storage.append(entries)
        if term == self.term:
            self.log.stable_to(*known)

    @rule(beyond=st.integers(1, 5))
    def restore(self, beyond: int) -> None:
        """A snapshot from a leader."""
        self.term += 1
        snapshot = Snapshot(self.last + beyond, self.term)
        self.log.restore(snapshot)
        self.entries = []
        self.start, self.start_term = snapshot.index, snapshot.raft_term

    @invariant()
    def the_log_reads_as_the_list(self) -> None:
        log = self.log
        assert (log.last_index, log.last_term) == (self.last, self.term_at(self.last))
        first = max(log.first_index(), self.start + 1)
        for index in range(max(first - 1, self.start), self.last + 1):
            assert log.term(index) == self.term_at(index)
        with pytest.raises(Unavailable):
            log.term(self.last + 1)
        wanted = self.entries[first - self.start - 1 :]
        assert log.read_from(first, 1 << 30) == wanted
        for size in (0, 30, 45):
            assert log.read_from(first, size) == limit_entries(wanted, size)
        if first > 1:
            with pytest.raises(Compacted):
                log.slice(first - 1, first, 10)


TestLogModel: Any = LogModel.TestCase
TestLogModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def log_of(*terms: int) -> RaftLog:
    storage = MemoryStorage()
    storage.append([Entry(at + 1, term) for at, term in enumerate(terms)])
    return RaftLog(storage)


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [(6, 2, (3, 2)), (6, 5, (6, 5)), (5, 4, (5, 3)), (2, 0, (0, 0)), (9, 9, (9, 0))],
)
def test_where_logs_may_agree(index: int, term: int, found: tuple[int, int]) -> None:
    assert log_of(1, 2, 2, 3, 3, 5).conflict_by_term(index, term) == found


def test_a_commit_beyond_the_end_is_corruption() -> None:
    with pytest.raises(Corrupt):
        log_of(1, 1).commit_to(3)


def test_committed_entries_are_not_replaced() -> None:
    log = log_of(1, 1)
    log.commit_to(2)
    with pytest.raises(Corrupt):
        log.append([Entry(2, 2)])


def test_what_is_applied_stays_within_what_is_committed() -> None:
    log = log_of(1, 1)
    with pytest.raises(Corrupt):
        log.applied_to(1, 0)


def test_only_so_many_bytes_are_applied_at_a_time() -> None:
    storage = MemoryStorage()
    storage.append([Entry(index, 1, data=b"x" * 10) for index in range(1, 6)])
    log = RaftLog(storage, max_applying_bytes=50)
    log.commit_to(5)
    batches = []
    while log.has_next_committed(True):
        entries = log.next_committed(True)
        size = entries_bytes(entries)
        log.accept_applying(entries[-1].index, size, True)
        assert log.applying_paused or entries[-1].index == 5
        assert not log.next_committed(True) or not log.applying_paused
        log.applied_to(entries[-1].index, size)
        batches.append(len(entries))
    assert batches == [2, 2, 1]
