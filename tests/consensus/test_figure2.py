"""Figure 2 of the Raft paper ("In Search of an Understandable Consensus Algorithm"), a test a rule.

Where our core answers more than the figure asks (a hint with a refusal, for example), only the rule is
tested here.
"""

from __future__ import annotations

import pytest

from consensus.core import Role
from consensus.messages import Entry, HardState, Kind, Message
from tests.consensus.lone import Lone, of


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + at, term, data=b"new") for at, term in enumerate(terms)]


class TestState:
    def test_current_term_and_vote_are_on_disk_before_a_vote_is_answered(self) -> None:
        member = Lone()
        member.core.step(Message(Kind.VOTE, 1, 2, 5))
        ready = member.core.ready()
        assert not of(ready.messages, Kind.VOTE_REPLY)
        assert ready.hard_state == HardState(5, 2, 0)
        assert ready.must_sync
        assert [reply.to for reply in ready.messages_after_sync] == [2]

    def test_log_entries_are_on_disk_before_they_are_acknowledged(self) -> None:
        member = Lone()
        member.core.step(Message(Kind.APPEND, 1, 2, 1, entries=entries(1, 1)))
        ready = member.core.ready()
        assert not of(ready.messages, Kind.APPEND_REPLY)
        assert ready.entries == entries(1, 1)
        assert ready.must_sync
        assert [reply.index for reply in ready.messages_after_sync] == [1]

    def test_current_term_voted_for_and_log_survive_a_restart(self) -> None:
        member = Lone()
        member.tell(Kind.VOTE, 2, 3)
        member.tell(Kind.APPEND, 2, 3, entries=entries(1, 3))
        member.restart()
        assert (member.core.raft_term, member.core.vote, member.core.log.last_term) == (3, 2, 3)
        refused = member.tell(Kind.VOTE, 3, 3, index=9, log_term=9)
        assert refused[0].reject

    def test_current_term_starts_at_0_and_only_grows(self) -> None:
        member = Lone()
        assert member.core.raft_term == 0
        member.tell(Kind.HEARTBEAT, 2, 4)
        member.tell(Kind.HEARTBEAT, 3, 2)
        assert member.core.raft_term == 4

    def test_commit_index_starts_at_0_and_only_grows(self) -> None:
        member = Lone(terms=[1, 1, 1])
        assert member.core.log.committed == 0
        member.tell(Kind.HEARTBEAT, 2, 1, commit=3)
        member.tell(Kind.HEARTBEAT, 2, 1, commit=1)
        assert member.core.log.committed == 3

    def test_next_index_starts_behind_the_leaders_log_and_match_index_at_0(self) -> None:
        member = Lone(terms=[1, 1])
        member.lead(2)
        progress = member.core.tracker.progress[2]
        assert (progress.match, progress.next) == (0, 3)

    def test_next_and_match_index_are_reinitialized_after_election(self) -> None:
        member = Lone()
        member.lead(1)
        member.acknowledge()
        assert member.core.tracker.progress[2].match == 1
        member.tell(Kind.HEARTBEAT, 2, 2)
        member.lead(3)
        assert member.core.tracker.progress[2].match == 0


class TestAppendEntries:
    @pytest.mark.parametrize("check_quorum", [False, True])
    def test_1_reply_false_if_term_is_below_current_term(self, check_quorum: bool) -> None:
        member = Lone(hard_state=HardState(5), check_quorum=check_quorum)
        replies = member.tell(Kind.APPEND, 2, 4, entries=entries(1, 4))
        assert member.log_terms() == []
        assert all(reply.raft_term == 5 for reply in replies)
        assert bool(replies) == check_quorum  # without these protections silence says no

    def test_2_reply_false_if_log_has_no_entry_at_prev_log_index_with_prev_log_term(self) -> None:
        member = Lone(terms=[1, 1])
        for index, log_term in ((3, 1), (2, 2)):
            replies = member.tell(Kind.APPEND, 2, 3, index=index, log_term=log_term, entries=entries(index + 1, 3))
            assert replies[0].reject
        assert member.log_terms() == [1, 1]

    def test_3_a_conflicting_entry_and_all_that_follow_it_are_deleted(self) -> None:
        member = Lone(terms=[1, 1, 2, 2])
        member.tell(Kind.APPEND, 2, 3, index=2, log_term=1, entries=entries(3, 3))
        assert member.log_terms() == [1, 1, 3]

    def test_4_new_entries_not_already_in_the_log_are_appended(self) -> None:
        member = Lone(terms=[1, 1])
        reply = member.tell(Kind.APPEND, 2, 2, index=1, log_term=1, entries=entries(2, 1, 2, 2))[0]
        assert member.log_terms() == [1, 1, 2, 2]
        assert (reply.reject, reply.index) == (False, 4)

    def test_4_entries_already_in_the_log_do_not_cut_it(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.tell(Kind.APPEND, 2, 1, index=0, log_term=0, entries=entries(1, 1))
        assert member.log_terms() == [1, 1, 1]

    def test_5_commit_index_follows_leader_commit_up_to_the_last_new_entry(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.tell(Kind.APPEND, 2, 1, index=1, log_term=1, entries=entries(2, 1), commit=9)
        assert member.core.log.committed == 2
        member.tell(Kind.APPEND, 2, 1, index=2, log_term=1, entries=entries(3, 1, 1), commit=3)
        assert member.core.log.committed == 3


class TestRequestVote:
    def test_1_reply_false_if_term_is_below_current_term(self) -> None:
        member = Lone(hard_state=HardState(5))
        replies = member.tell(Kind.VOTE, 2, 4, index=9, log_term=9)
        assert all(reply.reject for reply in replies)
        assert member.core.vote == 0

    def test_2_grant_if_voted_for_nobody_and_the_log_is_up_to_date(self) -> None:
        reply = Lone().tell(Kind.VOTE, 2, 1)[0]
        assert (reply.kind, reply.reject, reply.raft_term) == (Kind.VOTE_REPLY, False, 1)

    def test_2_grant_again_to_the_same_candidate(self) -> None:
        member = Lone()
        assert [member.tell(Kind.VOTE, 2, 1)[0].reject for _ in range(2)] == [False, False]

    def test_2_one_vote_a_term(self) -> None:
        member = Lone()
        assert not member.tell(Kind.VOTE, 2, 1)[0].reject
        assert member.tell(Kind.VOTE, 3, 1)[0].reject
        assert not member.tell(Kind.VOTE, 3, 2)[0].reject

    @pytest.mark.parametrize(
        ("index", "log_term", "granted"),
        [(3, 2, True), (4, 2, True), (2, 3, True), (2, 2, False), (9, 1, False)],
    )
    def test_2_a_log_is_up_to_date_by_its_last_term_then_its_length(
        self, index: int, log_term: int, granted: bool
    ) -> None:
        member = Lone(terms=[1, 2, 2])
        assert member.tell(Kind.VOTE, 2, 4, index=index, log_term=log_term)[0].reject is not granted


class TestAllServers:
    def test_committed_entries_are_applied_in_order(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.tell(Kind.HEARTBEAT, 2, 1, commit=2)
        member.tell(Kind.HEARTBEAT, 2, 1, commit=3)
        assert [entry.index for entry in member.applied] == [1, 2, 3]

    @pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
    def test_a_higher_term_makes_a_follower_of_everyone(self, role: Role) -> None:
        member = Lone()
        if role is Role.CANDIDATE:
            member.core.campaign()
        elif role is Role.LEADER:
            member.lead()
        assert member.core.role is role
        member.tell(Kind.APPEND, 2, 9)
        assert (member.core.role, member.core.raft_term, member.core.leader_id) == (Role.FOLLOWER, 9, 2)

    def test_a_higher_term_in_a_reply_counts_too(self) -> None:
        member = Lone()
        member.lead()
        member.tell(Kind.APPEND_REPLY, 2, 9)
        assert (member.core.role, member.core.raft_term) == (Role.FOLLOWER, 9)


class TestFollowers:
    def test_answer_leaders_and_candidates(self) -> None:
        member = Lone()
        assert of(member.tell(Kind.VOTE, 2, 1), Kind.VOTE_REPLY)
        assert of(member.tell(Kind.APPEND, 2, 1), Kind.APPEND_REPLY)
        assert of(member.tell(Kind.HEARTBEAT, 2, 1), Kind.HEARTBEAT_REPLY)

    def test_become_candidate_when_the_election_timeout_passes_in_silence(self) -> None:
        member = Lone()
        timeout = member.core.election_timeout
        roles = []
        for ticks in (timeout - 1, 1):
            member.tick(ticks)
            roles.append(member.core.role)
        assert roles == [Role.FOLLOWER, Role.CANDIDATE]

    @pytest.mark.parametrize("kind", [Kind.APPEND, Kind.HEARTBEAT, Kind.VOTE])
    def test_a_leader_or_a_granted_vote_restarts_the_timeout(self, kind: Kind) -> None:
        member = Lone()
        member.tell(kind, 2, 1)
        member.tick(member.core.election_timeout - 1)
        member.tell(kind, 2, 1)
        member.tick(member.core.election_timeout - 1)
        assert member.core.role is Role.FOLLOWER

    def test_a_refused_vote_does_not_restart_the_timeout(self) -> None:
        member = Lone(terms=[1], hard_state=HardState(1))
        member.tick(member.core.election_timeout - 1)
        assert member.tell(Kind.VOTE, 2, 1, index=0, log_term=0)[0].reject
        member.tick()
        assert member.core.role is Role.CANDIDATE

    def test_election_timeouts_are_drawn_anew_from_a_range(self) -> None:
        member, drawn = Lone(), set()
        for term in range(1, 200):
            member.tell(Kind.HEARTBEAT, 2, term)
            drawn.add(member.core.election_timeout)
        assert drawn == set(range(10, 20))


class TestCandidates:
    def test_increment_the_term_vote_for_oneself_reset_the_timer_ask_all_others(self) -> None:
        member = Lone(voters=(1, 2, 3, 4, 5), terms=[1], hard_state=HardState(1))
        sent = member.tick(member.core.election_timeout)
        assert (member.core.raft_term, member.core.vote, member.core.election_elapsed) == (2, 1, 0)
        assert [message.to for message in sent] == [2, 3, 4, 5]
        assert {(m.kind, m.raft_term, m.index, m.log_term) for m in sent} == {(Kind.VOTE, 2, 1, 1)}

    def test_the_own_vote_counts_only_once_it_is_on_disk(self) -> None:
        member = Lone(voters=(1,))
        member.core.campaign()
        ready = member.core.ready()
        roles = [member.core.role]
        member.core.synced(ready)
        assert [*roles, member.core.role] == [Role.CANDIDATE, Role.LEADER]

    @pytest.mark.parametrize(("size", "grants", "leads"), [(3, 1, True), (3, 0, False), (5, 1, False), (5, 2, True)])
    def test_become_leader_with_the_votes_of_a_majority(self, size: int, grants: int, leads: bool) -> None:
        member = Lone(voters=range(1, size + 1))
        member.core.campaign()
        for sender in range(2, 2 + grants):
            member.tell(Kind.VOTE_REPLY, sender, 1)
        member.settle()
        assert (member.core.role is Role.LEADER) is leads

    def test_a_vote_counts_once(self) -> None:
        member = Lone(voters=(1, 2, 3, 4, 5))
        member.core.campaign()
        for _ in range(3):
            member.tell(Kind.VOTE_REPLY, 2, 1)
        assert member.core.role is Role.CANDIDATE

    def test_become_follower_when_a_new_leader_appends(self) -> None:
        member = Lone()
        member.core.campaign()
        member.tell(Kind.APPEND, 3, 1)
        assert (member.core.role, member.core.leader_id) == (Role.FOLLOWER, 3)

    def test_start_another_election_when_the_timeout_passes(self) -> None:
        member = Lone()
        member.tick(member.core.election_timeout)
        sent = member.tick(member.core.election_timeout)
        assert (member.core.role, member.core.raft_term) == (Role.CANDIDATE, 2)
        assert {message.raft_term for message in of(sent, Kind.VOTE)} == {2}


class TestLeaders:
    def test_send_appends_at_once_upon_election(self) -> None:
        sent = of(Lone().lead(), Kind.APPEND)
        assert [message.to for message in sent] == [2, 3]

    def test_send_heartbeats_while_idle(self) -> None:
        member = Lone()
        member.lead()
        assert [message.to for message in of(member.tick(), Kind.HEARTBEAT)] == [2, 3]

    def test_a_command_is_appended_to_the_own_log_and_applied_once_committed(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        index = member.core.propose(b"command")
        member.settle()
        assert member.storage.entries(index, index + 1, 999)[0].data == b"command"
        assert member.applied[-1].index < index
        member.acknowledge([2])
        assert (member.applied[-1].index, member.applied[-1].data) == (index, b"command")

    def test_entries_from_next_index_on_are_sent(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.lead(2)
        member.tell(Kind.APPEND_REPLY, 2, 2, reject=True, index=3, hint=1, log_term=1)
        sent = member.tell(Kind.APPEND_REPLY, 2, 2, index=1)
        assert [entry.index for entry in of(sent, Kind.APPEND)[0].entries] == [2, 3, 4]

    def test_success_updates_next_and_match_index(self) -> None:
        member = Lone(terms=[1, 1])
        member.lead(2)
        member.tell(Kind.APPEND_REPLY, 2, 2, index=3)
        progress = member.core.tracker.progress[2]
        assert (progress.match, progress.next) == (3, 4)

    def test_inconsistency_decrements_next_index_and_retries(self) -> None:
        member = Lone(terms=[1, 1, 1])
        member.lead(2)
        sent = member.tell(Kind.APPEND_REPLY, 2, 2, reject=True, index=3, hint=2, log_term=1)
        retry = of(sent, Kind.APPEND)[0]
        assert (retry.to, retry.index, retry.log_term) == (2, 2, 1)
        assert [entry.index for entry in retry.entries] == [3, 4]

    def test_an_index_of_the_own_term_is_committed_by_a_majority(self) -> None:
        member = Lone(voters=(1, 2, 3, 4, 5))
        member.lead()
        member.acknowledge([2])
        assert member.core.log.committed == 0
        member.acknowledge([3])
        assert member.core.log.committed == 1

    def test_the_own_log_counts_only_once_it_is_on_disk(self) -> None:
        member = Lone()
        member.lead()
        member.acknowledge()
        member.core.propose(b"x")
        ready = member.core.ready()
        member.core.step(Message(Kind.APPEND_REPLY, 1, 2, 1, index=2))
        assert member.core.log.committed == 1
        member.core.synced(ready)
        assert member.core.log.committed == 2

    def test_an_index_of_an_older_term_is_not_committed_by_counting(self) -> None:
        """Figure 8 of the paper: an entry that a majority has may still be replaced."""
        member = Lone(terms=[1, 2])
        member.lead(3)
        for sender in (2, 3):
            member.tell(Kind.APPEND_REPLY, sender, 3, index=2)
        assert member.core.log.committed == 0
        member.acknowledge([2])
        assert member.core.log.committed == 3

    def test_a_leader_never_changes_its_own_log(self) -> None:
        member = Lone(terms=[1, 1])
        member.lead(2)
        member.tell(Kind.APPEND, 2, 2, index=0, log_term=0, entries=entries(1, 2))
        assert member.log_terms() == [1, 1, 2]
