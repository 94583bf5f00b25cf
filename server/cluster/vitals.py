"""What the members tell each other every second about themselves, beside Raft: for people and for the leader's choices.

One rule: nothing that has to be right depends on it. What was not heard for a while counts as unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

MARK: Final = b"\xc1"  # no MessagePack value begins with it: tells these messages from those of queries
KIND_BYTES: Final = 2  # the mark, and a letter for the kind of message
VITALS: Final = MARK + b"V"
FAREWELL: Final = MARK + b"R"  # to a member that was removed and may not hear of it through Raft any more
FRESH_S: Final = 5.0


class Vitals(msgspec.Struct, array_like=True):
    """One member's state. Fields are only ever added at the end, with a default."""

    applied_index: int = 0
    commit_index: int = 0
    last_index: int = 0
    stall_ms: float = 0.0
    free_bytes: int = 0
    is_disk_low: bool = False
    indexes_waiting: int = 0
    connected: list[int] = []
    silent_ms: int = 0
    """How long ago the leader was last heard of; 0 on the leader."""
    address: str = ""
    """Where the member is now: its document may say so only once a majority has found it again."""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Vitals)


def encode_vitals(vitals: Vitals) -> bytes:
    """The message about it."""
    return VITALS + _encoder.encode(vitals)


class Hearsay:
    """What the other members last said."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._heard: dict[int, tuple[float, Vitals]] = {}

    def take(self, member: int, message: bytes) -> Vitals:
        """A message that begins with VITALS. Raises msgspec.DecodeError."""
        vitals = _decoder.decode(message[len(VITALS) :])
        self._heard[member] = (self._seconds(), vitals)
        return vitals

    def of(self, member: int) -> Vitals | None:
        """What a member said lately; None if nothing."""
        heard = self._heard.get(member)
        return heard[1] if heard is not None and self._seconds() - heard[0] <= FRESH_S else None
