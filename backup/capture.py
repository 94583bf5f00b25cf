"""Takes a base image: reads a checkpoint, packs its rows into blocks, stores them, reads them back, seals it all
with a manifest.

One rule: the manifest is written last, after every block was read back from the vault and had the right hash; so
an image that can be listed is an image that was whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from backup.capture_tables import Progress, capture_tables
from backup.manifest import Block, ImageManifest, encode
from backup.sealing import content_hash
from backup.shelf import IMAGES
from backup.vault import Vault
from model.catalog import Catalog, Table
from model.effect import Effect, Kind
from model.errors import RewindError, UnfitArchive
from model.undecodable import UNDECODABLE
from storage.documents import creation_effects
from storage.image import Image


@dataclass(frozen=True, slots=True)
class Order:
    """What image to take. selection: "db" or "db.table" names, empty for all. max_bytes_per_s: 0 for no limit."""

    image: str
    cluster_id: str
    raft_term: int
    time_ms: int
    server_version: str
    selection: tuple[str, ...] = ()
    max_bytes_per_s: int = 0
    parent: str | None = None  # the image that the checkpoint was rebuilt from, away from the server


def selected_tables(catalog: Catalog, selection: Sequence[str]) -> list[Table]:
    """The tables that a selection means, by id; raises UnfitArchive for names that there are not."""
    tables = sorted(catalog.tables.values(), key=lambda table: table.table_id)
    if not selection:
        return tables
    named = {(catalog.databases_by_uuid[table.database].name, table.name): table for table in tables}
    chosen = []
    for name in selection:
        database, _, table_name = name.partition(".")
        if database not in catalog.databases:
            raise UnfitArchive(f"Database `{database}` does not exist.")
        if table_name and (database, table_name) not in named:
            raise UnfitArchive(f"Table `{name}` does not exist.")
        chosen += [table for key, table in named.items() if key[0] == database and table_name in ("", key[1])]
    return sorted({table.table_id: table for table in chosen}.values(), key=lambda table: table.table_id)


def selected_catalog(catalog: Catalog, tables: Sequence[Table], everything: bool) -> list[Effect]:
    """The effects that make the catalog of an image: all of it, or the selected tables and their databases."""
    effects = creation_effects(catalog)
    if everything:
        return effects
    ids = {table.table_id for table in tables}
    databases = {table.database for table in tables}
    kept = []
    for effect in effects:
        kind = effect[0]
        if kind == Kind.CREATE_DATABASE:
            if effect[1] in databases:
                kept.append(effect)
        elif kind in (Kind.CREATE_TABLE, Kind.SET_WRITE_HOOK, Kind.CREATE_INDEX) and effect[1] in ids:
            kept.append(effect)
    return kept


class Captured(NamedTuple):
    """An image that is whole in its vault, and the hash of its manifest as it is stored there."""

    manifest: ImageManifest
    sha256: str


def capture(image: Image, vault: Vault, order: Order, progress: Progress) -> Captured:
    """Stores an image of the checkpoint. Raises VaultUnavailable, UnfitArchive or Corrupt; then nothing is listed."""
    began_ms = int(time.time() * 1000)
    tables = selected_tables(image.catalog, order.selection)
    folder = f"{IMAGES}/{order.image}"
    images = capture_tables(image, vault, tables, folder, order.max_bytes_per_s, progress)
    manifest = ImageManifest(
        image=order.image,
        cluster_id=order.cluster_id,
        log_index=image.applied_index,
        raft_term=order.raft_term,
        time_ms=order.time_ms,
        began_ms=began_ms,
        ended_ms=int(time.time() * 1000),
        server_version=order.server_version,
        selection=order.selection,
        catalog=tuple(selected_catalog(image.catalog, tables, not order.selection)),
        tables=tuple(images),
        parent=order.parent,
        next_id=image.catalog.next_id,
    )
    name = f"{folder}/manifest"
    text = encode(manifest)
    try:
        sha256, _ = vault.put(name, text)
        if vault.get(name, sha256) != text:
            raise UnfitArchive(f"The manifest {name} does not read back as it was written.")
    except RewindError:
        with suppress(RewindError):  # the error that counts is the first
            vault.delete(name)  # what is told to have failed is not to be listed
        raise
    return Captured(manifest, sha256)


def check_content(block: Block, content: bytes) -> None:
    """Raises UnfitArchive unless a block unpacks to what was packed into it, as far as its manifest knows that."""
    if block.content_hash and content_hash(content) != block.content_hash:
        raise UnfitArchive(f"{block.name} does not unpack to what was packed into it.")


def unpack_block(content: bytes, name: str) -> tuple[list[bytes], list[bytes]]:
    """(keys, rows) of a block; raises UnfitArchive if it is none."""
    try:
        keys, rows = msgspec.msgpack.decode(content, type=tuple[list[bytes], list[bytes]])
    except UNDECODABLE as error:
        raise UnfitArchive(f"{name} is not a block of rows: {error}.") from error
    if len(keys) != len(rows):
        raise UnfitArchive(f"{name} holds {len(keys)} keys but {len(rows)} rows.")
    return keys, rows


def read_block(vault: Vault, block: Block) -> tuple[list[bytes], list[bytes]]:
    """The rows of a block, verified against its manifest."""
    content = vault.get(block.name, block.sha256)
    check_content(block, content)
    keys, rows = unpack_block(content, block.name)
    if len(rows) != block.rows:
        raise UnfitArchive(f"{block.name} holds {len(rows)} rows; its manifest says {block.rows}.")
    return keys, rows
