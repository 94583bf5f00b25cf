"""The tables of the database `rethinkdb`: what a driver, a tool or a monitor asks about the server itself.

One rule: a system table is a function from the server's state to rows, called anew at every read, behind the
same port as stored tables, so that every term of ReQL works on it. Names, ids and shapes are RethinkDB's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from model import datum as d
from model import order
from model.catalog import Catalog, Table
from model.errors import ReqlOpFailedError, ReqlQueryLogicError
from model.pseudo_time import make_time
from proxy.reql.registry import fail
from proxy.reql.streams import MAX_CHUNK, IteratorStream, Stream
from proxy.reql.values import as_integer
from proxy.reql.writing import Stats
from server.system_writes import SystemWriter, Write
from server.views import Views

SYSTEM_DB: Final = "rethinkdb"
SYSTEM_DB_UUID: Final = "b99b9572-8e53-5fef-9a2b-5e6aba3edf1c"
TABLE_UUIDS: Final = UUID("0eabef01-6deb-4069-9a2d-448db057ab1e")

Row = dict[str, Any]
Rows = Callable[["Site", Catalog, str], list[Row]]  # (site, catalog, identifier_format) -> rows

DEFAULT_TAG: Final = "default"  # the server tag that every server has
ALL: Final = ("config", "connect", "read", "write")


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of this server beside its data. Ports are the ones it listens on; `started` is in seconds."""

    server_id: str
    name: str
    hostname: str
    version: str
    pid: int
    argv: tuple[str, ...]
    started: float
    cache_mb: float
    driver_port: int = 0
    cluster_port: int = 0
    http_port: int = 0


def database_of(catalog: Catalog, table: Table, form: str) -> str:
    """A table's database by name, or by UUID if `form` says so."""
    return table.database if form == "uuid" else catalog.databases_by_uuid[table.database].name


def server_of(site: Site, form: str) -> str:
    """This server by name, or by UUID if `form` says so."""
    return site.server_id if form == "uuid" else site.name


def table_config(site: Site, catalog: Catalog, table: Table, form: str = "name") -> Row:
    """A row of `table_config`, which is also what `config` answers."""
    server = server_of(site, form)
    shard = {"nonvoting_replicas": [], "primary_replica": server, "replicas": [server]}
    return {
        "db": database_of(catalog, table, form),
        "durability": table.options.get("durability", "hard"),
        "id": table.uuid,
        "indexes": sorted(table.indexes),
        "name": table.name,
        "primary_key": table.primary_key,
        "shards": [shard] * table.options.get("shards", 1),
        "write_acks": table.options.get("write_acks", "majority"),
        "write_hook": table.write_hook,
    }


def table_status(site: Site, catalog: Catalog, table: Table, form: str = "name") -> Row:
    """A row of `table_status`, which is also what `status` answers."""
    server = server_of(site, form)
    shard = {"primary_replicas": [server], "replicas": [{"server": server, "state": "ready"}]}
    return {
        "db": database_of(catalog, table, form),
        "id": table.uuid,
        "name": table.name,
        "raft_leader": server,
        "shards": [shard] * table.options.get("shards", 1),
        "status": {
            "all_replicas_ready": True,
            "ready_for_outdated_reads": True,
            "ready_for_reads": True,
            "ready_for_writes": True,
        },
    }


def _db_config(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return [{"id": database.uuid, "name": database.name} for database in catalog.databases.values()]


def _table_config(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return [table_config(site, catalog, table, form) for table in catalog.tables.values()]


def _table_status(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return [table_status(site, catalog, table, form) for table in catalog.tables.values()]


def _server_config(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return [{"cache_size_mb": site.cache_mb, "id": site.server_id, "name": site.name, "tags": ["default"]}]


def _server_status(site: Site, catalog: Catalog, form: str) -> list[Row]:
    network = {
        "canonical_addresses": [{"host": site.hostname, "port": site.cluster_port}],
        "cluster_port": site.cluster_port,
        "connected_to": {},
        "hostname": site.hostname,
        "http_admin_port": site.http_port or "<no http admin>",
        "reql_port": site.driver_port,
        "time_connected": make_time(site.started),
    }
    process = {
        "argv": list(site.argv),
        "cache_size_mb": site.cache_mb,
        "pid": site.pid,
        "time_started": make_time(site.started),
        "version": site.version,
    }
    return [{"id": site.server_id, "name": site.name, "network": network, "process": process}]


def _cluster_config(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return [{"heartbeat_timeout_secs": 10, "id": "heartbeat"}]


def _current_issues(site: Site, catalog: Catalog, form: str) -> list[Row]:
    return []


def _users(site: Site, catalog: Catalog, form: str) -> list[Row]:
    users = catalog.documents("users")
    return [{"id": name, "password": bool(document.get("has_password"))} for name, document in users.items()]


def _permissions(site: Site, catalog: Catalog, form: str) -> list[Row]:
    own = {"database": SYSTEM_DB, "id": ["admin", SYSTEM_DB_UUID], "user": "admin"}
    return [
        {"id": ["admin"], "permissions": dict.fromkeys(ALL, True), "user": "admin"},
        {**own, "permissions": {"config": True, "read": True, "write": True}},
    ]


TABLES: Final[dict[str, Rows]] = {
    "cluster_config": _cluster_config,
    "current_issues": _current_issues,
    "db_config": _db_config,
    "permissions": _permissions,
    "server_config": _server_config,
    "server_status": _server_status,
    "table_config": _table_config,
    "table_status": _table_status,
    "users": _users,
}


class SystemTables:
    """The port that terms find system tables by. `site` is replaced once the ports are known.

    The table `views` is ours and not RethinkDB's: it can be used, but is not listed.
    """

    def __init__(self, site: Site, views: Views) -> None:
        self.site = site
        self.views = views

    def names(self) -> list[str]:
        return sorted(TABLES)

    def table_config_row(self, env: Any, table: Table) -> Row:
        """The row of `table_config` for a stored table, identified by names."""
        return table_config(self.site, env.data.catalog, table)

    def check_replicas(self, env: Any, optargs: dict[str, Any]) -> int:
        """How many replicas the optargs of table_create or reconfigure ask for, refused where there are no servers."""
        wanted = optargs.get("replicas", 1)
        primary_tag = optargs.get("primary_replica_tag")
        if wanted.__class__ is dict:
            return self._check_tagged_replicas(wanted, primary_tag)
        if not d.is_number(wanted):
            fail(
                f"Expected type OBJECT or NUMBER but found {d.type_name(wanted)}:\n{d.print_datum(wanted)}", "replicas"
            )
        if "replicas" in optargs:
            for name in ("primary_replica_tag", "nonvoting_replica_tags"):
                if name in optargs:
                    fail(f"`replicas` must be an OBJECT if `{name}` is specified.", "replicas")
        count = as_integer(env, wanted)
        _check_count(count, DEFAULT_TAG)
        return count

    def _check_tagged_replicas(self, wanted: dict[str, Any], primary_tag: str | None) -> int:
        if primary_tag is None:
            fail("`primary_replica_tag` must be specified when `replicas` is an OBJECT.", "replicas")
        total = 0
        for tag, count in wanted.items():
            if not d.is_number(count) or count < 0:
                fail("Can't have a negative number of replicas", "replicas")
            if tag != DEFAULT_TAG:
                raise ReqlOpFailedError(f"Could not find any servers with server tag `{tag}`.")
            total += int(count)
            _check_count(total, tag)
        return total

    def source(self, env: Any, name: str, identifier_format: str) -> SystemTable | None:
        if name == "views":
            return SystemTable(name, lambda *_: self.views.rows(), self, identifier_format, self._write_view)
        rows = TABLES.get(name)
        return None if rows is None else SystemTable(name, rows, self, identifier_format)

    def _write_view(self, env: Any, key: Any, old: Any, new: Any) -> None:
        if new is None:
            self.views.close(key)
        elif old is not None or new != {"id": key}:
            raise ReqlQueryLogicError("A row of `rethinkdb.views` has an `id` and nothing else that could be written.")
        else:
            env.prepare_read()
            self.views.open(key)


class SystemTable:
    """One system table in one query: reads its rows, and refuses writes as RethinkDB refuses those that are wrong."""

    primary_key = "id"
    table = None

    def __init__(
        self, name: str, rows: Rows, tables: SystemTables, identifier_format: str, write: Write | None = None
    ) -> None:
        self._write = write or self._refuse
        self.name = name
        self.uuid = str(uuid5(TABLE_UUIDS, name))
        self._rows = rows
        self._tables = tables
        self._form = identifier_format

    def rows(self, env: Any) -> list[Row]:
        """All rows in the order of their ids."""
        env.prepare_read()
        rows = self._rows(self._tables.site, env.data.catalog, self._form)
        return sorted(rows, key=lambda row: order.sort_key(row["id"]))

    def row(self, env: Any, key: Any) -> Row | None:
        """The row under a key."""
        return next((row for row in self.rows(env) if order.equal(row["id"], key)), None)

    def get(self, env: Any, key: Any) -> bytes | None:
        row = self.row(env, key)
        return None if row is None else d.dumps(row)

    def get_many(self, env: Any, keys: Sequence[Any]) -> list[bytes | None]:
        return [self.get(env, key) for key in keys]

    def count(self, env: Any) -> int:
        return len(self.rows(env))

    def stream(self, env: Any, table: Any, part: Any) -> Stream:
        """The rows between the bounds of a TableSlice, in its order."""
        self._check_index(part.index)
        rows = [row for row in self.rows(env) if _within(row["id"], part)]
        if part.sorting < 0:
            rows.reverse()
        stream = IteratorStream(_in_chunks(rows))
        stream.ordered = part.sorting != 0
        return stream

    def get_all(self, env: Any, table: Any, keys: list[Any], index_name: str | None) -> Stream:
        self._check_index(index_name)
        rows = self.rows(env)
        return IteratorStream(_in_chunks([row for key in keys for row in rows if order.equal(row["id"], key)]))

    def writer(self, env: Any, stats: Stats) -> SystemWriter:
        """What writes to this table go through."""
        return SystemWriter(env, stats, lambda key: self.row(env, key), self._write)

    def _refuse(self, env: Any, key: Any, old: Any, new: Any) -> None:
        raise ReqlOpFailedError(f"It's illegal to write to the `{SYSTEM_DB}.{self.name}` table.")

    def _check_index(self, index: str | None) -> None:
        if index not in (None, self.primary_key):
            raise ReqlOpFailedError(f"Index `{index}` was not found on table `{SYSTEM_DB}.{self.name}`.")


def _check_count(count: int, tag: str) -> None:
    """Raises RethinkDB's errors unless one server can hold that many replicas."""
    if count < 1:
        raise ReqlOpFailedError(
            "You must set `replicas` to at least one. `replicas` includes the primary replica; if there are zero "
            "replicas, there is nowhere to put the data."
        )
    if count > 1:
        raise ReqlOpFailedError(
            f"Can't put {count} replicas on servers with the tag `{tag}` because there are only 1 servers with the "
            f"tag `{tag}`. It's impossible to have more replicas of the data than there are servers."
        )


def _within(key: Any, part: Any) -> bool:
    low, high = order.compare(key, part.low), order.compare(key, part.high)
    return (low > 0 or (low == 0 and not part.low_open)) and (high < 0 or (high == 0 and not part.high_open))


def _in_chunks(rows: list[Row]) -> Iterator[list[Row]]:
    for at in range(0, len(rows), MAX_CHUNK):
        yield rows[at : at + MAX_CHUNK]
