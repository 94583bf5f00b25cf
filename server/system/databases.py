"""`db_config`: the databases by name; rows that are changed rename them, new ones make them (tables/db_config.cc)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model.catalog import Catalog, Database
from model.effect import Effect, Kind
from model.errors import ReqlOpFailedError
from proxy.reql.permissions import SYSTEM_DB, require_config, require_config_of_all
from server.system import fields
from server.system.site import Row
from server.system.table import Change, SystemTable

WRONG_FORMAT = "The change you're trying to make to `rethinkdb.db_config` has the wrong format. "


def db_config_row(database: Database) -> Row:
    return {"id": database.uuid, "name": database.name}


def _rows(env: Any, form: str) -> Iterator[Row]:
    return map(db_config_row, env.data.catalog.databases.values())


def _row(env: Any, key: Any, form: str) -> Row | None:
    database = env.data.catalog.databases_by_uuid.get(key) if key.__class__ is str else None
    return None if database is None else db_config_row(database)


def _write(change: Change) -> Row | None:
    env, catalog = change.env, change.catalog
    database = catalog.databases_by_uuid.get(change.key) if change.key.__class__ is str else None
    require_config(env, None if database is None else database.uuid)
    if change.new is None:
        if database is not None:
            require_config_of_all(env, database.uuid, [table.uuid for table in database.tables.values()])
            change.effects += drop_effects(database)
        return None
    name = _name(change.new)
    if database is None:
        if not change.key_is_made:
            raise ReqlOpFailedError(
                "If you want to create a new table by inserting into `rethinkdb.db_config`, you must use an "
                "auto-generated primary key."
            )
        if name == SYSTEM_DB or name in catalog.databases:
            raise ReqlOpFailedError(f"Database `{name}` already exists.")
        change.effects.append((int(Kind.CREATE_DATABASE), change.key, name))
    elif name != database.name:
        _check_rename(catalog, database.name, name)
        change.effects.append((int(Kind.RENAME_DATABASE), database.uuid, name))
    return change.new


def drop_effects(database: Database) -> list[Effect]:
    """What drops a database and its tables."""
    effects: list[Effect] = [(int(Kind.DROP_TABLE), table.table_id) for table in database.tables.values()]
    return [*effects, (int(Kind.DROP_DATABASE), database.uuid)]


def _name(row: Row) -> str:
    with fields.within(WRONG_FORMAT):
        taken = fields.Fields(row)
        given = taken.take("name")
        with fields.within("In `name`: "):
            name = fields.name(given, "db name")
        with fields.within("In `id`: "):
            fields.uuid(taken.take("id"))
        taken.end()
    return name


def _check_rename(catalog: Catalog, old: str, new: str) -> None:
    if new == SYSTEM_DB or new in catalog.databases:
        raise ReqlOpFailedError(f"Cannot rename database `{old}` to `{new}` because database `{new}` already exists.")


def db_config_table() -> SystemTable:
    return SystemTable("db_config", _rows, _row, _write, is_listed=True, changes_catalog=True)
