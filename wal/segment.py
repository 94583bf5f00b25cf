"""Segments: the files of the log, their names and their first record.

One rule: a segment's number grows by one and never comes back, even where its file is used again
under a new name. Names: `<number, 8 hex>-<first entry, 16 hex>.wal`; `spare-<number>.wal` is a
released file that waits for its next use, its old records still in it.

The first record of each segment (`Kind.SEGMENT`) names the log it belongs to, says where the segment
before it ends, and, through its index and raft_term, which entry came before. After it stand the hard
state and the membership as they were, so that older segments can go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgpack

from model.errors import Corrupt
from wal.record import Kind, Record

FORMAT_VERSION: Final = 1
DEFAULT_SEGMENT_BYTES: Final = 64 << 20
SPARE_PREFIX: Final = "spare-"
LOG_ID_BYTES: Final = 16

_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})\.wal")


class SegmentHead(NamedTuple):
    """The payload of a segment's first record."""

    log_id: bytes  # the same in all segments of one log
    created_ms: int
    previous_end: int  # offset behind the last record of the segment before; 0 if there never was one

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb((FORMAT_VERSION, *self), use_bin_type=True)
        return packed


def decode_head(record: Record, where: str) -> SegmentHead:
    """The head in a segment's first record; `where` names the file for the error."""
    try:
        version, *fields = msgpack.unpackb(record.payload, raw=False)
        if record.kind == Kind.SEGMENT and version == FORMAT_VERSION:
            return SegmentHead(*fields)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Corrupt(f"{where} begins with a record that is no segment head: {error}.") from error
    raise Corrupt(
        f"{where} begins with kind {record.kind}, format {version}; this version reads format {FORMAT_VERSION}.",
        "Start the version of RewindDB that wrote it.",
    )


@dataclass(slots=True)
class Segment:
    """One file of the log. `end`: offset behind its last record; final once the segment is sealed."""

    number: int
    first_index: int
    path: Path
    end: int
    is_sealed: bool


def segment_name(number: int, first_index: int) -> str:
    return f"{number:08x}-{first_index:016x}.wal"


def parse_name(name: str) -> tuple[int, int] | None:
    """(number, first_index), or None if the name is no segment's."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def spare_name(number: int) -> str:
    """The name of the file of segment `number` once it is released and waits for its next use."""
    return f"{SPARE_PREFIX}{number:08x}.wal"


def is_spare(name: str) -> bool:
    return name.startswith(SPARE_PREFIX)
