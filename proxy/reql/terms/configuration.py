"""Terms on how tables are set up: config, status, reconfigure, rebalance (terms/db_table.cc).

One rule: shards are configuration that is kept and shown; all rows of a server are in one store, so that nothing
moves when they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.catalog import Catalog
from model.catalog import Table as CatalogTable
from model.effect import Kind
from model.errors import ReqlOpFailedError
from proxy.reql.ids import Term
from proxy.reql.layouts import LAYOUT_OPTARGS, Layout, layout_of
from proxy.reql.nodes import argument
from proxy.reql.permissions import SYSTEM_DB, SYSTEM_DB_UUID, require_config, require_config_of_all
from proxy.reql.registry import NEVER, fail, term
from proxy.reql.tables import StoredTable
from proxy.reql.terms.select import find_table
from proxy.reql.terms.writes import merge_stats
from proxy.reql.values import Db, SingleSelection, Table, as_bool, as_datum, as_string, as_table

REPAIRS = ("_debug_recommit", "unsafe_rollback", "unsafe_rollback_or_erase")


def _system_row(env: Any, table_name: str, key: str, absent: str) -> SingleSelection:
    """A row of a system table, as a selection that may be written to; to be called after the checks."""
    table = find_table(env, Db(SYSTEM_DB, SYSTEM_DB_UUID), table_name)
    source: Any = table.source
    text = source.text(env, key)
    if text is None:
        raise ReqlOpFailedError(absent)
    return SingleSelection(table, key, text, ("get",))


def _refuse_system(database: Db, what: str) -> None:
    if database.name == SYSTEM_DB:
        raise ReqlOpFailedError(f"Database `{SYSTEM_DB}` is special; {what}")


@term(Term.CONFIG, "config", "1", determinism=NEVER)
def config(env: Any, target: Any) -> SingleSelection:
    """The row of `table_config` or `db_config` for a table or database."""
    if isinstance(target, Db):
        _refuse_system(target, "you can't configure it.")
        require_config(env, target.uuid)
        return _system_row(env, "db_config", target.uuid, f"Database `{target.name}` does not exist.")
    table: Table = argument(as_table, env, target, 0)
    _refuse_system(table.db, "you can't configure the tables in it.")
    require_config(env, table.db.uuid, table.source.uuid)
    return _system_row(env, "table_config", table.source.uuid, _absent(table))


@term(Term.STATUS, "status", "1", takes=(as_table,), determinism=NEVER)
def status(env: Any, table: Table) -> SingleSelection:
    """The row of `table_status` for a table."""
    _refuse_system(table.db, "the system tables in it don't have meaningful status information.")
    return _system_row(env, "table_status", table.source.uuid, _absent(table))


def _absent(table: Table) -> str:
    return f"Table `{table.db.name}.{table.name}` does not exist."


RECONFIGURE_OPTARGS: dict[str, Any] = {"dry_run": as_bool, "emergency_repair": as_datum, **LAYOUT_OPTARGS}


@term(
    Term.RECONFIGURE, "reconfigure", "0..1", optargs=RECONFIGURE_OPTARGS, optargs_after=1, determinism=NEVER
)  # fmt: skip
def reconfigure(env: Any, *target: Any, **optargs: Any) -> dict[str, Any]:
    """Sets the number of shards and replicas of a table, or of all tables of a database."""
    if not target:
        fail("`reconfigure` can only be called on a table or database.")
    database, table = _target(env, target[0])
    if optargs.get("emergency_repair") is not None:
        return _repair(env, database, table, optargs)
    layout = layout_of(env, optargs, required=True)
    dry_run = optargs.get("dry_run", False)
    _refuse_system(database, "you can't configure the tables in it.")
    return _on_each(env, database, table, lambda found: _reconfigure(env, found, layout, dry_run))


def _target(env: Any, value: Any) -> tuple[Db, Table | None]:
    if isinstance(value, Db):
        return value, None
    table: Table = argument(as_table, env, value, 0)
    return table.db, table


def _on_each(
    env: Any, database: Db, table: Table | None, act: Callable[[CatalogTable], dict[str, Any]]
) -> dict[str, Any]:
    """Acts on one table or on all of a database, if the user may configure them; adds up the results."""
    if table is not None:
        assert isinstance(table.source, StoredTable)
        require_config(env, database.uuid, table.source.uuid)
        return act(table.source.table)
    stored = env.data.catalog.databases_by_uuid.get(database.uuid)
    tables = [] if stored is None else list(stored.tables.values())
    require_config_of_all(env, database.uuid, [found.uuid for found in tables])
    total: dict[str, Any] = {}
    for found in tables:
        if found.uuid in env.data.catalog.tables_by_uuid:
            total = merge_stats(total, act(found), env.array_limit, [])
    return total


def _reconfigure(env: Any, table: CatalogTable, layout: Layout, dry_run: bool) -> dict[str, Any]:
    system = env.world.system

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], tuple[Any, Any, Any]]:
        found = catalog.tables.get(table.table_id)
        if found is None:
            raise ReqlOpFailedError("The table was dropped.")
        layout.check(system.servers(catalog))
        rows = (
            system.table_config_row(env, found),
            system.planned_config_row(env, found, layout.shards),
            system.table_status_row(env, found),
        )
        if dry_run or found.options.get("shards", 1) == layout.shards:
            return [], rows
        return [(int(Kind.ALTER_TABLE), found.table_id, {"shards": layout.shards})], rows

    old, new, old_status = env.data.change_catalog(change)
    changes = [{"old_val": old, "new_val": new}]
    if dry_run:
        return {"reconfigured": 0, "config_changes": changes}
    return {
        "reconfigured": 1,
        "config_changes": changes,
        "status_changes": [{"old_val": old_status, "new_val": system.table_status_row(env, table)}],
    }


def _repair(env: Any, database: Db, table: Table | None, optargs: dict[str, Any]) -> dict[str, Any]:
    """An emergency repair: of tables that have lost their majority, which a server that answers never has."""
    mode = optargs["emergency_repair"]
    if as_string(env, mode) not in REPAIRS:
        fail(
            '`emergency_repair` should be "unsafe_rollback" or "unsafe_rollback_or_erase"',
            "emergency_repair",
        )
    if any(name in optargs for name in LAYOUT_OPTARGS):
        fail("In emergency repair mode, you can't specify shards, replicas, etc.")
    if table is None:
        fail(
            "Can't emergency repair an entire database at once; instead you should run `reconfigure()` on each table "
            "individually."
        )
    _refuse_system(database, "you can't configure the tables in it.")
    require_config(env, database.uuid, table.source.uuid)
    raise ReqlOpFailedError("This table doesn't need to be repaired.")


@term(Term.REBALANCE, "rebalance", "0..1", determinism=NEVER)
def rebalance(env: Any, *target: Any) -> dict[str, Any]:
    """Spreads rows evenly over shards. There is nothing to move; too few rows cannot be spread, as in RethinkDB."""
    if not target:
        fail("`rebalance` can only be called on a table or database.")
    database, table = _target(env, target[0])
    _refuse_system(database, "you can't rebalance the tables in it.")
    env.prepare_read()
    return _on_each(env, database, table, lambda found: _rebalance(env, found))


def _rebalance(env: Any, table: CatalogTable) -> dict[str, Any]:
    row = env.world.system.table_status_row(env, table)
    done = env.data.count(table.table_id) >= table.options.get("shards", 1)
    return {"rebalanced": int(done), "status_changes": [{"old_val": row, "new_val": row}]}
