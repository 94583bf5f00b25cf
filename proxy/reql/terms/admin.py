"""Terms that make and drop databases and tables (terms/db_table.cc). What they changed is shown as configurations."""

from __future__ import annotations

from typing import Any

from model.catalog import Catalog
from model.catalog import Table as CatalogTable
from model.effect import Kind
from model.errors import ReqlOpFailedError
from proxy.reql.ids import Term
from proxy.reql.layouts import LAYOUT_OPTARGS, check_name, layout_of
from proxy.reql.nodes import argument
from proxy.reql.permissions import SYSTEM_DB, require_config, require_config_of_all
from proxy.reql.registry import NEVER, term, unevaluated
from proxy.reql.terms.select import default_db
from proxy.reql.terms.write_options import as_durability
from proxy.reql.values import Db, as_db, as_string


def db_and_name(env: Any, arguments: tuple[Any, ...], optargs: dict[str, Any]) -> tuple[Db, str]:
    """(database, table name) of a term called on a database, or on none."""
    if len(arguments) == 1:
        database = default_db(env, optargs)
        return database, check_name(argument(as_string, env, arguments[0], 0), "Table", 0)
    return argument(as_db, env, arguments[0], 0), check_name(argument(as_string, env, arguments[1], 1), "Table", 1)


@term(Term.DB_CREATE, "db_create", "1", takes=(as_string,), determinism=NEVER)
def db_create(env: Any, name: str) -> dict[str, Any]:
    check_name(name, "Database", 0)
    if name == SYSTEM_DB:
        raise ReqlOpFailedError(f"Database `{name}` already exists.")
    require_config(env)
    uuid = env.world.new_uuid()

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], None]:
        if name in catalog.databases:
            raise ReqlOpFailedError(f"Database `{name}` already exists.")
        return [(int(Kind.CREATE_DATABASE), uuid, name)], None

    env.data.change_catalog(change)
    return {"dbs_created": 1, "config_changes": [{"old_val": None, "new_val": {"id": uuid, "name": name}}]}


@term(Term.DB_DROP, "db_drop", "1", takes=(as_string,), determinism=NEVER)
def db_drop(env: Any, name: str) -> dict[str, Any]:
    """Drops a database and its tables."""
    check_name(name, "Database", 0)
    if name == SYSTEM_DB:
        raise ReqlOpFailedError(f"Database `{name}` is special; you can't delete it.")

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], tuple[str, int]]:
        database = catalog.databases.get(name)
        if database is None:
            raise ReqlOpFailedError(f"Database `{name}` does not exist.")
        require_config_of_all(env, database.uuid, [table.uuid for table in database.tables.values()])
        effects: list[Any] = [(int(Kind.DROP_TABLE), table.table_id) for table in database.tables.values()]
        effects.append((int(Kind.DROP_DATABASE), database.uuid))
        return effects, (database.uuid, len(database.tables))

    uuid, tables = env.data.change_catalog(change)
    return {
        "dbs_dropped": 1,
        "tables_dropped": tables,
        "config_changes": [{"old_val": {"id": uuid, "name": name}, "new_val": None}],
    }


@term(Term.DB_LIST, "db_list", "0", determinism=NEVER)
def db_list(env: Any) -> list[str]:
    return sorted([*env.data.catalog.databases, SYSTEM_DB])


TABLE_CREATE_OPTARGS: dict[str, Any] = {
    **LAYOUT_OPTARGS,
    "primary_key": as_string,
    "durability": as_durability,
    "db": unevaluated,
}


@term(
    Term.TABLE_CREATE, "table_create", "1..2", optargs=TABLE_CREATE_OPTARGS, optargs_after=0, determinism=NEVER
)  # fmt: skip
def table_create(env: Any, *arguments: Any, **optargs: Any) -> dict[str, Any]:
    """Makes a table, ready for use when this returns."""
    layout = layout_of(env, optargs)
    durability = optargs.get("durability") or env.world.durability
    database, name = db_and_name(env, arguments, optargs)
    if database.name == SYSTEM_DB:
        raise ReqlOpFailedError(f"Database `{SYSTEM_DB}` is special; you can't create new tables in it.")
    require_config(env, database.uuid)
    uuid = env.world.new_uuid()
    options = {"durability": durability, "write_acks": "majority", "shards": layout.shards}

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], int]:
        found = catalog.databases_by_uuid.get(database.uuid)
        if found is None:
            raise ReqlOpFailedError(f"Database `{database.name}` does not exist.")
        if name in found.tables:
            raise ReqlOpFailedError(f"Table `{database.name}.{name}` already exists.")
        layout.check(env.world.system.servers(catalog))
        table_id = unused()
        primary_key = optargs.get("primary_key", "id")
        return [(int(Kind.CREATE_TABLE), table_id, uuid, database.uuid, name, primary_key, options)], table_id

    table_id = env.data.change_catalog(change)
    created = env.data.catalog.tables.get(table_id)
    row = None if created is None else env.world.system.table_config_row(env, created)
    return {"tables_created": 1, "config_changes": [{"old_val": None, "new_val": row}]}


@term(Term.TABLE_DROP, "table_drop", "1..2", optargs={"db": unevaluated}, determinism=NEVER)
def table_drop(env: Any, *arguments: Any, **optargs: Any) -> dict[str, Any]:
    database, name = db_and_name(env, arguments, optargs)
    if database.name == SYSTEM_DB:
        raise ReqlOpFailedError(f"Database `{SYSTEM_DB}` is special; you can't drop tables in it.")

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], Any]:
        found = catalog.databases_by_uuid.get(database.uuid)
        table: CatalogTable | None = None if found is None else found.tables.get(name)
        if table is None:
            raise ReqlOpFailedError(f"Table `{database.name}.{name}` does not exist.")
        require_config(env, database.uuid, table.uuid)
        return [(int(Kind.DROP_TABLE), table.table_id)], env.world.system.table_config_row(env, table)

    row = env.data.change_catalog(change)
    return {"tables_dropped": 1, "config_changes": [{"old_val": row, "new_val": None}]}


@term(Term.TABLE_LIST, "table_list", "0..1", optargs={"db": unevaluated}, determinism=NEVER)
def table_list(env: Any, *database: Any, **optargs: Any) -> list[str]:
    found = argument(as_db, env, database[0], 0) if database else default_db(env, optargs)
    if found.name == SYSTEM_DB:
        return sorted(env.world.system.names())
    stored = env.data.catalog.databases_by_uuid.get(found.uuid)
    return [] if stored is None else sorted(stored.tables)
