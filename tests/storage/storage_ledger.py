"""A small world of databases, tables and indexes, and a ledger that feeds it to a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from model.catalog import Index, Table
from model.effect import Effect, Kind, encode
from model.index_function import Decode, Fields, IndexFunction, Rows
from storage.machine import Machine
from storage.rocks_options import RocksSettings

SMALL = RocksSettings(cache_bytes=8 << 20, memtable_bytes=1 << 20)


def index_function(table: Table, index: Index) -> IndexFunction:
    """The test's index language: {"field": name, "multi": bool}; values are numbers or lists of them."""
    field, multi = index.definition["field"], index.definition.get("multi", False)

    def keys_of_row(row: dict[str, Any]) -> list[bytes]:
        value = row.get(field)
        if value is None:
            return []
        values = value if multi and isinstance(value, list) else [value]
        return [b"N%08d\0" % number for number in values if isinstance(number, int)]

    return IndexFunction(lambda rows: [keys_of_row(row) for row in rows], frozenset([field]), decoder)


def decoder(fields: Fields | None) -> Decode:
    """Decodes these fields of rows, and no others."""

    def decode(texts: Sequence[bytes]) -> Rows:
        rows = map(orjson.loads, texts)
        return [row if fields is None else {name: row[name] for name in fields if name in row} for row in rows]

    return decode


def keys_of_text(function: IndexFunction, row: bytes) -> list[bytes]:
    """The index keys of one row."""
    return function.keys_of(function.decoder(function.fields)((row,)))[0]


def row(**fields: object) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def new_table(table_id: int, name: str | None = None) -> Effect:
    return (Kind.CREATE_TABLE, table_id, f"uuid-{table_id}", "db-1", name or f"table{table_id}", "id", {})


NEW_DATABASE: Effect = (Kind.CREATE_DATABASE, "db-1", "test")


def new_index(table_id: int, index_id: int, field: str, multi: bool = False) -> Effect:
    return (Kind.CREATE_INDEX, table_id, index_id, f"index{index_id}", {"field": field, "multi": multi})


def put(table_id: int, key: bytes, **fields: object) -> Effect:
    return (Kind.PUT_ROW, table_id, key, row(**fields))


def delete(table_id: int, key: bytes) -> Effect:
    return (Kind.DELETE_ROW, table_id, key)


class Ledger:
    """Feeds a machine entries of effects, and numbers them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.entries: list[tuple[int, bytes]] = []

    def add(self, *effects: Effect) -> int:
        index = self.machine.applied_index + 1
        entry = (index, encode(list(effects), 1000 + index))
        self.entries.append(entry)
        self.machine.apply([entry])
        return index

    def build(self) -> None:
        while self.machine.build_step():
            pass
