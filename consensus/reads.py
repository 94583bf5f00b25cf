"""Reads that wait until a quorum confirms that their leader still leads.

Every read gets a position in one count; a heartbeat carries the newest position, and a member's
reply to it confirms all reads up to there. The rule: a read is answered with the commit index of the
moment it came in, and only after a quorum answered a heartbeat that was sent later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from consensus.messages import Message
from consensus.quorum import joint_committed_index
from consensus.tracker import Membership


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that may be served once everything up to `index` is applied; `context` names the read."""

    index: int
    context: bytes


@dataclass(frozen=True, slots=True)
class WaitingRead:
    """A read that waits: who asked, and the commit index when the leader took it in."""

    request: Message
    index: int


class PendingReads:
    """The reads of one leader in one term."""

    __slots__ = ("_acked", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[WaitingRead] = deque()
        self._confirmed = 0
        self._acked: dict[int, int] = {}

    def add(self, request: Message, commit: int) -> None:
        """Take in a read; `commit` is the commit index now."""
        self._waiting.append(WaitingRead(request, commit))

    @property
    def newest(self) -> int:
        """The position of the newest read."""
        return self._confirmed + len(self._waiting)

    def context(self) -> bytes:
        """What a heartbeat carries to have all waiting reads confirmed; b"" when none waits."""
        return self.newest.to_bytes(8, "little") if self._waiting else b""

    def acknowledge(self, member: int, context: bytes) -> None:
        """A member answered a heartbeat with that context; positions never given out count as the newest."""
        if context:
            position = min(int.from_bytes(context[:8], "little"), self.newest)
            self._acked[member] = max(self._acked.get(member, 0), position)

    def confirmed(self, membership: Membership) -> list[WaitingRead]:
        """Take out the reads that a quorum has confirmed by now, oldest first."""
        if not self._waiting:
            return []
        position = joint_committed_index(membership.voters, membership.outgoing, self._acked)
        count = min(position, self.newest) - self._confirmed
        if count <= 0:
            return []
        self._confirmed += count
        return [self._waiting.popleft() for _ in range(count)]
