"""The Raft core: messages and ticks go in, `Ready` comes out. No thread, no clock, no disk, no network.

    core.propose(data) / core.step(message) / core.tick()      something happens
    while core.has_ready():
        ready = core.ready()
        send(ready.messages)                                   at once, beside the own disk
        write(ready.hard_state, ready.entries, ready.snapshot) in this order, then one sync
            → core.synced(ready); send(ready.messages_after_sync)
        apply(ready.committed_entries)                         configuration changes: core.apply_conf_change
            → core.applied(ready)

The one ordering rule: `messages_after_sync` leave only once everything that this `Ready` and all
earlier ones gave out to be written is synced, and `synced` is told in the order of the `Ready`s.
With `async_storage_writes` several `Ready` may be under way; without it, `advance` ends each one
before the next. The semantics follow etcd's raft message by message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus import candidate, confchange, follower, leader, reconfigure, replication
from consensus.messages import (
    ENTRY_OVERHEAD_BYTES,
    LOCAL_KINDS,
    NO_MEMBER,
    REPLY_KINDS,
    STORAGE,
    BadMessage,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Kind,
    Message,
    Snapshot,
    encode_conf_change,
    entries_bytes,
)
from consensus.raftlog import Storage
from consensus.ready import Ready, SoftState, Status
from consensus.state import Config, RaftState, Role, log
from model.errors import NotLeader, Overloaded

__all__ = ["Config", "RaftCore", "Ready", "Role", "SoftState", "Status", "Storage"]


class RaftCore(RaftState):
    """One member of a Raft group."""

    def __init__(self, config: Config, storage: Storage) -> None:
        super().__init__(config, storage)
        _, conf_state = storage.initial_state()
        reconfigure.switch_to(self, *confchange.restore(self.tracker, self.log.last_index, conf_state))
        self.become_follower(self.raft_term, NO_MEMBER)
        self._told_leader = self.leader_id
        self._told_role = self.role
        self._told_hard = HardState(self.raft_term, self.vote, self.log.committed)
        self._outstanding: Ready | None = None

    # -- what happens

    def tick(self) -> None:
        """One tick of time has passed."""
        self.ticks += 1
        self.election_elapsed += 1
        if self.hold_votes_ticks:
            self.hold_votes_ticks -= 1
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self.election_elapsed >= self.election_timeout and self.is_promotable:
            self.election_elapsed = 0
            candidate.on_hup(self, _HUP)

    def _tick_leader(self) -> None:
        self.heartbeat_elapsed += 1
        if self.election_elapsed >= self.config.election_ticks:
            self.election_elapsed = 0
            if self.config.check_quorum:
                leader.on_check_quorum(self, _HUP)
            self.transferee = NO_MEMBER
            if self.role is not Role.LEADER:
                return
        if self.heartbeat_elapsed >= self.config.heartbeat_ticks:
            self.heartbeat_elapsed = 0
            replication.broadcast_heartbeat(self)

    def step(self, message: Message) -> bool:
        """A message came in, from a peer or from this server's own disk; False if it was dropped.

        Dropped are a peer's message that makes no sense here, and a peer's proposal that cannot be taken,
        since its maker gave up any claim to an answer. The caller has checked who the sender is.
        """
        kind = message.kind
        if message.sender != STORAGE:
            if kind in LOCAL_KINDS:
                log.warning("member %x drops a %s from %x", self.id, kind.name, message.sender)
                return False
            if kind in REPLY_KINDS and message.sender not in self.tracker.progress:
                return False
        try:
            self._step(message)
            return True
        except (NotLeader, Overloaded, BadMessage) as error:
            log.info("member %x drops a %s from %x: %s", self.id, kind.name, message.sender, error)
            return False

    def _step(self, message: Message) -> None:
        raft_term = message.raft_term
        if raft_term and raft_term != self.raft_term:
            if raft_term < self.raft_term:
                self._on_lower_term(message)
                return
            if not self._on_higher_term(message):
                return
        RULES[self.role][message.kind](self, message)

    def _on_higher_term(self, message: Message) -> bool:
        """Join a newer term, unless the message only asks about it; False if the message is to be ignored."""
        kind = message.kind
        if (kind is Kind.VOTE or kind is Kind.PRE_VOTE) and message.context != candidate.TRANSFER_CONTEXT:
            follows = self.leader_id != NO_MEMBER and self.election_elapsed < self.config.election_ticks
            if self.config.check_quorum and (follows or self.hold_votes_ticks):
                return False
        if kind is Kind.PRE_VOTE or (kind is Kind.PRE_VOTE_REPLY and not message.reject):
            return True
        leads = kind is Kind.APPEND or kind is Kind.HEARTBEAT or kind is Kind.SNAPSHOT
        self.become_follower(message.raft_term, message.sender if leads else NO_MEMBER)
        return True

    def _on_lower_term(self, message: Message) -> None:
        kind = message.kind
        if (self.config.check_quorum or self.config.pre_vote) and (kind is Kind.HEARTBEAT or kind is Kind.APPEND):
            # A leader of an older term, perhaps one that cannot be told otherwise: a vote request would not do.
            self.send(Message(Kind.APPEND_REPLY, message.sender))
        elif kind is Kind.PRE_VOTE:
            # Not answering could leave two members of a mixed group stuck.
            self.send(Message(Kind.PRE_VOTE_REPLY, message.sender, raft_term=self.raft_term, reject=True))
        elif kind is Kind.STORAGE_APPENDED and message.snapshot is not None:
            # Entries may have been replaced since, in a newer term; a snapshot holds whatever the term.
            self._snapshot_applied(message.snapshot)

    def propose(self, data: bytes) -> int:
        """Propose an entry; its log index, or 0 where it was passed on to the leader.

        Raises `NotLeader` or `Overloaded`: surely not done.
        """
        if self.role is Role.LEADER:
            leader.propose_data(self, data)
            return self.log.last_index
        return self._propose(EntryKind.NORMAL, data)

    def propose_conf_change(self, change: ConfChange, kind: EntryKind = EntryKind.CONF_CHANGE_V2) -> int:
        """Propose a change of the membership; its log index. Raises `NotLeader` or `Overloaded`.

        While another change is not applied yet, or where it does not fit, the entry becomes a no-op:
        look at what is applied at that index.
        """
        return self._propose(kind, encode_conf_change(change))

    def _propose(self, kind: EntryKind, data: bytes) -> int:
        if self.role is Role.LEADER:
            leader.propose(self, [(kind, data)])
            return self.log.last_index
        RULES[self.role][Kind.PROPOSE](self, Message(Kind.PROPOSE, sender=self.id, entries=[Entry(0, 0, kind, data)]))
        return 0

    def campaign(self) -> None:
        """Start an election now: a single member need not wait for its timeout."""
        candidate.on_hup(self, _HUP)

    def read_index(self, context: bytes) -> None:
        """Ask for a linearizable read; a `ReadState` with `context` follows in some `Ready`.

        Raises `NotLeader` when no leader is known. A read whose leader loses its office gets no answer:
        ask again when the leader changes, or after a time.
        """
        if self.leader_id == NO_MEMBER:
            raise NotLeader("No leader is known at the moment.")
        RULES[self.role][Kind.READ_INDEX](self, Message(Kind.READ_INDEX, entries=[Entry(0, 0, data=context)]))

    def transfer_leadership(self, to: int) -> None:
        """Ask for `to` to lead; nothing comes of it if its log does not catch up within an election timeout."""
        RULES[self.role][Kind.TRANSFER](self, Message(Kind.TRANSFER, sender=to))

    def forget_leader(self) -> None:
        """Let another member get this one's vote before the election timeout."""
        RULES[self.role][Kind.FORGET_LEADER](self, Message(Kind.FORGET_LEADER))

    def report_unreachable(self, member: int) -> None:
        """What was last sent to a member may be lost."""
        RULES[self.role][Kind.UNREACHABLE](self, Message(Kind.UNREACHABLE, sender=member))

    def report_snapshot(self, member: int, delivered: bool) -> None:
        """A snapshot has reached a member, or will not."""
        message = Message(Kind.SNAPSHOT_STATUS, sender=member, reject=not delivered)
        RULES[self.role][Kind.SNAPSHOT_STATUS](self, message)

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Make a change that is being applied; the new configuration, to be kept with the applied index."""
        return reconfigure.apply_conf_change(self, change)

    # -- what has to be done

    def has_ready(self) -> bool:
        """Whether `ready` would give anything to do."""
        raft_log = self.log
        return bool(
            self.messages
            or self.messages_after_sync
            or (raft_log.entries and raft_log.offset_in_progress <= raft_log.last_index)
            or (
                raft_log.applying < raft_log.committed
                and raft_log.has_next_committed(not self.config.async_storage_writes)
            )
            or self.read_states
            or raft_log.committed != self._told_hard.commit
            or self.leader_id != self._told_leader
            or self.role is not self._told_role
            or self.raft_term != self._told_hard.raft_term
            or self.vote != self._told_hard.vote
            or (raft_log.snapshot is not None and not raft_log.snapshot_in_progress)
        )

    def ready(self) -> Ready:
        """What has to be done now. The caller does it; the core counts it as under way."""
        is_async = self.config.async_storage_writes
        assert is_async or self._outstanding is None, "the last Ready was not advanced"
        # Nothing is asked for that is not there: with one client, each call made here costs its commit a microsecond.
        if self.has_unsent:
            replication.broadcast_append(self)
        raft_log = self.log
        entries = raft_log.next_unstable() if raft_log.entries else []
        committed = raft_log.next_committed(not is_async) if raft_log.applying < raft_log.committed else []
        after_sync = self.messages_after_sync
        own: list[Message] = []
        if after_sync:
            if len(after_sync) == 1 and after_sync[0].to == self.id:
                own, after_sync = after_sync, own
            else:
                own = [message for message in after_sync if message.to == self.id]
                after_sync = [message for message in after_sync if message.to != self.id]
        told, hard_state = self._told_hard, self._changed_hard_state()
        snapshot = raft_log.next_snapshot() if raft_log.snapshot is not None else None
        ready = Ready(
            self._changed_soft_state(),
            hard_state,
            bool(entries)
            or (hard_state is not None and (hard_state.raft_term != told.raft_term or hard_state.vote != told.vote)),
            entries,
            snapshot,
            committed,
            self.messages,
            after_sync,
            self.read_states,
            own,
            self._append_acknowledgement(snapshot) if raft_log.entries or snapshot is not None else None,
            entries_bytes(committed) if committed else 0,
        )
        self.messages = []
        self.messages_after_sync = []
        self.read_states = []
        if entries or ready.snapshot is not None:
            raft_log.accept_unstable()
        if committed:
            raft_log.accept_applying(committed[-1].index, ready.committed_bytes, not is_async)
        if not is_async:
            self._outstanding = ready
        return ready

    def _changed_soft_state(self) -> SoftState | None:
        if self.leader_id == self._told_leader and self.role is self._told_role:
            return None
        self._told_leader, self._told_role = self.leader_id, self.role
        return SoftState(self.leader_id, self.role)

    def _changed_hard_state(self) -> HardState | None:
        told, commit = self._told_hard, self.log.committed
        if commit == told.commit and self.raft_term == told.raft_term and self.vote == told.vote:
            return None
        self._told_hard = HardState(self.raft_term, self.vote, commit)
        return self._told_hard

    def _append_acknowledgement(self, snapshot: Snapshot | None) -> Message:
        """What the disk is to say when it is done with entries or a snapshot.

        It names the last entry of the log and the term of now, even when this `Ready` has no entries: an
        acknowledgement of an older term is ignored, since newer entries may be on their way over the same
        indexes, and then the next one has to free them.
        """
        raft_log = self.log
        index = log_term = 0
        if raft_log.entries:
            index, log_term = raft_log.last_index, raft_log.last_term
        return Message(Kind.STORAGE_APPENDED, self.id, STORAGE, self.raft_term, log_term, index, snapshot=snapshot)

    def synced(self, ready: Ready) -> None:
        """All that `ready` gave to be written is on disk; now its `messages_after_sync` may leave."""
        for message in ready.own_messages:
            self._step(message)
        if ready.appended is not None:
            self._step(ready.appended)

    def applied(self, ready: Ready) -> None:
        """The committed entries of `ready` are applied."""
        if ready.committed_entries:
            self._entries_applied(ready.committed_entries, ready.committed_bytes)

    def advance(self, ready: Ready) -> None:
        """Both: written, synced and applied."""
        self._outstanding = None
        self.synced(ready)
        self.applied(ready)

    # -- what the disk and the state machine say

    def on_storage_appended(self, message: Message) -> None:
        """Entries or a snapshot are on disk."""
        if message.index:
            self.log.stable_to(message.index, message.log_term)
        if message.snapshot is not None:
            self._snapshot_applied(message.snapshot)

    def on_storage_applied(self, message: Message) -> None:
        """Entries are applied."""
        if message.entries:
            self._entries_applied(message.entries, entries_bytes(message.entries))

    def _entries_applied(self, entries: list[Entry], size: int) -> None:
        self._applied_to(entries[-1].index, size)
        if self.uncommitted_bytes:
            self.reduce_uncommitted(size - ENTRY_OVERHEAD_BYTES * len(entries))

    def _snapshot_applied(self, snapshot: Snapshot) -> None:
        self.log.stable_snapshot_to(snapshot.index)
        self._applied_to(snapshot.index, 0)

    def _applied_to(self, index: int, size: int) -> None:
        self.log.applied_to(max(index, self.log.applied), size)
        if (
            self.tracker.membership.auto_leave
            and self.role is Role.LEADER
            and self.log.applied >= self.pending_conf_index
        ):
            try:
                leader.propose(self, [(EntryKind.CONF_CHANGE_V2, b"")])
            except NotLeader:
                # Leadership is being handed over: asked again with the next applied entry, here or there.
                log.info("member %x leaves the joint configuration later", self.id)

    # -- questions

    @property
    def is_leader(self) -> bool:
        """Whether this member believes to lead."""
        return self.role is Role.LEADER

    @property
    def has_lease(self) -> bool:
        """Whether no other member can have been elected by now, so that nothing was committed elsewhere."""
        return replication.has_lease(self)

    @property
    def may_read_alone(self) -> bool:
        """Whether a read of the applied state is linearizable now, without asking anybody.

        A lease alone is not enough: while the own disk is slow, the others may have committed, and even
        shown to readers of theirs, what is not applied here.
        """
        raft_log = self.log
        return raft_log.applied >= raft_log.committed >= self.term_start and replication.has_lease(self)

    @property
    def last_index(self) -> int:
        """The last index of the log, committed or not."""
        return self.log.last_index

    def hard_state(self) -> HardState:
        """Term, vote and commit index as they are now."""
        return HardState(self.raft_term, self.vote, self.log.committed)

    def soft_state(self) -> SoftState:
        """Leader and role as they are now."""
        return SoftState(self.leader_id, self.role)

    def status(self) -> Status:
        """How this member sees its group."""
        return Status(
            self.id,
            self.hard_state(),
            self.soft_state(),
            self.log.applied,
            self.log.last_index,
            self.transferee,
            self.tracker.membership,
            dict(self.tracker.progress) if self.is_leader else {},
        )


_HUP: Final = Message(Kind.HUP)

Rule = Callable[[RaftCore, Message], None]


def _ignore(_raft: RaftCore, _message: Message) -> None:
    """Nothing to do in this role."""


_EVERYBODY: Final[dict[Kind, Rule]] = {
    Kind.HUP: candidate.on_hup,
    Kind.VOTE: candidate.on_vote_request,
    Kind.PRE_VOTE: candidate.on_vote_request,
    Kind.STORAGE_APPENDED: RaftCore.on_storage_appended,
    Kind.STORAGE_APPLIED: RaftCore.on_storage_applied,
}
_CANDIDATES: Final[dict[Kind, Rule]] = {
    Kind.PROPOSE: candidate.on_propose,
    Kind.APPEND: candidate.on_append,
    Kind.HEARTBEAT: candidate.on_heartbeat,
    Kind.SNAPSHOT: candidate.on_snapshot,
}


def _rules(*tables: dict[Kind, Rule]) -> Sequence[Rule]:
    merged: dict[Kind, Rule] = {}
    for table in tables:
        merged |= table
    return [merged.get(Kind(number), _ignore) if number in list(Kind) else _ignore for number in range(max(Kind) + 1)]


RULES: Final[list[Sequence[Rule]]] = [
    _rules(  # Role.FOLLOWER
        _EVERYBODY,
        {
            Kind.PROPOSE: follower.on_propose,
            Kind.APPEND: follower.on_append,
            Kind.HEARTBEAT: follower.on_heartbeat,
            Kind.SNAPSHOT: follower.on_snapshot,
            Kind.TRANSFER: follower.on_transfer,
            Kind.FORGET_LEADER: follower.on_forget_leader,
            Kind.TIMEOUT_NOW: candidate.on_timeout_now,
            Kind.READ_INDEX: follower.on_read_index,
            Kind.READ_INDEX_REPLY: follower.on_read_index_reply,
        },
    ),
    _rules(_EVERYBODY, _CANDIDATES, {Kind.VOTE_REPLY: candidate.on_vote_reply}),  # Role.CANDIDATE
    _rules(  # Role.LEADER
        _EVERYBODY,
        {
            Kind.BEAT: leader.on_beat,
            Kind.CHECK_QUORUM: leader.on_check_quorum,
            Kind.PROPOSE: leader.on_propose,
            Kind.APPEND_REPLY: leader.on_append_reply,
            Kind.HEARTBEAT_REPLY: leader.on_heartbeat_reply,
            Kind.SNAPSHOT_STATUS: leader.on_snapshot_status,
            Kind.UNREACHABLE: leader.on_unreachable,
            Kind.TRANSFER: leader.on_transfer,
            Kind.READ_INDEX: leader.on_read_index,
        },
    ),
    _rules(_EVERYBODY, _CANDIDATES, {Kind.PRE_VOTE_REPLY: candidate.on_vote_reply}),  # Role.PRE_CANDIDATE
]
"""What each role does with each kind of message: `RULES[role][kind]`."""
