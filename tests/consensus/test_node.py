"""The node: what is proposed is synced, then applied, then told; and what happens when something of that fails."""

import errno
import random
import threading

import pytest

from consensus import logstore
from consensus.flushing import FlushPolicy
from consensus.messages import Change, ChangeKind, ConfChange, ConfState, Snapshot
from consensus.raftlog import SnapshotUnavailable
from model.errors import Corrupt, DiskFull, LeadershipLost, NotLeader, Overloaded, RewindError, SyncFailed
from tests.consensus.turns import Links, Member, Turns
from tests.wal.lossy_disk import LossyDisk


@pytest.fixture
def turns():
    return Turns()


@pytest.fixture
def alone(turns):
    member = Member(turns)
    turns.until(lambda: member.node.can_serve)
    return member


def propose(member, payload, told):
    """Proposes; `told` gets (payload, None or the error) once the fate is known."""
    place = member.node.propose(payload)
    member.node.when_applied(*place, lambda error: told.append((payload, error)))
    return place


class GatedDisk(LossyDisk):
    """A disk whose syncs wait until they are let through."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def datasync(self, handle):
        assert self.gate.wait(20)
        super().datasync(handle)


# -- alone


def test_a_group_of_one_leads_at_once_and_applies_what_is_proposed(turns, alone):
    told = []
    places = [propose(alone, payload, told) for payload in (b"a", b"b", b"c")]
    assert places == [(2, 1), (3, 1), (4, 1)]
    assert (alone.node.applied_index, alone.node.last_index) == (1, 4)
    turns.until(lambda: len(told) == 3)
    assert told == [(b"a", None), (b"b", None), (b"c", None)]
    assert alone.machine.payloads == [b"a", b"b", b"c"]
    assert (alone.node.applied_index, alone.node.leader_id, alone.node.is_leader) == (4, 1, True)


def test_the_proposals_of_one_turn_are_one_write_and_one_apply(turns, alone):
    told = []
    groups, calls = alone.store._writer.synced_groups, alone.machine.calls
    for number in range(20):
        propose(alone, b"%d" % number, told)
    turns.until(lambda: len(told) == 20)
    assert alone.store._writer.synced_groups == groups + 1
    assert alone.machine.calls == calls + 1


def test_what_is_proposed_as_a_turn_begins_is_of_that_turn(turns, alone):
    told, groups = [], alone.store._writer.synced_groups
    propose(alone, b"a", told)
    alone.node.before_turn(lambda: propose(alone, b"b", told))
    turns.until(lambda: len(told) == 2)
    assert alone.machine.payloads == [b"a", b"b"]
    assert alone.store._writer.synced_groups == groups + 1
    alone.node.before_turn(lambda: propose(alone, b"c", told))
    turns.until(lambda: len(told) == 3)
    assert told == [(b"a", None), (b"b", None), (b"c", None)]


def test_who_is_told_as_a_turn_begins_may_wait_for_the_next_one(turns, alone):
    begun = []

    def first():
        begun.append(1)
        alone.node.before_turn(lambda: begun.append(2))

    alone.node.before_turn(first)
    turns.until(lambda: begun == [1, 2])


def test_a_turn_begins_even_where_the_node_has_ended(turns, alone):
    begun = []
    alone.node.before_turn(lambda: begun.append(1))
    alone.node.fail(RewindError("over"))
    turns.until(lambda: begun)
    alone.node.before_turn(lambda: begun.append(2))
    turns.until(lambda: begun == [1, 2])


def test_nothing_is_applied_or_told_before_it_is_synced(turns):
    member = Member(turns, disk=GatedDisk())
    turns.until(lambda: member.node.can_serve)
    told = []
    member.disk.gate.clear()
    propose(member, b"first", told)
    turns.turn()
    propose(member, b"second", told)
    while turns.turn():
        pass
    assert (told, member.machine.payloads, member.node.last_index) == ([], [], 3)
    member.disk.gate.set()
    turns.until(lambda: len(told) == 2)
    assert member.machine.payloads == [b"first", b"second"]


def test_after_a_restart_everything_is_there_again(turns, alone):
    told = []
    for number in range(30):
        propose(alone, b"%d" % number, told)
        turns.until(lambda number=number: len(told) > number)
        if number == 9:
            alone.machine.flush()
    expected = [b"%d" % number for number in range(30)]
    alone.crash(random.Random(1))
    alone.begin()
    assert alone.machine.payloads == expected[:10]
    turns.until(lambda: alone.node.can_serve)
    assert alone.machine.payloads == expected


def test_a_regular_stop_applies_what_was_proposed_and_makes_it_durable(turns, alone):
    told, ended = [], []
    propose(alone, b"a", told)
    alone.node.stop().addCallback(ended.append)
    with pytest.raises(NotLeader):
        alone.node.propose(b"b")
    while not ended:
        turns.advance(0.02)
    assert told == [(b"a", None)]
    assert alone.machine.durable == (2, (b"a",))
    with pytest.raises(NotLeader):
        alone.node.propose(b"b")
    alone.begin()
    assert alone.store.initial_state()[0].commit == 2
    turns.until(lambda: alone.node.can_serve)
    assert alone.machine.payloads == [b"a"]
    assert alone.fatal == []


def test_a_stop_waits_for_a_stuck_disk_only_so_long(turns):
    member = Member(turns, disk=GatedDisk())
    turns.until(lambda: member.node.can_serve)
    told, ended = [], []
    member.disk.gate.clear()
    propose(member, b"a", told)
    turns.turn()
    turns.in_thread = None
    member.node._in_thread = lambda call: (member.disk.gate.set(), Turns().in_thread(call))[1]
    turns.members.clear()
    member.node.stop(drain_s=1.0).addCallback(ended.append)
    turns.advance(0.5)
    assert (told, ended) == ([], [])
    turns.advance(0.6)
    assert [type(error) for _, error in told] == [LeadershipLost]
    assert ended == [None]


def test_before_the_start_nothing_is_promised(turns):
    member = Member(turns)
    member.node._is_running = member.node._is_open = False
    told = []
    with pytest.raises(NotLeader):
        member.node.propose(b"x")
    member.node.when_applied(9, 1, told.append)
    member.node.read_index(told.append)
    assert told == []
    turns.turn()
    assert [type(error) for error in told] == [LeadershipLost, NotLeader]


def test_an_entry_that_is_applied_already_is_told_so_unless_it_is_another(turns, alone):
    told = []
    place = propose(alone, b"a", told)
    turns.until(lambda: told)
    alone.node.when_applied(*place, told.append)
    alone.node.when_applied(place[0], place[1] + 1, told.append)
    turns.settle()
    assert told[1] is None
    assert isinstance(told[2], LeadershipLost)


def test_too_much_that_waits_for_the_disk_is_refused(turns):
    member = Member(turns, disk=GatedDisk(), queue_bytes=1000)
    turns.until(lambda: member.node.can_serve)
    member.disk.gate.clear()
    member.node.propose(bytes(1001))
    turns.turn()
    with pytest.raises(Overloaded, match="bytes wait for the disk; the limit is 1000"):
        member.node.propose(b"more")
    member.disk.gate.set()
    turns.settle()
    member.node.propose(b"more")


def test_a_stalled_state_machine_gets_its_entries_again(turns, alone):
    told = []
    alone.machine.stalls = 3
    for number in range(3):
        propose(alone, b"%d" % number, told)
        turns.settle()
    assert told == []
    turns.advance(0.05)
    assert told == [(b"0", None), (b"1", None), (b"2", None)]
    assert alone.machine.payloads == [b"0", b"1", b"2"]
    assert alone.fatal == []


def test_an_entry_that_cannot_be_applied_ends_the_node(turns, alone):
    told = []
    alone.machine.error = Corrupt("no such table")
    propose(alone, b"a", told)
    turns.until(lambda: alone.fatal)
    assert alone.fatal == [alone.machine.error]
    assert isinstance(told[0][1], LeadershipLost)
    with pytest.raises(Corrupt):
        alone.node.propose(b"b")
    assert not alone.node.can_serve
    ended = []
    alone.node.stop().addCallback(ended.append)
    assert ended == [None]


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, SyncFailed)])
def test_a_failing_disk_ends_the_node_and_what_was_acknowledged_stays(turns, alone, code, error):
    told = []
    propose(alone, b"kept", told)
    turns.until(lambda: told)
    alone.disk.fail_with, alone.disk.fail_at = code, alone.disk.operations + 1
    propose(alone, b"unknown", told)
    turns.until(lambda: alone.fatal)
    assert [type(fatal) for fatal in alone.fatal] == [error]
    assert [type(answer) for _, answer in told] == [type(None), LeadershipLost]
    with pytest.raises(error):
        alone.node.propose(b"refused")
    alone.node.read_index(told.append)
    turns.settle()
    assert isinstance(told[-1], error)
    alone.node.stop()
    alone.disk.fail_at = None
    alone.begin()
    turns.until(lambda: alone.node.can_serve)
    assert alone.machine.payloads[0] == b"kept"


def test_a_waiter_that_fails_keeps_nobody_else_waiting(turns, alone):
    told = []

    def broken(error):
        raise ValueError("a mistake of the caller")

    place = propose(alone, b"a", told)
    alone.node.when_applied(*place, broken)
    alone.node.when_applied(*place, lambda error: told.append("third"))
    turns.until(lambda: len(told) == 2)
    assert alone.fatal == []


def test_a_waiter_may_propose(turns, alone):
    order = []

    def again(error):
        order.append(alone.node.applied_index)
        if len(order) < 5:
            alone.node.when_applied(*alone.node.propose(b"x"), again)

    again(None)
    turns.until(lambda: len(order) == 5)
    assert order == [1, 2, 3, 4, 5]


def test_the_head_is_told_before_the_waiters(turns, alone):
    order = []
    alone.node.on_applied = lambda index: order.append(("applied", index))
    place = alone.node.propose(b"a")
    alone.node.when_applied(*place, lambda error: order.append(("told", place[0])))
    turns.until(lambda: len(order) == 2)
    assert order == [("applied", 2), ("told", 2)]


# -- making durable, letting go


def test_the_log_is_released_once_the_state_is_durable(turns):
    policy = FlushPolicy(every_bytes=20_000)
    member = Member(turns, flush_policy=policy)
    turns.until(lambda: member.node.can_serve)
    told = []
    for number in range(60):
        propose(member, b"%d" % number * 500, told)
        turns.settle()
    assert member.machine.durable[0] > 10
    assert 1 < member.store.first_index() <= member.machine.durable[0] + 1
    kept = policy.durable_index
    policy.keep_from = lambda: 20
    for number in range(60):
        propose(member, b"%d" % number * 500, told)
        turns.settle()
    assert policy.durable_index > kept
    assert member.store.first_index() <= 20 or member.store.first_index() <= kept + 1
    member.crash(random.Random(2))
    member.begin()
    turns.until(lambda: member.node.can_serve)
    assert len(member.machine.payloads) == 120


def test_a_flush_comes_after_a_time_if_there_is_anything_to_flush(turns):
    member = Member(turns, flush_policy=FlushPolicy(every_s=10.0))
    turns.until(lambda: member.node.can_serve)
    member.node.propose(b"a")
    turns.advance(9.0)
    assert member.machine.durable == (0, ())
    turns.advance(1.5)
    assert member.machine.durable == (2, (b"a",))


def test_a_failed_flush_ends_the_node(turns, alone):
    alone.machine.flush = lambda: (_ for _ in ()).throw(DiskFull("no room"))
    alone.node.propose(b"a")
    turns.settle()
    alone.node.flush()
    assert [type(fatal) for fatal in alone.fatal] == [DiskFull]


def test_what_lagging_members_need_is_kept_within_a_limit():
    policy = FlushPolicy(keep_entries=100)
    assert policy.release_point(500, None) == 501
    assert policy.release_point(500, 480) == 481
    assert policy.release_point(500, 10) == 401
    assert policy.release_point(500, 600) == 501
    policy.keep_from = lambda: 90
    assert policy.release_point(500, 10) == 90


# -- with others


class Group:
    """Three members, the first elected."""

    def __init__(self, turns, **options):
        self.turns = turns
        self.links = Links(turns)
        self.members = [Member(turns, number, (1, 2, 3), self.links, **options) for number in (1, 2, 3)]
        self.elect(self.members[0])

    def elect(self, member):
        while not member.node.can_serve:
            self.turns.advance(0.1)
            if self.leader is None:
                member.node._guard(member.node.core.campaign)
            elif not member.node.is_leader:
                self.leader.node.transfer_leadership(member.id)
        self.turns.advance(0.3)

    @property
    def leader(self):
        return next((member for member in self.members if member.node.is_leader), None)


@pytest.fixture
def group(turns):
    return Group(turns)


def test_all_members_apply_the_same(turns, group):
    first, second, third = group.members
    told = []
    for number in range(20):
        propose(first, b"%d" % number, told)
    turns.advance(0.3)
    assert len(told) == 20
    expected = [b"%d" % number for number in range(20)]
    assert first.machine.payloads == second.machine.payloads == third.machine.payloads == expected
    assert (second.node.leader_id, second.node.can_serve) == (1, False)
    with pytest.raises(NotLeader):
        second.node.propose(b"x")


def test_what_waits_for_the_turn_is_proposed_before_the_lead_is_handed_over(turns, group):
    leader, told = group.leader, []
    leader.node.before_turn(lambda: propose(leader, b"last", told))
    assert leader.node.takes_proposals
    leader.node.transfer_leadership(next(member.id for member in group.members if member is not leader))
    assert not leader.node.takes_proposals
    with pytest.raises(NotLeader):
        leader.node.propose(b"too late")
    turns.until(lambda: told)
    assert told == [(b"last", None)]


def test_who_has_no_followers_keeps_no_applied_entries_in_memory(turns, group, alone, monkeypatch):
    monkeypatch.setattr(logstore, "LET_GO_BYTES", 0)
    told = []
    for member in (alone, group.members[0]):
        for number in range(20):
            propose(member, b"%d" % number, told)
    turns.until(lambda: len(told) == 40)
    assert alone.store._cache == [] and len(group.members[0].store._cache) >= 20
    alone.node.when_applied(
        *alone.node.propose_conf_change(ConfChange((Change(ChangeKind.ADD_LEARNER, 2),))), told.append
    )
    turns.until(lambda: len(told) == 41)
    propose(alone, b"more", told)
    turns.until(lambda: len(told) == 42)
    assert [entry.data for entry in alone.store._cache][-1:] == [b"more"]


def test_an_entry_is_told_once_a_quorum_has_it(turns, group):
    told = []
    group.links.cut = {3}
    propose(group.members[0], b"two of three", told)
    turns.advance(0.1)
    assert told == [(b"two of three", None)]
    group.links.cut = {2, 3}
    propose(group.members[0], b"alone", told)
    turns.advance(0.1)
    assert len(told) == 1


def test_a_leader_that_was_cut_off_does_not_know_the_fate_of_its_entries(turns, group):
    first, second, _ = group.members
    told = []
    group.links.cut = {1}
    for payload in (b"lost", b"too"):
        propose(first, payload, told)
    turns.advance(5.0)
    assert not first.node.is_leader  # it noticed itself that no quorum hears it
    assert [type(error) for _, error in told] == []
    group.elect(second)
    propose(second, b"new", told)
    turns.advance(0.3)
    group.links.cut = set()
    turns.advance(1.0)
    assert [payload for payload, error in told if error is None] == [b"new"]
    assert [payload for payload, error in told if isinstance(error, LeadershipLost)] == [b"lost", b"too"]
    assert first.machine.payloads == second.machine.payloads == [b"new"]
    assert first.leadership[-1].leader_id == 2


def test_it_is_known_how_long_no_leader_was_heard_of_however_often_an_election_was_tried(turns, group):
    first, _, third = group.members
    assert (first.node.silent_ms, third.node.silent_ms < 300) == (0, True)
    group.links.cut = {1, 3}
    turns.advance(20.0)
    assert first.node.leader_id is third.node.leader_id is None
    assert 18_000 < first.node.silent_ms <= 20_300  # it led until it noticed
    assert 19_900 < third.node.silent_ms <= 20_300
    group.links.cut = set()
    turns.advance(5.0)
    assert third.node.silent_ms < 300


def test_a_member_that_was_away_catches_up_from_its_own_disk_and_the_leader(turns, group):
    first, _, third = group.members
    told = []
    for number in range(10):
        propose(first, b"%d" % number, told)
        turns.advance(0.1)
    third.crash(random.Random(3))
    for number in range(10, 20):
        propose(first, b"%d" % number, told)
    turns.advance(0.1)
    third.begin()
    turns.advance(2.0)
    assert third.machine.payloads == first.machine.payloads == [b"%d" % number for number in range(20)]


def test_a_read_index_waits_for_what_was_committed_before(turns, group):
    first, second, _ = group.members
    told, reads = [], []
    group.links.cut = {2}
    propose(first, b"a", told)
    turns.advance(0.1)
    assert told
    second.node.read_index(reads.append)
    turns.advance(0.1)
    assert reads == []
    group.links.cut = set()
    turns.advance(3.0)
    assert reads == [None]
    assert second.machine.payloads == [b"a"]
    first.node.read_index(reads.append)
    first.node.read_index(reads.append)
    turns.advance(0.1)
    assert reads == [None] * 3


def test_a_read_that_no_leader_confirms_is_given_up(turns, group):
    reads = []
    group.links.cut = {1, 2, 3}
    group.members[0].node.read_index(reads.append)
    turns.advance(10.0)
    assert [type(error) for error in reads] == [NotLeader]
    group.members[1].node.read_index(reads.append)
    turns.advance(0.1)
    assert [type(error) for error in reads] == [NotLeader] * 2


def test_a_follower_whose_disk_fails_leaves_the_others_working(turns, group):
    first, _, third = group.members
    third.disk.fail_at = third.disk.operations + 1
    told = []
    propose(first, b"a", told)
    turns.advance(0.5)
    assert [type(fatal) for fatal in third.fatal] == [SyncFailed]
    assert told == [(b"a", None)]
    assert first.node.can_serve


class Copies:
    """Snapshots of one member: the machine's payloads as bytes."""

    def __init__(self):
        self.member = None
        self.installed = []

    def newest(self):
        machine, core = self.member.machine, self.member.node.core
        if not machine.durable[0]:
            raise SnapshotUnavailable("nothing is durable yet")
        index = machine.durable[0]
        conf = ConfState(tuple(sorted(core.tracker.membership.voters)))
        return Snapshot(index, self.member.store.term(index), conf, b"|".join(machine.durable[1]))

    def install(self, snapshot, done):
        machine = self.member.machine
        machine.applied_index = snapshot.index
        machine.payloads = snapshot.data.split(b"|")
        machine.flush()
        self.installed.append(snapshot.index)
        self.member.turns.soon(lambda: done(None))


def test_a_member_that_is_far_behind_gets_a_snapshot_and_goes_on(turns):
    links = Links(turns)
    members = []
    for number in (1, 2, 3):
        copies = Copies()
        policy = FlushPolicy(every_bytes=8000, keep_entries=3)
        member = Member(turns, number, (1, 2, 3), links, snapshots=copies, flush_policy=policy)
        copies.member = member
        members.append(member)
    first, _, third = members
    while not first.node.can_serve:
        turns.advance(0.1)
        if not any(member.node.is_leader for member in members):
            first.node._guard(first.node.core.campaign)
    links.cut = {3}
    told = []
    for number in range(60):
        propose(first, b"%02d" % number * 150, told)
        turns.advance(0.02)
    assert first.store.first_index() > 10
    links.cut = set()
    turns.advance(5.0)
    assert third.options["snapshots"].installed
    propose(first, b"after", told)
    turns.advance(0.5)
    assert third.machine.payloads == first.machine.payloads
    third.machine.flush()
    third.crash(random.Random(4))
    third.begin()
    turns.advance(2.0)
    assert third.machine.payloads == first.machine.payloads
    assert third.fatal == []


def test_a_member_joins_and_the_configuration_is_found_again(turns, alone):
    changed = []
    alone.node.on_conf_change = lambda change, conf: changed.append(conf)
    change = ConfChange((Change(ChangeKind.ADD_LEARNER, 2),), context=b"host:29015")
    told = []
    alone.node.when_applied(*alone.node.propose_conf_change(change), told.append)
    turns.settle()
    assert told == [None]
    assert changed == [ConfState((1,), (2,))]
    alone.machine.flush()
    alone.node.stop()
    alone.begin()
    turns.until(lambda: alone.node.can_serve)
    assert alone.store.initial_state()[1] == ConfState((1,), (2,))
