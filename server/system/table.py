"""What a system table is, and how terms read it.

    SystemTable("backups", rows, write=write, is_listed=False)

One rule: a system table is a function from the server's state to rows, called anew at every read, behind the same
port as stored tables, so that every term of ReQL works on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

from model import datum as d
from model import order
from model.catalog import Catalog
from model.effect import Effect
from model.errors import ReqlOpFailedError
from proxy.reql.permissions import ADMIN, SYSTEM_DB, SYSTEM_DB_UUID
from proxy.reql.tables import ComputedRows
from proxy.reql.writing import Stats
from server.system.site import Row

TABLE_UUIDS: Final = UUID("0eabef01-6deb-4069-9a2d-448db057ab1e")


@dataclass(slots=True)
class Change:
    """One row that a query writes: `old` is what stands there (None for nothing), `new` what is to stand.

    key_is_made: the insert made the key up. form: "name" or "uuid". What is to become of the catalog is put into
    `effects`; `catalog` is the newest, and nobody else changes it meanwhile. `after` is called once the effects are
    applied, may wait, and gives the row to be shown; what it raises is the write's error.
    """

    env: Any
    key: Any
    old: Row | None
    new: Row | None
    key_is_made: bool
    form: str
    catalog: Catalog
    unused: Callable[[], int]
    effects: list[Effect] = field(default_factory=list)
    after: Callable[[], Row | None] | None = None


RowsOf = Callable[[Any, str], Iterable[Row]]
"""(env, identifier_format) -> all rows, in any order."""

RowOf = Callable[[Any, Any, str], Row | None]
"""(env, key, identifier_format) -> the row under a key, where that is cheaper than to make all rows."""

Write = Callable[[Change], Row | None]
"""Makes a change, or raises ReqlRuntimeError. Gives the row as it stands then, to be shown; None if there is none."""


@dataclass(frozen=True, slots=True)
class SystemTable:
    """A table of database `rethinkdb`.

    is_listed: shown by `table_list`; only RethinkDB's own are, because tools compare the list. changes_catalog:
    `write` gives effects, so it has to wait for its turn. admin_only: not even a grant lets others see it.
    only_grows: rows that are gone are too old to be kept, which feeds do not tell.
    """

    name: str
    rows: RowsOf
    row: RowOf | None = None
    write: Write | None = None
    key: str = "id"
    is_listed: bool = False
    changes_catalog: bool = False
    admin_only: bool = False
    only_grows: bool = False

    @property
    def uuid(self) -> str:
        return system_table_uuid(self.name)


def system_table_uuid(name: str) -> str:
    """The UUID of a system table, the same on every server (artificial_table/backend.cc)."""
    return str(uuid5(TABLE_UUIDS, name))


def refuse_writes(name: str, what: str = "table") -> Write:
    """The `write` of a table that takes none."""

    def refuse(change: Change) -> Row | None:
        raise ReqlOpFailedError(f"It's illegal to write to the `{SYSTEM_DB}.{name}` {what}.")

    return refuse


class SystemSource:
    """A system table in a query: the TableSource port. Every read asks whether the query's user may, still."""

    table: Final = None  # not stored

    def __init__(self, declared: SystemTable, identifier_format: str) -> None:
        self.declared = declared
        self.name = declared.name
        self.uuid = declared.uuid
        self.primary_key = declared.key
        self.only_grows = declared.only_grows
        self._form = identifier_format

    # -- reads

    def require(self, env: Any, permission: str) -> None:
        """Raises ReqlPermissionError unless the query's user may read or write this table."""
        if env.permissions is not None:
            env.permissions.require(permission, SYSTEM_DB_UUID, self.uuid)
            if self.declared.admin_only:
                raise env.permissions.refusal(ADMIN)

    def rows(self, env: Any) -> list[Row]:
        """All rows in the order of their keys."""
        self.require(env, "read")
        return self._all(env)

    def row(self, env: Any, key: Any) -> Row | None:
        """The row under a key, whoever asks."""
        env.prepare_read()
        find = self.declared.row
        if find is not None:
            return find(env, key, self._form)
        name = self.primary_key
        return next((row for row in self.declared.rows(env, self._form) if order.equal(row[name], key)), None)

    def _all(self, env: Any) -> list[Row]:
        env.prepare_read()
        return sorted(self.declared.rows(env, self._form), key=lambda row: order.sort_key(row[self.primary_key]))

    def get(self, env: Any, key: Any) -> bytes | None:
        self.require(env, "read")
        return self.text(env, key)

    def text(self, env: Any, key: Any) -> bytes | None:
        """The row's JSON text, whoever asks: for terms that have checks of their own."""
        row = self.row(env, key)
        return None if row is None else d.dumps(row)

    def get_many(self, env: Any, keys: Sequence[Any]) -> list[bytes | None]:
        return [self.get(env, key) for key in keys]

    def count(self, env: Any) -> int:
        return len(self.rows(env))

    def doc_counts(self, env: Any) -> list[int]:
        """The number of rows, as RethinkDB's `info` tells everybody."""
        return [len(self._all(env))]

    def stream(self, env: Any, table: Any, part: Any) -> ComputedRows:
        """The rows between the bounds of a TableSlice, in its order."""
        self._check_index(part.index)

        def read(env: Any) -> list[Row]:
            rows = [row for row in self.rows(env) if _within(row[self.primary_key], part)]
            return rows[::-1] if part.sorting < 0 else rows

        stream = ComputedRows(self, read, read(env))
        stream.ordered = part.sorting != 0
        return stream

    def get_all(self, env: Any, table: Any, keys: list[Any], index_name: str | None) -> ComputedRows:
        self._check_index(index_name)

        def read(env: Any) -> list[Row]:
            rows = self.rows(env)
            return [row for key in keys for row in rows if order.equal(row[self.primary_key], key)]

        return ComputedRows(self, read, read(env))

    def _check_index(self, name: str | None) -> None:
        if name is not None and name != self.primary_key:
            raise ReqlOpFailedError(f"Index `{name}` was not found on table `{SYSTEM_DB}.{self.name}`.")

    # -- writes

    def writer(self, env: Any, stats: Stats) -> Any:
        """What writes to this table go through."""
        from server.system.writing import SystemWriter

        return SystemWriter(env, stats, self, self._form)


def _within(key: Any, part: Any) -> bool:
    low, high = order.compare(key, part.low), order.compare(key, part.high)
    return (low > 0 or (low == 0 and not part.low_open)) and (high < 0 or (high == 0 and not part.high_open))
