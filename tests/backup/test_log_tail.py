"""The log as another process follows it: just what is committed, whatever a lost leader wrote, across files."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backup.log_tail import EntriesGone, Known, LogTail
from consensus.logstore import LogStore
from consensus.messages import Entry, EntryKind
from tests.wal.lossy_disk import FOLDER, LossyDisk

ALL = 1 << 40


class Written:
    """A log that is written, and its tail that is read, entry numbers and terms only."""

    def __init__(self):
        self.disk = LossyDisk()
        self.store = LogStore(FOLDER, 0, files=self.disk, segment_bytes=3000)
        self.tail = LogTail(FOLDER, self.disk)
        self.log = []

    def append(self, back, count, raft_term, size):
        del self.log[len(self.log) - back :]
        first = len(self.log) + 1
        fresh = [
            Entry(index, raft_term, EntryKind.NORMAL, b"%d/%d" % (index, raft_term) * size)
            for index in range(first, first + count)
        ]
        self.log += fresh
        synced = threading.Event()
        self.store.append(fresh, None, synced.set)
        assert synced.wait(20)
        self.store.mark_synced()

    def known(self, last_index):
        first = self.store.first_index()
        return Known(first, last_index, self.store.term_runs(first, last_index))

    def entries(self, first, last):
        return [(entry.index, entry.raft_term, entry.data) for entry in self.log[first - 1 : last]]


def as_entries(records):
    return [(record.log_index, record.raft_term, record.payload) for record in records]


steps = st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 150), st.integers(0, 8), st.integers(1, 4000))


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, max_size=14))
def test_it_gives_out_what_is_committed_and_nothing_else(steps):
    written, raft_term, committed, shipped = Written(), 1, 0, 0
    for back, count, size, more, max_bytes in steps:
        back = min(back, len(written.log) - committed)
        raft_term += bool(back)
        written.append(back, count, raft_term, size)
        committed = min(len(written.log), committed + more)
        known = written.known(committed)
        while found := written.tail.read(shipped + 1, known, max_bytes):
            assert as_entries(found) == written.entries(shipped + 1, shipped + len(found))
            shipped += len(found)
        assert shipped == committed
    written.store.close()


def test_it_says_when_the_log_was_released():
    written = Written()
    for _ in range(30):
        written.append(0, 5, 1, 60)
    written.store.release_before(100)
    first = written.store.first_index()
    assert 1 < first <= 100
    with pytest.raises(EntriesGone):
        written.tail.read(1, written.known(150), ALL)
    assert as_entries(written.tail.read(first, written.known(150), ALL)) == written.entries(first, 150)
    written.store.close()


def test_another_place_can_be_asked_for():
    written = Written()
    for _ in range(20):
        written.append(0, 5, 1, 60)
    known = written.known(100)
    for first in (90, 3, 41, 100, 1):
        assert as_entries(written.tail.read(first, known, 2000))[0] == written.entries(first, first)[0]
    assert written.tail.read(101, known, ALL) == []
    written.store.close()
