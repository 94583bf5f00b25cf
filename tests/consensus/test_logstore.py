"""The log on disk against the reference in memory, over reopenings, and what it does on its own: cache, release."""

import random
import threading
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import logstore
from consensus.logstore import LogStore
from consensus.messages import (
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Snapshot,
    encode_conf_change,
)
from consensus.raftlog import Compacted, SnapshotUnavailable, Unavailable
from model.errors import Corrupt, DiskFull, RewindError
from tests.wal.lossy_disk import FOLDER, LossyDisk

ALL = 1 << 40


class Opened:
    """A store whose appends are waited for."""

    def __init__(self, disk, applied_index=0, **options):
        self.disk = disk
        self.store = LogStore(FOLDER, applied_index, files=disk, segment_bytes=4000, **options)
        self.store.on_failure = lambda error: self.answered.set()
        self.answered = threading.Event()

    def append(self, entries=(), hard_state=None):
        self.answered.clear()
        if self.store.append(list(entries), hard_state, self.answered.set):
            assert self.answered.wait(20)
            if self.store.failed is None:
                self.store.mark_synced()

    def reopened(self, applied_index=0, **options):
        self.store.close()
        return Opened(self.disk, applied_index, **options)


@pytest.fixture
def opened():
    return Opened(LossyDisk())


def entries(first, count, raft_term=1, size=10):
    return [
        Entry(i, raft_term, EntryKind.NORMAL, f"{i}/{raft_term}".encode() * size) for i in range(first, first + count)
    ]


def contents(store):
    return store.entries(store.first_index(), store.last_index() + 1, ALL)


appends = st.tuples(st.integers(0, 8), st.integers(1, 6), st.integers(0, 1), st.integers(0, 120))


@mock.patch.object(logstore, "LET_GO_BYTES", 0)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(appends, st.sampled_from(["reopen", "let go"])), max_size=15), st.sampled_from([0, 500, ALL]))
def test_it_holds_what_the_reference_holds(steps, cache_bytes):
    """Appends over the end and over conflicting entries, reopened now and then, whatever the cache holds."""
    opened, log, raft_term = Opened(LossyDisk(), cache_bytes=cache_bytes), [], 1
    for step in steps:
        if step == "reopen":
            opened = opened.reopened(cache_bytes=cache_bytes)
        elif step == "let go":
            opened.store.let_go(len(log) * 2 // 3)
        else:
            back, count, newer, size = step
            back = min(back, len(log))
            raft_term += newer or bool(back)
            fresh = entries(len(log) - back + 1, count, raft_term, size)
            log = log[: len(log) - back] + fresh
            opened.append(fresh, HardState(raft_term, 1, 0))
        store = opened.store
        assert (store.first_index(), store.last_index(), store.synced_index) == (1, len(log), len(log))
        assert store.initial_state()[0].raft_term == (raft_term if log else 0)
        got = [] if not log else contents(store)
        while len(got) < len(log):
            got += store.entries(len(got) + 1, len(log) + 1, ALL)
        assert got == log
        assert [store.term(index) for index in range(len(log) + 1)] == [0, *(entry.raft_term for entry in log)]
    opened.store.close()


def test_a_new_log_is_empty_and_takes_its_first_configuration_once(opened):
    store = opened.store
    assert (store.first_index(), store.last_index(), store.term(0)) == (1, 0, 0)
    assert store.initial_state() == (HardState(), ConfState())
    store.bootstrap(ConfState(voters=(1, 2, 3)))
    with pytest.raises(RewindError):
        store.bootstrap(ConfState(voters=(1,)))
    again = opened.reopened().store
    assert again.initial_state() == (HardState(), ConfState(voters=(1, 2, 3)))
    with pytest.raises(RewindError):
        again.bootstrap(ConfState(voters=(1,)))
    again.close()


def test_entries_of_all_kinds_come_back_from_the_disk():
    opened = Opened(LossyDisk(), cache_bytes=0)
    written = [Entry(index + 1, 1, kind, b"x") for index, kind in enumerate(EntryKind)]
    opened.append(written)
    assert opened.store.entries(1, 4, ALL) == written
    assert opened.reopened().store.entries(1, 4, ALL) == written


def test_entries_are_limited_but_never_none(opened):
    opened.append(entries(1, 9))
    for store in (opened.store, opened.reopened(cache_bytes=0).store):
        assert [entry.index for entry in store.entries(2, 8, 0)] == [2]
        assert [entry.index for entry in store.entries(2, 8, 100)] == [2, 3]
        with pytest.raises(Unavailable):
            store.entries(2, 11, ALL)
        with pytest.raises(Unavailable):
            store.term(10)


def test_a_commit_index_alone_is_not_written_but_kept_by_a_regular_end(opened):
    opened.append(entries(1, 3), HardState(1, 1, 0))
    groups = opened.store._writer.synced_groups
    assert not opened.store.append([], HardState(1, 1, 3), None)
    assert opened.store.initial_state()[0].commit == 3
    assert opened.store._writer.synced_groups == groups
    assert opened.reopened().store.initial_state()[0] == HardState(1, 1, 3)


def test_the_commit_index_goes_with_the_next_entries(opened):
    """Without it, a member that was killed would not know of the configurations that it had applied since its flush."""
    opened.append(entries(1, 3), HardState(1, 1, 0))
    opened.store.keep_commit(HardState(1, 1, 3))
    opened.append(entries(4, 1))
    killed = opened.disk.after_power_loss(random.Random(1))
    assert LogStore(FOLDER, files=killed).initial_state()[0] == HardState(1, 1, 3)


def test_a_vote_is_written_at_once(opened):
    assert opened.store.append([], HardState(4, 2, 0), lambda: None)
    opened.store._writer.close()
    assert LogStore(FOLDER, files=opened.disk).initial_state()[0] == HardState(4, 2, 0)


def test_the_commit_index_is_never_behind_what_is_applied(opened):
    opened.append(entries(1, 5), HardState(1, 1, 0))
    assert opened.reopened(applied_index=4).store.initial_state()[0].commit == 4


def test_the_configuration_is_the_one_at_the_applied_index(opened):
    opened.store.bootstrap(ConfState(voters=(1,)))
    opened.append(entries(1, 10))
    opened.store.save_conf_state(4, ConfState(voters=(1, 2)))
    opened.store.save_conf_state(8, ConfState(voters=(1, 2, 3)))
    for applied_index, voters in ((3, (1,)), (4, (1, 2)), (7, (1, 2)), (8, (1, 2, 3)), (10, (1, 2, 3))):
        opened = opened.reopened(applied_index)
        assert opened.store.initial_state()[1].voters == voters


def test_a_configuration_that_was_applied_but_not_written_down_is_taken_from_the_log(opened):
    opened.store.bootstrap(ConfState(voters=(1,)))
    joint = ConfChange((Change(ChangeKind.ADD_VOTER, 2), Change(ChangeKind.ADD_LEARNER, 3)))
    simple = ConfChange((Change(ChangeKind.ADD_VOTER, 3),))
    changes = {3: joint, 5: ConfChange(), 7: simple}
    opened.append(
        [
            Entry(index, 1, EntryKind.CONF_CHANGE_V2, encode_conf_change(changes[index]))
            if index in changes
            else Entry(index, 1, EntryKind.NORMAL, b"")
            for index in range(1, 9)
        ]
    )
    begun = ConfState((1, 2), (3,), (1,), (), True)
    left, whole = ConfState((1, 2), (3,)), ConfState((1, 2, 3))
    for applied_index, state in ((2, ConfState((1,))), (4, begun), (6, left), (8, whole)):
        opened = opened.reopened(applied_index)
        assert opened.store.initial_state()[1] == state
    opened.store.save_conf_state(5, left)
    assert opened.reopened(8).store.initial_state()[1] == whole


def test_a_change_that_became_void_changes_no_configuration(opened):
    opened.store.bootstrap(ConfState(voters=(1,)))
    change = encode_conf_change(ConfChange((Change(ChangeKind.ADD_VOTER, 2),)))
    opened.append([Entry(1, 1, EntryKind.NORMAL, b""), Entry(2, 1, EntryKind.CONF_CHANGE_V2, change)])
    opened.append([Entry(2, 2, EntryKind.NORMAL, b"")])
    assert opened.reopened(2).store.initial_state()[1] == ConfState((1,))


def test_a_log_that_ends_before_what_is_applied_is_refused(opened):
    opened.append(entries(1, 5))
    with pytest.raises(Corrupt, match=r"entries 1 to 5, but the stored data is as of entry 6"):
        opened.reopened(applied_index=6)


def test_released_entries_are_gone_and_the_states_stay():
    opened = Opened(LossyDisk())
    opened.store.bootstrap(ConfState(voters=(1, 2)))
    for first in range(1, 100, 5):
        opened.append(entries(first, 5, raft_term=1 + first // 50, size=20), HardState(1 + first // 50, 2, first))
    before = contents(opened.store)
    opened.store.release_before(60)
    first = opened.store.first_index()
    assert 20 < first <= 60
    for _ in range(2):
        store = opened.store
        assert store.first_index() == first
        assert contents(store) == before[first - 1 :]
        assert store.term(first - 1) == before[first - 2].raft_term
        with pytest.raises(Compacted):
            store.entries(first - 1, first + 1, ALL)
        with pytest.raises(Compacted):
            store.term(first - 2)
        assert store.initial_state() == (HardState(2, 2, 96), ConfState(voters=(1, 2)))
        opened = opened.reopened(applied_index=90)
    opened.store.close()


def test_a_log_that_does_not_go_back_to_what_is_applied_is_refused():
    opened = Opened(LossyDisk())
    for first in range(1, 100, 5):
        opened.append(entries(first, 5, size=20))
    opened.store.release_before(60)
    with pytest.raises(Corrupt, match="the stored data is as of entry 10"):
        opened.reopened(applied_index=10)


def test_a_snapshot_restarts_the_log(opened):
    opened.store.bootstrap(ConfState(voters=(1,)))
    opened.append(entries(1, 8))
    snapshot = Snapshot(20, 3, ConfState(voters=(1, 2)))
    opened.store.restart_after(snapshot)
    opened.append([], HardState(3, 0, 20))
    for _ in range(2):
        store = opened.store
        assert (store.first_index(), store.last_index(), store.synced_index, store.term(20)) == (21, 20, 20, 3)
        assert store.initial_state() == (HardState(3, 0, 20), ConfState(voters=(1, 2)))
        opened = opened.reopened(applied_index=20)
    opened.append(entries(21, 3, 3))
    assert contents(opened.reopened(applied_index=20, cache_bytes=0).store) == entries(21, 3, 3)


def test_a_snapshot_that_was_installed_before_a_crash_restarts_the_log_at_the_next_start(opened):
    opened.append(entries(1, 8))
    snapshot = Snapshot(20, 3, ConfState(voters=(1, 2)))
    again = opened.reopened(applied_index=20, installed=snapshot)
    assert (again.store.first_index(), again.store.last_index(), again.store.initial_state()[1]) == (
        21,
        20,
        snapshot.conf,
    )
    again.append(entries(21, 1, 3), HardState(3, 0, 20))
    assert again.reopened(applied_index=20, installed=snapshot).store.last_index() == 21


def test_a_snapshot_in_place_of_another_leaders_entries_restarts_the_log(opened):
    opened.append(entries(1, 30, 2))
    snapshot = Snapshot(20, 3, ConfState(voters=(1, 2)))
    store = opened.reopened(applied_index=20, installed=snapshot).store
    assert (store.first_index(), store.last_index(), store.term(20)) == (21, 20, 3)


def test_a_log_that_goes_on_from_an_installed_snapshot_is_left_alone(opened):
    opened.append(entries(1, 30, 3))
    store = opened.reopened(applied_index=20, installed=Snapshot(20, 3)).store
    assert (store.first_index(), store.last_index()) == (1, 30)


def test_snapshots_come_from_whoever_makes_them(opened):
    with pytest.raises(SnapshotUnavailable):
        opened.store.snapshot()
    opened.store.snapshot_source = lambda: Snapshot(3, 1)
    assert opened.store.snapshot() == Snapshot(3, 1)


def test_recent_entries_need_no_file(opened):
    opened.append(entries(1, 50))
    opened.disk.pread = None
    assert [entry.index for entry in opened.store.entries(1, 51, ALL)] == list(range(1, 51))


def test_what_is_applied_is_let_go_where_that_is_worth_it(opened):
    opened.append(entries(1, 50, size=2000))
    opened.store.let_go(40)
    assert opened.store._cache == entries(41, 10, size=2000)
    opened.store.let_go(50)
    assert opened.store._cache == entries(41, 10, size=2000), "these are few"
    assert contents(opened.store) + opened.store.entries(41, 51, ALL) == entries(1, 50, size=2000)


def test_a_full_disk_is_told_and_remembered(opened):
    opened.append(entries(1, 3))
    opened.disk.fail_at, opened.disk.fail_with = opened.disk.operations + 1, 28
    opened.append(entries(4, 1))
    assert isinstance(opened.store.failed, DiskFull)
    with pytest.raises(DiskFull):
        opened.store.append(entries(5, 1), None, None)
    opened.store.close()
    opened.disk.fail_at = None
    assert contents(LogStore(FOLDER, files=opened.disk))[:3] == entries(1, 3)
