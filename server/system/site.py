"""What a server knows of itself and tells in system tables.

One rule: what was changed while servers run (a name, tags, a cache size) is in the catalog, so that all of them
know it; the rest, such as ports, is each server's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from model.catalog import Catalog, Table
from proxy.reql.layouts import DEFAULT_TAG, TaggedServer

SERVERS: Final = "servers"  # the catalog's collection: server id -> {"name", "tags", "cache_size_mb"}

Row = dict[str, Any]


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
    addresses: tuple[str, ...] = ()  # where this server can be reached; none: at its host name


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the cluster. is_voter: a learner's replicas do not vote. reaches: ids of servers it has a link to.

    cache_size_mb: as configured, a number or "auto".
    """

    site: Site
    tags: tuple[str, ...]
    cache_size_mb: Any
    is_voter: bool = True
    is_leader: bool = True
    is_reached: bool = True
    reaches: frozenset[str] = frozenset()

    @property
    def server_id(self) -> str:
        return self.site.server_id

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def tagged(self) -> TaggedServer:
        return TaggedServer(self.name, frozenset(self.tags))

    def named(self, form: str) -> str:
        """By name, or by UUID if `form` says so."""
        return self.server_id if form == "uuid" else self.name


def configured(site: Site, catalog: Catalog, **seen: Any) -> Server:
    """A server as it is configured at the moment; `seen` is what else is known of it."""
    changed: Mapping[str, Any] = catalog.documents(SERVERS).get(site.server_id, {})
    name = changed.get("name", site.name)
    return Server(
        site if name == site.name else replace(site, name=name),
        tuple(changed.get("tags", (DEFAULT_TAG,))),
        changed.get("cache_size_mb", "auto"),
        **seen,
    )


SeeServers = Callable[[Site, Catalog], list[Server]]
"""(this server's site, catalog) -> all servers of the cluster, by id."""


def alone(site: Site, catalog: Catalog) -> list[Server]:
    """The servers of a cluster of one."""
    return [configured(site, catalog)]


def database_of(catalog: Catalog, table: Table, form: str) -> str:
    """A table's database by name, or by UUID if `form` says so."""
    return table.database if form == "uuid" else catalog.databases_by_uuid[table.database].name
