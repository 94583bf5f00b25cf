"""What the log holds: effects, the changes that a query came to, never the query itself.

An effect is a tuple whose first item is its kind; a `Batch` is the effects of one commit, applied
together or not at all. Replaying batches in log order gives the same state on every server and at
every restore, by code that knows no ReQL.

Payload format, version 1 (MessagePack): [1, time_ms, [effect, ...]], each effect an array in the
order of the tuples below. Readers refuse a version they do not know.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from model.errors import Corrupt
from model.undecodable import UNDECODABLE

Effect = tuple[Any, ...]

FORMAT_VERSION: Final = 1


class Kind(IntEnum):
    """The first item of an effect, and the shape of the rest."""

    PUT_ROW = 1  # table_id: int, key: bytes, row: bytes (JSON)
    DELETE_ROW = 2  # table_id: int, key: bytes
    CREATE_DATABASE = 10  # uuid: str, name: str
    DROP_DATABASE = 11  # uuid: str; its tables are dropped by effects of their own, before it
    RENAME_DATABASE = 12  # uuid: str, name: str
    CREATE_TABLE = 20  # table_id: int, uuid: str, database: uuid str, name: str, primary_key: str, options: dict
    DROP_TABLE = 21  # table_id: int
    ALTER_TABLE = 22  # table_id: int, changes: dict (name, database, and any key of Table.options)
    SET_WRITE_HOOK = 23  # table_id: int, hook: dict | None
    CREATE_INDEX = 30  # table_id: int, index_id: int, name: str, definition: dict
    DROP_INDEX = 31  # table_id: int, index_id: int
    RENAME_INDEX = (
        32  # table_id: int, index_id: int, name: str (an index of that name is dropped before, by its own effect)
    )
    PUT_SYSTEM = 40  # collection: str, key: str, document: dict (users, permissions, vaults, schedules, ...)
    DELETE_SYSTEM = 41  # collection: str, key: str


PUT_ROW: Final = int(Kind.PUT_ROW)
DELETE_ROW: Final = int(Kind.DELETE_ROW)


class Batch(NamedTuple):
    """The effects of one commit and the leader's wall clock when it was made."""

    time_ms: int
    effects: list[Effect]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, list[tuple[Any, ...]]])
_HEAD_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw])


def encode(effects: list[Effect], time_ms: int) -> bytes:
    """The payload of one log entry."""
    return _ENCODER.encode((FORMAT_VERSION, time_ms, effects))


def decode(payload: bytes) -> Batch:
    """The batch in a log entry's payload; raises Corrupt if it is not one. Arrays inside effects come as lists."""
    try:
        version, time_ms, effects = _DECODER.decode(payload)
    except UNDECODABLE as error:
        raise Corrupt(f"a log entry of {len(payload)} bytes does not hold a batch: {error}") from error
    if version != FORMAT_VERSION:
        raise Corrupt(
            f"a log entry has batch format {version}; this version reads {FORMAT_VERSION}",
            "Start a newer RewindDB on this data folder.",
        )
    return Batch(time_ms, effects)


def time_of(payload: bytes) -> int:
    """The `time_ms` of the batch in a log entry's payload, without decoding its effects; raises Corrupt."""
    try:
        return _HEAD_DECODER.decode(payload)[1]
    except UNDECODABLE as error:
        raise Corrupt(f"a log entry of {len(payload)} bytes does not hold a batch: {error}") from error
