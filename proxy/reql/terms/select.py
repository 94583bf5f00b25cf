"""Terms that name stored things and pick rows: db, table, get, get_all, between (terms/db_table.cc, seq.cc)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from model import datum as d
from model.errors import THE_TERM, Path, ReqlError, ReqlOpFailedError, ReqlQueryLogicError
from model.keys import primary_key_bytes
from proxy.reql.calling import call_runner
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.layouts import check_name
from proxy.reql.nodes import Node, argument
from proxy.reql.permissions import SYSTEM_DB, SYSTEM_DB_UUID
from proxy.reql.registry import NEVER, TERMS, Kind, TermSpec, fail, fail_absent, special, term, unevaluated
from proxy.reql.tables import StoredTable, names_are_fixed
from proxy.reql.values import (
    Db,
    Selection,
    SingleSelection,
    Table,
    TableSlice,
    as_datum,
    as_db,
    as_slice,
    as_string,
    as_table,
    describe_short,
)


@term(Term.DB, "db", "1", takes=(as_string,), determinism=NEVER)
def db(env: Any, name: str) -> Db:
    check_name(name, "Database", 0)
    return find_db(env, name)


def find_db(env: Any, name: str) -> Db:
    """The database of that name; raises `Database ... does not exist.`"""
    if name == SYSTEM_DB:
        return Db(name, SYSTEM_DB_UUID)
    database = env.data.catalog.databases.get(name)
    if database is None:
        raise ReqlOpFailedError(f"Database `{name}` does not exist.")
    return Db(name, database.uuid)


def default_db(env: Any, optargs: dict[str, Any]) -> Db:
    """The query's default database. It may not be there: that is an error for who asks for it, and for nobody else."""
    return as_db(env, optargs["db"]()) if "db" in optargs else find_db(env, "test")


READ_MODES: Final = ("majority", "single", "outdated")


def table(env: Any, *arguments: Any, path: Path = (), **optargs: Any) -> Table:
    """`r.table(name)` in the query's default database, or `db.table(name)`."""
    if "use_outdated" in optargs:
        fail("The `use_outdated` optarg is no longer supported.  Use the `read_mode` optarg instead.")
    read_mode = optargs.get("read_mode", "single")
    if read_mode not in READ_MODES and read_mode != "_debug_direct":
        fail(f'Read mode `{read_mode}` unrecognized (options are "majority", "single", and "outdated").')
    identifier_format = optargs.get("identifier_format", "name")
    if identifier_format not in ("name", "uuid"):
        fail(f'Identifier format `{identifier_format}` unrecognized (options are "name" and "uuid").')
    if len(arguments) == 1:
        database = default_db(env, optargs)
        name = check_name(argument(as_string, env, arguments[0], 0), "Table", 0)
    else:
        database = argument(as_db, env, arguments[0], 0)
        name = check_name(argument(as_string, env, arguments[1], 1), "Table", 1)
    if read_mode == "majority" or env.read_mode == "single":
        env.read_mode = read_mode
    found = find_table(env, database, name, identifier_format)
    found.path = path
    return found


_TABLE: Final = TermSpec(
    Term.TABLE,
    "table",
    1,
    2,
    optargs={"db": unevaluated, "read_mode": as_string, "use_outdated": None, "identifier_format": as_string},
    determinism=NEVER,
    wants_path=True,
    body=table,
)


@special(Term.TABLE, "table", "1..2", optargs=_TABLE.optargs, determinism=NEVER)
def compile_table(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """As any term; but what a fixed name stands for is looked up once per change of the catalog."""
    node = compiler.compile_call(_TABLE, raw, path)
    if names_are_fixed(node):
        node.run = _remembering(node.run)
    return node


def _remembering(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    kept: tuple[Any, int, Any] = (None, 0, None)

    def find(env: Any) -> Any:
        nonlocal kept
        catalog = env.data.catalog
        if kept[0] is not catalog or kept[1] != catalog.revision:
            kept = (catalog, catalog.revision, run(env))
        return kept[2]

    return find


def find_table(env: Any, database: Db, name: str, identifier_format: str = "name") -> Table:
    """The table of that name; raises `Table ... does not exist.`"""
    if database.name == SYSTEM_DB and database.uuid == SYSTEM_DB_UUID:
        source = env.world.system.source(env, name, identifier_format)
        if source is not None:
            return Table(database, name, source)
    else:
        stored = env.data.catalog.databases_by_uuid.get(database.uuid)
        found = None if stored is None else stored.tables.get(name)
        if found is not None:
            return Table(database, name, StoredTable(found, database.name, env.world.traffic(found.table_id)))
    raise ReqlOpFailedError(f"Table `{database.name}.{name}` does not exist.")


_FROM_GET: Final = ("get",)


@term(Term.GET, "get", "2", takes=(as_table, as_datum))
def get(env: Any, table: Table, key: Any) -> SingleSelection:
    try:
        return SingleSelection(table, key, table.source.get(env, key), _FROM_GET)
    except ReqlError as error:
        return _unreadable(table, key, error)


def leave_unread(node: Node) -> None:
    """Makes a compiled `get` the target of a write, which looks at the row when it decides: nobody else may need it."""
    has_args = any(argument.term == Term.ARGS for argument in node.arguments)
    node.run = call_runner(_UNREAD_GET, node.arguments, node.optargs, node.path, has_args)


def _get_unread(env: Any, table: Table, key: Any) -> SingleSelection:
    source = table.source
    if source.__class__ is not StoredTable:
        return get(env, table, key)  # type: ignore[no-any-return]
    try:
        stored_key = primary_key_bytes(key)
    except ReqlError as error:
        return _unreadable(table, key, error)
    source.traffic.read += 1
    selection = SingleSelection(table, key, None, _FROM_GET, lambda: source.get(env, key))
    selection.stored_key = stored_key
    return selection


_UNREAD_GET: Final = replace(TERMS[Term.GET], body=_get_unread)


def _unreadable(table: Table, key: Any, error: ReqlError) -> SingleSelection:
    """A row that cannot be read, of which only who reads it hears: a write has a refusal of its own."""

    def refuse() -> bytes:
        raise error

    return SingleSelection(table, key, None, _FROM_GET, refuse)


@term(Term.GET_ALL, "get_all", "1..*", takes=(as_table, as_datum), optargs={"index": as_string})
def get_all(env: Any, table: Table, *keys: Any, index: str | None = None) -> Selection:
    for at, key in enumerate(keys, 1):
        if d.is_ptype(key, "GEOMETRY"):
            fail("Cannot use a geospatial index with `get_all`. Use `get_intersecting` instead.", at)
        if key is None:
            fail_absent("Keys cannot be NULL.", at)
    return Selection(table, table.source.get_all(env, table, list(keys), index))


def open_bound(optargs: dict[str, Any], name: str, default: bool) -> bool:
    """Whether a bound is open, from the optarg's value, which `BOUNDS` has checked (bounded_op_term_t)."""
    return bool(optargs.get(name, "open" if default else "closed") == "open")


def _bound_kind(name: str) -> Kind:
    def as_bound(env: Any, value: Any) -> str:
        text = as_string(env, value)
        if text not in ("open", "closed"):
            fail(f"Expected `open` or `closed` for optarg `{name}` (got `{describe_short(text)}`).", THE_TERM)
        return text

    return as_bound


BOUNDS: Final = {name: _bound_kind(name) for name in ("left_bound", "right_bound")}


def _between(env: Any, part: TableSlice, low: Any, high: Any, optargs: dict[str, Any]) -> TableSlice:
    left_open = open_bound(optargs, "left_bound", False)
    right_open = open_bound(optargs, "right_bound", True)
    index = optargs.get("index")
    if index is None:
        index = part.index if part.index is not None else part.table.source.primary_key
    if part.bounded:
        raise ReqlQueryLogicError("Cannot perform multiple BETWEENs on the same table.", part.table.path)
    if part.index is not None and part.index != index:
        raise ReqlQueryLogicError(
            f"Cannot call BETWEEN on index `{index}` after ordering on index `{part.index}`.", part.table.path
        )
    return TableSlice(part.table, index, low, high, left_open, right_open, part.sorting)


@term(Term.BETWEEN, "between", "3", takes=(as_slice, as_datum, as_datum), optargs={"index": as_string, **BOUNDS})
def between(env: Any, part: TableSlice, low: Any, high: Any, **optargs: Any) -> TableSlice:
    for at, bound in ((1, low), (2, high)):
        if bound is None:
            fail(
                "Cannot use `null` in BETWEEN, use `r.minval` or `r.maxval` to denote unboundedness.",
                at,
            )
    return _between(env, part, low, high, optargs)


@term(
    Term.BETWEEN_DEPRECATED,
    "between",
    "3",
    takes=(as_slice, as_datum, as_datum),
    optargs={"index": as_string, **BOUNDS},
)
def between_deprecated(env: Any, part: TableSlice, low: Any, high: Any, **optargs: Any) -> TableSlice:
    """As `between`, with null for no bound."""
    return _between(env, part, d.MINVAL if low is None else low, d.MAXVAL if high is None else high, optargs)
