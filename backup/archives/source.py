"""What a dump or an export reads from a server: tables, their descriptions, their rows, users.

All tables are read at one point in time if the server can hold a view: a row inserted into its system table
`views` is a fixed state of everything, the run option `view` with the row's id reads from it, deleting the row
lets it go. RethinkDB has no such table; then each table is read when its turn comes. One rule: what is missing at
the end, compared with the beginning, is an error.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from rethinkdb.errors import ReqlError, ReqlOpFailedError

from backup.driver_link import LOST, RAW_FORMATS, TRIES, Session, Target, r, read_rows
from backup.selection import SYSTEM_DATABASE, Selection, TableName
from model.errors import ToolFailed

_QUEUED_BATCHES = 16
_WRITE_HOOKS_SINCE = (2, 3, 7)


@dataclass
class SourceTable:
    """A table to be read. info, indexes, hook: as the server gives them; settings: durability and the like."""

    name: TableName
    id: str
    primary_key: str
    info: dict[str, Any]
    indexes: list[dict[str, Any]]
    hook: dict[str, Any] | None
    settings: dict[str, Any]

    @property
    def rows_estimate(self) -> int:
        return int(sum(self.info.get("doc_count_estimates") or [0]))


@dataclass
class Source:
    """The server and the state of it that is read. view: id of the fixed view, None if there is none.

    log_index: the view's place in the server's log, 0 if it is not known.
    """

    target: Target
    version: str
    session: Session
    view: str | None
    options: dict[str, Any]
    log_index: int = 0
    tables: list[SourceTable] = field(default_factory=list)

    def close(self) -> None:
        """Lets the view go."""
        if self.view is not None:
            view, self.view = self.view, None
            last = Session(self.target)
            with suppress(ToolFailed):  # the server lets it go by itself when nobody has read from it for a while
                last.run("let the view go", r.db(SYSTEM_DATABASE).table("views").get(view).delete())
            last.close()
        self.session.close()


def open_source(target: Target, version: str, *, outdated: bool = False) -> Source:
    """Connects and takes a view, if the server has views. outdated: read mode, where there is no view."""
    view, log_index = _take_view(target)
    options: dict[str, Any] = {"view": view} if view is not None else {}
    if view is None and outdated:
        options["read_mode"] = "outdated"
    return Source(target, version, Session(target, options), view, options, log_index)


def _take_view(target: Target) -> tuple[str | None, int]:
    """(id, log index) of a new view, (None, 0) where there are no views."""
    views = r.db(SYSTEM_DATABASE).table("views")
    connection = target.connect()
    try:
        answer = views.insert({}).run(connection)
        if answer["errors"]:
            raise ToolFailed(f"The server gave no view: {answer['first_error']}")
        view = answer["generated_keys"][0]
        row = views.get(view).run(connection) or {}
        return view, int(row.get("log_index", 0))
    except ReqlError as error:
        if isinstance(error, ReqlOpFailedError) and "does not exist" in error.message:
            return None, 0
        raise ToolFailed(f"The server gave no view: {error.message}") from error
    finally:
        connection.close(noreply_wait=False)


def choose_tables(source: Source, selection: Selection, version: tuple[int, ...]) -> None:
    """Fills in `source.tables` with all that is known about the selected tables but their rows."""
    session = source.session
    configs = session.run("list tables", r.db(SYSTEM_DATABASE).table("table_config"))
    databases = session.run("list dbs", r.db_list())
    by_name = {TableName(config["db"], config["name"]): config for config in configs}
    for name in selection.choose(list(by_name), databases):
        table = r.db(name.database).table(name.table)
        info = session.run(f"table info: {name}", table.info())
        indexes = session.run(f"table index data {name}", table.index_status(), binary_format="raw")
        hook = None
        if version >= _WRITE_HOOKS_SINCE:
            hook = session.run(f"table write hook data {name}", table.get_write_hook(), binary_format="raw")
        config = by_name[name]
        settings = {key: config[key] for key in ("durability", "write_acks", "data") if key in config}
        source.tables.append(SourceTable(name, config["id"], info["primary_key"], info, indexes, hook, settings))


def check_still_there(source: Source) -> None:
    """ToolFailed if a table is gone or another one bears its name. With a view this cannot happen."""
    if source.view is not None:
        return
    configs = source.session.run("list tables", r.db(SYSTEM_DATABASE).table("table_config").pluck("db", "name", "id"))
    now = {(config["db"], config["name"]): config["id"] for config in configs}
    for table in source.tables:
        if now.get(table.name) != table.id:
            raise ToolFailed(
                f"The table {table.name} was dropped or replaced while it was read.", "Start again for a whole copy."
            )


class RowStreams:
    """Reads the tables of a source with some connections ahead of the one who takes them, in order.

    Memory is bounded by the batches queued for each table that is being read.
    """

    def __init__(self, source: Source, clients: int) -> None:
        self._source = source
        self._streams: list[queue.Queue[list[bytes] | Exception | None]] = [
            queue.Queue(_QUEUED_BATCHES) for _ in source.tables
        ]
        self._turn = iter(range(len(source.tables)))
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        count = max(1, min(clients, len(source.tables)))
        self._threads = [threading.Thread(target=self._work, name="read tables", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def rows(self, index: int) -> Iterator[list[bytes]]:
        """The rows of the table with that index, in batches. Raises what its reader raised."""
        stream = self._streams[index]
        while True:
            item = stream.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def stop(self) -> None:
        """Lets the threads end; what they were reading is lost."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _work(self) -> None:
        session = Session(self._source.target, self._source.options)
        try:
            while (index := self._next()) is not None:
                self._read(session, index)
        finally:
            session.close()

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped.is_set() else next(self._turn, None)

    def _read(self, session: Session, index: int) -> None:
        stream = self._streams[index]
        try:
            for batch in table_rows(session, self._source, self._source.tables[index]):
                if not self._put(stream, batch):
                    return
            self._put(stream, None)
        except ReqlError as error:
            name = self._source.tables[index].name
            self._put(stream, ToolFailed(f"Reading {name} failed: {error.message}"))
        except Exception as error:  # whatever it is, it belongs to the thread that takes the rows
            self._put(stream, error)

    def _put(self, stream: queue.Queue[Any], item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                stream.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False


def table_rows(session: Session, source: Source, table: SourceTable) -> Iterator[list[bytes]]:
    """All rows of a table in the order of its primary key, in batches.

    A lost connection is taken up again behind the last row if there is a view, which cannot have changed; without
    a view the second half would be of a later time than the first, so then it is an error.
    """
    base = r.db(table.name.database).table(table.name.table)
    last: bytes | None = None
    failures = 0
    while True:
        selection = base
        if last is not None:
            key = orjson.loads(last)[table.primary_key]
            selection = base.between(key, r.maxval, left_bound="open")
        try:
            for batch in read_rows(session.connection, selection.order_by(index=table.primary_key), session.options):
                last = batch[-1]
                failures = 0
                yield batch
            return
        except LOST as error:
            session.close()
            failures += 1
            if source.view is None or failures == TRIES:
                raise ToolFailed(f"The connection was lost while {table.name} was read: {error.message}") from error


def read_accounts(source: Source) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    """Users with their credentials where the server gives them out, and permissions; (None, None) if not allowed.

    RewindDB's system table `user_credentials` holds {"id": name, "iterations", "salt", "stored_key", "server_key"}.
    RethinkDB only says whether a user has a password.
    """
    system = r.db(SYSTEM_DATABASE)
    try:
        users = source.session.run("list users", system.table("users"))
        permissions = source.session.run("list permissions", system.table("permissions"))
    except ToolFailed:
        return None, None
    try:
        rows = source.session.run("list credentials", system.table("user_credentials"), **RAW_FORMATS)
    except ToolFailed:
        rows = []
    credentials = {row["id"]: {key: value for key, value in row.items() if key != "id"} for row in rows}
    for user in users:
        if user["id"] in credentials:
            user["credentials"] = credentials[user["id"]]
    return users, permissions
