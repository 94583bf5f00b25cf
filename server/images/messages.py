"""What the leader and the server that takes an image for it say to each other, over the links between members.

    leader ──► Order: take this one (again every second, as long as it wants it)      name: once there is a checkpoint
    leader ◄── Report: how far it is (after each order, and whenever that changes)

One rule: each message holds all that its sender knows, so one that is lost, or comes twice, changes nothing. Who does
not hear the other one for a while takes it for gone: the server that takes an image gives it up, the leader asks
another one.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.cluster.vitals import MARK

ORDER: Final = MARK + b"I"
REPORT: Final = MARK + b"J"

PREPARING: Final = "preparing"  # vaults are entered, the log is awaited, the checkpoint is taken
READY: Final = "ready"  # there is a checkpoint
TAKING: Final = "taking"
DONE: Final = "done"  # with an outcome for each vault
FAILED: Final = "failed"  # nothing came of it


class VaultAsked(msgspec.Struct, array_like=True, frozen=True):
    """One vault that an image goes to. access: of backup.access. label: its vault.json where the leader looked."""

    access: dict[str, Any]
    is_known: bool
    label: dict[str, Any] | None = None


class Asked(msgspec.Struct, array_like=True, frozen=True):
    """What image is wanted. selection: as in a row of `backups`; from_index: what it has to hold at least."""

    vaults: list[VaultAsked]
    selection: list[str]
    max_bytes_per_s: int
    hold: bool
    from_index: int


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """What came of it in one vault: an error, or the figures of the image that is whole there."""

    error: str = ""
    rows: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    tables: list[str] = []
    selection: list[str] = []
    manifest_sha256: str = ""


class Order(msgspec.Struct, array_like=True, frozen=True):
    """attempt: of which all is. image, time_ms: its name and the leader's clock, given to a server that is READY."""

    attempt: str
    asked: Asked | None = None
    image: str = ""
    time_ms: int = 0
    is_over: bool = False
    """Nothing more is wanted of this attempt."""


class Report(msgspec.Struct, array_like=True, frozen=True):
    """rows, bytes: of the vault that is furthest; rows_in_all: of all vaults."""

    attempt: str
    state: str
    log_index: int = 0
    rows_in_all: int = 0
    rows: int = 0
    bytes: int = 0
    outcomes: list[Outcome] = []
    error: str = ""


_encoder: Final = msgspec.msgpack.Encoder()
_order_decoder: Final = msgspec.msgpack.Decoder(Order)
_report_decoder: Final = msgspec.msgpack.Decoder(Report)


def encode_order(order: Order) -> bytes:
    return ORDER + _encoder.encode(order)


def encode_report(report: Report) -> bytes:
    return REPORT + _encoder.encode(report)


def decode_order(message: bytes) -> Order:
    """A message that begins with ORDER. Raises msgspec.DecodeError."""
    return _order_decoder.decode(message[len(ORDER) :])


def decode_report(message: bytes) -> Report:
    """A message that begins with REPORT. Raises msgspec.DecodeError."""
    return _report_decoder.decode(message[len(REPORT) :])
