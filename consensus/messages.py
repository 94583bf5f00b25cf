"""What members of a Raft group say to each other and keep: messages, entries, states, changes.

Plain values without behaviour, so that every other module of this folder can share them. The one
rule: whatever arrives from a peer becomes one of these types, with its types and ranges checked,
before any of our code looks at it. On the wire a value is a MessagePack array of its fields in the
order written here; a field is only ever added at the end, with a default.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec

from model.errors import RewindError
from model.undecodable import UNDECODABLE

NO_MEMBER: Final = 0
"""A member id that no member has: no leader, no vote."""

STORAGE: Final = (1 << 63) - 1
"""The sender of what the local disk and the local state machine acknowledge."""

UNLIMITED: Final = 1 << 62
"""Any size or count above what a log can reach."""

Natural = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class BadMessage(RewindError):
    """Bytes from a peer or from the log are no message, entry or configuration change."""


class Kind(IntEnum):
    """The kinds of messages; the numbers are on the wire and never change."""

    HUP = 0
    BEAT = 1
    PROPOSE = 2
    APPEND = 3
    APPEND_REPLY = 4
    VOTE = 5
    VOTE_REPLY = 6
    SNAPSHOT = 7
    HEARTBEAT = 8
    HEARTBEAT_REPLY = 9
    UNREACHABLE = 10
    SNAPSHOT_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_REPLY = 16
    PRE_VOTE = 17
    PRE_VOTE_REPLY = 18
    STORAGE_APPENDED = 20
    STORAGE_APPLIED = 22
    FORGET_LEADER = 23


LOCAL_KINDS: Final = frozenset(
    {
        Kind.HUP,
        Kind.BEAT,
        Kind.UNREACHABLE,
        Kind.SNAPSHOT_STATUS,
        Kind.CHECK_QUORUM,
        Kind.STORAGE_APPENDED,
        Kind.STORAGE_APPLIED,
        Kind.FORGET_LEADER,
    }
)
"""Kinds a server only tells itself; from a peer they are refused."""

REPLY_KINDS: Final = frozenset(
    {
        Kind.APPEND_REPLY,
        Kind.VOTE_REPLY,
        Kind.HEARTBEAT_REPLY,
        Kind.READ_INDEX_REPLY,
        Kind.PRE_VOTE_REPLY,
    }
)
"""Kinds that only make sense from a member this server knows."""


class EntryKind(IntEnum):
    """What the data of an entry is."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One position of the log. `data` is opaque here; b"" in a normal entry is a leader's no-op."""

    index: Natural
    raft_term: Natural
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""


ENTRY_OVERHEAD_BYTES: Final = 12
"""What an entry's index, term and kind count for in size limits, beside its data."""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member must find again after a crash, beside its log."""

    raft_term: Natural = 0
    vote: Natural = NO_MEMBER
    commit: Natural = 0


EMPTY_HARD_STATE: Final = HardState()


class ConfState(msgspec.Struct, frozen=True, array_like=True):
    """A configuration, as kept with snapshots: ids in ascending order.

    `voters_outgoing` is not empty only between the two halves of a joint change.
    """

    voters: tuple[Natural, ...] = ()
    learners: tuple[Natural, ...] = ()
    voters_outgoing: tuple[Natural, ...] = ()
    learners_next: tuple[Natural, ...] = ()
    auto_leave: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state that replaces the log up to `index`; `data` says where its rows are, not the rows."""

    index: Natural = 0
    raft_term: Natural = 0
    conf: ConfState = ConfState()
    data: bytes = b""


class Message(msgspec.Struct, array_like=True):
    """One message. Which fields count depends on `kind`; the others stay at their defaults.

    `sender` and `to` are member ids. `raft_term` 0 marks a message outside any term (proposals, reads,
    a server's own). `log_term` and `index` name the entry before `entries`, the last entry of a
    candidate's log, the acknowledged or refused index. `hint` is where a refusing follower's log may
    agree. `context` carries the round of pending reads, or that a vote is a leadership transfer.
    `stamp` is the leader's clock when it sent a heartbeat, echoed by the reply.
    """

    kind: Kind
    to: Natural = NO_MEMBER
    sender: Natural = NO_MEMBER
    raft_term: Natural = 0
    log_term: Natural = 0
    index: Natural = 0
    commit: Natural = 0
    entries: list[Entry] = []
    reject: bool = False
    hint: Natural = 0
    context: bytes = b""
    snapshot: Snapshot | None = None
    stamp: Natural = 0


class ChangeKind(IntEnum):
    """What one change does to one member."""

    ADD_VOTER = 0
    REMOVE = 1
    UPDATE = 2
    ADD_LEARNER = 3


class Transition(IntEnum):
    """How a change of several members passes through a joint configuration."""

    AUTO = 0
    JOINT_IMPLICIT = 1
    JOINT_EXPLICIT = 2


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change to one member; member id 0 stands for a change that was called off."""

    kind: ChangeKind
    member_id: Natural


class ConfChange(msgspec.Struct, frozen=True, array_like=True):
    """A change of the configuration. Without changes and with `AUTO` it leaves a joint configuration.

    `context` is for the members, not for Raft: the address of a new server, for example.
    """

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this change ends a joint configuration."""
        return self.transition is Transition.AUTO and not self.changes

    @property
    def enters_joint(self) -> bool:
        """Whether this change needs a joint configuration."""
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether the joint configuration that this change enters is left without being asked."""
        return self.transition is not Transition.JOINT_EXPLICIT


_encoder = msgspec.msgpack.Encoder()
_message_decoder = msgspec.msgpack.Decoder(Message)
_conf_change_decoder = msgspec.msgpack.Decoder(ConfChange)
_conf_state_decoder = msgspec.msgpack.Decoder(ConfState)


def encode_message(message: Message) -> bytes:
    """The bytes of a message, for a link between members."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """The message in `data`, its types and ranges checked. Raises `BadMessage`.

    The caller bounds the length before; nesting is bounded by the types.
    """
    try:
        return _message_decoder.decode(data)
    except UNDECODABLE as error:
        raise BadMessage(f"A peer sent bytes that are no Raft message: {error}.") from error


def encode_conf_change(change: ConfChange) -> bytes:
    """The data of an entry that changes the configuration; b"" for the change that leaves a joint one."""
    if change == ConfChange():
        return b""
    return _encoder.encode(change)


def decode_conf_change(data: bytes) -> ConfChange:
    """Inverse of `encode_conf_change`. Raises `BadMessage`."""
    if not data:
        return ConfChange()
    try:
        return _conf_change_decoder.decode(data)
    except UNDECODABLE as error:
        raise BadMessage(f"An entry holds no configuration change: {error}.") from error


def encode_conf_state(state: ConfState) -> bytes:
    """The bytes of a configuration, as the log keeps it."""
    return _encoder.encode(state)


def decode_conf_state(data: bytes) -> ConfState:
    """Inverse of `encode_conf_state`. Raises `BadMessage`."""
    try:
        return _conf_state_decoder.decode(data)
    except UNDECODABLE as error:
        raise BadMessage(f"Bytes are no configuration: {error}.") from error


def entries_bytes(entries: list[Entry]) -> int:
    """The size of entries as limits count it."""
    total = ENTRY_OVERHEAD_BYTES * len(entries)
    for entry in entries:
        total += len(entry.data)
    return total


def payload_bytes(entries: list[Entry]) -> int:
    """The size of the entries' data alone; a leader's no-op counts nothing."""
    return sum([len(entry.data) for entry in entries])


def limit_entries(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The longest start of `entries` within `max_bytes`, but at least one entry if there is any."""
    size = 0
    for count, entry in enumerate(entries):
        size += ENTRY_OVERHEAD_BYTES + len(entry.data)
        if size > max_bytes and count:
            return entries[:count]
    return entries
