"""Elections: when a member asks for votes, who gives one, and what the votes lead to.

The rule: one vote per term, given only to a member whose log is at least as complete as one's own.
With pre-vote a member first asks whether it would win, without opening a term, so that a member
that was cut off disturbs nobody when it comes back.
"""

from __future__ import annotations

from typing import Final

from consensus import follower
from consensus.messages import NO_MEMBER, EntryKind, Kind, Message
from consensus.quorum import Vote
from consensus.replication import broadcast_append, renew_lease
from consensus.state import RaftState, Role, log
from model.errors import Corrupt, NotLeader

TRANSFER_CONTEXT: Final = b"transfer"
"""Marks a vote request that the leader itself asked for: no lease holds it back."""


def on_hup(raft: RaftState, _message: Message) -> None:
    """The leader was silent for too long."""
    start_election(raft, pre_vote=raft.config.pre_vote)


def on_timeout_now(raft: RaftState, _message: Message) -> None:
    """The leader hands over to this member: no pre-vote, it was not cut off."""
    start_election(raft, pre_vote=False, context=TRANSFER_CONTEXT)


def start_election(raft: RaftState, pre_vote: bool, context: bytes = b"") -> None:
    """Campaign, if this member may: a promotable voter that has applied every committed configuration."""
    if raft.role is Role.LEADER or not raft.is_promotable:
        return
    if _has_unapplied_conf_change(raft):
        log.info("member %x cannot campaign before it has applied a configuration change", raft.id)
        return
    campaign(raft, pre_vote, context)


def _has_unapplied_conf_change(raft: RaftState) -> bool:
    low, high = raft.log.applied + 1, raft.log.committed + 1
    while low < high:
        entries = raft.log.slice(low, high, raft.log.max_applying_bytes)
        if not entries:
            raise Corrupt(f"The log has no entries from index {low}, though they are committed.")
        if any(entry.kind is not EntryKind.NORMAL for entry in entries):
            return True
        low += len(entries)
    return False


def campaign(raft: RaftState, pre_vote: bool, context: bytes = b"") -> None:
    """Ask every voter, oneself included, for its vote (or, with `pre_vote`, whether it would give it)."""
    if pre_vote:
        raft.become_pre_candidate()
        kind, reply_kind, raft_term = Kind.PRE_VOTE, Kind.PRE_VOTE_REPLY, raft.raft_term + 1
    else:
        raft.become_candidate()
        kind, reply_kind, raft_term = Kind.VOTE, Kind.VOTE_REPLY, raft.raft_term
    for member in sorted(raft.tracker.membership.all_voters):
        if member == raft.id:
            # The own vote counts once it is on disk, like everybody's.
            raft.send(Message(reply_kind, member, raft_term=raft_term))
            continue
        raft.send(
            Message(
                kind,
                member,
                raft_term=raft_term,
                log_term=raft.log.last_term,
                index=raft.log.last_index,
                context=context,
            )
        )


def on_vote_request(raft: RaftState, message: Message) -> None:
    """Give a vote, or refuse it. Learners vote too: they may have been promoted without knowing it yet."""
    is_pre_vote = message.kind is Kind.PRE_VOTE
    reply_kind = Kind.PRE_VOTE_REPLY if is_pre_vote else Kind.VOTE_REPLY
    may_vote = (
        raft.vote == message.sender
        or (raft.vote == NO_MEMBER and raft.leader_id == NO_MEMBER)
        or (is_pre_vote and message.raft_term > raft.raft_term)
    )
    if not (may_vote and raft.log.is_up_to_date(message.index, message.log_term)):
        raft.send(Message(reply_kind, message.sender, raft_term=raft.raft_term, reject=True))
        return
    # The term of the request: a pre-candidate does not know our term and would ignore an older one.
    raft.send(Message(reply_kind, message.sender, raft_term=message.raft_term))
    if not is_pre_vote:
        raft.election_elapsed = 0
        raft.vote = message.sender


def on_vote_reply(raft: RaftState, message: Message) -> None:
    """Count a vote."""
    outcome = raft.tracker.record_vote(message.sender, not message.reject)
    if outcome is Vote.WON:
        if raft.role is Role.PRE_CANDIDATE:
            campaign(raft, pre_vote=False)
        else:
            raft.become_leader()
            renew_lease(raft)
            broadcast_append(raft)
    elif outcome is Vote.LOST:
        raft.become_follower(raft.raft_term, NO_MEMBER)


def on_propose(_raft: RaftState, _message: Message) -> None:
    """Nobody leads."""
    raise NotLeader("No leader is known at the moment.")


def on_append(raft: RaftState, message: Message) -> None:
    """Somebody else won this term."""
    raft.become_follower(message.raft_term, message.sender)
    follower.take_entries(raft, message)


def on_heartbeat(raft: RaftState, message: Message) -> None:
    """Somebody else won this term."""
    raft.become_follower(message.raft_term, message.sender)
    follower.answer_heartbeat(raft, message)


def on_snapshot(raft: RaftState, message: Message) -> None:
    """Somebody else won this term."""
    raft.become_follower(message.raft_term, message.sender)
    follower.take_snapshot(raft, message)
