"""What the log holds: effects, the changes that a query came to, never the query itself.

An effect is a tuple whose first item is its kind; a `Batch` is the effects of one commit, applied
together or not at all. Replaying batches in log order gives the same state on every server and at
every restore, by code that knows no ReQL.

Payload format, version 1 (MessagePack): [1, time_ms, [effect, ...]], each effect an array in the
order of the tuples below. In version 2 there is one effect, PUT_ROWS. Readers refuse a version they do not know.

PUT_ROWS is many PUT_ROW in one: whoever asks what an entry did (`decode`) is given those. Only who has a faster way
for many rows looks at it as it is stored (`decode_stored`).
"""

from __future__ import annotations

from collections.abc import Container
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from model.errors import Corrupt
from model.exact_bytes import exact
from model.packed_rows import unpack_rows
from model.undecodable import UNDECODABLE

Effect = tuple[Any, ...]

FORMAT_VERSION: Final = 1
PACKED_FORMAT_VERSION: Final = 2


class Kind(IntEnum):
    """The first item of an effect, and the shape of the rest."""

    PUT_ROW = 1  # table_id: int, key: bytes, row: bytes (JSON)
    DELETE_ROW = 2  # table_id: int, key: bytes
    PUT_ROWS = 3  # table_id: int, rows: bytes (model/packed_rows); alone in its entry
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
PUT_ROWS: Final = int(Kind.PUT_ROWS)


class Batch(NamedTuple):
    """The effects of one commit and the leader's wall clock when it was made."""

    time_ms: int
    effects: list[Effect]


_STORED_ITEMS: Final = 3  # of a PUT_ROWS effect

_ENCODER: Final = msgspec.msgpack.Encoder()
_PACKED_HEAD: Final = bytes((0x93, PACKED_FORMAT_VERSION))  # of an array of three items, in MessagePack
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, list[tuple[Any, ...]]])
_HEAD_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw])


def encode(effects: list[Effect], time_ms: int) -> bytes:
    """The payload of one log entry."""
    version = PACKED_FORMAT_VERSION if effects and effects[0][0] == PUT_ROWS else FORMAT_VERSION
    return exact(_ENCODER.encode((version, time_ms, effects)))


def decode(payload: bytes) -> Batch:
    """The batch in a log entry's payload, packed rows unpacked; raises Corrupt if it is not one.

    Arrays inside effects come as lists.
    """
    batch = decode_stored(payload)
    effects = batch.effects
    return Batch(batch.time_ms, rows_of(effects[0])) if effects and effects[0][0] == PUT_ROWS else batch


def decode_of(payload: bytes, table_ids: Container[int]) -> Batch:
    """As `decode`, for who asks for rows of some tables: packed rows of others are left out."""
    batch = decode_stored(payload)
    effects = batch.effects
    if not effects or effects[0][0] != PUT_ROWS:
        return batch
    return Batch(batch.time_ms, rows_of(effects[0]) if effects[0][1] in table_ids else [])


def decode_stored(payload: bytes) -> Batch:
    """As `decode`, but packed rows stay packed."""
    try:
        version, time_ms, effects = _DECODER.decode(payload)
    except UNDECODABLE as error:
        raise Corrupt(f"a log entry of {len(payload)} bytes does not hold a batch: {error}") from error
    if version == PACKED_FORMAT_VERSION:
        if len(effects) != 1 or len(effects[0]) != _STORED_ITEMS or effects[0][0] != PUT_ROWS:
            raise Corrupt(f"a log entry of {len(payload)} bytes in batch format {version} does not hold packed rows")
    elif version != FORMAT_VERSION:
        raise Corrupt(
            f"a log entry has batch format {version}; this version reads up to {PACKED_FORMAT_VERSION}",
            "Start a newer RewindDB on this data folder.",
        )
    return Batch(time_ms, effects)


def is_packed(payload: bytes) -> bool:
    """Whether a log entry's payload holds packed rows, which do not get smaller when they are compressed again."""
    return payload.startswith(_PACKED_HEAD)


def rows_of(effect: Effect) -> list[Effect]:
    """The PUT_ROW effects that a PUT_ROWS effect stands for. Raises Corrupt."""
    return [(PUT_ROW, effect[1], key, row) for key, row in zip(*unpacked(effect), strict=True)]


def with_rows(effect: Effect, keys: list[bytes], rows: list[bytes]) -> Effect:
    """A PUT_ROWS effect that brings along what it unpacks to, for who need not unpack it; never to be stored."""
    return (*effect, keys, rows)


def unpacked(effect: Effect) -> tuple[list[bytes], list[bytes]]:
    """The keys and rows of a PUT_ROWS effect. Raises Corrupt."""
    return (effect[3], effect[4]) if len(effect) > _STORED_ITEMS else unpack_rows(effect[2])


def time_of(payload: bytes) -> int:
    """The `time_ms` of the batch in a log entry's payload, without decoding its effects; raises Corrupt."""
    try:
        return _HEAD_DECODER.decode(payload)[1]
    except UNDECODABLE as error:
        raise Corrupt(f"a log entry of {len(payload)} bytes does not hold a batch: {error}") from error
