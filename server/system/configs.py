"""`table_config`: how tables are set up; changed rows rename, move and reconfigure them (tables/table_config.cc).

One rule: what a row says is checked as a whole, against the newest catalog, before anything is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model import datum as d
from model.catalog import Catalog, Table
from model.effect import Kind
from model.errors import ReqlOpFailedError
from proxy.reql.layouts import MAX_SHARDS
from proxy.reql.permissions import require_config
from proxy.reql.terms.indexes import write_hook_row
from server.system import fields
from server.system.registry import Registry
from server.system.site import Row, Server, database_of
from server.system.table import Change, SystemTable

WRONG_FORMAT = "The change you're trying to make to `rethinkdb.table_config` has the wrong format. "


def table_config_row(registry: Registry, catalog: Catalog, table: Table, form: str = "name") -> Row:
    """A row of `table_config`, which is also what `config` answers."""
    return _row_of(registry, catalog, table, table.options, form)


def planned_row(registry: Registry, catalog: Catalog, table: Table, shards: int) -> Row:
    """The row of `table_config` that a table would have with so many shards."""
    return _row_of(registry, catalog, table, {**table.options, "shards": shards}, "name")


def _row_of(registry: Registry, catalog: Catalog, table: Table, options: dict[str, Any], form: str) -> Row:
    servers = registry.servers(catalog)
    leader = next((server for server in servers if server.is_leader), registry.own(catalog))
    shard = {
        "nonvoting_replicas": [server.named(form) for server in servers if not server.is_voter],
        "primary_replica": leader.named(form),
        "replicas": [server.named(form) for server in servers],
    }
    return {
        "db": database_of(catalog, table, form),
        "durability": options.get("durability", "hard"),
        "id": table.uuid,
        "indexes": sorted(table.indexes),
        "name": table.name,
        "primary_key": table.primary_key,
        "shards": [shard] * options.get("shards", 1),
        "write_acks": options.get("write_acks", "majority"),
        "write_hook": write_hook_row(table.write_hook),
    }


@dataclass(slots=True)
class Wanted:
    """What a row asks for. database: UUID."""

    name: str
    database: str
    primary_key: str = "id"
    shards: int = 1
    write_acks: str = "majority"
    durability: str = "hard"


class TableConfigs:
    """The table `table_config` of one server."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def declared(self) -> SystemTable:
        return SystemTable("table_config", self._rows, self._row, self._write, is_listed=True, changes_catalog=True)

    def _rows(self, env: Any, form: str) -> Iterator[Row]:
        catalog = env.data.catalog
        return (table_config_row(self._registry, catalog, table, form) for table in catalog.tables.values())

    def _row(self, env: Any, key: Any, form: str) -> Row | None:
        table = env.data.catalog.tables_by_uuid.get(key) if key.__class__ is str else None
        return None if table is None else table_config_row(self._registry, env.data.catalog, table, form)

    def _write(self, change: Change) -> Row | None:
        table = change.catalog.tables_by_uuid.get(change.key) if change.key.__class__ is str else None
        if table is not None:
            require_config(change.env, table.database, table.uuid)
            return self._change(change, table)
        if change.new is None:
            return None
        if not change.key_is_made:
            raise ReqlOpFailedError(
                "There is no existing table with the given ID. To create a new table by inserting into "
                "`rethinkdb.table_config`, you must let the database generate the primary key automatically."
            )
        return self._create(change)

    def _change(self, change: Change, table: Table) -> Row | None:
        if change.new is None:
            change.effects.append((int(Kind.DROP_TABLE), table.table_id))
            return None
        wanted = self._read(change, table)
        if wanted.database != table.database:
            require_config(change.env, wanted.database)
        if wanted.primary_key != table.primary_key:
            raise ReqlOpFailedError("It's illegal to change a table's primary key")
        databases = change.catalog.databases_by_uuid
        is_moved = (wanted.database, wanted.name) != (table.database, table.name)
        if is_moved and wanted.name in databases[wanted.database].tables:
            new = f"{databases[wanted.database].name}.{wanted.name}"
            old = f"{databases[table.database].name}.{table.name}"
            raise ReqlOpFailedError(f"Can't rename table `{old}` to `{new}` because table `{new}` already exists.")
        now = {"durability": "hard", "shards": 1, "write_acks": "majority", **table.options}
        now |= {"name": table.name, "database": table.database}
        asked = {name: getattr(wanted, name) for name in ("name", "database", "durability", "write_acks", "shards")}
        changes = {name: value for name, value in asked.items() if now[name] != value}
        if changes:
            change.effects.append((int(Kind.ALTER_TABLE), table.table_id, changes))
        return change.new

    def _create(self, change: Change) -> Row:
        wanted = self._read(change, None)
        require_config(change.env, wanted.database)
        database = change.catalog.databases_by_uuid[wanted.database]
        if wanted.name in database.tables:
            raise ReqlOpFailedError(f"Table `{database.name}.{wanted.name}` already exists.")
        options = {"durability": wanted.durability, "write_acks": wanted.write_acks, "shards": wanted.shards}
        table = Table(change.unused(), change.key, database.uuid, wanted.name, wanted.primary_key, options)
        change.effects.append(
            (int(Kind.CREATE_TABLE), table.table_id, table.uuid, database.uuid, table.name, table.primary_key, options)
        )
        return table_config_row(self._registry, change.catalog, table, change.form)

    def _read(self, change: Change, table: Table | None) -> Wanted:
        assert change.new is not None
        with fields.within(WRONG_FORMAT):
            return self._wanted(change, fields.Fields(change.new), table)

    def _wanted(self, change: Change, row: fields.Fields, table: Table | None) -> Wanted:
        given = row.take("name")
        with fields.within("In `name`: "):
            name = fields.name(given, "table name")
        wanted = Wanted(name, fields.database(row.take("db"), change.catalog, change.form).uuid)
        given = row.take("id")
        with fields.within("In `id`: "):
            fields.uuid(given)
        _check_indexes(row, table)
        if table is not None or "primary_key" in row:
            given = row.take("primary_key")
            with fields.within("In `primary_key`: "):
                wanted.primary_key = fields.string(given)
        if table is not None or "shards" in row:
            given = row.take("shards")
            with fields.within("In `shards`: "):
                wanted.shards = self._shards(given, change)
        if table is not None or "write_acks" in row:
            wanted.write_acks = _choice(row, "write_acks", ("single", "majority"))
        if table is not None or "durability" in row:
            wanted.durability = _choice(row, "durability", ("soft", "hard"))
        _check_write_hook(row, table)
        row.end()
        return wanted

    def _shards(self, given: Any, change: Change) -> int:
        servers = self._registry.servers(change.catalog)
        shards = fields.array_of(given, lambda shard: _check_shard(shard, servers, change.form))
        if not shards:
            raise ReqlOpFailedError("You must specify at least one shard.")
        if len(shards) > MAX_SHARDS:
            raise ReqlOpFailedError(f"Maximum number of shards is {MAX_SHARDS}.")
        return len(shards)


def _choice(row: fields.Fields, name: str, choices: tuple[str, str]) -> str:
    given = row.take(name)
    if given not in choices:
        first, second = choices
        raise ReqlOpFailedError(f'In `{name}`: Expected "{first}" or "{second}", got: {d.print_datum(given)}')
    return str(given)


def _check_indexes(row: fields.Fields, table: Table | None) -> None:
    if "indexes" not in row:
        if table is not None:
            raise ReqlOpFailedError("Expected a field named `indexes`.")
        return
    given = row.take("indexes")
    with fields.within("In `indexes`: "):
        names = fields.set_of(given, fields.string)
    if table is None and names:
        raise ReqlOpFailedError("The `indexes` field is read-only and can't be used to create indexes.")
    if table is not None and names != set(table.indexes):
        raise ReqlOpFailedError("The `indexes` field is read-only and can't be used to create or drop indexes.")


def _check_write_hook(row: fields.Fields, table: Table | None) -> None:
    if "write_hook" not in row:
        if table is not None:
            raise ReqlOpFailedError("Expected a field named `write_hook`.")
        return
    hook = None if table is None else write_hook_row(table.write_hook)
    if row.take("write_hook") != hook:
        raise ReqlOpFailedError(
            "The `write_hook` field is read-only and can't be used to create or drop a write hook function."
        )


def _check_shard(shard: Any, servers: list[Server], form: str) -> None:
    row = fields.Fields(shard)
    given = row.take("replicas")
    with fields.within("In `replicas`: "):
        replicas = _server_set(given, servers, form)
    if not replicas:
        raise ReqlOpFailedError("You must specify at least one replica for each shard.")
    nonvoting: set[str] = set()
    if "nonvoting_replicas" in row:
        given = row.take("nonvoting_replicas")
        with fields.within("In `nonvoting_replicas`: "):
            nonvoting = _server_set(given, servers, form)
        if not nonvoting <= replicas:
            raise ReqlOpFailedError(
                "Every server listed in the `nonvoting_replicas` field must also appear in `replicas`."
            )
    given = row.take("primary_replica")
    with fields.within("In `primary_replica`: "):
        primary = _server(given, servers, form)
    if primary.server_id not in replicas:
        raise ReqlOpFailedError(
            f"The server listed in the `primary_replica` field (`{primary.name}`) must also appear in `replicas`."
        )
    if primary.server_id in nonvoting:
        raise ReqlOpFailedError(f"The primary replica (`{primary.name}`) must not be a nonvoting replica.")
    row.end()


def _server_set(given: Any, servers: list[Server], form: str) -> set[str]:
    out = set()
    for server in fields.array_of(given, lambda item: _server(item, servers, form)):
        if server.server_id in out:
            raise ReqlOpFailedError(f"Server `{server.name}` is listed more than once.")
        out.add(server.server_id)
    return out


def _server(given: Any, servers: list[Server], form: str) -> Server:
    if form == "uuid":
        server_id = fields.uuid(given, "server ID")
        found = next((server for server in servers if server.server_id == server_id), None)
        if found is None:
            raise ReqlOpFailedError(f"There is no server with UUID `{server_id}`.")
        return found
    server_name = fields.name(given, "server name")
    found = next((server for server in servers if server.name == server_name), None)
    if found is None:
        raise ReqlOpFailedError(f"Server `{server_name}` does not exist or is not connected.")
    return found
