"""How a leader brings entries, snapshots and heartbeats to the others, and counts what they have.

The rule: an index is committed when a quorum has it synced and its entry is of the leader's own
term; older entries are committed only along with such a one.
"""

from __future__ import annotations

from consensus.messages import UNLIMITED, Kind, Message, payload_bytes
from consensus.raftlog import Compacted, SnapshotUnavailable, Unavailable
from consensus.state import RaftState, Role, log
from consensus.tracker import Flow, Progress
from model.errors import Corrupt


def broadcast_append(raft: RaftState) -> None:
    """Send every other member what it lacks, or at least the commit index."""
    raft.has_unsent = False
    for member in raft.others:
        send_append(raft, member)


def send_append(raft: RaftState, to: int, even_if_empty: bool = True) -> bool:
    """Send entries to a member, if it takes any now; whether a message was sent."""
    progress = raft.tracker.progress[to]
    if progress.is_paused:
        return False
    raft_log = raft.log
    previous = progress.next - 1
    try:
        previous_term = raft_log.term(previous)
        # A full window lets only empty messages through: their replies clear it when what filled it was lost.
        if progress.flow is Flow.REPLICATE and progress.inflights.is_full:
            entries = []
        else:
            entries = raft_log.read_from(progress.next, raft.config.max_message_bytes)
    except (Compacted, Unavailable):
        return send_snapshot(raft, to, progress)
    if not entries and not even_if_empty:
        return False
    raft.messages.append(
        Message(
            Kind.APPEND,
            to,
            raft.id,
            raft.raft_term,
            previous_term,
            previous,
            raft_log.committed,
            entries,
            stamp=raft.clock(),
        )
    )
    progress.sent_entries(len(entries), payload_bytes(entries))
    progress.sent_commit = raft_log.committed
    return True


def send_snapshot(raft: RaftState, to: int, progress: Progress) -> bool:
    """Send a member the newest snapshot, if it is reachable and storage has one ready."""
    if not progress.recent_active:
        return False
    try:
        snapshot = raft.log.snapshot or raft.log.storage.snapshot()
    except SnapshotUnavailable:
        return False
    if not snapshot.index:
        raise Corrupt(f"Member {to:x} needs entries that the log no longer has, and there is no snapshot.")
    progress.become_snapshot(snapshot.index)
    log.info("member %x sends a snapshot up to index %d to %x", raft.id, snapshot.index, to)
    raft.send(Message(Kind.SNAPSHOT, to, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: RaftState) -> None:
    """Remind every other member who leads; the replies confirm reads and renew the lease."""
    context = raft.reads.context()
    progress, committed, stamp = raft.tracker.progress, raft.log.committed, raft.clock()
    for member in raft.others:
        # Never more than the member is known to have: its log may differ behind that.
        commit = min(progress[member].match, committed)
        raft.send(Message(Kind.HEARTBEAT, member, commit=commit, context=context, stamp=stamp))
        progress[member].sent_commit = commit


def try_commit(raft: RaftState) -> bool:
    """Move the commit index as far as a quorum allows; whether it moved."""
    index = raft.tracker.committed()
    if index <= raft.log.committed or index < raft.term_start:
        return False
    raft.log.commit_to(index)
    return True


def renew(raft: RaftState, message: Message, progress: Progress) -> None:
    """Something came from a member: it is alive, and followed when the message it answers was sent."""
    progress.recent_active = True
    if message.stamp > progress.acked_stamp:
        progress.acked_stamp = min(message.stamp, raft.clock())
        renew_lease(raft)


def renew_lease(raft: RaftState) -> None:
    """Work out until when no other member can be elected, from what the members have answered.

    The own answer is always the newest. A group of one needs no other's, so its lease does not end.
    """
    own = raft.tracker.progress.get(raft.id)
    if own is None or raft.gave_up_lease or not raft.config.check_quorum:
        raft.lease_until = -1
        return
    own.acked_stamp = UNLIMITED
    stamp = raft.tracker.quorum_stamp()
    raft.lease_until = stamp + raft.lease if stamp >= 0 else -1


def has_lease(raft: RaftState) -> bool:
    """Whether no other member can have been elected yet, by the clocks of this member and its followers."""
    return raft.role is Role.LEADER and raft.clock() < raft.lease_until
