"""What a leader does with proposals, replies, reads, and the wish to hand over leadership.

The rule: a leader never removes or changes an entry of its own log; it only appends.
"""

from __future__ import annotations

from consensus.messages import NO_MEMBER, ConfChange, EntryKind, Kind, Message, decode_conf_change
from consensus.reads import ReadState
from consensus.replication import (
    broadcast_append,
    broadcast_heartbeat,
    has_lease,
    renew,
    send_append,
    try_commit,
)
from consensus.state import RaftState, log
from consensus.tracker import Flow, Progress
from model.errors import NotLeader, Overloaded


def on_beat(raft: RaftState, _message: Message) -> None:
    """It is time for heartbeats."""
    broadcast_heartbeat(raft)


def on_check_quorum(raft: RaftState, _message: Message) -> None:
    """Step down if no quorum was heard of since the last check."""
    if not raft.tracker.is_quorum_active():
        log.warning("member %x steps down: it hears of no quorum", raft.id)
        raft.become_follower(raft.raft_term, NO_MEMBER)
    for member in raft.others:
        raft.tracker.progress[member].recent_active = False


# -- proposals


def on_propose(raft: RaftState, message: Message) -> None:
    """Append proposals to the log and send them. Raises `NotLeader` or `Overloaded`: surely not done."""
    propose(raft, [(entry.kind, entry.data) for entry in message.entries])


def propose(raft: RaftState, items: list[tuple[EntryKind, bytes]]) -> None:
    """Append to the log; raises `NotLeader` or `Overloaded`."""
    _require_lead(raft)
    for position, (kind, data) in enumerate(items):
        if kind is EntryKind.NORMAL:
            continue
        problem = _conf_change_problem(raft, decode_conf_change(data))
        if problem and raft.config.validate_conf_changes:
            log.info("member %x ignores a configuration change: %s", raft.id, problem)
            items[position] = (EntryKind.NORMAL, b"")
        else:
            raft.pending_conf_index = raft.log.last_index + position + 1
    if not raft.append_new(items):
        raise _overloaded(raft)
    if raft.config.group_sends:
        raft.has_unsent = True
    else:
        broadcast_append(raft)


def propose_data(raft: RaftState, data: bytes) -> None:
    """`propose` for one normal entry, which nearly all are."""
    if raft.transferee != NO_MEMBER or raft.id not in raft.tracker.progress:
        _require_lead(raft)
    if not raft.append_data(data):
        raise _overloaded(raft)
    if raft.config.group_sends:
        raft.has_unsent = True
    else:
        broadcast_append(raft)


def _require_lead(raft: RaftState) -> None:
    if raft.id not in raft.tracker.progress:
        raise NotLeader("This member was removed from the group.")
    if raft.transferee != NO_MEMBER:
        raise NotLeader(f"Leadership is being handed over to member {raft.transferee:x}.")


def _overloaded(raft: RaftState) -> Overloaded:
    return Overloaded(
        f"{raft.uncommitted_bytes} bytes of changes wait for a quorum; the limit is {raft.max_uncommitted_bytes}."
    )


def _conf_change_problem(raft: RaftState, change: ConfChange) -> str:
    """Why a configuration change cannot be proposed now, or ""."""
    if raft.pending_conf_index > raft.log.applied:
        return f"the one at index {raft.pending_conf_index} may not be applied yet (applied: {raft.log.applied})"
    if raft.tracker.membership.is_joint and change.changes:
        return "the joint configuration has to be left first"
    if not raft.tracker.membership.is_joint and not change.changes:
        return "there is no joint configuration to leave"
    return ""


# -- replies


def on_append_reply(raft: RaftState, message: Message) -> None:
    """A member (or the own disk) acknowledges entries, or says where its log may agree."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    renew(raft, message, progress)
    if message.reject:
        _on_rejection(raft, message, progress)
        return
    if not progress.try_update(message.index) and not (progress.match == message.index and progress.flow is Flow.PROBE):
        return
    is_own = message.sender == raft.id
    if progress.flow is Flow.REPLICATE:
        if not is_own:
            progress.inflights.free_to(message.index)
    elif progress.flow is Flow.PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= raft.log.first_index():
        # Whatever snapshot the member took, the log can serve it from here.
        progress.become_probe()
        progress.become_replicate()
    if try_commit(raft):
        if raft.early_reads:
            release_early_reads(raft)
        broadcast_append(raft)
    elif not is_own and progress.can_bump_commit(raft.log.committed):
        send_append(raft, message.sender)
    if not is_own:
        while send_append(raft, message.sender, even_if_empty=False):
            pass
    if message.sender == raft.transferee and progress.match == raft.log.last_index:
        send_timeout_now(raft, message.sender)


def _on_rejection(raft: RaftState, message: Message, progress: Progress) -> None:
    """Probe where the member's log may agree.

    The member names the last place where its term is not above ours at the probe. Places where our own
    term is above its term there cannot agree either, so each term of a log costs at most one probe.
    """
    hint = message.hint
    if message.log_term:
        hint, _ = raft.log.conflict_by_term(hint, message.log_term)
    if progress.try_decrease(message.index, hint):
        if progress.flow is Flow.REPLICATE:
            progress.become_probe()
        send_append(raft, message.sender)


def on_heartbeat_reply(raft: RaftState, message: Message) -> None:
    """A member follows: send it what it lacks, and count the reply for reads."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    renew(raft, message, progress)
    progress.flow_paused = False
    if progress.match < raft.log.last_index or progress.flow is Flow.PROBE:
        send_append(raft, message.sender)
    if message.context:
        raft.reads.acknowledge(message.sender, message.context)
        advance_reads(raft)


def on_snapshot_status(raft: RaftState, message: Message) -> None:
    """A snapshot was delivered to a member, or was not."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None or progress.flow is not Flow.SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0
    progress.become_probe()
    # Delivered: its reply comes first. Not delivered: try again after a heartbeat.
    progress.flow_paused = True


def on_unreachable(raft: RaftState, message: Message) -> None:
    """Entries to a member were probably lost."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is not None and progress.flow is Flow.REPLICATE:
        progress.become_probe()


# -- handing over


def on_transfer(raft: RaftState, message: Message) -> None:
    """Let a member lead once its log is complete; given up after an election timeout."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None or progress.is_learner:
        return
    if raft.transferee == message.sender:
        return
    raft.transferee = NO_MEMBER
    if message.sender == raft.id:
        return
    raft.election_elapsed = 0
    raft.transferee = message.sender
    if progress.match == raft.log.last_index:
        send_timeout_now(raft, message.sender)
    else:
        send_append(raft, message.sender)


def send_timeout_now(raft: RaftState, to: int) -> None:
    """Tell a member to start its election now. Nobody's lease holds it back, so ours ends here."""
    raft.gave_up_lease = True
    raft.lease_until = -1
    raft.send(Message(Kind.TIMEOUT_NOW, to))


# -- reads


def on_read_index(raft: RaftState, message: Message) -> None:
    """Find out what a read has to see.

    Before an entry of its term is committed not even the only member of a group knows what is: the commit
    index that it found on disk at its start may be older than what it acknowledged.
    """
    if raft.has_committed_in_term:
        _confirm_read(raft, message)
    else:
        raft.early_reads.append(message)


def _confirm_read(raft: RaftState, message: Message) -> None:
    if raft.tracker.is_singleton or (raft.config.lease_reads and has_lease(raft)):
        answer_read(raft, message, raft.log.committed)
        return
    raft.reads.add(message, raft.log.committed)
    raft.reads.acknowledge(raft.id, raft.reads.context())
    broadcast_heartbeat(raft)


def release_early_reads(raft: RaftState) -> None:
    """Reads that came too early can be confirmed once an entry of this term is committed."""
    if raft.has_committed_in_term:
        early, raft.early_reads = raft.early_reads, []
        for message in early:
            _confirm_read(raft, message)


def advance_reads(raft: RaftState) -> None:
    """Answer the reads that a quorum has confirmed."""
    for read in raft.reads.confirmed(raft.tracker.membership):
        answer_read(raft, read.request, read.index)


def answer_read(raft: RaftState, request: Message, index: int) -> None:
    """Tell whoever asked that it may read once `index` is applied."""
    if request.sender in (NO_MEMBER, raft.id):
        raft.read_states.append(ReadState(index, request.entries[0].data))
    else:
        raft.send(Message(Kind.READ_INDEX_REPLY, request.sender, index=index, entries=request.entries))
