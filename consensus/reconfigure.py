"""What happens when a member switches to another configuration: applied from the log, or from a snapshot."""

from __future__ import annotations

from consensus import confchange
from consensus.leader import advance_reads, release_early_reads
from consensus.messages import NO_MEMBER, ConfChange, ConfState
from consensus.replication import broadcast_append, renew_lease, send_append, try_commit
from consensus.state import RaftState, Role, log
from consensus.tracker import Membership, Progress


def apply_conf_change(raft: RaftState, change: ConfChange) -> ConfState:
    """Make a committed change. Raises `BadConfChange`, which validation before proposing prevents."""
    return switch_to(raft, *confchange.changed(raft.tracker, raft.log.last_index, change))


def switch_to(raft: RaftState, membership: Membership, progress: dict[int, Progress]) -> ConfState:
    """Use another configuration from now on; a leader brings new members up to date at once."""
    raft.tracker.membership = membership
    raft.tracker.progress = progress
    raft.others = tuple(member for member in progress if member != raft.id)
    own = progress.get(raft.id)
    raft.is_learner = own is not None and own.is_learner
    state = membership.conf_state()
    log.info("member %x uses the configuration %s", raft.id, membership)
    if raft.role is not Role.LEADER:
        return state
    if own is None or raft.is_learner:
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.raft_term, NO_MEMBER)
        return state
    if not membership.voters:
        return state
    renew_lease(raft)
    if try_commit(raft):
        release_early_reads(raft)
        broadcast_append(raft)
    else:
        for member in raft.others:
            send_append(raft, member, even_if_empty=False)
    if raft.transferee not in membership.all_voters:
        raft.transferee = NO_MEMBER
    advance_reads(raft)
    return state
