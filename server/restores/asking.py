"""What a row of `rethinkdb.restores` asks for, checked; and the tables that it comes to, under their new names.

One rule: pure of files and time beyond what is handed in, so that everything that can be refused is refused before
anything is read or written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backup.access import access_from, access_to_url
from backup.selection import NAME, SYSTEM_DATABASE, Renames, TableName, parse_name
from backup.timeline import format_time, parse_moment
from model import datum as d
from model.catalog import Catalog
from model.errors import BadSetting, UnfitArchive
from model.kinds import TIME
from proxy.reql import terms as _terms  # noqa: F401  (the terms come before what compiles them
from proxy.reql.index_functions import compile_function
from server.backups.rows import RESTORES, Fields, Row, refuse

AFFIXES: Final = ("db_prefix", "db_suffix", "table_prefix", "table_suffix")
MOST_KEYS: Final = 10_000
MOST_SHARDS: Final = 64


def restore_fields(asked: Row, vaults: Collection[str], now_ms: int) -> Row:
    """The fields of the document of a restore. Raises BadSetting or ReqlOpFailedError.

    to (text or time), or undrop ("db" or "db.table"); vault (name, URL or access), image; databases, tables;
    as {"from": "to"}, db_prefix, db_suffix, table_prefix, table_suffix; keys; replace, dry_run.
    """
    fields = Fields(RESTORES, asked)
    undrop = fields.text("undrop")
    to = _moment(fields.any("to"), undrop, now_ms)
    vault = _vault(fields.any("vault"), vaults)
    image = fields.text("image")
    databases, tables = fields.names("databases", "database"), fields.names("tables", "table")
    if undrop is not None:
        if databases or tables:
            raise refuse("`undrop` names what is brought back; give no `databases` or `tables` beside it.")
        (tables if "." in undrop else databases).append(undrop)
    for name, is_table in [*((name, False) for name in databases), *((name, True) for name in tables)]:
        if (parse_name(name).table is not None) != is_table:
            raise refuse(f"`{name}` is not of the form {'DATABASE.TABLE' if is_table else 'DATABASE'}.")
    renames = _renames(fields.any("as"))
    affixes = {name: fields.text(name, "") for name in AFFIXES}
    keys = _keys(fields)
    if keys is not None and (len(tables) != 1 or databases):
        raise refuse("`keys` are of one table: name it in `table`.")
    document = {
        "to": to,
        "vault": vault,
        "image": image,
        "databases": databases,
        "tables": tables,
        "as": renames,
        **affixes,
        "keys": keys,
        "replace": fields.flag("replace", False),
        "dry_run": fields.flag("dry_run", False),
        "phase": None,
        "plan": None,
        "restored": [],
    }
    fields.end()
    return document


def _vault(given: Any, vaults: Collection[str]) -> str | Row | None:
    """The name of one of the server's vaults, or the access to any other (backup/access) by URL or as an object."""
    if given is None or (isinstance(given, str) and given in vaults):
        return given
    if isinstance(given, str) and "://" in given:
        return access_to_url(given).as_plain()
    if isinstance(given, dict):
        return access_from({"name": "vault", **given}).as_plain()
    raise refuse(f"Vault `{given}` does not exist.")


def _moment(to: Any, undrop: str | None, now_ms: int) -> str:
    """The moment in words that mean the same later."""
    if undrop is not None:
        if to is not None:
            raise refuse("`undrop` means the moment before the drop; give no `to` beside it.")
        return f"before-drop:{parse_name(undrop)}"
    if d.is_ptype(to, TIME):
        return format_time(round(to["epoch_time"] * 1000))
    if not isinstance(to, str):
        raise refuse("`to` is the moment to bring back: a time, or text such as 'latest' or 'index:1000'.")
    moment = parse_moment(to, now_ms)
    return moment.text if moment.time_ms is None else format_time(moment.time_ms)


def _renames(given: Any) -> Row:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given.values()):
        raise refuse("`as` is an object of old names to new ones: {'db': 'db2'} or {'db.table': 'db.table2'}.")
    Renames.parse(f"{old}={new}" for old, new in given.items())
    return given


def _keys(fields: Fields) -> list[Any] | None:
    many, one = fields.any("keys"), fields.any("key")
    if many is None and one is None:
        return None
    keys = [*(many if isinstance(many, list) else [] if many is None else [many]), *([] if one is None else [one])]
    if not keys or len(keys) > MOST_KEYS:
        raise refuse(f"`keys` are 1 to {MOST_KEYS} primary keys.")
    return keys


@dataclass(frozen=True, slots=True)
class Target:
    """A table to be brought back: `source` as the child told of it, and the name that it gets."""

    source: Row
    name: TableName


def targets_of(document: Row, tables: Sequence[Row]) -> list[Target]:
    """The restored tables under their new names. Raises BadSetting if two would get the same name."""
    renames = Renames.parse(f"{old}={new}" for old, new in document["as"].items())
    targets: dict[TableName, Target] = {}
    for table in tables:
        old = TableName(table["db"], table["table"])
        new = renames.table(old)
        if new == old:
            new = TableName(
                f"{document['db_prefix']}{old.database}{document['db_suffix']}",
                f"{document['table_prefix']}{old.table}{document['table_suffix']}",
            )
        if not NAME.fullmatch(new.database) or not NAME.fullmatch(new.table or "") or new.database == SYSTEM_DATABASE:
            raise BadSetting(f"{old} cannot be called {new}.")
        if new in targets:
            raise BadSetting(f"Two tables would both become {new}.")
        targets[new] = Target(table, new)
    return list(targets.values())


def check_free(catalog: Catalog, targets: Sequence[Target]) -> None:
    """Raises BadSetting if a name is taken."""
    taken = [target.name for target in targets if is_taken(catalog, target.name)]
    if taken:
        more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise BadSetting(
            f"Table {taken[0]} is there already{more}.",
            f"Restore it under another name with `as` ({taken[0]}={taken[0]}_old), or in its place with `replace`.",
        )


def is_taken(catalog: Catalog, name: TableName) -> bool:
    """Whether there is such a table now."""
    database = catalog.databases.get(name.database)
    return database is not None and name.table in database.tables


def table_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a table that mean the same in any cluster; replicas are this cluster's business."""
    shards = given.get("shards")
    is_fit = isinstance(shards, int) and 1 <= shards <= MOST_SHARDS
    return {
        "durability": "soft" if given.get("durability") == "soft" else "hard",
        "write_acks": "single" if given.get("write_acks") == "single" else "majority",
        "shards": shards if is_fit else 1,
    }


def check_definitions(tables: Sequence[Row]) -> None:
    """Compiles every index and hook function: one that cannot be would end the server that applies it. UnfitArchive."""
    for table in tables:
        name = f"{table['db']}.{table['table']}"
        if not all(isinstance(part, str) and NAME.fullmatch(part) for part in (table["db"], table["table"])):
            raise UnfitArchive(f"{name!r} cannot be the name of a table.")
        if not isinstance(table["primary_key"], str) or not table["primary_key"]:
            raise UnfitArchive(f"The primary key of {name} has no name.")
        for index in table["indexes"]:
            _check_function(f"the index `{index['name']}` of {name}", index["definition"])
        if table["write_hook"] is not None:
            _check_function(f"the write hook of {name}", table["write_hook"])


def _check_function(what: str, definition: Any) -> None:
    try:
        compile_function(definition["function"])
        for flag in ("multi", "geo"):
            if definition.get(flag) not in (None, True, False):
                raise UnfitArchive(f"`{flag}` is {definition[flag]!r}")
    except Exception as error:  # whatever it is, the definition is not one that a server made
        raise UnfitArchive(f"The function of {what} cannot be used: {error}.") from error
