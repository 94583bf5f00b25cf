"""The protections beyond figure 2: pre-vote, quorum checks, leases, reads, hand-over, limits, grouping."""

from __future__ import annotations

import pytest

from consensus.core import Config, Role
from consensus.messages import (
    Change,
    ChangeKind,
    ConfChange,
    Entry,
    EntryKind,
    HardState,
    Kind,
    Message,
    Snapshot,
    Transition,
    encode_conf_change,
)
from consensus.tracker import Flow
from model.errors import BadSetting, Corrupt, NotLeader, Overloaded
from tests.consensus.lone import Lone, of

SAFE = Config(1)
"""RewindDB's own settings."""


class TestPreVote:
    def test_a_member_that_was_cut_off_does_not_raise_its_term(self) -> None:
        member = Lone(pre_vote=True)
        for _ in range(5):
            sent = member.tick(member.core.election_timeout)
            assert {message.kind for message in sent} == {Kind.PRE_VOTE}
        assert (member.core.raft_term, member.core.vote) == (0, 0)

    def test_with_a_majority_behind_it_the_real_election_follows(self) -> None:
        member = Lone(pre_vote=True)
        member.tick(member.core.election_timeout)
        sent = member.tell(Kind.PRE_VOTE_REPLY, 2, 1)
        assert {(message.kind, message.raft_term) for message in sent} == {(Kind.VOTE, 1)}

    def test_asking_changes_nothing_at_who_is_asked(self) -> None:
        member = Lone(pre_vote=True, hard_state=HardState(3, 2))
        reply = member.tell(Kind.PRE_VOTE, 3, 4)[0]
        assert (reply.kind, reply.raft_term, reply.reject) == (Kind.PRE_VOTE_REPLY, 4, False)
        assert (member.core.raft_term, member.core.vote) == (3, 2)


class TestCheckQuorum:
    def test_a_leader_that_hears_of_no_quorum_steps_down(self) -> None:
        member = Lone(check_quorum=True)
        member.lead()
        member.acknowledge([2])
        member.tick(10)
        assert member.core.role is Role.LEADER
        roles = []
        member.tick(10)
        roles.append(member.core.role)
        assert roles == [Role.FOLLOWER]

    def test_a_follower_of_a_living_leader_votes_for_nobody(self) -> None:
        member = Lone(check_quorum=True)
        member.tell(Kind.HEARTBEAT, 2, 1)
        assert not member.tell(Kind.VOTE, 3, 2)
        assert member.core.raft_term == 1
        member.tick(10)
        assert of(member.tell(Kind.VOTE, 3, 2), Kind.VOTE_REPLY)

    def test_unless_the_leader_itself_hands_over(self) -> None:
        member = Lone(check_quorum=True)
        member.tell(Kind.HEARTBEAT, 2, 1)
        assert not of(member.tell(Kind.VOTE, 3, 2, context=b"transfer"), Kind.VOTE_REPLY)[0].reject

    def test_after_a_restart_no_vote_is_given_for_an_election_timeout(self) -> None:
        """What was promised to a leader's lease before the crash is forgotten."""
        member = Lone(config=SAFE, hard_state=HardState(1))
        assert not member.tell(Kind.VOTE, 3, 2)
        member.tick(9)
        assert not member.tell(Kind.VOTE, 3, 2)
        member.tick(1)
        assert of(member.tell(Kind.VOTE, 3, 2), Kind.VOTE_REPLY)


class TestLease:
    def lead(self) -> Lone:
        member = Lone(config=SAFE)
        while member.core.role is not Role.LEADER:
            member.core.campaign()
            member.settle()
            for kind in (Kind.PRE_VOTE_REPLY, Kind.VOTE_REPLY):
                for sender in member.core.others:
                    member.tell(kind, sender, 1)
        return member

    def test_it_lasts_while_a_quorum_answers(self) -> None:
        member = self.lead()
        assert not member.core.has_lease
        for message in of(member.tick(), Kind.HEARTBEAT):
            member.tell(Kind.HEARTBEAT_REPLY, message.to, 1, stamp=message.stamp)
        assert member.core.has_lease
        member.tick(7)
        assert member.core.has_lease
        leases = []
        member.tick(1)
        leases.append(member.core.has_lease)
        assert leases == [False]

    def test_it_counts_from_when_the_heartbeat_was_sent(self) -> None:
        member = self.lead()
        old = of(member.tick(), Kind.HEARTBEAT)[0]
        member.tick(8)
        member.tell(Kind.HEARTBEAT_REPLY, old.to, 1, stamp=old.stamp)
        assert not member.core.has_lease

    def test_a_stamp_from_the_future_counts_as_now(self) -> None:
        member = self.lead()
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, stamp=10**9)
        assert member.core.has_lease
        member.tick(8)
        assert not member.core.has_lease

    def test_it_ends_when_another_member_is_told_to_start_an_election(self) -> None:
        member = self.lead()
        member.acknowledge()
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, stamp=1)
        member.core.transfer_leadership(2)
        assert of(member.take(), Kind.TIMEOUT_NOW)
        member.tick(10)
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, stamp=member.core.ticks)
        assert member.core.role is Role.LEADER
        assert not member.core.has_lease

    def test_a_group_of_one_always_has_it(self) -> None:
        member = Lone(voters=(1,), config=SAFE)
        member.core.campaign()
        member.settle()
        member.tick(100)
        assert member.core.has_lease
        assert member.core.may_read_alone

    def test_reads_wait_for_what_is_committed_but_not_applied_here(self) -> None:
        member = self.lead()
        member.acknowledge()
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, stamp=0)
        assert member.core.may_read_alone
        member.core.propose(b"x")
        member.core.ready()  # handed to a disk that is slow
        for sender in (2, 3):
            member.core.step(Message(Kind.APPEND_REPLY, 1, sender, 1, index=2))
        assert member.core.log.committed == 2
        assert not member.core.may_read_alone


class TestReads:
    def test_a_read_waits_for_a_quorum_that_answers_a_later_heartbeat(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        member.core.read_index(b"read")
        heartbeat = of(member.take(), Kind.HEARTBEAT)[0]
        assert not member.core.ready().read_states
        member.core.step(Message(Kind.HEARTBEAT_REPLY, 1, 2, 1, context=heartbeat.context))
        (state,) = member.core.ready().read_states
        assert (state.index, state.context) == (1, b"read")

    def test_several_reads_share_one_heartbeat(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        for name in (b"a", b"b", b"c"):
            member.core.read_index(name)
        context = of(member.take(), Kind.HEARTBEAT)[-1].context
        member.core.step(Message(Kind.HEARTBEAT_REPLY, 1, 3, 1, context=context))
        assert [state.context for state in member.core.ready().read_states] == [b"a", b"b", b"c"]

    def test_a_read_before_the_first_commit_of_the_term_waits_for_it(self) -> None:
        member = Lone()
        member.lead()
        member.core.read_index(b"early")
        assert not of(member.take(), Kind.HEARTBEAT)
        heartbeat = of(member.acknowledge(), Kind.HEARTBEAT)[0]
        assert heartbeat.context

    def test_also_in_a_group_of_one_whose_commit_index_on_disk_is_old(self) -> None:
        member = Lone(voters=(1,), terms=[1, 1, 1], hard_state=HardState(1, 1, 1))
        member.core.campaign()
        member.core.synced(member.core.ready())
        member.core.read_index(b"read")
        ready = member.core.ready()
        assert not ready.read_states
        member.storage.append(ready.entries)
        member.core.synced(ready)
        (state,) = member.core.ready().read_states
        assert state.index == 4

    def test_a_follower_passes_reads_on(self) -> None:
        member = Lone()
        with pytest.raises(NotLeader):
            member.core.read_index(b"read")
        member.tell(Kind.HEARTBEAT, 2, 1)
        member.core.read_index(b"read")
        (request,) = member.take()
        assert (request.kind, request.to, request.sender) == (Kind.READ_INDEX, 2, 1)
        member.core.step(Message(Kind.READ_INDEX_REPLY, 1, 2, 1, index=7, entries=request.entries))
        (state,) = member.core.ready().read_states
        assert (state.index, state.context) == (7, b"read")

    def test_a_read_of_another_member_is_answered_to_it(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        request = Message(Kind.READ_INDEX, 1, 3, entries=[Entry(0, 0, data=b"theirs")])
        member.core.step(request)
        context = of(member.take(), Kind.HEARTBEAT)[0].context
        reply = of(member.tell(Kind.HEARTBEAT_REPLY, 2, 1, context=context), Kind.READ_INDEX_REPLY)[0]
        assert (reply.to, reply.index, reply.entries) == (3, 1, request.entries)

    def test_a_reply_with_a_position_never_given_out_confirms_no_later_read(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, context=b"\xff" * 8)
        member.core.read_index(b"read")
        assert not member.core.ready().read_states

    def test_under_a_lease_reads_are_answered_at_once(self) -> None:
        member = Lone(check_quorum=True, lease_reads=True)
        member.lead()
        member.acknowledge()
        member.tell(Kind.HEARTBEAT_REPLY, 2, 1, stamp=0)
        member.core.read_index(b"read")
        assert [state.context for state in member.core.ready().read_states] == [b"read"]

    def test_without_one_they_go_the_long_way(self) -> None:
        member = Lone(check_quorum=True, lease_reads=True)
        member.lead()
        member.acknowledge()
        member.tick(9)
        member.core.read_index(b"read")
        assert of(member.take(), Kind.HEARTBEAT)[-1].context


class TestHandOver:
    def test_a_member_with_the_whole_log_is_told_at_once(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        member.core.transfer_leadership(3)
        assert [message.to for message in of(member.take(), Kind.TIMEOUT_NOW)] == [3]

    def test_another_one_once_it_has_caught_up(self) -> None:
        member = Lone()
        member.lead()
        member.core.transfer_leadership(3)
        assert not of(member.take(), Kind.TIMEOUT_NOW)
        assert of(member.acknowledge([3]), Kind.TIMEOUT_NOW)

    def test_meanwhile_nothing_is_proposed(self) -> None:
        member = Lone()
        member.lead()
        member.core.transfer_leadership(3)
        with pytest.raises(NotLeader, match="handed over"):
            member.core.propose(b"x")
        member.tick(10)
        assert member.core.propose(b"x") == 2

    def test_learners_and_strangers_are_no_heirs(self) -> None:
        member = Lone(voters=(1, 2), learners=(3,))
        member.lead()
        for heir in (1, 3, 9):
            member.core.transfer_leadership(heir)
        assert member.core.transferee == 0

    def test_who_is_told_campaigns_without_asking_first(self) -> None:
        member = Lone(pre_vote=True)
        sent = member.tell(Kind.TIMEOUT_NOW, 2, 1)
        assert {(message.kind, message.context) for message in sent} == {(Kind.VOTE, b"transfer")}


class TestProposals:
    def test_only_a_leader_takes_them(self) -> None:
        member = Lone()
        with pytest.raises(NotLeader):
            member.core.propose(b"x")
        member.core.campaign()
        with pytest.raises(NotLeader):
            member.core.propose(b"x")

    def test_a_follower_may_pass_them_on(self) -> None:
        member = Lone(forward_proposals=True)
        member.tell(Kind.HEARTBEAT, 2, 1)
        assert member.core.propose(b"x") == 0
        (message,) = member.take()
        assert (message.kind, message.to, message.entries[0].data) == (Kind.PROPOSE, 2, b"x")

    def test_a_peers_proposal_that_cannot_be_taken_is_dropped(self) -> None:
        member = Lone()
        assert not member.core.step(Message(Kind.PROPOSE, 1, 2, entries=[Entry(0, 0, data=b"x")]))

    def test_too_many_uncommitted_bytes_are_refused(self) -> None:
        member = Lone(max_uncommitted_bytes=100)
        member.lead()
        member.core.propose(b"x" * 1000)  # whatever its size, one may wait
        with pytest.raises(Overloaded, match="limit"):
            member.core.propose(b"y")
        member.settle()
        member.acknowledge([2])
        assert member.core.propose(b"y") == 3

    def test_proposals_of_one_turn_leave_in_one_message(self) -> None:
        member = Lone(group_sends=True)
        member.lead()
        member.acknowledge()
        assert [member.core.propose(b"x") for _ in range(3)] == [2, 3, 4]
        sent = of(member.take(), Kind.APPEND)
        assert [(message.to, len(message.entries)) for message in sent] == [(2, 3), (3, 3)]

    def test_without_grouping_each_leaves_alone(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        for _ in range(3):
            member.core.propose(b"x")
        assert len(of(member.take(), Kind.APPEND)) == 6


class TestMembership:
    def add(self, member_id: int) -> ConfChange:
        return ConfChange((Change(ChangeKind.ADD_VOTER, member_id),))

    def test_one_change_at_a_time(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        first = member.core.propose_conf_change(self.add(4))
        second = member.core.propose_conf_change(self.add(5))
        member.acknowledge()
        kinds = [member.storage.entries(index, index + 1, 999)[0].kind for index in (first, second)]
        assert kinds == [EntryKind.CONF_CHANGE_V2, EntryKind.NORMAL]
        assert member.core.tracker.membership.voters == {1, 2, 3, 4}

    def test_a_joint_change_leaves_by_itself(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        member.core.propose_conf_change(
            ConfChange((Change(ChangeKind.ADD_VOTER, 4), Change(ChangeKind.REMOVE, 3)), Transition.AUTO)
        )
        member.acknowledge()
        assert member.core.tracker.membership.is_joint
        member.acknowledge()
        assert str(member.core.tracker.membership) == "voters=(1 2 4)"

    def test_a_leader_that_is_removed_steps_down(self) -> None:
        member = Lone(step_down_on_removal=True)
        member.lead()
        member.acknowledge()
        member.core.propose_conf_change(ConfChange((Change(ChangeKind.REMOVE, 1),)))
        member.acknowledge()
        assert member.core.role is Role.FOLLOWER
        assert not member.core.is_promotable

    def test_no_campaign_before_a_committed_change_is_applied(self) -> None:
        entry = Entry(1, 1, EntryKind.CONF_CHANGE_V2, encode_conf_change(self.add(4)))
        member = Lone(hard_state=HardState(1))
        member.core.step(Message(Kind.APPEND, 1, 2, 1, entries=[entry], commit=1))
        ready = member.core.ready()
        member.storage.append(ready.entries)
        member.core.synced(ready)
        member.core.campaign()
        assert member.core.role is Role.FOLLOWER

    def test_learners_do_not_campaign_but_vote(self) -> None:
        member = Lone(voters=(2, 3), learners=(1,))
        member.tick(50)
        assert member.core.role is Role.FOLLOWER
        assert not member.tell(Kind.VOTE, 2, 1)[0].reject


class TestSnapshots:
    def far_behind(self) -> Lone:
        """A leader whose log starts at 11, and a member that has nothing."""
        member = Lone(terms=[1] * 10)
        member.lead(2)
        member.acknowledge([2])
        member.storage.create_snapshot(10, member.core.tracker.membership.conf_state())
        member.storage.compact(10)
        return member

    def test_a_member_behind_the_log_gets_one(self) -> None:
        member = self.far_behind()
        sent = member.tell(Kind.APPEND_REPLY, 3, 2, reject=True, index=10, hint=0)
        (message,) = of(sent, Kind.SNAPSHOT)
        assert message.snapshot is not None
        assert message.snapshot.index == 10
        assert member.core.tracker.progress[3].flow is Flow.SNAPSHOT

    def test_it_goes_on_behind_the_snapshot(self) -> None:
        member = self.far_behind()
        member.tell(Kind.APPEND_REPLY, 3, 2, reject=True, index=10, hint=0)
        member.core.report_snapshot(3, delivered=True)
        member.take()
        member.tell(Kind.HEARTBEAT_REPLY, 3, 2)
        sent = member.tell(Kind.APPEND_REPLY, 3, 2, index=10)
        assert member.core.tracker.progress[3].flow is Flow.REPLICATE
        assert [entry.index for message in of(sent, Kind.APPEND) for entry in message.entries][:1] in ([11], [])

    def test_a_failed_one_is_tried_again_later(self) -> None:
        member = self.far_behind()
        member.tell(Kind.APPEND_REPLY, 3, 2, reject=True, index=10, hint=0)
        member.core.report_snapshot(3, delivered=False)
        assert member.core.tracker.progress[3].flow is Flow.PROBE
        assert of(member.tell(Kind.HEARTBEAT_REPLY, 3, 2), Kind.SNAPSHOT)

    def test_a_follower_starts_over_from_it(self) -> None:
        member = Lone(terms=[1, 1])
        conf = member.core.tracker.membership.conf_state()
        (reply,) = member.tell(Kind.SNAPSHOT, 2, 3, snapshot=Snapshot(20, 2, conf))
        assert (reply.kind, reply.index) == (Kind.APPEND_REPLY, 20)
        assert (member.core.log.last_index, member.core.log.applied) == (20, 20)

    def test_an_old_one_changes_nothing(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.tell(Kind.HEARTBEAT, 2, 1, commit=3)
        conf = member.core.tracker.membership.conf_state()
        (reply,) = member.tell(Kind.SNAPSHOT, 2, 1, snapshot=Snapshot(2, 1, conf))
        assert reply.index == 3
        assert member.log_terms() == [1, 1, 1]

    def test_one_of_a_group_without_this_member_is_refused(self) -> None:
        member = Lone(voters=(1, 2, 3))
        other = Lone(voters=(2, 3)).core.tracker.membership.conf_state()
        member.tell(Kind.SNAPSHOT, 2, 3, snapshot=Snapshot(20, 2, other))
        assert member.core.log.last_index == 0


class TestHostilePeers:
    @pytest.mark.parametrize("kind", [Kind.HUP, Kind.BEAT, Kind.UNREACHABLE, Kind.STORAGE_APPENDED])
    def test_what_only_this_server_may_say_is_dropped(self, kind: Kind) -> None:
        member = Lone()
        assert not member.core.step(Message(kind, 1, 2, 0, index=5))
        assert not member.take()

    def test_replies_of_strangers_are_dropped(self) -> None:
        member = Lone()
        member.lead()
        assert not member.core.step(Message(Kind.APPEND_REPLY, 1, 9, 1, index=99))

    def test_a_commit_index_beyond_the_log_stops_the_member(self) -> None:
        with pytest.raises(Corrupt, match="committed, but this member's log ends"):
            Lone().tell(Kind.HEARTBEAT, 2, 1, commit=5)

    def test_entries_over_committed_ones_stop_the_member(self) -> None:
        member = Lone(terms=[1, 1])
        member.tell(Kind.HEARTBEAT, 2, 1, commit=2)
        member.tell(Kind.APPEND, 3, 2, index=0, entries=[Entry(1, 2), Entry(2, 2), Entry(3, 2)])
        assert member.log_terms() == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"member_id": 0}, "member id"),
        ({"heartbeat_ticks": 0}, "heartbeat"),
        ({"election_ticks": 1}, "election timeout"),
        ({"max_inflight_messages": 0}, "under way"),
        ({"max_inflight_bytes": 1}, "whole message"),
        ({"lease_reads": True, "check_quorum": False}, "check_quorum"),
        ({"clock": lambda: 0}, "length of the lease"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Lone(**changes)  # type: ignore[arg-type]


def test_a_commit_index_outside_the_log_is_found_at_start() -> None:
    with pytest.raises(Corrupt, match="outside the log"):
        Lone(terms=[1], hard_state=HardState(1, 0, 5))
