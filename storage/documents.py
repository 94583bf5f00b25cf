"""The catalog in the engine: one document per database, table, secondary index and system document.

One rule: a document is the list of catalog effects, in MessagePack, that make its object as it stands now,
so that loading is applying them in key order, and the documents do not grow with history.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from model.catalog import Catalog, Index, Table
from model.effect import Effect, Kind
from model.errors import Corrupt
from model.undecodable import UNDECODABLE
from storage.engine import Reader, WriteSet, scan
from storage.layout import CATALOG_HIGH, CATALOG_LOW

NEXT_ID_KEY: Final = b"c9"

_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")
_DECODER: Final = msgspec.msgpack.Decoder(list[tuple[Any, ...]])


def database_key(uuid: str) -> bytes:
    return b"c1" + uuid.encode()


def table_key(table_id: int) -> bytes:
    return struct.pack(">2sI", b"c2", table_id)


def sindex_key(table_id: int, index_id: int) -> bytes:
    return struct.pack(">2sII", b"c3", table_id, index_id)


def system_key(collection: str, key: str) -> bytes:
    return b"c4" + collection.encode() + b"\0" + key.encode()


def _table_effects(table: Table) -> list[Effect]:
    made: Effect = (
        Kind.CREATE_TABLE,
        table.table_id,
        table.uuid,
        table.database,
        table.name,
        table.primary_key,
        table.options,
    )
    return [made] if table.write_hook is None else [made, (Kind.SET_WRITE_HOOK, table.table_id, table.write_hook)]


def _sindex_effects(table_id: int, index: Index) -> list[Effect]:
    return [(Kind.CREATE_INDEX, table_id, index.index_id, index.name, index.definition)]


def save_database(changes: WriteSet, catalog: Catalog, uuid: str) -> None:
    """Puts a database's document as it stands, or deletes it if there is no such database any more."""
    database = catalog.databases_by_uuid.get(uuid)
    if database is None:
        changes.delete(database_key(uuid))
    else:
        changes.put(database_key(uuid), _ENCODER.encode([(Kind.CREATE_DATABASE, uuid, database.name)]))


def save_table(changes: WriteSet, catalog: Catalog, table_id: int) -> None:
    """Puts a table's document as it stands; the table exists."""
    changes.put(table_key(table_id), _ENCODER.encode(_table_effects(catalog.tables[table_id])))
    save_next_id(changes, catalog)


def save_sindex(changes: WriteSet, catalog: Catalog, table_id: int, index_id: int) -> None:
    """Puts a secondary index's document as it stands, or deletes it if there is none any more."""
    table = catalog.tables.get(table_id)
    index = None
    if table is not None:
        index = next((index for index in table.indexes.values() if index.index_id == index_id), None)
    if index is None:
        changes.delete(sindex_key(table_id, index_id))
    else:
        changes.put(sindex_key(table_id, index_id), _ENCODER.encode(_sindex_effects(table_id, index)))
        save_next_id(changes, catalog)


def save_system(changes: WriteSet, catalog: Catalog, collection: str, key: str) -> None:
    """Puts a system document as it stands, or deletes it."""
    document = catalog.documents(collection).get(key)
    if document is None:
        changes.delete(system_key(collection, key))
    else:
        encoded = _ENCODER.encode([(Kind.PUT_SYSTEM, collection, key, document)])
        changes.put(system_key(collection, key), encoded)


def save_next_id(changes: WriteSet, catalog: Catalog) -> None:
    """Puts the next free number, which must not fall back when the newest table is dropped."""
    changes.put(NEXT_ID_KEY, catalog.next_id.to_bytes(8, "big"))


def creation_effects(catalog: Catalog) -> list[Effect]:
    """The effects that make an equal catalog out of an empty one (but for `next_id`)."""
    effects: list[Effect] = [(Kind.CREATE_DATABASE, uuid, d.name) for uuid, d in catalog.databases_by_uuid.items()]
    for table_id in sorted(catalog.tables):
        table = catalog.tables[table_id]
        effects += _table_effects(table)
        for index in table.indexes.values():
            effects += _sindex_effects(table_id, index)
    for collection, documents in catalog.system.items():
        effects += [(Kind.PUT_SYSTEM, collection, key, document) for key, document in documents.items()]
    return effects


def copy_catalog(catalog: Catalog) -> Catalog:
    """A catalog of its own that later effects on the first one do not reach; documents are shared, never changed."""
    copied = Catalog()
    for effect in creation_effects(catalog):
        copied.apply(effect)
    copied.next_id = catalog.next_id
    copied.revision = catalog.revision
    return copied


def save_catalog(changes: WriteSet, catalog: Catalog) -> None:
    """Puts all documents of a catalog."""
    for uuid in catalog.databases_by_uuid:
        save_database(changes, catalog, uuid)
    for table in catalog.tables.values():
        save_table(changes, catalog, table.table_id)
        for index in table.indexes.values():
            save_sindex(changes, catalog, table.table_id, index.index_id)
    for collection, keys in catalog.system.items():
        for key in keys:
            save_system(changes, catalog, collection, key)
    save_next_id(changes, catalog)


def load_catalog(reader: Reader, catalog: Catalog) -> None:
    """Makes `catalog` what the documents say, whatever it was before; raises Corrupt if one cannot be read."""
    names: tuple[dict[Any, Any], ...] = (
        catalog.databases,
        catalog.databases_by_uuid,
        catalog.tables,
        catalog.tables_by_uuid,
        catalog.system,
    )
    for known in names:
        known.clear()
    catalog.next_id = 1
    catalog.revision += 1
    for key, value in scan(reader, CATALOG_LOW, CATALOG_HIGH):
        if key == NEXT_ID_KEY:
            catalog.next_id = max(catalog.next_id, int.from_bytes(value, "big"))
            continue
        try:
            for effect in _DECODER.decode(value):
                catalog.apply(effect)
        except (*UNDECODABLE, KeyError, TypeError, IndexError) as error:
            raise Corrupt(f"the catalog document {key!r} cannot be read: {error!r}") from error


def is_moot(catalog: Catalog, effect: Effect) -> bool:
    """Whether what a catalog effect is about is gone, or is there already; raises Corrupt for an unknown kind."""
    try:
        kind = Kind(effect[0])
    except ValueError as error:
        raise Corrupt(f"an effect has the unknown kind {effect[0]}", "Start a newer RewindDB on this data.") from error
    if kind == Kind.CREATE_DATABASE:
        return effect[1] in catalog.databases_by_uuid
    if kind in (Kind.DROP_DATABASE, Kind.RENAME_DATABASE):
        return effect[1] not in catalog.databases_by_uuid
    if kind == Kind.CREATE_TABLE:
        return effect[1] in catalog.tables or effect[3] not in catalog.databases_by_uuid
    if kind in (Kind.PUT_SYSTEM, Kind.DELETE_SYSTEM):
        return False
    table = catalog.tables.get(effect[1])
    if table is None:
        return True
    if kind == Kind.ALTER_TABLE:
        return effect[2].get("database", table.database) not in catalog.databases_by_uuid
    if kind in (Kind.DROP_TABLE, Kind.SET_WRITE_HOOK):
        return False
    has_index = any(index.index_id == effect[2] for index in table.indexes.values())
    return has_index == (kind == Kind.CREATE_INDEX)
