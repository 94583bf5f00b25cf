"""The catalog: which databases, tables, indexes and system documents exist at one log index.

One rule: it changes only through `apply`, one effect at a time, so that every server and every
restore comes to the same catalog. Numbers (`table_id`, `index_id`) are short names for storage keys;
drivers see UUIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from model.effect import Effect, Kind


@dataclass(slots=True)
class Index:
    """A secondary index. `definition`: {"function": term tree as JSON, "multi": bool, "geo": bool}."""

    index_id: int
    name: str
    definition: dict[str, Any]


@dataclass(slots=True)
class Table:
    """A table's identity and settings. `options` holds durability, write_acks, shards, replicas and the like."""

    table_id: int
    uuid: str
    database: str
    name: str
    primary_key: str
    options: dict[str, Any]
    indexes: dict[str, Index] = field(default_factory=dict)
    write_hook: dict[str, Any] | None = None


@dataclass(slots=True)
class Database:
    uuid: str
    name: str
    tables: dict[str, Table] = field(default_factory=dict)


class Catalog:
    """All names at one log index. `next_id` is the smallest number that no table or index ever had."""

    def __init__(self) -> None:
        self.databases: dict[str, Database] = {}  # by name
        self.databases_by_uuid: dict[str, Database] = {}
        self.tables: dict[int, Table] = {}
        self.tables_by_uuid: dict[str, Table] = {}
        self.system: dict[str, dict[str, dict[str, Any]]] = {}  # collection -> key -> document
        self.next_id = 1
        self.revision = 0  # grows with every change, so that what is compiled against names knows when it is stale

    def documents(self, collection: str) -> dict[str, dict[str, Any]]:
        """The system documents of a collection by key; empty if there are none."""
        return self.system.get(collection, {})

    def apply(self, effect: Effect) -> None:
        """Makes one catalog effect's change; effects on rows are none of its business."""
        _RULES[effect[0]](self, *effect[1:])
        self.revision += 1

    def _create_database(self, uuid: str, name: str) -> None:
        database = Database(uuid, name)
        self.databases[name] = database
        self.databases_by_uuid[uuid] = database

    def _drop_database(self, uuid: str) -> None:
        database = self.databases_by_uuid.pop(uuid, None)
        if database is not None:
            for table in list(database.tables.values()):
                self._drop_table(table.table_id)
            self.databases.pop(database.name, None)

    def _rename_database(self, uuid: str, name: str) -> None:
        database = self.databases_by_uuid[uuid]
        self.databases.pop(database.name, None)
        database.name = name
        self.databases[name] = database

    def _create_table(
        self, table_id: int, uuid: str, database: str, name: str, primary_key: str, options: dict[str, Any]
    ) -> None:
        table = Table(table_id, uuid, database, name, primary_key, dict(options))
        self.tables[table_id] = table
        self.tables_by_uuid[uuid] = table
        self.databases_by_uuid[database].tables[name] = table
        self.next_id = max(self.next_id, table_id + 1)

    def _drop_table(self, table_id: int) -> None:
        table = self.tables.pop(table_id, None)
        if table is not None:
            self.tables_by_uuid.pop(table.uuid, None)
            database = self.databases_by_uuid.get(table.database)
            if database is not None:
                database.tables.pop(table.name, None)

    def _alter_table(self, table_id: int, changes: dict[str, Any]) -> None:
        table = self.tables[table_id]
        changes = dict(changes)
        del self.databases_by_uuid[table.database].tables[table.name]
        table.name = changes.pop("name", table.name)
        table.database = changes.pop("database", table.database)
        self.databases_by_uuid[table.database].tables[table.name] = table
        table.options = {**table.options, **changes}

    def _set_write_hook(self, table_id: int, hook: dict[str, Any] | None) -> None:
        self.tables[table_id].write_hook = hook

    def _create_index(self, table_id: int, index_id: int, name: str, definition: dict[str, Any]) -> None:
        self.tables[table_id].indexes[name] = Index(index_id, name, dict(definition))
        self.next_id = max(self.next_id, index_id + 1)

    def _drop_index(self, table_id: int, index_id: int) -> None:
        indexes = self.tables[table_id].indexes
        for name, index in list(indexes.items()):
            if index.index_id == index_id:
                del indexes[name]

    def _rename_index(self, table_id: int, index_id: int, name: str) -> None:
        indexes = self.tables[table_id].indexes
        for old_name, index in list(indexes.items()):
            if index.index_id == index_id:
                del indexes[old_name]
                index.name = name
                indexes[name] = index

    def _put_system(self, collection: str, key: str, document: dict[str, Any]) -> None:
        self.system.setdefault(collection, {})[key] = document

    def _delete_system(self, collection: str, key: str) -> None:
        self.system.get(collection, {}).pop(key, None)


_RULES: Final[dict[int, Callable[..., None]]] = {
    Kind.CREATE_DATABASE: Catalog._create_database,
    Kind.DROP_DATABASE: Catalog._drop_database,
    Kind.RENAME_DATABASE: Catalog._rename_database,
    Kind.CREATE_TABLE: Catalog._create_table,
    Kind.DROP_TABLE: Catalog._drop_table,
    Kind.ALTER_TABLE: Catalog._alter_table,
    Kind.SET_WRITE_HOOK: Catalog._set_write_hook,
    Kind.CREATE_INDEX: Catalog._create_index,
    Kind.DROP_INDEX: Catalog._drop_index,
    Kind.RENAME_INDEX: Catalog._rename_index,
    Kind.PUT_SYSTEM: Catalog._put_system,
    Kind.DELETE_SYSTEM: Catalog._delete_system,
}
