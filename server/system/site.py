"""What a server knows of itself and tells in system tables.

One rule: what was changed while servers run (a name, tags, a cache size) is in the catalog, so that all of them
know it; the rest, such as ports, is each server's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
class ServerConfig:
    """A row of `server_config`. cache_size_mb: a number or "auto"."""

    server_id: str
    name: str
    tags: tuple[str, ...]
    cache_size_mb: Any

    @property
    def tagged(self) -> TaggedServer:
        return TaggedServer(self.name, frozenset(self.tags))


def server_configs(site: Site, catalog: Catalog) -> list[ServerConfig]:
    """All servers, as they are configured at the moment."""
    return [server_config(site, catalog)]


def server_config(site: Site, catalog: Catalog) -> ServerConfig:
    """This server, as it is configured at the moment."""
    changed: Mapping[str, Any] = catalog.documents(SERVERS).get(site.server_id, {})
    return ServerConfig(
        site.server_id,
        changed.get("name", site.name),
        tuple(changed.get("tags", (DEFAULT_TAG,))),
        changed.get("cache_size_mb", "auto"),
    )


def server_of(site: Site, catalog: Catalog, form: str) -> str:
    """This server by name, or by UUID if `form` says so."""
    return site.server_id if form == "uuid" else server_config(site, catalog).name


def database_of(catalog: Catalog, table: Table, form: str) -> str:
    """A table's database by name, or by UUID if `form` says so."""
    return table.database if form == "uuid" else catalog.databases_by_uuid[table.database].name
