"""Takes a base image: reads a checkpoint, packs its rows into blocks, stores them, reads them back, seals it all
with a manifest.

One rule: the manifest is written last, after every block was read back from the vault and had the right hash; so
an image that can be listed is an image that was whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from backup.manifest import Block, ImageManifest, TableImage, encode
from backup.packing import Packers, Stored, spare_workers
from backup.shelf import IMAGES
from backup.vault import Vault
from model.catalog import Catalog, Table
from model.effect import Effect, Kind
from model.errors import RewindError, UnfitArchive
from model.undecodable import UNDECODABLE
from storage.documents import creation_effects
from storage.image import Image
from storage.rows import HASH_MODULUS

BLOCK_BYTES: Final = 4 << 20
APART_ROWS: Final = 300_000  # with fewer, processes that help would cost more than they bring
SIGN_OF_LIFE_S: Final = 5.0

Progress = Callable[[str, int, int], None]
"""Called with (what, rows done, bytes done) now and then."""


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


def capture(image: Image, vault: Vault, order: Order, progress: Progress) -> ImageManifest:
    """Stores an image of the checkpoint. Raises VaultUnavailable, UnfitArchive or Corrupt; then nothing is listed."""
    began_ms = int(time.time() * 1000)
    tables = selected_tables(image.catalog, order.selection)
    rows = sum(image.count(table.table_id) for table in tables)
    writer = _BlockWriter(vault, order, progress, spare_workers() if rows >= APART_ROWS else 0)
    try:
        images = [writer.table(image, table) for table in tables]
    finally:
        writer.close()
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
    )
    name = f"{IMAGES}/{order.image}/manifest"
    text = encode(manifest)
    try:
        sha256, _ = vault.put(name, text)
        if vault.get(name, sha256) != text:
            raise UnfitArchive(f"The manifest {name} does not read back as it was written.")
    except RewindError:
        with suppress(RewindError):  # the error that counts is the first
            vault.delete(name)  # what is told to have failed is not to be listed
        raise
    return manifest


class _BlockWriter:
    """Packs and stores blocks, a few at a time, not faster than allowed."""

    def __init__(self, vault: Vault, order: Order, progress: Progress, workers: int) -> None:
        self._order = order
        self._progress = progress
        self._packers = Packers(vault, workers)
        self._under_way: deque[Future[Stored]] = deque()
        self._rows = 0
        self._bytes = 0
        self._began = time.monotonic()

    def table(self, image: Image, table: Table) -> TableImage:
        stored: list[Stored] = []
        for number, part in enumerate(image.blocks(table.table_id, block_bytes=BLOCK_BYTES)):
            name = f"{IMAGES}/{self._order.image}/{table.uuid}/{number:08d}"
            self._await(self._packers.most_under_way - 1, stored)
            self._under_way.append(self._packers.submit(name, part.keys, part.rows))
            self._tell(len(part.rows), sum(map(len, part.rows)), table)
        self._await(0, stored)
        blocks = tuple(part.block for part in stored)
        total_rows = sum(block.rows for block in blocks)
        counted = image.count(table.table_id)
        if total_rows != counted:
            raise UnfitArchive(f"Table {table.name} has {total_rows} rows in the checkpoint, but {counted} counted.")
        database = image.catalog.databases_by_uuid[table.database].name
        return TableImage(
            table.table_id,
            table.uuid,
            database,
            table.name,
            total_rows,
            sum(block.row_bytes for block in blocks),
            f"{sum(part.row_hash for part in stored) % HASH_MODULUS:064x}",
            blocks,
        )

    def close(self) -> None:
        self._packers.close()

    def _await(self, most: int, stored: list[Stored]) -> None:
        """Waits until at most so many blocks are under way; the finished ones are collected in order."""
        while len(self._under_way) > most:
            stored.append(self._under_way.popleft().result())

    def _tell(self, rows: int, row_bytes: int, table: Table) -> None:
        self._rows += rows
        self._bytes += row_bytes
        self._progress(table.name, self._rows, self._bytes)
        limit = self._order.max_bytes_per_s
        while limit and (ahead_s := self._bytes / limit - (time.monotonic() - self._began)) > 0:
            time.sleep(min(ahead_s, SIGN_OF_LIFE_S))
            self._progress(table.name, self._rows, self._bytes)


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
    keys, rows = unpack_block(vault.get(block.name, block.sha256), block.name)
    if len(rows) != block.rows:
        raise UnfitArchive(f"{block.name} holds {len(rows)} rows; its manifest says {block.rows}.")
    return keys, rows
