"""What a follower does with its leader's messages, and what it passes on to its leader.

The rule: entries are taken only behind an entry that both logs have; the reply to anything else
says where the logs may still agree.
"""

from __future__ import annotations

from consensus import confchange
from consensus.messages import NO_MEMBER, Kind, Message, Snapshot
from consensus.reads import ReadState
from consensus.reconfigure import switch_to
from consensus.state import RaftState, Role, log
from consensus.tracker import Tracker
from model.errors import NotLeader


def on_propose(raft: RaftState, message: Message) -> None:
    """Pass a proposal on to the leader, or raise `NotLeader`."""
    if raft.leader_id == NO_MEMBER:
        raise NotLeader("No leader is known at the moment.")
    if not raft.config.forward_proposals:
        raise NotLeader(f"Member {raft.leader_id:x} leads, not this one.")
    message.to = raft.leader_id
    raft.send(message)


def on_append(raft: RaftState, message: Message) -> None:
    """Take entries from the leader."""
    raft.election_elapsed = 0
    raft.leader_id = message.sender
    take_entries(raft, message)


def take_entries(raft: RaftState, message: Message) -> None:
    """Append what fits, or say where the logs may agree."""
    raft_log = raft.log
    reply = Message(Kind.APPEND_REPLY, message.sender, stamp=message.stamp)
    if message.index < raft_log.committed:
        reply.index = raft_log.committed
    else:
        agreed = raft_log.try_append(message.index, message.log_term, message.entries, message.commit)
        if agreed is not None:
            reply.index = agreed
        else:
            reply.reject = True
            reply.index = message.index
            last = min(message.index, raft_log.last_index)
            reply.hint, reply.log_term = raft_log.conflict_by_term(last, message.log_term)
    raft.send(reply)


def on_heartbeat(raft: RaftState, message: Message) -> None:
    """The leader is alive."""
    raft.election_elapsed = 0
    raft.leader_id = message.sender
    answer_heartbeat(raft, message)


def answer_heartbeat(raft: RaftState, message: Message) -> None:
    """Learn what is committed, and echo what the heartbeat carried."""
    raft.log.commit_to(message.commit)
    raft.send(Message(Kind.HEARTBEAT_REPLY, message.sender, context=message.context, stamp=message.stamp))


def on_snapshot(raft: RaftState, message: Message) -> None:
    """The leader's log no longer has what this member lacks."""
    raft.election_elapsed = 0
    raft.leader_id = message.sender
    take_snapshot(raft, message)


def take_snapshot(raft: RaftState, message: Message) -> None:
    """Start over from a snapshot, unless this log already has what it covers."""
    taken = restore(raft, message.snapshot or Snapshot())
    index = raft.log.last_index if taken else raft.log.committed
    raft.send(Message(Kind.APPEND_REPLY, message.sender, index=index, stamp=message.stamp))


def restore(raft: RaftState, snapshot: Snapshot) -> bool:
    """Replace log and membership by a snapshot's; False if it brings nothing new or is not for this member."""
    raft_log = raft.log
    if snapshot.index <= raft_log.committed:
        return False
    if raft.role is not Role.FOLLOWER:
        raft.become_follower(raft.raft_term + 1, NO_MEMBER)
        return False
    conf = snapshot.conf
    if raft.id not in conf.voters + conf.learners + conf.voters_outgoing:
        log.warning("member %x refuses a snapshot of a group that it is not in", raft.id)
        return False
    if raft_log.matches(snapshot.index, snapshot.raft_term):
        raft_log.commit_to(snapshot.index)
        return False
    raft_log.restore(snapshot)
    fresh = Tracker(raft.tracker.max_inflight, raft.tracker.max_inflight_bytes)
    switch_to(raft, *confchange.restore(fresh, raft_log.last_index, conf))
    raft.tracker.votes = {}
    log.info("member %x takes a snapshot up to index %d", raft.id, snapshot.index)
    return True


def on_transfer(raft: RaftState, message: Message) -> None:
    """Pass the wish for another leader on to the leader."""
    if raft.leader_id != NO_MEMBER:
        message.to = raft.leader_id
        raft.send(message)


def on_forget_leader(raft: RaftState, _message: Message) -> None:
    """Stop believing in the leader, so that another one may get this member's vote before the timeout."""
    if raft.config.lease_reads:
        log.error("member %x cannot forget its leader: the leader's reads rely on it", raft.id)
        return
    raft.leader_id = NO_MEMBER


def on_read_index(raft: RaftState, message: Message) -> None:
    """Pass a read on to the leader."""
    if raft.leader_id != NO_MEMBER:
        message.to = raft.leader_id
        raft.send(message)


def on_read_index_reply(raft: RaftState, message: Message) -> None:
    """The leader has confirmed a read of this member."""
    if len(message.entries) == 1:
        raft.read_states.append(ReadState(message.index, message.entries[0].data))
