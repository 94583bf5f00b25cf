"""The state of one member, and the few moves every role shares: send, append, change role.

The modules of the roles (`follower`, `candidate`, `leader`, `replication`, `reconfigure`) are
functions over this state; `core` ties them together. The rule kept here: a message that promises
something (a vote, an acknowledged entry) waits in `messages_after_sync` until what it promises is
on disk; everything else may leave at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from consensus.messages import (
    EMPTY_HARD_STATE,
    NO_MEMBER,
    STORAGE,
    UNLIMITED,
    Entry,
    EntryKind,
    Kind,
    Message,
)
from consensus.raftlog import RaftLog, Storage
from consensus.reads import PendingReads, ReadState
from consensus.tracker import Progress, Tracker
from model.errors import BadSetting, Corrupt

log = logging.getLogger("rewinddb.consensus")


class Role(IntEnum):
    """What a member is at the moment."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


@dataclass(frozen=True, slots=True)
class Config:
    """How one member takes part. Times are in ticks, sizes in bytes.

    The defaults are RewindDB's; every protection of Raft is on.
    """

    member_id: int
    election_ticks: int = 10
    """A follower that hears nothing for one to two times this long starts an election."""
    heartbeat_ticks: int = 1
    applied: int = 0
    """The last index that the state machine has applied, at a restart."""
    async_storage_writes: bool = True
    """Several `Ready` may be on their way to the disk; entries are applied only once they are synced here."""
    group_sends: bool = True
    """Proposals made between two `ready()` calls leave in one message per member."""
    max_message_bytes: int = 1 << 20
    max_committed_bytes: int = 64 << 20
    """Entries handed out and not yet applied."""
    max_uncommitted_bytes: int = 256 << 20
    """Proposals above this are refused with `Overloaded`; 0 for no limit."""
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 0
    """Payload under way to one member; 0 for no limit."""
    check_quorum: bool = True
    pre_vote: bool = True
    lease_reads: bool = False
    """`read_index` trusts the leader's lease instead of asking a quorum. Needs `check_quorum`."""
    forward_proposals: bool = False
    """A follower passes proposals on to its leader instead of refusing them."""
    validate_conf_changes: bool = True
    step_down_on_removal: bool = True
    hold_votes_at_start: bool = True
    """For one election timeout after a restart no vote is given: before it, this member may have promised
    a leader not to, and has forgotten it."""
    dice: Callable[[int], int] | None = None
    """`dice(n)` gives a number in [0, n); without one, a fixed sequence per member."""
    clock: Callable[[], int] | None = None
    """A monotonic clock for the lease, in any unit, never negative; without one, ticks are counted."""
    lease: int = 0
    """How long a heartbeat that a quorum answered lets the leader serve reads alone, in the unit of `clock`.
    Must stay below the election timeout by more than clocks may drift. 0: the election timeout less two ticks."""

    def check(self) -> None:
        """Raise `BadSetting` where settings contradict each other."""
        if not NO_MEMBER < self.member_id < STORAGE:
            raise BadSetting(f"The member id {self.member_id} is outside 1 to {STORAGE - 1}.")
        if self.heartbeat_ticks <= 0:
            raise BadSetting("A heartbeat needs at least one tick.")
        if self.election_ticks <= self.heartbeat_ticks:
            raise BadSetting("The election timeout must be longer than the heartbeat interval.")
        if self.max_inflight_messages <= 0:
            raise BadSetting("At least one append message must be allowed under way.")
        if 0 < self.max_inflight_bytes < self.max_message_bytes:
            raise BadSetting("The bytes under way to a member must allow for one whole message.")
        if self.lease_reads and not self.check_quorum:
            raise BadSetting("Reads under a lease need check_quorum.")
        if self.clock is not None and self.lease <= 0:
            raise BadSetting("A clock for the lease needs the length of the lease.")


def fixed_dice(seed: int) -> Callable[[int], int]:
    """Numbers that look random and are the same for each seed."""
    state = seed * 2654435761 + 1

    def throw(sides: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        return (state >> 33) % sides

    return throw


class RaftState:
    """One member: term, vote, role, log, membership, and what it wants to send."""

    def __init__(self, config: Config, storage: Storage) -> None:
        config.check()
        self.config = config
        self.id = config.member_id
        self.log = RaftLog(storage, config.max_committed_bytes)
        self.tracker = Tracker(config.max_inflight_messages, config.max_inflight_bytes or UNLIMITED)
        self.others: tuple[int, ...] = ()
        """Every other member, voters and learners, in ascending order."""
        self.is_learner = False
        self.raft_term = 0
        self.vote = NO_MEMBER
        self.role = Role.FOLLOWER
        self.leader_id = NO_MEMBER
        self.transferee = NO_MEMBER
        """Who is to lead next, while leadership is handed over."""
        self.gave_up_lease = False
        """This leader has told a member to start an election, which no lease holds back."""
        self.lease_until = -1
        """No other member can be elected while the clock is below this."""
        self.pending_conf_index = 0
        """No configuration change is proposed before this index is applied."""
        self.uncommitted_bytes = 0
        self.max_uncommitted_bytes = config.max_uncommitted_bytes or UNLIMITED
        self.term_start = 0
        """The index of the no-op with which this leader opened its term."""
        self.reads = PendingReads()
        self.early_reads: list[Message] = []
        """Reads that came before the leader committed an entry of its term."""
        self.read_states: list[ReadState] = []
        self.messages: list[Message] = []
        self.messages_after_sync: list[Message] = []
        self.has_unsent = False
        """Entries were appended in a group that was not sent to the others yet."""
        self.ticks = 0
        self.clock = config.clock or self._count_ticks
        self.lease = config.lease or max(1, config.election_ticks - 2)
        self.dice = config.dice or fixed_dice(self.id)
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = config.election_ticks
        self.hold_votes_ticks = 0
        hard_state, _ = storage.initial_state()
        if hard_state != EMPTY_HARD_STATE:
            if not self.log.committed <= hard_state.commit <= self.log.last_index:
                raise Corrupt(
                    f"The stored commit index {hard_state.commit} is outside the log"
                    f" ({self.log.committed} to {self.log.last_index}).",
                    "The log was cut or lost: remove this member and add it again with an empty data folder.",
                )
            self.log.committed = hard_state.commit
            self.raft_term = hard_state.raft_term
            self.vote = hard_state.vote
            if config.hold_votes_at_start and config.check_quorum:
                self.hold_votes_ticks = config.election_ticks
        if config.applied:
            self.log.applied_to(config.applied, 0)

    def _count_ticks(self) -> int:
        return self.ticks

    # -- sending

    def send(self, message: Message) -> None:
        """Queue a message, with this member as sender and the term its kind asks for."""
        kind = message.kind
        if not message.sender:
            message.sender = self.id
        if not message.raft_term and kind is not Kind.PROPOSE and kind is not Kind.READ_INDEX:
            message.raft_term = self.raft_term
        if kind is Kind.APPEND_REPLY or kind is Kind.VOTE_REPLY or kind is Kind.PRE_VOTE_REPLY:
            self.messages_after_sync.append(message)
        else:
            self.messages.append(message)

    # -- roles

    def reset(self, raft_term: int) -> None:
        """Begin afresh in a role: no leader, no votes, no progress; a new term also clears the vote."""
        if self.raft_term != raft_term:
            self.raft_term = raft_term
            self.vote = NO_MEMBER
        self.leader_id = NO_MEMBER
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.draw_election_timeout()
        self.transferee = NO_MEMBER
        self.gave_up_lease = False
        self.lease_until = -1
        self.has_unsent = False
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.reads = PendingReads()
        self.early_reads = []
        tracker, last_index = self.tracker, self.log.last_index
        tracker.votes = {}
        for member, old in tracker.progress.items():
            progress = Progress(last_index + 1, tracker.new_inflights(), is_learner=old.is_learner)
            if member == self.id:
                progress.match = last_index
            tracker.progress[member] = progress

    def draw_election_timeout(self) -> None:
        """Draw a new timeout, from one to two times the configured one."""
        self.election_timeout = self.config.election_ticks + self.dice(self.config.election_ticks)

    def become_follower(self, raft_term: int, leader_id: int) -> None:
        """Follow `leader_id`, or nobody yet."""
        self.reset(raft_term)
        self.leader_id = leader_id
        self.role = Role.FOLLOWER
        log.debug("member %x follows %x in term %d", self.id, leader_id, raft_term)

    def become_pre_candidate(self) -> None:
        """Ask for votes without touching term and vote."""
        if self.role is Role.LEADER:
            raise Corrupt("A leader cannot ask whether it might lead.")
        self.tracker.votes = {}
        self.leader_id = NO_MEMBER
        self.role = Role.PRE_CANDIDATE
        log.debug("member %x asks for votes before term %d", self.id, self.raft_term + 1)

    def become_candidate(self) -> None:
        """Open a new term with a vote for oneself."""
        if self.role is Role.LEADER:
            raise Corrupt("A leader cannot become a candidate.")
        self.reset(self.raft_term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE
        log.debug("member %x is a candidate in term %d", self.id, self.raft_term)

    def become_leader(self) -> None:
        """Lead: open the term with a no-op, which commits what earlier leaders left."""
        if self.role is Role.FOLLOWER:
            raise Corrupt("A follower cannot lead without an election.")
        self.reset(self.raft_term)
        self.leader_id = self.id
        self.role = Role.LEADER
        own = self.tracker.progress[self.id]
        own.become_replicate()
        own.recent_active = True
        # An earlier leader's change may still be in the log: none is proposed before all of it is applied.
        self.pending_conf_index = self.log.last_index
        self.term_start = self.log.last_index + 1
        self.append_new([(EntryKind.NORMAL, b"")])
        log.info("member %x leads from term %d, log index %d", self.id, self.raft_term, self.term_start)

    # -- the leader's own log

    def append_new(self, items: list[tuple[EntryKind, bytes]]) -> bool:
        """Append entries of this leader's term; False if the uncommitted end of the log is full.

        An empty payload always fits, and so does any payload when nothing waits.
        """
        size = sum([len(data) for _, data in items])
        if size and self.uncommitted_bytes and self.uncommitted_bytes + size > self.max_uncommitted_bytes:
            return False
        self.uncommitted_bytes += size
        raft_log, raft_term = self.log, self.raft_term
        index = raft_log.last_index + 1
        raft_log.append([Entry(index + at, raft_term, kind, data) for at, (kind, data) in enumerate(items)])
        self._reply_after_sync(raft_log.last_index)
        return True

    def append_data(self, data: bytes) -> bool:
        """`append_new` for one normal entry."""
        size = len(data)
        if size and self.uncommitted_bytes and self.uncommitted_bytes + size > self.max_uncommitted_bytes:
            return False
        self.uncommitted_bytes += size
        self._reply_after_sync(self.log.append_next(self.raft_term, data))
        return True

    def _reply_after_sync(self, index: int) -> None:
        """Promise to count the own log up to `index` once it is synced: once for all entries of a group."""
        waiting, own = self.messages_after_sync, self.id
        if waiting and self.config.group_sends:
            last = waiting[-1]
            if last.to == own and last.kind is Kind.APPEND_REPLY and last.raft_term == self.raft_term:
                last.index = index
                return
        waiting.append(Message(Kind.APPEND_REPLY, own, own, self.raft_term, 0, index))

    def reduce_uncommitted(self, size: int) -> None:
        """Entries with that many payload bytes were applied."""
        self.uncommitted_bytes = max(0, self.uncommitted_bytes - size)

    # -- questions

    @property
    def is_promotable(self) -> bool:
        """Whether this member may campaign: a voter that is not taking a snapshot."""
        own = self.tracker.progress.get(self.id)
        return own is not None and not own.is_learner and self.log.snapshot is None

    @property
    def has_committed_in_term(self) -> bool:
        """Whether this leader has committed an entry of its own term, and so knows all that is committed."""
        return self.log.committed >= self.term_start
