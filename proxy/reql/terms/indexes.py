"""Terms on secondary indexes and write hooks (terms/sindex.cc, write_hook.cc)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model import datum as d
from model import function_blob, pretty_query, pseudo_binary
from model.catalog import Catalog, Index
from model.effect import Kind
from model.errors import ReqlOpFailedError, ReqlQueryLogicError, UnfitArchive
from proxy.reql.closing import closed_function
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.permissions import require_config
from proxy.reql.registry import ALWAYS, NEVER, fail, term
from proxy.reql.tables import StoredTable
from proxy.reql.values import Func, SingleSelection, Table, as_bool, as_datum, as_func, as_string, as_table

TERM_NAMES: Callable[[int], str] = {int(id): id.name for id in Term}.__getitem__
FIRST_POLL_S: Final = 0.003
POLL_GROWTH: Final = 1.2
MAX_POLL_S: Final = 0.2


def configurable(env: Any, table: Table, refusal: str) -> int:
    """The number of a stored table that the user may configure; `refusal` is what to say of system tables."""
    source = table.source
    if not isinstance(source, StoredTable):
        raise ReqlOpFailedError(refusal)
    require_config(env, table.db.uuid, source.uuid)
    return source.table.table_id


def _special(table: Table, what: str) -> str:
    return f"Database `{table.db.name}` is special; you can't {what} on the tables in it."


def _absent(table: Table, name: str) -> str:
    return f"Index `{name}` does not exist on table `{display_name(table)}`."


def display_name(table: Table) -> str:
    return f"{table.db.name}.{table.name}"


def _check_deterministic(function: Func, what: str) -> None:
    if function.determinism != ALWAYS:
        message = f"Could not prove function deterministic.  {what} must be deterministic."
        raise ReqlQueryLogicError(message, function.path)


def _definition(env: Any, source: Any) -> dict[str, Any]:
    if d.is_ptype(source, "BINARY"):
        try:
            blob = function_blob.decode_index_function(pseudo_binary.binary_bytes(source))
        except UnfitArchive as error:
            fail(error.message, 2)
        return {"function": blob.func_term(), "multi": blob.multi, "geo": blob.geo}
    function = argument(as_func, env, source, 2)
    _check_deterministic(function, "Index functions")
    return {"function": closed_function(function), "multi": False, "geo": False}


@term(
    Term.INDEX_CREATE,
    "sindex_create",
    "2..3",
    takes=(as_table, as_datum, None),
    optargs={"multi": as_bool, "geo": as_bool},
    determinism=NEVER,
)
def index_create(env: Any, table: Table, name: Any, *source: Any, **optargs: Any) -> dict[str, int]:
    """Declares a secondary index; every server builds it for itself."""
    name = as_string(env, name)
    if name == table.source.primary_key:
        fail(f"Index name conflict: `{name}` is the name of the primary key.")
    if source:
        definition = _definition(env, source[0])
    else:
        definition = {"function": function_blob.field_function(name).func_term(), "multi": False, "geo": False}
    definition.update({key: value for key, value in optargs.items() if key in ("multi", "geo")})
    table_id = configurable(env, table, _special(table, "create secondary indexes"))

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], None]:
        found = _still_there(catalog, table, table_id)
        if name in found.indexes:
            raise ReqlOpFailedError(f"Index `{name}` already exists on table `{display_name(table)}`.")
        return [(int(Kind.CREATE_INDEX), table_id, unused(), name, definition)], None

    env.data.change_catalog(change)
    return {"created": 1}


def _still_there(catalog: Catalog, table: Table, table_id: int) -> Any:
    found = catalog.tables.get(table_id)
    if found is None:
        raise ReqlOpFailedError(f"Table `{display_name(table)}` does not exist.")
    return found


@term(Term.INDEX_DROP, "sindex_drop", "2", takes=(as_table, as_datum), determinism=NEVER)
def index_drop(env: Any, table: Table, name: Any) -> dict[str, int]:
    name = as_string(env, name)
    table_id = configurable(env, table, _absent(table, name))

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], None]:
        index = _still_there(catalog, table, table_id).indexes.get(name)
        if index is None:
            raise ReqlOpFailedError(_absent(table, name))
        return [(int(Kind.DROP_INDEX), table_id, index.index_id)], None

    env.data.change_catalog(change)
    return {"dropped": 1}


@term(
    Term.INDEX_RENAME,
    "sindex_rename",
    "3",
    takes=(as_table, as_string, as_string),
    optargs={"overwrite": as_bool},
    determinism=NEVER,
)
def index_rename(env: Any, table: Table, old: str, new: str, overwrite: bool = False) -> dict[str, int]:
    for name in (old, new):
        if name == table.source.primary_key:
            fail(f"Index name conflict: `{name}` is the name of the primary key.")
    table_id = configurable(env, table, _absent(table, old))

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], int]:
        indexes = _still_there(catalog, table, table_id).indexes
        if old not in indexes and overwrite:
            raise ReqlOpFailedError(_absent(table, old))
        if old not in indexes or (new in indexes and new != old and not overwrite):
            raise ReqlOpFailedError(
                f"Index `{old}` does not exist or index `{new}` already exists on table `{display_name(table)}`."
            )
        if old == new:
            return [], 0
        effects: list[Any] = []
        if new in indexes:
            effects.append((int(Kind.DROP_INDEX), table_id, indexes[new].index_id))
        effects.append((int(Kind.RENAME_INDEX), table_id, indexes[old].index_id, new))
        return effects, 1

    return {"renamed": env.data.change_catalog(change)}


@term(Term.INDEX_LIST, "sindex_list", "1", takes=(as_table,), determinism=NEVER)
def index_list(env: Any, table: Table) -> list[str]:
    source = table.source
    return sorted(source.table.indexes) if isinstance(source, StoredTable) else []


def index_status_row(env: Any, index: Index) -> dict[str, Any]:
    """One index as index_status and index_wait print it."""
    definition = index.definition
    blob = function_blob.from_func_term(
        definition["function"], multi=bool(definition.get("multi")), geo=bool(definition.get("geo"))
    )
    out: dict[str, Any] = {
        "index": index.name,
        "ready": env.data.index_ready(index.index_id),
        "outdated": False,
        "multi": blob.multi,
        "geo": blob.geo,
        "function": pseudo_binary.make_binary(function_blob.encode_index_function(blob)),
        "query": pretty_query.index_query(index.name, blob, TERM_NAMES),
    }
    if not out["ready"]:
        out["progress"] = d.number(env.data.index_progress(index.index_id))
    return out


def _chosen(table: Table, names: tuple[str, ...]) -> list[Index]:
    source = table.source
    indexes = source.table.indexes if isinstance(source, StoredTable) else {}
    for name in sorted(set(names)):
        if name not in indexes:
            raise ReqlOpFailedError(f"Index `{name}` was not found on table `{display_name(table)}`.")
    return [indexes[name] for name in sorted(indexes) if not names or name in names]


@term(Term.INDEX_STATUS, "sindex_status", "1..*", takes=(as_table, as_string), determinism=NEVER)
def index_status(env: Any, table: Table, *names: str) -> list[Any]:
    return [index_status_row(env, index) for index in _chosen(table, names)]


@term(Term.INDEX_WAIT, "sindex_wait", "1..*", takes=(as_table, as_string), determinism=NEVER)
def index_wait(env: Any, table: Table, *names: str) -> list[Any]:
    """Waits until the indexes can be read."""
    pause_s = FIRST_POLL_S
    while True:
        chosen = _chosen(table, names)
        if all(env.data.index_ready(index.index_id) for index in chosen):
            return [index_status_row(env, index) for index in chosen]
        env.world.pause(env, pause_s)
        pause_s = min(pause_s * POLL_GROWTH, MAX_POLL_S)


@term(Term.SET_WRITE_HOOK, "set_write_hook", "2", takes=(as_table, None), determinism=NEVER)
def set_write_hook(env: Any, table: Table, source: Any) -> dict[str, int]:
    """Sets or (with null) deletes the function that every write to the table passes through."""
    if isinstance(table.source, StoredTable):
        require_config(env, table.db.uuid, table.source.uuid)
    hook = _hook_definition(env, source)
    table_id = configurable(env, table, _special(table, "set a write hook"))

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], str]:
        found = _still_there(catalog, table, table_id)
        message = "deleted" if hook is None else "replaced" if found.write_hook is not None else "created"
        return [(int(Kind.SET_WRITE_HOOK), table_id, hook)], message

    return {env.data.change_catalog(change): 1}


def _hook_definition(env: Any, source: Any) -> dict[str, Any] | None:
    if isinstance(source, SingleSelection):
        source = source.datum()
    if source is None:
        return None
    if d.is_ptype(source, "BINARY"):
        raw = pseudo_binary.binary_bytes(source)
        if not raw.startswith(b"$reql_write_hook_function$"):
            fail(
                "Cannot create a write hook except from a reql_write_hook_function returned from `get_write_hook`.",
            )
        try:
            return {"function": function_blob.decode_write_hook(raw).func_term()}
        except UnfitArchive as error:
            fail(error.message, 1)
    try:
        function = as_func(env, source)
    except Exception as error:
        error.at = 1  # type: ignore[attr-defined]
        raise
    _check_deterministic(function, "Write hook functions")
    if function.arity != 3:
        fail("Write hook functions must expect 3 arguments.")
    return {"function": closed_function(function)}


@term(Term.GET_WRITE_HOOK, "get_write_hook", "1", takes=(as_table,), determinism=NEVER)
def get_write_hook(env: Any, table: Table) -> Any:
    source = table.source
    if not isinstance(source, StoredTable):
        return None
    require_config(env, table.db.uuid, source.uuid)
    return write_hook_row(source.table.write_hook)


def write_hook_row(hook: dict[str, Any] | None) -> dict[str, Any] | None:
    """A table's write hook as get_write_hook and `table_config` print it."""
    if hook is None:
        return None
    blob = function_blob.from_func_term(hook["function"])
    return {
        "function": pseudo_binary.make_binary(function_blob.encode_write_hook(blob)),
        "query": pretty_query.write_hook_query(blob, TERM_NAMES),
    }
