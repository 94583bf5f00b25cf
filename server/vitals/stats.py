"""`stats`: rows for the cluster, each server, each table, and each table on each server (stats/request.cc).

One rule: rows and fields are RethinkDB's, so that what draws its charts can draw ours; a row that RethinkDB has not is
found by its key alone. What the engine keeps for all tables together (bytes in cache and on disk) is told in
proportion to their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from model import datum as d
from model.catalog import Catalog, Table
from server.system import Row, SystemTable, SystemTables
from server.system.fields import is_uuid
from server.system.site import Server, database_of
from server.vitals.rates import Ledger, TableRates

UNKNOWN: Final = "Timed out. Unable to retrieve stats."  # of other servers


class Connections(Protocol):
    """What is asked of `proxy.clients.Clients`."""

    queries_total: int
    members: Any

    @property
    def active(self) -> int: ...


class Stalls(Protocol):
    """What is asked of `server.cluster.stalls.StallMeter`."""

    too_long: int

    def longest_ms(self) -> float: ...


class Stats:
    """The table `stats` of one server. sizes: bytes of the storage engine by name (`RocksEngine.sizes`)."""

    def __init__(
        self,
        system: SystemTables,
        ledger: Ledger,
        connections: Connections,
        sizes: Callable[[], dict[str, int]],
        stalls: Stalls,
    ) -> None:
        self._system = system
        self._ledger = ledger
        self._connections = connections
        self._sizes = sizes
        self._stalls = stalls

    def declared(self) -> SystemTable:
        return SystemTable("stats", self._rows, self._row, is_listed=True)

    def _rows(self, env: Any, form: str) -> Iterator[Row]:
        catalog = env.data.catalog
        storage = self._storage(env)
        servers = [server for server in self._system.all_servers(catalog) if server.is_reached]
        yield self._cluster()
        for server in servers:
            yield self._server(server, form)
        for table in catalog.tables.values():
            yield self._table(catalog, table, form)
            for server in servers:
                yield self._table_on_server(env, table, server, form, storage)

    def _row(self, env: Any, key: Any, form: str) -> Row | None:
        if key.__class__ is not list or not key:
            return None
        kind, *ids = key
        if any(not is_uuid(part) for part in ids):
            return None
        catalog = env.data.catalog
        servers = {server.server_id: server for server in self._system.all_servers(catalog) if server.is_reached}
        if kind == "cluster" and not ids:
            return self._cluster()
        if kind == "server" and len(ids) == 1 and ids[0] in servers:
            return self._server(servers[ids[0]], form)
        if kind == "reactor" and len(ids) == 1 and ids[0] in servers:
            return self._reactor(servers[ids[0]], form)
        table = catalog.tables_by_uuid.get(ids[0]) if ids else None
        if table is None:
            return None
        if kind == "table" and len(ids) == 1:
            return self._table(catalog, table, form)
        if kind == "table_server" and len(ids) == 2 and ids[1] in servers:
            return self._table_on_server(env, table, servers[ids[1]], form, self._storage(env))
        return None

    # -- rows

    def _cluster(self) -> Row:
        tables = self._ledger.all()
        return {
            "id": ["cluster"],
            "query_engine": {
                "client_connections": len(self._connections.members),
                "clients_active": self._connections.active,
                "queries_per_sec": d.number(self._ledger.queries_per_s),
                **_docs_per_sec(tables),
            },
        }

    def _server(self, server: Server, form: str) -> Row:
        row = {"id": ["server", server.server_id], "server": server.named(form)}
        if server.server_id != self._system.site.server_id:
            return {**row, "error": UNKNOWN}
        tables = self._ledger.all()
        return {
            **row,
            "query_engine": {
                "client_connections": len(self._connections.members),
                "clients_active": self._connections.active,
                "queries_per_sec": d.number(self._ledger.queries_per_s),
                "queries_total": self._connections.queries_total,
                **_docs_per_sec(tables),
                **_docs_total(tables),
            },
        }

    def _reactor(self, server: Server, form: str) -> Row:
        """How smoothly a server runs."""
        row = {"id": ["reactor", server.server_id], "server": server.named(form)}
        if server.server_id != self._system.site.server_id:
            return {**row, "error": UNKNOWN}
        stalls = self._stalls
        longest_ms = d.number(round(stalls.longest_ms(), 1))
        return {**row, "longest_stall_ms": longest_ms, "stalls_over_50_ms": stalls.too_long}

    def _table(self, catalog: Catalog, table: Table, form: str) -> Row:
        return {
            "db": database_of(catalog, table, form),
            "id": ["table", table.uuid],
            "query_engine": _docs_per_sec([self._ledger.rates(table.table_id)]),
            "table": table.uuid if form == "uuid" else table.name,
        }

    def _table_on_server(self, env: Any, table: Table, server: Server, form: str, storage: _Storage) -> Row:
        row = {
            "db": database_of(env.data.catalog, table, form),
            "id": ["table_server", table.uuid, server.server_id],
            "server": server.named(form),
            "table": table.uuid if form == "uuid" else table.name,
        }
        if server.server_id != self._system.site.server_id:
            return {**row, "error": UNKNOWN}
        rates = self._ledger.rates(table.table_id)
        return {
            **row,
            "query_engine": {**_docs_per_sec([rates]), **_docs_total([rates])},
            "storage_engine": storage.of(env.data.count(table.table_id), rates),
        }

    def _storage(self, env: Any) -> _Storage:
        rows = sum(map(env.data.count, env.data.catalog.tables))
        return _Storage(self._sizes(), rows)


def _docs_per_sec(tables: list[TableRates]) -> Row:
    return {
        "read_docs_per_sec": d.number(sum(table.read_per_s for table in tables)),
        "written_docs_per_sec": d.number(sum(table.written_per_s for table in tables)),
    }


def _docs_total(tables: list[TableRates]) -> Row:
    return {
        "read_docs_total": sum(table.read for table in tables),
        "written_docs_total": sum(table.written for table in tables),
    }


class _Storage:
    """The storage engine's sizes, to be told in shares."""

    def __init__(self, sizes: dict[str, int], rows: int) -> None:
        self._rows = max(1, rows)
        self._cache = sizes.get("cache_bytes", 0)  # memtables are a part of it
        self._live = sizes.get("live_bytes", 0)
        self._garbage = max(0, sizes.get("file_bytes", 0) - self._live)
        self._metadata = sizes.get("table_reader_bytes", 0)

    def of(self, rows: int, rates: TableRates) -> Row:
        """`storage_engine` of a table with so many rows."""
        share = rows / self._rows
        return {
            "cache": {"in_use_bytes": int(self._cache * share)},
            "disk": {
                "read_bytes_per_sec": int(rates.disk_read_per_s),
                "read_bytes_total": int(rates.disk_read),
                "space_usage": {
                    "data_bytes": int(self._live * share),
                    "garbage_bytes": int(self._garbage * share),
                    "metadata_bytes": int(self._metadata * share),
                    "preallocated_bytes": 0,
                },
                "written_bytes_per_sec": int(rates.disk_written_per_s),
                "written_bytes_total": int(rates.disk_written),
            },
        }
