"""Chosen tables of one moment in pieces of packed rows, as a running server takes them in.

    the log says nothing of its rows   the blocks of the image, as they lie in the vault
    the others                         rebuilt in a scratch folder first (backup/restore_tables), then packed

One rule: a piece is given only when every row in it was looked at, and a table's last one only when all of its rows
were in order and as many as they have to be. Blocks of an image that this cluster made are not looked into: its log
holds the hash of their manifest, which holds theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Final, NamedTuple

from backup.capture import check_content
from backup.image_loading import check_count, read_ahead
from backup.manifest import Block, TableImage
from backup.rebuild import Progress, sound_effects
from backup.restore_tables import Source, Survey, check_rows, rebuild_tables
from backup.sealing import open_sealed, unseal
from backup.selection import TableName
from backup.vault import Vault
from model.catalog import Table
from model.errors import Corrupt, UnfitArchive
from model.packed_rows import pack_plain, plain_rows, rows_in, unpack_plain
from storage.image import Image

PIECE_BYTES: Final = 4 << 20  # of rows, as in the blocks of images
LARGEST_PIECE_BYTES: Final = 8 << 20  # a block with more is packed anew, in several pieces


class Unpacked(NamedTuple):
    """A block as it is packed in the vault (None: not as it has to be here), and what that unpacks to.

    content: keys and rows; None if they need not be looked at.
    """

    packed: bytes | None
    plain: bytes
    content: tuple[list[bytes], list[bytes]] | None
    row_count: int
    row_bytes: int


ReadPacked = Callable[[TableImage], Iterator[Unpacked]]


class Piece(NamedTuple):
    """Some rows of a table, in the order of their keys; packed as in model/packed_rows, and what that unpacks to."""

    table_id: int
    packed: bytes
    plain: bytes
    rows: int
    row_bytes: int


def pieces_of(
    source: Source, survey: Survey, tables: Sequence[Table], scratch: Path, read: ReadPacked, progress: Progress
) -> tuple[int, Iterator[Piece]]:
    """How many rows the tables have, and the pieces of one table after the other.

    Returns when what has to be rebuilt is rebuilt. Raises UnfitArchive, VaultUnavailable, DiskFull, also later.
    """
    images = {image.table_id: image for image in source.plan.image.tables}
    touched = [table for table in tables if table.table_id in survey.touched]
    total = sum(table.rows for table in rebuild_tables(source, survey, touched, scratch, progress)) if touched else 0
    untouched = []
    for table in tables:
        image = images.get(table.table_id)
        if table not in touched and image is not None and image.uuid == table.uuid:
            untouched.append((table, image))
            total += image.rows

    def pieces() -> Iterator[Piece]:
        with sound_effects():
            for table, image in untouched:
                yield from _passed_on(survey.named(table), table, image, read)
        if touched:
            with Image(scratch) as rebuilt:
                for table in touched:
                    for block in rebuilt.blocks(table.table_id, block_bytes=PIECE_BYTES):
                        yield from _packed(table.table_id, block.keys, block.rows)

    return total, pieces()


def _passed_on(name: TableName, table: Table, image: TableImage, read: ReadPacked) -> Iterator[Piece]:
    """The blocks of an image, packed as they are."""
    last_key, count = b"", 0
    for packed, plain, content, rows_in_block, row_bytes in read(image):
        count += rows_in_block
        if content is not None and rows_in_block:
            keys, rows = content
            if keys[0] <= last_key or not all(map(lt, keys, islice(keys, 1, None))):
                raise UnfitArchive(f"Table {name} holds rows that are not in the order of their keys.")
            check_rows(name, table.primary_key, keys, rows)
            last_key = keys[-1]
            if packed is None:
                yield from _packed(table.table_id, keys, rows)
        if packed is not None and rows_in_block:
            yield Piece(table.table_id, packed, plain, rows_in_block, row_bytes)
    check_count(image, count)


def _packed(table_id: int, keys: list[bytes], rows: list[bytes]) -> Iterator[Piece]:
    """Rows in pieces of at most PIECE_BYTES, or of one row."""
    begin = size = 0
    for at, row in enumerate(rows):
        if at > begin and size + len(row) > PIECE_BYTES:
            yield _piece(table_id, keys[begin:at], rows[begin:at], size)
            begin, size = at, 0
        size += len(row)
    if begin < len(rows):
        yield _piece(table_id, keys[begin:], rows[begin:], size)


def _piece(table_id: int, keys: list[bytes], rows: list[bytes], row_bytes: int) -> Piece:
    plain = plain_rows(keys, rows)
    return Piece(table_id, pack_plain(plain), plain, len(rows), row_bytes)


def packed_blocks(vault: Vault, are_own: bool, table: TableImage) -> Iterator[Unpacked]:
    """The blocks of a table in an image, each with the hash and the number of rows that the manifest says.

    are_own: whether the manifest is known to be as this cluster wrote it.
    """
    yield from read_ahead(partial(_read, are_own=are_own), vault, table.blocks)


def _read(vault: Vault, block: Block, are_own: bool) -> Unpacked:
    stored = vault.get_stored(block.name, block.sha256)
    packed: bytes | None = None
    if block.row_bytes <= LARGEST_PIECE_BYTES:
        body, is_compressed = open_sealed(block.name, stored, vault.keyring, is_known=True)
        packed = body if is_compressed else None
    try:
        plain = unseal(block.name, stored, vault.keyring, is_known=True) if packed is None else unpack_plain(packed)
        check_content(block, plain)
        if are_own and packed is not None:
            return Unpacked(packed, plain, None, block.rows, block.row_bytes)
        keys, rows = rows_in(plain)
    except Corrupt as error:
        raise UnfitArchive(f"{block.name} is not a block of rows: {error.message}.") from error
    if len(rows) != block.rows:
        raise UnfitArchive(f"{block.name} holds {len(rows)} rows; its manifest says {block.rows}.")
    row_bytes = sum(map(len, rows))
    if row_bytes > LARGEST_PIECE_BYTES:
        packed = None
    return Unpacked(packed, plain, (keys, rows), len(rows), row_bytes)
