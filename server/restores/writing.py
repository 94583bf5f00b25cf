"""Puts rebuilt tables into the running server: rows through the log like any write, in a database of its own first.

    restoring_<id>   tables, rows, indexes   ──one entry──►   their names, their hooks

One rule: nothing is seen under its name before all of it is there; then all of it is, at one log index. What fails or
is cancelled leaves nothing, and what a crash leaves is dropped by the next leader.

Rows go into the log as they come, packed; where a member of the cluster does not know packed rows, one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from uuid import uuid4

from backup.selection import TableName
from model.catalog import Catalog, Database
from model.effect import PUT_ROW, PUT_ROWS, Effect, Kind, with_rows
from model.errors import BadSetting, Overloaded, ReqlError, RewindError
from proxy.answers import Fibers, WaitTimeout
from proxy.reql.env import Data
from proxy.reql.permissions import scope_at, with_scope
from server.backups.lane import Job
from server.restores.arrival import Arrived
from server.restores.asking import Target, check_free, is_taken, table_options

SCRATCH_NAME: Final = "restoring_"
SCRATCH_UUID: Final = "72657374-"  # what the UUIDs of databases of unfinished restores begin with
USERS: Final = "users"
BATCH_ROWS: Final = 250  # more per entry would keep other queries waiting for longer than 2 ms
BATCH_BYTES: Final = 256 << 10
MOST_UNDER_WAY: Final = 4  # entries in the log and not yet applied: the disk writes some while the next are read
MOST_BYTES_UNDER_WAY: Final = 16 << 20  # of rows, or one entry
LOOK_AGAIN_S: Final = 0.02


class Store(Data, Protocol):
    """The data, and commits whose end is waited for later."""

    def commit_later(self, effects: list[Effect], made: list[Effect] | None = None) -> Callable[[], None]: ...


def scratch_databases(catalog: Catalog) -> list[Database]:
    """Databases of restores that are not finished."""
    return [
        database
        for uuid, database in catalog.databases_by_uuid.items()
        if uuid.startswith(SCRATCH_UUID) and database.name.startswith(SCRATCH_NAME)
    ]


def drop_effects(database: Database) -> list[Effect]:
    """The effects that drop a database and its tables."""
    tables: list[Effect] = [(int(Kind.DROP_TABLE), table.table_id) for table in database.tables.values()]
    return [*tables, (int(Kind.DROP_DATABASE), database.uuid)]


class TableRestore:
    """One restore of tables, to be run in a fiber.

    take: waits for the next rows; None when there are no more. may_pack: whether packed rows may go into the log.
    on_rows: hears how many rows and bytes are written.
    """

    def __init__(
        self,
        data: Store,
        fibers: Fibers,
        targets: Sequence[Target],
        take: Callable[[], Arrived | None],
        may_pack: bool,
        replace: bool,
        job: Job,
        on_rows: Callable[[int, int], None],
    ) -> None:
        self._data = data
        self._fibers = fibers
        self._targets = targets
        self._take = take
        self._may_pack = may_pack
        self._replace = replace
        self._job = job
        self._on_rows = on_rows
        self.scratch_uuid = SCRATCH_UUID + str(uuid4())[len(SCRATCH_UUID) :]
        self._ids: dict[int, int] = {}  # table_id in the folder -> here
        self._sindexes: list[int] = []

    def run(self) -> tuple[int, int]:
        """(rows, bytes) restored. Raises what went wrong; then nothing is left of it."""
        self._data.change_catalog(self._begin)
        try:
            written = self._write_rows()
            self._job.update(phase="indexes")
            self._build_indexes()
            self._data.change_catalog(self._finish)
        except BaseException:
            with suppress(ReqlError, RewindError):  # what is left then is the next leader's to drop
                self._data.change_catalog(self._undo)
            raise
        return written

    # -- steps

    def _begin(self, catalog: Catalog, unused: Callable[[], int]) -> tuple[list[Effect], None]:
        self._check(catalog)
        effects: list[Effect] = [
            (int(Kind.CREATE_DATABASE), self.scratch_uuid, f"{SCRATCH_NAME}{self.scratch_uuid[-12:]}")
        ]
        for at, target in enumerate(self._targets):
            source = target.source
            table_id = self._ids[source["table_id"]] = unused()
            uuid = source["uuid"] if self._may_keep_uuid(catalog, target) else str(uuid4())
            options = table_options(source["options"])
            name = f"{at}_{source['table']}"
            effects.append(
                (int(Kind.CREATE_TABLE), table_id, uuid, self.scratch_uuid, name, source["primary_key"], options)
            )
        return effects, None

    def _check(self, catalog: Catalog) -> None:
        if not self._replace:
            check_free(catalog, self._targets)

    def _may_keep_uuid(self, catalog: Catalog, target: Target) -> bool:
        """A table that comes back as what it was keeps its UUID, and with it what users were granted on it."""
        source = target.source
        is_same = target.name == TableName(source["db"], source["table"])
        return is_same and _is_uuid(source["uuid"]) and source["uuid"] not in catalog.tables_by_uuid

    def _write_rows(self) -> tuple[int, int]:
        rows = size = 0
        names = {target.source["table_id"]: target.name for target in self._targets}
        under_way: deque[tuple[Callable[[], None], int]] = deque()
        bytes_under_way = 0
        table_id = None
        while (piece := self._take()) is not None:
            if piece.table_id != table_id:
                table_id = piece.table_id
                self._job.update(phase=f"rows of {names[table_id]}")
            for effects, made, entry_bytes in self._entries(piece):
                self._stop_if_cancelled()
                while under_way and (
                    len(under_way) == MOST_UNDER_WAY or bytes_under_way + entry_bytes > MOST_BYTES_UNDER_WAY
                ):
                    wait, waited_bytes = under_way.popleft()
                    bytes_under_way -= waited_bytes
                    wait()
                under_way.append((self._commit(effects, made), entry_bytes))
                bytes_under_way += entry_bytes
                self._fibers.breathe()
            rows += len(piece.rows)
            size += piece.row_bytes
            self._on_rows(rows, size)
        for wait, _ in under_way:
            wait()
        return rows, size

    def _commit(self, effects: list[Effect], made: list[Effect]) -> Callable[[], None]:
        """Puts an entry into the log, however long that is full of others' entries; what is returned waits for it."""
        while True:
            try:
                return self._data.commit_later(effects, made)
            except Overloaded:
                self._stop_if_cancelled()
                self._pause()

    def _entries(self, piece: Arrived) -> Iterator[tuple[list[Effect], list[Effect], int]]:
        """The effects of one entry after the other, for the log and for who applies them, and their bytes of rows."""
        table_id = self._ids[piece.table_id]
        if self._may_pack:
            effect = (PUT_ROWS, table_id, piece.packed)
            yield [effect], [with_rows(effect, piece.keys, piece.rows)], piece.row_bytes
        else:
            for effects in _batches(piece, table_id):
                yield effects, effects, sum(len(effect[3]) for effect in effects)

    def _build_indexes(self) -> None:
        self._data.change_catalog(self._declare_indexes)
        for index_id in self._sindexes:
            while not self._data.index_ready(index_id):
                self._stop_if_cancelled()
                self._pause()

    def _declare_indexes(self, catalog: Catalog, unused: Callable[[], int]) -> tuple[list[Effect], None]:
        effects: list[Effect] = []
        for target in self._targets:
            for index in target.source["indexes"]:
                index_id = unused()
                self._sindexes.append(index_id)
                table_id = self._ids[target.source["table_id"]]
                effects.append((int(Kind.CREATE_INDEX), table_id, index_id, index["name"], index["definition"]))
        return effects, None

    def _finish(self, catalog: Catalog, unused: Callable[[], int]) -> tuple[list[Effect], None]:
        """All tables get their names in one entry; those that are replaced go with it."""
        self._check(catalog)
        self._stop_if_cancelled()
        effects: list[Effect] = []
        databases = {name: database.uuid for name, database in catalog.databases.items()}
        for target in self._targets:
            database = target.name.database
            if database not in databases:
                databases[database] = _database_uuid(catalog, target, set(databases.values()))
                effects.append((int(Kind.CREATE_DATABASE), databases[database], database))
        moved: dict[str, str] = {}
        for target in self._targets:
            table_id = self._ids[target.source["table_id"]]
            if is_taken(catalog, target.name):
                old = catalog.databases[target.name.database].tables[str(target.name.table)]
                effects.append((int(Kind.DROP_TABLE), old.table_id))
                moved[old.uuid] = catalog.tables[table_id].uuid
            place = {"database": databases[target.name.database], "name": target.name.table}
            effects.append((int(Kind.ALTER_TABLE), table_id, place))
            if target.source["write_hook"] is not None:
                effects.append((int(Kind.SET_WRITE_HOOK), table_id, target.source["write_hook"]))
        effects.append((int(Kind.DROP_DATABASE), self.scratch_uuid))
        return [*effects, *_moved_grants(catalog, moved)], None

    def _undo(self, catalog: Catalog, unused: Callable[[], int]) -> tuple[list[Effect], None]:
        database = catalog.databases_by_uuid.get(self.scratch_uuid)
        return ([] if database is None else drop_effects(database)), None

    def _stop_if_cancelled(self) -> None:
        if self._job.cancelled:
            raise RewindError(self._job.cancelled)

    def _pause(self) -> None:
        with suppress(WaitTimeout):
            self._fibers.wait_for(lambda done: None, LOOK_AGAIN_S)


def _batches(piece: Arrived, table_id: int) -> Iterator[list[Effect]]:
    """Effects of single rows, few enough for others not to wait."""
    batch: list[Effect] = []
    size = 0
    for key, row in zip(piece.keys, piece.rows, strict=True):
        if batch and (len(batch) >= BATCH_ROWS or size + len(row) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((PUT_ROW, table_id, key, row))
        size += len(row)
    if batch:
        yield batch


def _is_uuid(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 36


def _database_uuid(catalog: Catalog, target: Target, taken: set[str]) -> str:
    """A database that comes back as what it was keeps its UUID."""
    uuid = target.source["db_uuid"]
    is_free = target.source["db"] == target.name.database and uuid not in catalog.databases_by_uuid
    return uuid if is_free and _is_uuid(uuid) and uuid not in taken else str(uuid4())


def _moved_grants(catalog: Catalog, moved: Mapping[str, str]) -> list[Effect]:
    """What users were granted on replaced tables goes over to those in their place."""
    effects: list[Effect] = []
    for user, document in catalog.documents(USERS).items():
        granted = before = document.get("permissions", {})
        for old, new in moved.items():
            scope = scope_at(granted, ("", old))
            if scope:
                granted = with_scope(with_scope(granted, ("", old), {}), ("", new), scope)
        if granted is not before:
            effects.append((int(Kind.PUT_SYSTEM), USERS, user, {**document, "permissions": granted}))
    return effects


def put_documents(data: Data, target: Target, rows: Sequence[tuple[bytes, bytes]]) -> None:
    """Puts single documents back into a table, in one entry. Raises BadSetting if it is not there, or not alike."""
    database = data.catalog.databases.get(target.name.database)
    table = None if database is None else database.tables.get(str(target.name.table))
    if table is None:
        raise BadSetting(
            f"Table {target.name} is not there, so no documents can be put back into it.",
            "Restore the whole table, or name another one with `as`.",
        )
    if table.primary_key != target.source["primary_key"]:
        raise BadSetting(
            f"The primary key of {target.name} is `{table.primary_key}`; at that moment it was "
            f"`{target.source['primary_key']}`."
        )
    effects: list[Effect] = [(PUT_ROW, table.table_id, key, row) for key, row in rows]
    if effects:
        data.commit(effects, "hard")
