"""The log's record format: bytes to records and back, and why a run of bytes stops being a log.

One rule: pure. No file, clock or thread; `decode` says what it found and never decides what to do.

A segment is a run of records from offset 0. Each record, little-endian:

    offset  size  field
    0       4     magic b"\\xf5RwL"; never valid UTF-8, so no row holds it
    4       4     crc32c of everything after this field, payload included
    8       4     length of the payload
    12      1     kind (`Kind`), then 3 zero bytes
    16      4     group: offset in this segment where the write began that carried this record
    20      4     segment: number of the segment that the record belongs to
    24      8     raft_term
    32      8     log_index
    40      …     payload

`segment` tells a record from what a recycled file held before. `group` tells a torn tail from damage:
the writer has at most one group not yet synced, so a valid record whose group began after a bad spot
proves that the bad spot was once synced, hence damage. Valid records behind a bad spot but of the same
group prove nothing: a power cut keeps any subset of a group's pages. After each group come zeros, at
least a header's length, so the end of the log is never read as what was there before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Final, NamedTuple

import google_crc32c

MAGIC: Final = b"\xf5RwL"
_HEAD: Final = struct.Struct("<4sIIB3xIIQQ")
_CHECKED: Final = struct.Struct("<IB3xIIQQ")  # the part of the header that the checksum covers
_BEFORE_CHECKED: Final = _HEAD.size - _CHECKED.size
HEAD_BYTES: Final = _HEAD.size
ZERO_HEAD: Final = bytes(HEAD_BYTES)
LENGTH_LIMIT: Final = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a record holds, and what its `raft_term`, `log_index` and payload mean."""

    SEGMENT = 1  # first in a segment: raft_term and log_index of the entry before it; payload: segment.SegmentHead
    HARD_STATE = 2  # raft_term, and the commit index as `log_index`; payload: the vote, 8 bytes
    CONF_STATE = 3  # the membership as of `log_index`; payload belongs to consensus
    TRUNCATE = 4  # all entries after `log_index`, whose raft_term this is, are void
    RESTART = 5  # entries begin anew after `log_index`, whose raft_term this is: a snapshot came from the leader
    ENTRY = 16  # a Raft entry; payload: a batch of effects, or empty for a leader's first entry
    CONF_ENTRY = 17  # a Raft entry that changes the membership, here and below: payload belongs to consensus
    CONF_ENTRY_V2 = 18


FIRST_ENTRY_KIND: Final = int(Kind.ENTRY)
"""Kinds from here on are entries of the Raft log."""


class Record(NamedTuple):
    kind: int
    raft_term: int
    log_index: int
    payload: bytes = b""


class Why(Enum):
    """Why `decode` stopped."""

    END = "the bytes end with a whole record"
    ZERO_FILL = "zeros follow: the log ends here"
    TORN = "a write was cut short: nothing behind it proves that it was ever synced"
    DAMAGED = "bytes that were synced have changed: records of later writes follow them"


class Decoded(NamedTuple):
    """`records` with their `offsets`; `good_until`: offset behind the last whole record."""

    records: list[Record]
    offsets: list[int]
    good_until: int
    why: Why
    later: int | None = None  # DAMAGED: offset of the valid record of a later write


def encode(record: Record, segment: int, group: int) -> bytes:
    """The bytes of `record`, for a write that begins at offset `group` of segment number `segment`."""
    kind, raft_term, log_index, payload = record
    checked = _CHECKED.pack(len(payload), kind, group, segment, raft_term, log_index) + payload
    crc: int = google_crc32c.value(checked)
    return MAGIC + crc.to_bytes(4, "little") + checked


def encode_all(records: Sequence[Record], segment: int, group: int) -> bytes:
    """One write: the records joined."""
    return b"".join([encode(record, segment, group) for record in records])


def decode(data: bytes, segment: int, keep_payloads: bool = True) -> Decoded:
    """All whole records of segment number `segment` in `data`, and why they stop.

    `data` is the segment from its start to any point. Without `keep_payloads`, entries come without theirs.
    """
    records, offsets, end, _ = read_run(data, segment, keep_payloads)
    later = find_later(data, segment, end)
    if later is not None:
        return Decoded(records, offsets, end, Why.DAMAGED, later)
    return Decoded(records, offsets, end, _why(data, segment, end))


def read_run(data: bytes, segment: int, keep_payloads: bool = True) -> tuple[list[Record], list[int], int, int]:
    """The whole records at the start of `data`: (records, their offsets, end, bytes the next one needs at least).

    For readers that know that the log goes on: it does not ask why the run ends.
    """
    records: list[Record] = []
    offsets: list[int] = []
    offset = 0
    unpack, checksum, size = _HEAD.unpack_from, google_crc32c.value, len(data)
    first_dropped = LENGTH_LIMIT if keep_payloads else FIRST_ENTRY_KIND
    while offset + HEAD_BYTES <= size:
        magic, crc, length, kind, _, number, raft_term, log_index = unpack(data, offset)
        if magic != MAGIC or number != segment:
            return records, offsets, offset, 0
        end = offset + HEAD_BYTES + length
        if end > size:
            return records, offsets, offset, HEAD_BYTES + length
        if checksum(data[offset + _BEFORE_CHECKED : end]) != crc:
            return records, offsets, offset, 0
        payload = data[offset + HEAD_BYTES : end] if kind < first_dropped else b""
        records.append(Record(kind, raft_term, log_index, payload))
        offsets.append(offset)
        offset = end
    return records, offsets, offset, HEAD_BYTES


def find_later(data: bytes, segment: int, bad: int) -> int | None:
    """The offset of a valid record behind `bad` whose group began after it, or None.

    Such a record was written once everything before its group was synced: what stands at `bad` is
    no torn write but damage.
    """
    return _find_valid(data, segment, bad + 1, bad)


def find_leftover(data: bytes, segment: int, end: int) -> int | None:
    """The offset of any valid record of this segment behind `end`, or None: the rest of a torn write."""
    return _find_valid(data, segment, end + 1, -1)


def _find_valid(data: bytes, segment: int, start: int, group_after: int) -> int | None:
    at = data.find(MAGIC, start)
    while at >= 0 and at + HEAD_BYTES <= len(data):
        _, crc, length, _, group, number, _, _ = _HEAD.unpack_from(data, at)
        end = at + HEAD_BYTES + length
        if (
            number == segment
            and group_after < group <= at
            and end <= len(data)
            and google_crc32c.value(data[at + _BEFORE_CHECKED : end]) == crc
        ):
            return at
        at = data.find(MAGIC, at + 1)
    return None


def _why(data: bytes, segment: int, end: int) -> Why:
    head = data[end : end + HEAD_BYTES]
    if not head:
        return Why.END
    if head == ZERO_HEAD[: len(head)] and find_leftover(data, segment, end) is None:
        return Why.ZERO_FILL
    return Why.TORN
