"""`permissions`: what users were granted, a row for each place (auth/permissions_artificial_table_backend.cc).

One rule: grants live in the user's document, so they come and go with the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

NameOf = Callable[[str], str | None]
"""UUID of a system table -> its name, None if there is none."""


def permissions_table(name_of: NameOf) -> SystemTable:
    """The table; name_of: for grants on system tables, which the catalog does not know."""

    def rows(env: Any, form: str) -> Iterator[Row]:
        return _rows(_Names(env.data.catalog, name_of, form))

    def write(change: Change) -> Row | None:
        return _write(change, _Names(change.catalog, name_of, change.form))

    return SystemTable("permissions", rows, write=write, is_listed=True, changes_catalog=True)


@dataclass(frozen=True, slots=True)
class _Names:
    """How databases and tables are called in the rows. form: "name" or "uuid"."""

    catalog: Catalog
    name_of: NameOf
    form: str

    def database_of(self, table: str) -> str | None:
        """The UUID of a table's database; None if there is no such table."""
        found = self.catalog.tables_by_uuid.get(table)
        if found is not None:
            return found.database
        return None if self.name_of(table) is None else SYSTEM_DB_UUID

    def database(self, uuid: str) -> str:
        if self.form == "uuid":
            return uuid
        if uuid == SYSTEM_DB_UUID:
            return SYSTEM_DB
        database = self.catalog.databases_by_uuid.get(uuid)
        return "__deleted_database__" if database is None else database.name

    def table(self, uuid: str) -> str:
        if self.form == "uuid":
            return uuid
        return self.name_of(uuid) or self.catalog.tables_by_uuid[uuid].name


def _rows(names: _Names) -> Iterator[Row]:
    yield _row(names, ADMIN, (), dict.fromkeys(GLOBAL, True))
    yield _row(names, ADMIN, (SYSTEM_DB_UUID,), dict.fromkeys(LOCAL, True))
    for user, document in names.catalog.documents(USERS).items():
        if user != ADMIN:
            for place, scope in _places(names, document.get("permissions", {})):
                yield _row(names, user, place, scope)


def _places(names: _Names, granted: dict[str, Any]) -> Iterator[tuple[Place, Scope]]:
    if granted.get("global"):
        yield (), granted["global"]
    for database, scope in granted.get("databases", {}).items():
        yield (database,), scope
    for table, scope in granted.get("tables", {}).items():
        database = names.database_of(table)
        if database is not None:
            yield (database, table), scope


def _row(names: _Names, user: str, place: Place, scope: Scope) -> Row:
    row: Row = {"id": [user, *place], "permissions": scope, "user": user}
    if place:
        row["database"] = names.database(place[0])
    if len(place) > 1:
        row["table"] = names.table(place[1])
    return row


def _write(change: Change, names: _Names) -> Row | None:
    if change.key_is_made:
        raise ReqlOpFailedError("You must specify a primary key.")
    user, place = _parse_key(names, change.key)
    if user == ADMIN:
        raise ReqlOpFailedError(f"The permissions of the user `{user}` can't be modified.")
    document = change.catalog.documents(USERS).get(user)
    if document is None:
        raise ReqlOpFailedError(f"No user named `{user}`.")
    granted = document.get("permissions", {})
    scope: Scope = {}
    if change.new is not None:
        _check_names(change.new, names, user, place)
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
    return _row(names, user, place, scope)


def _parse_key(names: _Names, key: Any) -> tuple[str, Place]:
    if key.__class__ is not list or not 1 <= len(key) <= 3:
        raise ReqlOpFailedError(
            f"Expected an array of one to three items in the primary key, got {d.print_datum(key)}."
        )
    if key[0].__class__ is not str:
        raise ReqlOpFailedError(f"Expected a string as the username, got {d.print_datum(key[0])}.")
    if len(key) > 1:
        if not fields.is_uuid(key[1]):
            raise ReqlOpFailedError(f"Expected a UUID as the database, got {d.print_datum(key[1])}.")
        if key[1] != SYSTEM_DB_UUID and key[1] not in names.catalog.databases_by_uuid:
            raise ReqlOpFailedError(f"No database with UUID `{key[1]}` exists.")
    if len(key) > 2:
        if not fields.is_uuid(key[2]):
            raise ReqlOpFailedError(f"Expected a UUID as the table, got {d.print_datum(key[2])}.")
        if names.database_of(key[2]) != key[1]:
            raise ReqlOpFailedError(f"No table with UUID `{key[2]}` exists.")
    return key[0], tuple(key[1:])


def _check_names(new: Row, names: _Names, user: str, place: Place) -> None:
    """What a row says beside its key may not say otherwise."""
    named: list[tuple[str, str]] = [("user", user)]
    if place:
        named.append(("database", names.database(place[0])))
    if len(place) > 1:
        named.append(("table", names.table(place[1])))
    for name, expected in named:
        if name not in new:
            continue
        given = new[name]
        if name != "user":
            given = fields.uuid(given) if names.form == "uuid" else fields.name(given, f"{name} name")
        if given != expected:
            raise ReqlOpFailedError(f"The key `{name}` does not match the primary key.")
