"""Who may read, write and configure what: RethinkDB's rules (auth/user.cc, user_context.cc, permissions.cc). Pure.

A permission is granted, denied or left open at three scopes: a table, its database, everything. The closest scope
that says something counts; nothing said is a no. One rule: the user `admin` may do everything, and is known by
`env.permissions` being None, so that it costs one comparison; all others are looked up at every use, so that a
grant holds from the next batch on.

The database of system tables does not inherit from the global scope: by default only `admin` sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from model import datum as d
from model.errors import ReqlOpFailedError, ReqlPermissionError

ADMIN: Final = "admin"
SYSTEM_DB: Final = "rethinkdb"
SYSTEM_DB_UUID: Final = "b99b9572-8e53-5fef-9a2b-5e6aba3edf1c"

LOCAL: Final = ("config", "read", "write")
GLOBAL: Final = ("config", "connect", "read", "write")

Scope = dict[str, bool]  # permission name to what it says; left out: nothing
_NOTHING: Final[dict[str, Any]] = {}


class Rights:
    """What a user's document grants: `{"global": Scope, "databases": {uuid: Scope}, "tables": {uuid: Scope}}`."""

    __slots__ = ("databases", "everywhere", "tables")

    def __init__(self, granted: Mapping[str, Any]) -> None:
        self.everywhere: Scope = granted.get("global", _NOTHING)
        self.databases: Mapping[str, Scope] = granted.get("databases", _NOTHING)
        self.tables: Mapping[str, Scope] = granted.get("tables", _NOTHING)

    def has(self, permission: str, database: str | None = None, table: str | None = None) -> bool:
        """Whether the user may, on a table (UUID), on a database as such, or anywhere."""
        said = None
        if table is not None:
            said = self.tables.get(table, _NOTHING).get(permission)
        if said is None and database is not None:
            said = self.databases.get(database, _NOTHING).get(permission)
        if said is None and database != SYSTEM_DB_UUID:
            said = self.everywhere.get(permission)
        return said is True


NO_RIGHTS: Final = Rights({})


class Permissions:
    """The rights of the user of one query; every check looks at the newest state. Not for `admin`."""

    __slots__ = ("_document", "_rights", "_world", "user")

    def __init__(self, world: Any, user: str) -> None:
        self.user = user
        self._world = world
        self._document: Any = None
        self._rights = NO_RIGHTS

    @property
    def rights(self) -> Rights:
        """What the user has now; nothing if there is no such user (any more)."""
        document = self._world.data.catalog.documents("users").get(self.user)
        if document is not self._document:
            self._document = document
            self._rights = NO_RIGHTS if document is None else Rights(document.get("permissions", _NOTHING))
        return self._rights

    def refusal(self, permission: str) -> ReqlPermissionError:
        return ReqlPermissionError(f"User `{self.user}` does not have the required `{permission}` permission.")

    def require(self, permission: str, database: str | None = None, table: str | None = None) -> None:
        """Raises ReqlPermissionError unless the user may. Whoever may not read may not write either."""
        rights = self.rights
        if not rights.has(permission, database, table) or (
            permission == "write" and not rights.has("read", database, table)
        ):
            raise self.refusal(permission)


def require_config(env: Any, database: str | None = None, table: str | None = None) -> None:
    """Raises unless the query's user may configure the table, the database, or everything."""
    if env.permissions is not None:
        env.permissions.require("config", database, table)


def require_config_of_all(env: Any, database: str, tables: Iterable[str]) -> None:
    """Raises unless the query's user may configure a database and each of its tables."""
    if env.permissions is not None:
        env.permissions.require("config", database)
        for table in tables:
            env.permissions.require("config", database, table)


def require_connect(env: Any) -> None:
    """Raises unless the query's user may make the server connect to others (`r.http`)."""
    if env.permissions is not None:
        env.permissions.require("connect")


def require_table(env: Any, permission: str, table: Any) -> None:
    """Raises unless the query's user may read or write a table of terms (`values.Table`)."""
    if env.permissions is not None:
        env.permissions.require(permission, table.db.uuid, table.source.uuid)


def merged(scope: Scope, change: Any, is_global: bool) -> Scope:
    """A scope after `grant`: true and false are said, null leaves it open again. Raises RethinkDB's errors."""
    if d.type_name(change) != "OBJECT":
        raise ReqlOpFailedError(f"Expected an object, got {d.print_datum(change)}.")
    out = dict(scope)
    for name in ("read", "write", "config", "connect"):
        if name not in change:
            continue
        if name == "connect" and not is_global:
            raise ReqlOpFailedError("The `connect` permission is only valid at the global scope.")
        said = change[name]
        if said is None:
            out.pop(name, None)
        elif said.__class__ is bool:
            out[name] = said
        else:
            raise ReqlOpFailedError(f"Expected a boolean or null for `{name}`, got {d.print_datum(said)}.")
    refuse_keys(set(change) - set(GLOBAL))
    return out


def refuse_keys(keys: Iterable[str]) -> None:
    """Raises if there are keys that nobody knows."""
    names = sorted(keys, key=str.encode)
    if names:
        raise ReqlOpFailedError(f"Unexpected key(s) `{'`, `'.join(names)}`.")


def with_scope(granted: Mapping[str, Any], place: tuple[str, ...], scope: Scope) -> dict[str, Any]:
    """A user's grants with those of one place replaced: (), (database UUID,) or (database UUID, table UUID)."""
    out = {**granted}
    if not place:
        out["global"] = scope
        return out
    kind = "databases" if len(place) == 1 else "tables"
    places = {**granted.get(kind, _NOTHING)}
    if scope:
        places[place[-1]] = scope
    else:
        places.pop(place[-1], None)
    out[kind] = places
    return out


def scope_at(granted: Mapping[str, Any], place: tuple[str, ...]) -> Scope:
    """What a user's grants say at one place."""
    kind = "databases" if len(place) == 1 else "tables"
    scope: Scope = granted.get(kind, _NOTHING).get(place[-1], {}) if place else granted.get("global", {})
    return scope
