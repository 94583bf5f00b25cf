"""What a leader knows of each member: how far its log is, what is under way to it, how it voted.

The rule of `Progress`: `match < next`; what lies between is under way. A member is probed with one
message at a time until it has acknowledged one, then entries are streamed to it; a member that needs
more than the log still holds waits for a snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from consensus.messages import UNLIMITED, ConfState
from consensus.quorum import Vote, joint_vote_result, majority_of


class Flow(Enum):
    """How entries go to a member."""

    PROBE = "StateProbe"
    REPLICATE = "StateReplicate"
    SNAPSHOT = "StateSnapshot"


class Inflights:
    """A window over the append messages under way to one member: last index and payload bytes of each."""

    __slots__ = ("_sent", "bytes", "max_bytes", "max_messages")

    def __init__(self, max_messages: int, max_bytes: int = 0) -> None:
        """`max_bytes` 0 sets no limit in bytes."""
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self._sent: deque[tuple[int, int]] = deque()

    def add(self, index: int, size: int) -> None:
        """A message whose last entry is `index` was sent. The window must not be full."""
        if self.is_full:
            raise OverflowError("The window of append messages is full.")
        self._sent.append((index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to `index` has arrived."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._sent.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def is_full(self) -> bool:
        """Whether another message has to wait."""
        return len(self._sent) >= self.max_messages or (self.max_bytes != 0 and self.bytes >= self.max_bytes)


class Progress:
    """One member as its leader sees it."""

    __slots__ = (
        "acked_stamp",
        "flow",
        "flow_paused",
        "inflights",
        "is_learner",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
    )

    def __init__(self, next_index: int, inflights: Inflights, match: int = 0, is_learner: bool = False) -> None:
        self.match = match
        """The member's log is known to agree up to here."""
        self.next = next_index
        """The next entry to send."""
        self.inflights = inflights
        self.is_learner = is_learner
        self.flow = Flow.PROBE
        self.flow_paused = False
        """A probe is out, or the window is full: wait for a reply or the next heartbeat's."""
        self.pending_snapshot = 0
        self.recent_active = False
        """Something came from the member since the last check of the quorum."""
        self.sent_commit = 0
        """The highest commit index under way to the member."""
        self.acked_stamp = -1
        """The leader's clock when it sent the newest heartbeat that the member answered."""

    def copy(self) -> Progress:
        """The same, sharing the window."""
        other = Progress(self.next, self.inflights, self.match, self.is_learner)
        other.flow, other.flow_paused = self.flow, self.flow_paused
        other.pending_snapshot, other.recent_active = self.pending_snapshot, self.recent_active
        other.sent_commit, other.acked_stamp = self.sent_commit, self.acked_stamp
        return other

    def _enter(self, flow: Flow) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.flow = flow
        self.inflights.clear()

    def become_probe(self) -> None:
        """Ask again where the member's log ends; after a snapshot, right behind that snapshot."""
        reached = max(self.match, self.pending_snapshot if self.flow is Flow.SNAPSHOT else 0)
        self._enter(Flow.PROBE)
        self.next = reached + 1
        self.sent_commit = min(self.sent_commit, reached)

    def become_replicate(self) -> None:
        """Stream entries from the first unacknowledged one."""
        self._enter(Flow.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait until the member has taken the snapshot up to `index`."""
        self._enter(Flow.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """An append message with `count` entries of `size` payload bytes was sent."""
        if self.flow is Flow.REPLICATE:
            inflights = self.inflights
            if count:
                self.next += count
                inflights.add(self.next - 1, size)
            self.flow_paused = inflights.is_full
        elif count:
            self.flow_paused = True

    def can_bump_commit(self, index: int) -> bool:
        """Whether telling the member that `index` is committed can tell it something new."""
        return index > self.sent_commit and self.sent_commit < self.next - 1

    def try_update(self, index: int) -> bool:
        """The member acknowledged `index`; False if that is old news."""
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        self.flow_paused = False
        return True

    def try_decrease(self, rejected: int, hint: int) -> bool:
        """The member refused entries after `rejected` and may agree at `hint`; False if that is old news."""
        if self.flow is Flow.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != rejected:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    @property
    def is_paused(self) -> bool:
        """Whether no entries go to the member for now."""
        return self.flow_paused or self.flow is Flow.SNAPSHOT


@dataclass(frozen=True, slots=True)
class Membership:
    """Who votes and who only listens. `outgoing` is not empty during a joint change.

    A voter on its way to become a learner stays a voter of the outgoing half and waits in
    `learners_next`, so that nobody is voter and learner at once.
    """

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed now."""
        return bool(self.outgoing)

    @property
    def all_voters(self) -> frozenset[int]:
        """Voters of either half."""
        return self.voters | self.outgoing

    def conf_state(self) -> ConfState:
        """The form that snapshots keep."""
        return ConfState(
            tuple(sorted(self.voters)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )

    def __str__(self) -> str:
        text = f"voters={_ids(self.voters)}"
        if self.outgoing:
            text += f"&&{_ids(self.outgoing)}"
        if self.learners:
            text += f" learners={_ids(self.learners)}"
        if self.learners_next:
            text += f" learners_next={_ids(self.learners_next)}"
        return text + " autoleave" * self.auto_leave


def _ids(members: Iterable[int]) -> str:
    return "(" + " ".join(f"{member:x}" for member in sorted(members)) + ")"


@dataclass(slots=True)
class Tracker:
    """The membership with the progress of each member and the votes of the running election."""

    max_inflight: int
    max_inflight_bytes: int = UNLIMITED
    membership: Membership = field(default_factory=Membership)
    progress: dict[int, Progress] = field(default_factory=dict)
    """By member id, in ascending order."""
    votes: dict[int, bool] = field(default_factory=dict)

    def new_inflights(self) -> Inflights:
        """An empty window within this group's limits."""
        return Inflights(self.max_inflight, self.max_inflight_bytes)

    def switched(self, membership: Membership, progress: dict[int, Progress]) -> Tracker:
        """The same limits and votes with another membership."""
        return replace(self, membership=membership, progress=progress)

    @property
    def is_singleton(self) -> bool:
        """Whether one voter alone decides."""
        return len(self.membership.voters) == 1 and not self.membership.outgoing

    def committed(self) -> int:
        """The highest index that a quorum has synced."""
        membership, progress = self.membership, self.progress
        index = majority_of([progress[voter].match for voter in membership.voters])
        if membership.outgoing:
            index = min(index, majority_of([progress[voter].match for voter in membership.outgoing]))
        return index

    def quorum_stamp(self) -> int:
        """The clock reading at which a quorum is known to have still followed; the own stamp must be set before."""
        membership, progress = self.membership, self.progress
        stamp = majority_of([progress[voter].acked_stamp for voter in membership.voters])
        if membership.outgoing:
            stamp = min(stamp, majority_of([progress[voter].acked_stamp for voter in membership.outgoing]))
        return stamp

    def is_quorum_active(self) -> bool:
        """Whether a quorum was heard of since the last check."""
        heard = {member: progress.recent_active for member, progress in self.progress.items()}
        return joint_vote_result(self.membership.voters, self.membership.outgoing, heard) is Vote.WON

    def record_vote(self, member: int, granted: bool) -> Vote:
        """Count a vote, the first one of each member, and say how the election stands."""
        self.votes.setdefault(member, granted)
        return joint_vote_result(self.membership.voters, self.membership.outgoing, self.votes)
