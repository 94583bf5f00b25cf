"""What the core hands out: the work of one turn, and its state for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from consensus.messages import Entry, HardState, Message, Snapshot
from consensus.reads import ReadState
from consensus.state import Role
from consensus.tracker import Membership, Progress


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """What a member would not need after a crash: whom it follows, and its role."""

    leader_id: int
    role: Role


class Ready(msgspec.Struct):
    """What has to be done now; see the module for the order."""

    soft_state: SoftState | None
    """Set when leader or role changed."""
    hard_state: HardState | None
    """Set when it changed; must be written, but only `must_sync` says whether it must be synced."""
    must_sync: bool
    entries: list[Entry]
    snapshot: Snapshot | None
    committed_entries: list[Entry]
    messages: list[Message]
    messages_after_sync: list[Message]
    read_states: list[ReadState]
    own_messages: list[Message]
    """Promises of this member to itself, its own vote for one: `synced` delivers them."""
    appended: Message | None
    """What `synced` tells the core about entries and snapshot."""
    committed_bytes: int

    @property
    def is_only_commit(self) -> bool:
        """Whether a hard state, if there is one, is only a new commit index, for which nobody waits."""
        return self.appended is None and not (self.must_sync or self.messages_after_sync or self.own_messages)

    @property
    def needs_write(self) -> bool:
        """Whether anything waits for the disk: something to write, or a message that waits for older writes."""
        return bool(self.entries or self.hard_state or self.snapshot or self.messages_after_sync or self.own_messages)


@dataclass(frozen=True, slots=True)
class Status:
    """A member's view of its group, for people."""

    member_id: int
    hard_state: HardState
    soft_state: SoftState
    applied: int
    last_index: int
    transferee: int
    membership: Membership
    progress: dict[int, Progress]
    """Filled on the leader only."""
