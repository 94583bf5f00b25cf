"""Tables about servers: server_config, server_status, cluster_config (clustering/administration/servers)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from model import datum as d
from model.effect import Kind
from model.errors import ReqlOpFailedError
from model.pseudo_time import make_time
from server.system import fields
from server.system.registry import Registry
from server.system.site import SERVERS, Row, Server
from server.system.table import Change, SystemTable

log = logging.getLogger("rewinddb.server")

CLUSTER: Final = "cluster"  # the catalog's collection: "heartbeat" -> {"heartbeat_timeout_secs"}
HEARTBEAT_S: Final = 10
MIN_HEARTBEAT_S: Final = 2
MAX_CACHE_MB: Final = (1 << 63) / (1 << 20)
WRONG_FORMAT: Final = "The row you're trying to put into `rethinkdb.server_config` has the wrong format. "


def server_config_row(server: Server) -> Row:
    return {
        "cache_size_mb": server.cache_size_mb,
        "id": server.server_id,
        "name": server.name,
        "tags": sorted(server.tags),
    }


def server_config_table(registry: Registry) -> SystemTable:
    def rows(env: Any, form: str) -> Iterator[Row]:
        return map(server_config_row, registry.reached(env.data.catalog))

    def write(change: Change) -> Row | None:
        if change.old is None and change.new is None:
            return None
        if change.old is None:
            raise ReqlOpFailedError("It's illegal to insert new rows into the `rethinkdb.server_config` system table.")
        if change.new is None:
            raise ReqlOpFailedError("It's illegal to delete rows from the `rethinkdb.server_config` system table.")
        with fields.within(WRONG_FORMAT):
            server_id, document = _read_server(change.new)
        _check_collision(registry.servers(change.catalog), server_id, change.old["name"], document["name"])
        if {"id": server_id, **document} != change.old:
            change.effects.append((int(Kind.PUT_SYSTEM), SERVERS, server_id, document))
            if document["name"] != change.old["name"]:
                change.after = _logged(change.old["name"], change.new)
        return change.new

    return SystemTable("server_config", rows, write=write, is_listed=True, changes_catalog=True)


def _logged(old_name: str, new: Row) -> Callable[[], Row]:
    def after() -> Row:
        log.info("Changed server's name from `%s` to `%s`.", old_name, new["name"])
        return new

    return after


def _read_server(new: Row) -> tuple[str, Row]:
    """(server id, the document to be kept of it)"""
    row = fields.Fields(new)
    given = row.take("name")
    with fields.within("In `name`: "):
        name = fields.name(given, "server name")
    given = row.take("id")
    with fields.within("In `id`: "):
        server_id = fields.uuid(given, "server ID")
    given = row.take("tags")
    with fields.within("In `tags`: "):
        tags = set(fields.array_of(given, lambda tag: fields.name(tag, "server tag")))
    cache_mb = _read_cache_size(row.take("cache_size_mb"))
    row.end()
    return server_id, {"name": name, "tags": sorted(tags), "cache_size_mb": cache_mb}


def _read_cache_size(given: Any) -> Any:
    if given == "auto":
        return given
    if not d.is_number(given):
        raise ReqlOpFailedError(f"In `cache_size_mb`: Expected a number or 'auto', got {d.print_datum(given)}")
    if given > MAX_CACHE_MB:
        raise ReqlOpFailedError("In `cache_size_mb`: Value is too big.")
    if given < 0:
        raise ReqlOpFailedError("In `cache_size_mb`: Cache size cannot be negative.")
    return given


def _check_collision(servers: list[Server], server_id: str, old: str, new: str) -> None:
    if any(server.server_id != server_id and server.name == new for server in servers):
        raise ReqlOpFailedError(f"Cannot rename server `{old}` to `{new}` because server `{new}` already exists.")


def server_status_table(registry: Registry) -> SystemTable:
    def rows(env: Any, form: str) -> Iterator[Row]:
        servers = registry.servers(env.data.catalog)
        return (_server_status_row(server, servers, form) for server in servers if server.is_reached)

    return SystemTable("server_status", rows, is_listed=True)


def _server_status_row(server: Server, servers: list[Server], form: str) -> Row:
    site = server.site
    network = {
        "canonical_addresses": [
            {"host": host, "port": site.cluster_port} for host in site.addresses or (site.hostname,)
        ],
        "cluster_port": site.cluster_port,
        "connected_to": {
            other.named(form): other.server_id in server.reaches for other in servers if other is not server
        },
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
    return {"id": site.server_id, "name": site.name, "network": network, "process": process}


def cluster_config_table() -> SystemTable:
    def rows(env: Any, form: str) -> list[Row]:
        changed = env.data.catalog.documents(CLUSTER).get("heartbeat", {})
        seconds = changed.get("heartbeat_timeout_secs", HEARTBEAT_S)
        return [{"heartbeat_timeout_secs": seconds, "id": "heartbeat"}]

    return SystemTable("cluster_config", rows, write=_write_cluster_config, is_listed=True, changes_catalog=True)


def _write_cluster_config(change: Change) -> Row | None:
    if change.new is None:
        raise ReqlOpFailedError("It's illegal to delete rows from the `rethinkdb.cluster_config` table.")
    if change.old is None:
        raise ReqlOpFailedError("It's illegal to insert new rows into the `rethinkdb.cluster_config` table.")
    row = fields.Fields(change.new)
    row.take("id")
    seconds = row.take("heartbeat_timeout_secs")
    if not d.is_number(seconds):
        raise ReqlOpFailedError(f"Expected a number; got {d.print_datum(seconds)}")
    if seconds < MIN_HEARTBEAT_S:
        raise ReqlOpFailedError("The heartbeat timeout must be at least two seconds")
    row.end()
    if seconds != change.old["heartbeat_timeout_secs"]:
        document = {"heartbeat_timeout_secs": seconds}
        change.effects.append((int(Kind.PUT_SYSTEM), CLUSTER, "heartbeat", document))
    return change.new
