"""`permissions`: what users were granted, a row for each place (auth/permissions_artificial_table_backend.cc).

One rule: grants live in the user's document, so they come and go with the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model import datum as d
from model.catalog import Catalog
from model.effect import Kind
from model.errors import ReqlOpFailedError
from proxy.reql.permissions import (
    ADMIN,
    GLOBAL,
    LOCAL,
    SYSTEM_DB,
    SYSTEM_DB_UUID,
    Scope,
    merged,
    refuse_keys,
    scope_at,
    with_scope,
)
from server.system import fields
from server.system.accounts import USERS
from server.system.site import Row
from server.system.table import Change, SystemTable

Place = tuple[str, ...]  # (), (database UUID,) or (database UUID, table UUID)


def permissions_table() -> SystemTable:
    return SystemTable("permissions", _rows, write=_write, is_listed=True, changes_catalog=True)


def _rows(env: Any, form: str) -> Iterator[Row]:
    catalog = env.data.catalog
    yield _row(catalog, ADMIN, (), dict.fromkeys(GLOBAL, True), form)
    yield _row(catalog, ADMIN, (SYSTEM_DB_UUID,), dict.fromkeys(LOCAL, True), form)
    for user, document in catalog.documents(USERS).items():
        if user != ADMIN:
            for place, scope in _places(catalog, document.get("permissions", {})):
                yield _row(catalog, user, place, scope, form)


def _places(catalog: Catalog, granted: dict[str, Any]) -> Iterator[tuple[Place, Scope]]:
    if granted.get("global"):
        yield (), granted["global"]
    for database, scope in granted.get("databases", {}).items():
        yield (database,), scope
    for table, scope in granted.get("tables", {}).items():
        found = catalog.tables_by_uuid.get(table)
        if found is not None:
            yield (found.database, table), scope


def _database_name(catalog: Catalog, uuid: str) -> str:
    if uuid == SYSTEM_DB_UUID:
        return SYSTEM_DB
    database = catalog.databases_by_uuid.get(uuid)
    return "__deleted_database__" if database is None else database.name


def _row(catalog: Catalog, user: str, place: Place, scope: Scope, form: str) -> Row:
    row: Row = {"id": [user, *place], "permissions": scope, "user": user}
    if place:
        row["database"] = place[0] if form == "uuid" else _database_name(catalog, place[0])
    if len(place) > 1:
        row["table"] = place[1] if form == "uuid" else catalog.tables_by_uuid[place[1]].name
    return row


def _write(change: Change) -> Row | None:
    catalog = change.catalog
    if change.key_is_made:
        raise ReqlOpFailedError("You must specify a primary key.")
    user, place = _parse_key(catalog, change.key)
    if user == ADMIN:
        raise ReqlOpFailedError(f"The permissions of the user `{user}` can't be modified.")
    document = catalog.documents(USERS).get(user)
    if document is None:
        raise ReqlOpFailedError(f"No user named `{user}`.")
    granted = document.get("permissions", {})
    scope: Scope = {}
    if change.new is not None:
        _check_names(change, user, place)
        if "permissions" not in change.new:
            raise ReqlOpFailedError("Expected a field `permissions`.")
        scope = merged(scope_at(granted, place), change.new["permissions"], not place)
        known = ("id", "user", "permissions", "database", "table")[: 3 + len(place)]
        refuse_keys(set(change.new) - set(known))
    if scope != scope_at(granted, place):
        changed = {**document, "permissions": with_scope(granted, place, scope)}
        change.effects.append((int(Kind.PUT_SYSTEM), USERS, user, changed))
    if not scope:
        return None
    return _row(catalog, user, place, scope, change.form)


def _parse_key(catalog: Catalog, key: Any) -> tuple[str, Place]:
    if key.__class__ is not list or not 1 <= len(key) <= 3:
        raise ReqlOpFailedError(
            f"Expected an array of one to three items in the primary key, got {d.print_datum(key)}."
        )
    if key[0].__class__ is not str:
        raise ReqlOpFailedError(f"Expected a string as the username, got {d.print_datum(key[0])}.")
    if len(key) > 1:
        if not fields.is_uuid(key[1]):
            raise ReqlOpFailedError(f"Expected a UUID as the database, got {d.print_datum(key[1])}.")
        if key[1] != SYSTEM_DB_UUID and key[1] not in catalog.databases_by_uuid:
            raise ReqlOpFailedError(f"No database with UUID `{key[1]}` exists.")
    if len(key) > 2:
        if not fields.is_uuid(key[2]):
            raise ReqlOpFailedError(f"Expected a UUID as the table, got {d.print_datum(key[2])}.")
        table = catalog.tables_by_uuid.get(key[2])
        if table is None or table.database != key[1]:
            raise ReqlOpFailedError(f"No table with UUID `{key[2]}` exists.")
    return key[0], tuple(key[1:])


def _check_names(change: Change, user: str, place: Place) -> None:
    """What a row says beside its key may not say otherwise."""
    new, catalog = change.new, change.catalog
    assert new is not None
    named: list[tuple[str, str]] = [("user", user)]
    if place:
        named.append(("database", place[0] if change.form == "uuid" else _database_name(catalog, place[0])))
    if len(place) > 1:
        named.append(("table", place[1] if change.form == "uuid" else catalog.tables_by_uuid[place[1]].name))
    for name, expected in named:
        if name not in new:
            continue
        given = new[name]
        if name != "user":
            given = fields.uuid(given) if change.form == "uuid" else fields.name(given, f"{name} name")
        if given != expected:
            raise ReqlOpFailedError(f"The key `{name}` does not match the primary key.")
