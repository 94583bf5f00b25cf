"""`table_status`: whether tables can be used, and where their replicas are (tables/table_status.cc)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model.catalog import Catalog, Table
from server.system.registry import Registry
from server.system.site import Row, Server, database_of
from server.system.table import SystemTable


def table_status_row(registry: Registry, catalog: Catalog, table: Table, form: str = "name") -> Row:
    """A row of `table_status`, which is also what `status` answers: a server that answers can do everything."""
    return {
        "db": database_of(catalog, table, form),
        "id": table.uuid,
        "name": table.name,
        **table_status_of(registry.servers(catalog), table, form),
    }


def table_status_of(servers: list[Server], table: Table, form: str) -> Row:
    """Where a table's replicas are, and what they can do."""
    leaders = [server.named(form) for server in servers if server.is_leader]
    replicas = [
        {"server": server.named(form), "state": "ready" if server.is_reached else "disconnected"} for server in servers
    ]
    shard = {"primary_replicas": leaders, "replicas": replicas}
    return {
        "raft_leader": leaders[0] if leaders else None,
        "shards": [shard] * table.options.get("shards", 1),
        "status": {
            "all_replicas_ready": all(server.is_reached for server in servers),
            "ready_for_outdated_reads": True,
            "ready_for_reads": True,
            "ready_for_writes": True,
        },
    }


def table_status_table(registry: Registry) -> SystemTable:
    def rows(env: Any, form: str) -> Iterator[Row]:
        catalog = env.data.catalog
        return (table_status_row(registry, catalog, table, form) for table in catalog.tables.values())

    def row(env: Any, key: Any, form: str) -> Row | None:
        table = env.data.catalog.tables_by_uuid.get(key) if key.__class__ is str else None
        return None if table is None else table_status_row(registry, env.data.catalog, table, form)

    return SystemTable("table_status", rows, row, is_listed=True)
