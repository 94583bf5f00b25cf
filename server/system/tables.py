"""The list of all system tables of a server: the port that terms find them by.

One rule: a table is added by one `SystemTable`; nothing else knows how many there are.
"""

from __future__ import annotations

from typing import Any

from model.catalog import Catalog, Table
from proxy.reql.layouts import TaggedServer
from server.system.accounts import MakeCredential, credentials_table, make_at_once, users_table
from server.system.configs import TableConfigs, planned_row, table_config_row
from server.system.databases import db_config_table
from server.system.grants import permissions_table
from server.system.registry import Registry
from server.system.scratch import scratch_table
from server.system.servers import cluster_config_table, server_config_table, server_status_table
from server.system.site import Row, SeeServers, Server, Site, alone
from server.system.statuses import table_status_row, table_status_table
from server.system.table import SystemSource, SystemTable


class SystemTables:
    """The tables of database `rethinkdb`: those about the catalog from the start, others as they are added."""

    def __init__(
        self, site: Site, make_credential: MakeCredential = make_at_once, see_servers: SeeServers = alone
    ) -> None:
        self._registry = registry = Registry(site, see_servers)
        self._tables: dict[str, SystemTable] = {}
        self._names: dict[str, str] = {}  # by UUID
        self.add(
            cluster_config_table(),
            credentials_table(),
            db_config_table(),
            permissions_table(self._names.get),
            scratch_table(),
            server_config_table(registry),
            server_status_table(registry),
            TableConfigs(registry).declared(),
            table_status_table(registry),
            users_table(make_credential),
        )

    @property
    def site(self) -> Site:
        """What is known of this server; to be replaced once more is known."""
        return self._registry.site

    @site.setter
    def site(self, site: Site) -> None:
        self._registry.site = site

    def add(self, *tables: SystemTable) -> None:
        """Makes tables known by their names."""
        for table in tables:
            assert table.name not in self._tables, f"the system table {table.name} is there twice"
            self._tables[table.name] = table
            self._names[table.uuid] = table.name

    def names(self) -> list[str]:
        """The tables that `table_list` shows."""
        return sorted(table.name for table in self._tables.values() if table.is_listed)

    def source(self, env: Any, name: str, identifier_format: str) -> SystemSource | None:
        table = self._tables.get(name)
        return None if table is None else SystemSource(table, identifier_format)

    def table_config_row(self, env: Any, table: Table) -> Row:
        """The row of `table_config` for a stored table, identified by names."""
        return table_config_row(self._registry, env.data.catalog, table)

    def planned_config_row(self, env: Any, table: Table, shards: int) -> Row:
        """The row of `table_config` that a stored table would have with so many shards."""
        return planned_row(self._registry, env.data.catalog, table, shards)

    def table_status_row(self, env: Any, table: Table) -> Row:
        """The row of `table_status` for a stored table, identified by names."""
        return table_status_row(self._registry, env.data.catalog, table)

    def servers(self, catalog: Catalog) -> list[TaggedServer]:
        """The servers that tables can be put on."""
        return [server.tagged for server in self._registry.reached(catalog)]

    def all_servers(self, catalog: Catalog) -> list[Server]:
        """All servers of the cluster, by id, whether they answer or not."""
        return self._registry.servers(catalog)

    def is_complete(self, catalog: Catalog) -> bool:
        """Whether all replicas of all tables are there."""
        return all(server.is_reached for server in self._registry.servers(catalog))

    def own(self, catalog: Catalog) -> Server:
        """This server, as it is configured at the moment."""
        return self._registry.own(catalog)
