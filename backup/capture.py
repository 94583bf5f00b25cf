"""Takes a base image: reads a checkpoint, packs its rows into blocks, stores them, reads them back, seals it all
with a manifest.

One rule: the manifest is written last, after every block was read back from the vault and had the right hash; so
an image that can be listed is an image that was whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from backup.manifest import Block, ImageManifest, TableImage, encode
from backup.sealing import digest, seal
from backup.shelf import IMAGES
from backup.vault import Vault
from model.catalog import Catalog, Table
from model.effect import Effect, Kind
from model.errors import RewindError, UnfitArchive
from storage.documents import creation_effects
from storage.image import Image
from storage.rows import row_digest

BLOCK_BYTES: Final = 4 << 20
UPLOADS: Final = 3  # blocks on their way at the same time
HASH_MODULUS: Final = 1 << 256

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
    writer = _BlockWriter(vault, order, progress)
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

    def __init__(self, vault: Vault, order: Order, progress: Progress) -> None:
        self._vault = vault
        self._order = order
        self._progress = progress
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="vault")
        self._under_way: deque[Future[Block]] = deque()
        self._rows = 0
        self._bytes = 0
        self._began = time.monotonic()

    def table(self, image: Image, table: Table) -> TableImage:
        blocks: list[Block] = []
        total_rows = total_bytes = total_hash = 0
        for number, part in enumerate(image.blocks(table.table_id, block_bytes=BLOCK_BYTES)):
            name = f"{IMAGES}/{self._order.image}/{table.uuid}/{number:08d}"
            row_bytes = sum(map(len, part.rows))
            total_hash = (total_hash + sum(map(row_digest, part.keys, part.rows))) % HASH_MODULUS
            total_rows += len(part.rows)
            total_bytes += row_bytes
            self._await(UPLOADS - 1, blocks)
            self._under_way.append(self._pool.submit(self._store, name, part.keys, part.rows, row_bytes))
            self._tell(len(part.rows), row_bytes, table)
        self._await(0, blocks)
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
            total_bytes,
            f"{total_hash:064x}",
            tuple(blocks),
        )

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _store(self, name: str, keys: list[bytes], rows: list[bytes], row_bytes: int) -> Block:
        stored = seal(name, msgspec.msgpack.encode((keys, rows)), self._vault.keyring, self._vault.level)
        sha256 = digest(stored)
        self._vault.put_stored(name, stored)
        self._vault.get_stored(name, sha256)
        return Block(name, len(rows), row_bytes, len(stored), sha256)

    def _await(self, most: int, blocks: list[Block]) -> None:
        """Waits until at most so many blocks are under way; the finished ones are collected in order."""
        while len(self._under_way) > most:
            blocks.append(self._under_way.popleft().result())

    def _tell(self, rows: int, row_bytes: int, table: Table) -> None:
        self._rows += rows
        self._bytes += row_bytes
        self._progress(table.name, self._rows, self._bytes)
        limit = self._order.max_bytes_per_s
        if limit:
            ahead_s = self._bytes / limit - (time.monotonic() - self._began)
            if ahead_s > 0:
                time.sleep(ahead_s)


def unpack_block(content: bytes, name: str) -> tuple[list[bytes], list[bytes]]:
    """(keys, rows) of a block; raises UnfitArchive if it is none."""
    try:
        keys, rows = msgspec.msgpack.decode(content, type=tuple[list[bytes], list[bytes]])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
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
