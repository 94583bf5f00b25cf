"""Reads of the applied state: rows by table and key, secondary index entries, counts, the catalog.

One rule: a `Store` never writes. Only storage/machine does, and it shares the dicts it hands in here.
Keys are order-preserving bytes (model/order); rows are the JSON text that a driver is sent.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from model.catalog import Catalog
from storage.documents import copy_catalog
from storage.engine import Engine, Reader, View, scan
from storage.layout import CATALOG_HIGH, CATALOG_LOW, PREFIX_BYTES, after, sindex_prefix, table_prefix
from storage.sindex import Sindex

DIGEST_BYTES: Final = 32
HASH_MODULUS: Final = 1 << 256


class _Prefixes(dict[int, bytes]):
    """What keys begin with, by the number of what they belong to: `make` is asked once for each."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        self._make = make

    def __missing__(self, number: int) -> bytes:
        prefix = self[number] = self._make(number)
        return prefix


_PREFIXES: Final = _Prefixes(table_prefix)
_INDEX_PREFIXES: Final = _Prefixes(sindex_prefix)


def row_digest(key: bytes, row: bytes) -> int:
    """A row's part in its table's hash: the hash is their sum modulo 2**256, in any order and any slices."""
    return int.from_bytes(
        hashlib.blake2b(len(key).to_bytes(4, "big") + key + row, digest_size=DIGEST_BYTES).digest(), "big"
    )


def sum_of_digests(keys: Iterable[bytes], rows: Iterable[bytes]) -> int:
    """The sum of `row_digest` of many rows, a fifth faster than one by one."""
    blake2b, as_number = hashlib.blake2b, int.from_bytes
    total = 0
    for key, row in zip(keys, rows, strict=True):
        digest = blake2b(len(key).to_bytes(4, "big"), digest_size=DIGEST_BYTES)
        digest.update(key)
        digest.update(row)
        total += as_number(digest.digest(), "big")
    return total


class Store(ABC):
    """The applied state, as it moves. Ranges are [low, high); None means open; iteration may go in reverse."""

    def __init__(
        self, reader: Reader, catalog: Catalog, counts: Mapping[int, int], sindexes: Mapping[int, Sindex]
    ) -> None:
        self._reader = reader
        self._read = reader.get
        self.catalog = catalog
        self._counts = counts
        self._sindexes = sindexes

    @property
    def applied_index(self) -> int:
        """The log index whose effects are all in, and nothing later."""
        return self._reader.applied_index

    def get(self, table_id: int, key: bytes) -> bytes | None:
        """A row's JSON text; None if there is no such row or no such table."""
        return self._read(_PREFIXES[table_id] + key)

    def get_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows in the order of the keys; None where there is none."""
        prefix = _PREFIXES[table_id]
        return self._reader.get_many([prefix + key for key in keys])

    def scan_chunk(
        self, table_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        """At most `limit` (keys, rows), the lowest first, or the highest first in reverse.

        To go on, pass the last key + b"\\0" as `low`, or in reverse the last key as `high`. Fewer than
        `limit` rows means that there are no more.
        """
        return self._chunk(_PREFIXES[table_id], low, high, limit, reverse)

    def scan_rows(
        self, table_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], bytes]:
        """As `scan_chunk`, with the last key alone (b"" if there are no more rows): that is all one needs to go on."""
        prefix = _PREFIXES[table_id]
        rows, last = self._reader.scan_values(
            prefix if low is None else prefix + low,
            after(prefix) if high is None else prefix + high,
            limit,
            reverse,
        )
        return rows, last[PREFIX_BYTES:]

    def scan(
        self, table_id: int, low: bytes | None = None, high: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """All (key, row) in key order."""
        for key, row in self._scan(_PREFIXES[table_id], low, high, reverse):
            yield key[PREFIX_BYTES:], row

    def scan_index_chunk(
        self, index_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        """At most `limit` (index keys with their suffix, primary keys); goes on as `scan_chunk` does."""
        return self._chunk(_INDEX_PREFIXES[index_id], low, high, limit, reverse)

    def scan_index_rows(
        self, index_id: int, table_id: int, low: bytes, high: bytes, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], int, bytes]:
        """The rows that at most `limit` entries lead to, how many entries these were, and the last index key if there
        may be more."""
        prefix = _INDEX_PREFIXES[index_id]
        keys, last = self._reader.scan_values(prefix + low, prefix + high, limit, reverse)
        prefix = _PREFIXES[table_id]
        rows = self._reader.get_many([prefix + key for key in keys])
        return [row for row in rows if row is not None], len(keys), last[PREFIX_BYTES:]

    def scan_index(
        self, index_id: int, low: bytes | None = None, high: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """All (index key with its suffix, primary key) in order."""
        for key, primary_key in self._scan(_INDEX_PREFIXES[index_id], low, high, reverse):
            yield key[PREFIX_BYTES:], primary_key

    def _chunk(
        self, prefix: bytes, low: bytes | None, high: bytes | None, limit: int, reverse: bool
    ) -> tuple[list[bytes], list[bytes]]:
        return self._reader.scan_chunk(
            prefix if low is None else prefix + low,
            after(prefix) if high is None else prefix + high,
            limit,
            reverse,
            PREFIX_BYTES,
        )

    def _scan(
        self, prefix: bytes, low: bytes | None, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        return scan(
            self._reader,
            prefix if low is None else prefix + low,
            after(prefix) if high is None else prefix + high,
            reverse,
        )

    def count(self, table_id: int) -> int:
        """The exact number of rows; 0 if there is no such table."""
        return self._counts.get(table_id, 0)

    def index_ready(self, index_id: int) -> bool:
        """Whether a secondary index is complete on this replica."""
        sindex = self._sindexes.get(index_id)
        return sindex is not None and sindex.is_ready

    def index_progress(self, index_id: int) -> float:
        """The share of the table's rows that are in a secondary index, 0.0 to 1.0."""
        sindex = self._sindexes.get(index_id)
        if sindex is None:
            return 0.0
        return 1.0 if sindex.is_ready else min(1.0, sindex.rows_done / max(1, self.count(sindex.table_id)))

    def table_hash(self, table_id: int) -> str:
        """A hash of all rows of a table, in hex: equal rows, equal hash, whatever their history. Reads them all."""
        total = sum(row_digest(key, row) for key, row in self.scan(table_id))
        return f"{total % HASH_MODULUS:064x}"

    def state_hash(self) -> str:
        """A hash of the catalog and of all rows, in hex: equal on all replicas at one applied index. Reads all."""
        digest = hashlib.blake2b(digest_size=32)
        for key, document in scan(self._reader, CATALOG_LOW, CATALOG_HIGH):
            digest.update(b"%d %b%d %b" % (len(key), key, len(document), document))
        for table_id in sorted(self.catalog.tables):
            digest.update(f"{table_id} {self.count(table_id)} {self.table_hash(table_id)}".encode())
        return digest.hexdigest()

    @abstractmethod
    def view(self) -> StoreView:
        """A fixed point-in-time read; close it, it pins memory and files."""


class StoreView(Store):
    """A `Store` that stays at its moment."""

    def __init__(self, view: View, catalog: Catalog, counts: Mapping[int, int], sindexes: Mapping[int, Sindex]) -> None:
        super().__init__(view, catalog, counts, sindexes)
        self._view = view

    def close(self) -> None:
        self._view.close()

    def view(self) -> StoreView:
        return self


class LiveStore(Store):
    """The `Store` over the engine itself, from which views are taken."""

    def __init__(
        self, engine: Engine, catalog: Catalog, counts: Mapping[int, int], sindexes: Mapping[int, Sindex]
    ) -> None:
        super().__init__(engine, catalog, counts, sindexes)
        self._engine = engine
        self._copy: Catalog | None = None

    def switch(self, engine: Engine) -> None:
        """Reads another engine from now on; views of the old one are closed with it."""
        self._reader = self._engine = engine
        self._read = engine.get

    def view(self) -> StoreView:
        if self._copy is None or self._copy.revision != self.catalog.revision:
            self._copy = copy_catalog(self.catalog)  # once per change of the catalog, not per view
        ready = {index_id: sindex for index_id, sindex in self._sindexes.items() if sindex.is_ready}
        return StoreView(self._engine.view(), self._copy, dict(self._counts), ready)
