"""Where everything lies in the engine: one letter, then big-endian numbers, then what orders the rest.

    c1 uuid                      catalog: a database            (storage/documents)
    c2 table_id                  catalog: a table
    c3 table_id index_id         catalog: a secondary index
    c4 collection 0 key          catalog: a system document
    c9                           catalog: the next free number
    i index_id  key pk tag       secondary index entry -> primary key bytes
    m ...                        the engine's own: applied index, format
    n table_id                   row count, 8 bytes
    r table_id  pk               row: the JSON text
    x index_id                   of an earlier build: an index whose entries had the tag before the primary key
    y index_id                   present when the secondary index is complete on this replica

One rule: a table's rows, and a secondary index's entries, are one contiguous range, so that a drop is
one range delete. Numbers are 4 bytes; they are never used again after a drop.
"""

from __future__ import annotations

from typing import Final

CATALOG_LOW: Final = b"c"
CATALOG_HIGH: Final = b"d"
COUNTS_LOW: Final = b"n"
COUNTS_HIGH: Final = b"o"
ROWS_LOW: Final = b"r"
ROWS_HIGH: Final = b"s"
READY_LOW: Final = b"y"
READY_HIGH: Final = b"z"
PREFIX_BYTES: Final = 5  # of rows and of secondary index entries


def table_prefix(table_id: int) -> bytes:
    """What the engine keys of a table's rows begin with."""
    return b"r" + table_id.to_bytes(4, "big")


def sindex_prefix(index_id: int) -> bytes:
    """What the engine keys of a secondary index's entries begin with."""
    return b"i" + index_id.to_bytes(4, "big")


def after(prefix: bytes) -> bytes:
    """The first key behind all keys that begin with a table's or a secondary index's prefix."""
    return prefix[:1] + (int.from_bytes(prefix[1:], "big") + 1).to_bytes(4, "big")


def count_key(table_id: int) -> bytes:
    return b"n" + table_id.to_bytes(4, "big")


def ready_key(index_id: int) -> bytes:
    return b"y" + index_id.to_bytes(4, "big")


def number_in(key: bytes) -> int:
    """The number behind a key's first letter."""
    return int.from_bytes(key[1:5], "big")
