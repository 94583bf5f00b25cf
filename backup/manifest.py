"""What an image and a slice of the log say of themselves. One rule: pure data, checked field by field when read.

A manifest is the last object of an image to be written: where it is, the image is whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson

from model.effect import Effect
from model.errors import UnfitArchive
from model.undecodable import UNDECODABLE

FORMAT: Final = 1
MAX_BLOCKS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one table in the order of their keys. sha256 and stored_bytes are of the object as stored.

    content_hash: `backup.sealing` hash of what it unpacks to, made before that was packed; "" in older images.
    """

    name: str
    rows: int
    row_bytes: int
    stored_bytes: int
    sha256: str
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class TableImage:
    """One table in an image.

    row_hash: `storage.rows` hash over all rows; "" where each of the blocks has its `content_hash`.
    """

    table_id: int
    uuid: str
    database: str
    name: str
    rows: int
    row_bytes: int
    row_hash: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """A base image: all rows at one log index. `selection` lists "db" or "db.table" names; empty: everything.

    catalog: the effects that make the catalog of that moment (users and permissions among them).
    """

    image: str
    cluster_id: str
    log_index: int
    raft_term: int
    time_ms: int
    began_ms: int
    ended_ms: int
    server_version: str
    selection: tuple[str, ...]
    catalog: tuple[Effect, ...]
    tables: tuple[TableImage, ...]
    format: int = FORMAT
    parent: str | None = None  # the image that this one was made from, with the log, away from the server
    next_id: int = 0  # the catalog's smallest number that no table or index ever had

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def row_bytes(self) -> int:
        return sum(table.row_bytes for table in self.tables)

    @property
    def stored_bytes(self) -> int:
        return sum(block.stored_bytes for table in self.tables for block in table.blocks)

    @property
    def is_whole(self) -> bool:
        """Whether everything is in it, so that the log can be replayed on it."""
        return not self.selection


def image_name(time_ms: int, log_index: int) -> str:
    """A new image's name: sorts by time, is never used twice."""
    stamp = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{log_index}-{secrets.token_hex(3)}"


def encode(manifest: ImageManifest) -> bytes:
    return orjson.dumps(asdict(manifest), option=orjson.OPT_SORT_KEYS)


def decode(text: bytes, name: str) -> ImageManifest:
    """The manifest in an object; raises UnfitArchive naming the object."""
    try:
        manifest = msgspec.json.decode(text, type=ImageManifest)
    except UNDECODABLE as error:
        raise UnfitArchive(f"The manifest {name} is not one: {error}.") from error
    if manifest.format != FORMAT:
        raise UnfitArchive(f"The manifest {name} has format {manifest.format}; this version reads {FORMAT}.")
    return manifest


@dataclass(frozen=True, slots=True)
class SliceName:
    """A slice of the log, as its name tells: entries first_index to last_index, of these times (milliseconds)."""

    first_index: int
    last_index: int
    first_ms: int
    last_ms: int
    stored_bytes: int = 0

    @property
    def name(self) -> str:
        return f"log/{self.first_index:016x}-{self.last_index:016x}-{self.first_ms:012x}-{self.last_ms:012x}"


def parse_slice_name(name: str, stored_bytes: int = 0) -> SliceName | None:
    """The slice that an object's name tells of; None if it is none."""
    parts = name.removeprefix("log/").split("-")
    if not name.startswith("log/") or len(parts) != 4 or [len(part) for part in parts] != [16, 16, 12, 12]:
        return None
    try:
        first, last, first_ms, last_ms = (int(part, 16) for part in parts)
    except ValueError:
        return None
    return SliceName(first, last, first_ms, last_ms, stored_bytes) if first <= last else None


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Entries of the log in order. entries: (log_index, raft_term, kind, data)."""

    cluster_id: str
    entries: Sequence[tuple[int, int, int, bytes]]
    format: int = FORMAT


def encode_slice(part: LogSlice) -> bytes:
    return msgspec.msgpack.encode({"format": part.format, "cluster_id": part.cluster_id, "entries": part.entries})


class _SliceBody(msgspec.Struct):
    format: int
    cluster_id: str
    entries: list[tuple[int, int, int, bytes]]


def decode_slice(content: bytes, name: SliceName) -> LogSlice:
    """The slice in an object; raises UnfitArchive if it is not the one that its name says, without a gap."""
    try:
        body = msgspec.msgpack.decode(content, type=_SliceBody)
    except UNDECODABLE as error:
        raise UnfitArchive(f"The log slice {name.name} is not one: {error}.") from error
    if body.format != FORMAT:
        raise UnfitArchive(f"The log slice {name.name} has format {body.format}; this version reads {FORMAT}.")
    indexes = [entry[0] for entry in body.entries]
    if indexes != list(range(name.first_index, name.last_index + 1)):
        raise UnfitArchive(f"The log slice {name.name} does not hold the entries that its name says.")
    return LogSlice(body.cluster_id, body.entries)


def as_plain(manifest: ImageManifest) -> dict[str, Any]:
    """What a catalog shows of an image."""
    return {
        "image": manifest.image,
        "log_index": manifest.log_index,
        "time_ms": manifest.time_ms,
        "rows": manifest.rows,
        "bytes": manifest.row_bytes,
        "stored_bytes": manifest.stored_bytes,
        "seconds": (manifest.ended_ms - manifest.began_ms) / 1000,
        "selection": list(manifest.selection),
        "parent": manifest.parent,
        "tables": [
            {"db": table.database, "table": table.name, "rows": table.rows, "bytes": table.row_bytes}
            for table in manifest.tables
        ],
    }
