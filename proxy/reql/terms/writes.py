"""Terms that write rows: insert, update, replace, delete, for_each, sync (terms/writes.cc, rewrites.cc, val.cc)."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from model import datum as d
from model.errors import (
    THE_TERM,
    Path,
    ReqlCompileError,
    ReqlError,
    ReqlOpFailedError,
    ReqlQueryLogicError,
    ReqlRuntimeError,
)
from model.keys import primary_key_bytes
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, located, place_of, taken
from proxy.reql.one_row import change_runner, insert_runner
from proxy.reql.permissions import require_config, require_table
from proxy.reql.registry import CONSTANT_NOW, NEVER, TERMS, TermSpec, special, term
from proxy.reql.streams import MAX_CHUNK, SpentArray, as_selection, as_stream, grouped_value, over_groups, plain_stream
from proxy.reql.terms.control import spread_args
from proxy.reql.terms.select import leave_unread
from proxy.reql.terms.write_options import INSERT_OPTARGS, WRITE_OPTARGS
from proxy.reql.values import (
    PLAIN,
    Func,
    Grouped,
    NativeFunc,
    SingleSelection,
    Table,
    as_bool,
    as_datum,
    as_func_or_constant,
    as_table,
)
from proxy.reql.writing import NO_CHANGES, RowWriter, Stats, check_new_row


def insert(env: Any, table: Table, what: Any, **optargs: Any) -> dict[str, Any]:
    """Inserts a document, an array or any sequence of documents; makes missing primary keys."""
    _check_hook_use(env, table, optargs)
    stats = Stats(optargs.get("return_changes", NO_CHANGES), env.array_limit)
    conflict = optargs.get("conflict", "error")
    ignore_hook = optargs.get("ignore_write_hook", False)
    insertion = _Insertion(env, table, conflict, optargs.get("durability"), stats, ignore_hook)
    document = what.datum() if what.__class__ is SingleSelection else what
    if document.__class__ is dict and not d.is_ptype(document, d.BINARY):
        insertion.add(document)
    else:
        stream = SpentArray(what) if _is_spent(env, what) else plain_stream(env, what, 1)
        for rows in stream.chunks(env):
            insertion.add_all(rows)
            insertion.flush()
    return insertion.finish()


def _is_spent(env: Any, what: Any) -> bool:
    """Whether it is an array of documents that stands in the query itself, of which this insert is the end.

    Then each document is given up once it is written: with the text of the query and what is stored, 60,000 documents
    of 1 KB would be in memory three times. What the evaluator keeps of a query for the next of the same text is short.
    """
    is_large = what.__class__ is list and len(what) > MAX_CHUNK
    return is_large and env.may_promise and any(literal is what for literal in env.params)


_INSERT: Final = TermSpec(
    Term.INSERT,
    "insert",
    2,
    2,
    takes=(as_table, None),
    optargs=INSERT_OPTARGS,
    optargs_after=1,
    determinism=NEVER,
    body=insert,
)


@special(Term.INSERT, "insert", "2", optargs=_INSERT.optargs, determinism=NEVER)
def compile_insert(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """As any term; but one document takes the short way."""
    node = compiler.compile_call(_INSERT, raw, path)
    node.run = insert_runner(node)
    return node


def _check_hook_use(env: Any, table: Table, optargs: dict[str, Any]) -> None:
    """Only who may configure a table may pass by its write hook."""
    if optargs.get("ignore_write_hook", False):
        require_config(env, table.db.uuid, table.source.uuid)


FEW_ROWS: Final = 4  # of fewer, each is looked up by itself


class _Insertion:
    """One insert: makes keys, resolves conflicts, counts."""

    def __init__(
        self, env: Any, table: Table, conflict: Any, durability: str | None, stats: Stats, ignore_hook: bool
    ) -> None:
        self._env = env
        self._primary_key = table.source.primary_key
        self._conflict = conflict
        self._stats = stats
        self._writer = writer = writer_for(env, table, durability, stats, not ignore_hook)
        self._may_insert_new = writer.__class__ is RowWriter and writer.may_insert_new
        self._generated: list[str] = []
        self._keys_skipped = 0

    def add_all(self, rows: list[Any]) -> None:
        """`add` for each row; what is there under their keys is read at once, and most of it is nothing."""
        writer = self._writer
        if len(rows) < FEW_ROWS or not self._may_insert_new:
            for row in rows:
                self.add(row)
            return
        keys = list(map(self._plain_key, rows))
        writer.read_ahead([key for key in keys if key is not None])
        for key, row in zip(keys, rows, strict=True):
            if key is None or not writer.insert_new(key, row):
                self.add(row)
            elif writer.is_full:
                writer.flush()

    def _plain_key(self, row: Any) -> bytes | None:
        """The key of a row that has one; None if there is more to be said about it."""
        if row.__class__ is not dict or d.PTYPE_KEY in row or self._primary_key not in row:
            return None
        try:
            return primary_key_bytes(row[self._primary_key])
        except ReqlRuntimeError:
            return None

    def add(self, row: Any) -> None:
        primary_key = self._primary_key
        key_is_made = row.__class__ is dict and "$reql_type$" not in row and primary_key not in row
        if key_is_made:
            row = {**row, primary_key: self._make_key()}
        if self._may_insert_new:
            key = self._plain_key(row)
            if key is not None and self._writer.insert_new(key, row):
                if self._writer.is_full:
                    self._writer.flush()
                return
        try:
            d.expect(row, "OBJECT")
            if primary_key not in row:
                raise ReqlQueryLogicError(
                    f"Inserted object must have primary key `{primary_key}`:\n{d.print_datum(row)}"
                )
            key = primary_key_bytes(row[primary_key])
        except ReqlRuntimeError as error:
            self._stats.was_used = True
            self._stats.add_error_of_a_row(error.message)
            if self._stats.return_changes:
                self._stats.add_change({"old_val": None, "new_val": None, "error": error.message})
            return
        self._writer.write(key, lambda old: self._resolve(old, row), row, key_is_made)
        if self._writer.is_full:
            self._writer.flush()

    def flush(self) -> None:
        """Commits what was added so far: to be called before anything else may run."""
        self._writer.flush()

    def _make_key(self) -> str:
        key: str = self._env.world.new_uuid()
        if len(self._generated) < self._env.array_limit:
            self._generated.append(key)
        else:
            self._keys_skipped += 1
        return key

    def _resolve(self, old: Any, row: Any) -> Any:
        if old is None or self._conflict == "replace":
            return row
        if self._conflict == "update":
            return d.merge(old, row)
        if isinstance(self._conflict, Func):
            return self._conflict.datum(self._primary_key, old, row)
        raise ReqlOpFailedError(
            f"Duplicate primary key `{self._primary_key}`:\n{d.print_datum(old)}\n{d.print_datum(row)}"
        )

    def finish(self) -> dict[str, Any]:
        self._writer.flush(is_last=True)
        if self._keys_skipped:
            self._stats.warnings.append(
                f"Too many generated keys ({self._keys_skipped + len(self._generated)}), "
                f"array truncated to {len(self._generated)}."
            )
        out = self._stats.result()
        if self._generated:
            out["generated_keys"] = self._generated
        return out


def writer_for(env: Any, table: Table, durability: str | None, stats: Stats, use_hook: bool = True) -> Any:
    """What collects and commits writes to this table; system tables bring their own."""
    make = getattr(table.source, "writer", None)
    if make is not None:
        return make(env, stats)
    return RowWriter(env, table, durability, stats, use_hook)


_CHANGE_OPTARGS = {"non_atomic": as_bool, **WRITE_OPTARGS}
_NOTHING_GIVEN: Final[dict[str, Any]] = {}


def _change_term(id: Term, name: str, args: str, make_rule: Any) -> None:
    """update, replace and delete: one machine, three rules for what becomes of a row."""
    has_function = args == "2"

    @special(id, name, args, optargs=_CHANGE_OPTARGS, determinism=NEVER)
    def compile(compiler: Compiler, raw: list[Any], path: Path) -> Node:
        spec = TERMS[id]
        arguments, raw_optargs = compiler.split(raw, path)
        given_nodes = [
            compiler.child(argument, (*path, at), id, at == 0, literal_ok=id is Term.UPDATE if at else None)
            for at, argument in enumerate(arguments)
        ]
        has_args = any(node.term == Term.ARGS for node in given_nodes)
        if not (has_args and id is Term.REPLACE) and not spec.takes_count(len(given_nodes)):
            raise ReqlCompileError(f"Expected {spec.arity()} but found {len(given_nodes)}.", path)
        optargs = compiler.compile_optargs(spec, raw_optargs, path)
        if given_nodes[0].term == Term.GET:
            leave_unread(given_nodes[0])

        def run(env: Any) -> Any:
            nodes = spread_args(env, given_nodes, path, id) if has_args else given_nodes
            target = nodes[0].run(env)
            given = _evaluate_optargs(env, spec, optargs, path) if optargs else _NOTHING_GIVEN
            rule: Any = None
            determinism = 0
            if has_function:
                if not given.get("non_atomic", False) and nodes[1].determinism & ~CONSTANT_NOW:
                    raise ReqlQueryLogicError(
                        "Could not prove argument deterministic.  Maybe you want to use the non_atomic flag?", path
                    )
                rule = _rule_of(env, nodes[1], make_rule, id)
                if id is Term.UPDATE or nodes[1].term == Term.FUNC:  # else it has been evaluated, once for all rows
                    determinism = nodes[1].determinism
            else:
                rule = make_rule(None)
            try:
                if target.__class__ is not SingleSelection and target.__class__ not in PLAIN:
                    grouped = grouped_value(env, target)
                    if grouped is not None:
                        return _change_groups(env, grouped, rule, determinism, given)
                return _change(env, target, rule, determinism, given)
            except ReqlError as error:
                if error.path is None:
                    error.path = _blamed(env, error, nodes, optargs, path)
                raise

        node = Node(run, id, path, raw, NEVER, arguments=given_nodes, optargs=optargs)
        if has_args:
            return node
        if has_function:
            node.run = change_runner(node, lambda env: _rule_of(env, given_nodes[1], make_rule, id))
        else:
            node.run = change_runner(node, make_rule)
        return node


def _change_groups(env: Any, grouped: Grouped, rule: Any, determinism: int, given: dict[str, Any]) -> Grouped:
    try:
        return over_groups(env, grouped, lambda held: _change(env, held, rule, determinism, given))
    except ReqlError as error:
        if error.at == 0:
            error.at = THE_TERM  # which the groups were given to
        raise


def _blamed(env: Any, error: ReqlError, nodes: list[Node], optargs: dict[str, Node], path: Path) -> Path:
    if isinstance(error.at, int) and error.at != THE_TERM:
        node = nodes[error.at]
        # An array that was a sequence is still blamed on where the sequence came from.
        return node.arguments[0].path if node.term == Term.COERCE_TO else place_of(env, node)
    return optargs[error.at].path if error.at in optargs else path


def _rule_of(env: Any, node: Node, make_rule: Any, id: Term) -> Any:
    """What becomes of a row, from the function or the object that update or replace was given."""
    if node.term == Term.DATUM:
        value = node.run(env)
        if value.__class__ is dict:  # what nearly all updates are given needs no function around it
            return partial(_updated, value) if id is Term.UPDATE else lambda old: value
    return make_rule(_change_function(env, node, lazily=id is Term.UPDATE))


def _updated(change: Any, old: Any) -> Any:
    if old is None:
        return None
    d.check_layer(change)
    return d.merge(old, change)


def _change_function(env: Any, node: Node, lazily: bool) -> Func:
    """What update or replace was given, as a function. An update's plain expression is evaluated for every row."""
    if lazily and node.term not in (Term.FUNC, Term.DATUM):
        return NativeFunc(env, lambda old: _evaluated(env, node, old), 1, determinism=node.determinism)
    return located(as_func_or_constant, env, node.run(env), node.path)  # type: ignore[no-any-return]


def _evaluated(env: Any, node: Node, old: Any) -> Any:
    return located(as_func_or_constant, env, node.run(env), node.path).datum(old)


def _evaluate_optargs(env: Any, spec: TermSpec, optargs: dict[str, Node], path: Path) -> dict[str, Any]:
    """In the order in which the term declares them."""
    out = {}
    for name, kind in spec.optargs.items():
        node = optargs.get(name)
        if node is not None:
            value = node.run(env)
            out[name] = value if kind is None else taken(kind, env, value, node, path)
    return out


def _change(env: Any, target: Any, rule: Any, determinism: int, optargs: dict[str, Any]) -> dict[str, Any]:
    return_changes, durability, use_hook = NO_CHANGES, None, True
    if optargs:
        return_changes = optargs.get("return_changes", NO_CHANGES)
        durability = optargs.get("durability")
        use_hook = not optargs.get("ignore_write_hook", False)
    stats = Stats(return_changes, env.array_limit)
    if target.__class__ is SingleSelection:
        if optargs:
            _check_hook_use(env, target.table, optargs)
        writer = writer_for(env, target.table, durability, stats, use_hook)
        writer.require_permission()
        primary_key = target.table.source.primary_key
        key = target.stored_key or primary_key_bytes(target.key)
        if determinism & ~CONSTANT_NOW:
            _change_rows(writer, primary_key, [(key, target.datum())], rule, determinism, stats, is_last=True)
        else:
            writer.write(key, rule)
            writer.flush(is_last=True)
        return stats.result()
    try:
        selection = as_selection(env, target)
    except ReqlError as error:
        if error.at != THE_TERM:
            error.at = 0
        raise
    _check_hook_use(env, selection.table, optargs)
    writer = writer_for(env, selection.table, durability, stats, use_hook)
    primary_key = selection.table.source.primary_key
    for rows in selection.stream.chunks(env):
        keyed = [(primary_key_bytes(row[primary_key]), row) for row in rows]
        _change_rows(writer, primary_key, keyed, rule, determinism, stats)
    return stats.result()


def _change_rows(
    writer: Any,
    primary_key: str,
    rows: list[tuple[bytes, Any]],
    rule: Any,
    determinism: int,
    stats: Stats,
    is_last: bool = False,
) -> None:
    """Decides on rows and commits. What is not deterministic is worked out beforehand, from the rows as read, and
    inserted: it cannot delete (table_t::batched_replace)."""
    if determinism & ~CONSTANT_NOW:
        decided = []
        for key, row in rows:
            try:
                new = rule(row)
                check_new_row(primary_key, key, row, new)
                decided.append((key, new))
            except ReqlRuntimeError as error:
                stats.was_used = True
                stats.add_error(error.message)
        for key, new in decided:
            writer.write(key, lambda old, new=new: new, new)
            if writer.is_full:
                writer.flush()
    else:
        for key, _ in rows:
            writer.write(key, rule)
            if writer.is_full:
                writer.flush()
    writer.flush(is_last)


def _replace_rule(function: Func) -> Any:
    return function.datum


def _update_rule(function: Func) -> Any:
    def update(old: Any) -> Any:
        if old is None:
            return None
        change = function.datum(old)
        if change is None:
            return old
        d.check_layer(change)
        return d.merge(old, change)

    return update


def _delete_rule(function: None) -> Any:
    return lambda old: None


_change_term(Term.REPLACE, "replace", "2", _replace_rule)
_change_term(Term.UPDATE, "update", "2", _update_rule)
_change_term(Term.DELETE, "delete", "1", _delete_rule)

FOR_EACH_FAILED = "FOR_EACH expects one or more basic write queries."


@term(Term.FOR_EACH, "foreach", "2", takes=(None, as_func_or_constant), determinism=NEVER)
def for_each(env: Any, rows: Any, function: Func) -> dict[str, Any]:
    """Runs a write for each row and adds up the results."""
    total: dict[str, Any] = {}
    warnings: list[str] = []
    for row in as_stream(env, rows).rows(env):
        value = function.call(row)
        try:
            result = as_datum(env, value)
        except ReqlError as error:  # RethinkDB says no more of what is no datum at all
            said = f"{FOR_EACH_FAILED}  {error.message}" if value.__class__ is SingleSelection else FOR_EACH_FAILED
            raise _for_each_error(error, said, function) from error
        try:
            if not d.is_object(result):
                d.expect(result, "ARRAY")
            for part in [result] if result.__class__ is dict else result:
                total = merge_stats(total, part, env.array_limit, warnings)
        except ReqlError as error:
            raise _for_each_error(error, f"{FOR_EACH_FAILED}  {error.message}", function) from error
    if warnings:
        total["warnings"] = [*total.get("warnings", []), *dict.fromkeys(warnings)]
    return total


def _for_each_error(error: ReqlError, message: str, function: Func) -> ReqlError:
    return error.reworded(message, function.place() or None, None if function.path else 1)


def merge_stats(left: dict[str, Any], right: Any, limit: int, warnings: list[str]) -> dict[str, Any]:
    """Adds two results of writes (datum_t's stats_merge)."""
    d.expect(right, "OBJECT")
    out = dict(left)
    for name, value in right.items():
        if name not in out:
            out[name] = value
            continue
        mine = out[name]
        if d.is_number(mine) and d.is_number(value):
            out[name] = d.number(mine + value)
        elif mine.__class__ is list and value.__class__ is list:
            joined = mine + value
            if len(joined) > limit:
                warnings.append(f"Too many changes, array truncated to {limit}.")
            out[name] = joined[:limit]
        elif not (mine.__class__ is str and value.__class__ is str):
            raise ReqlQueryLogicError(
                f"Cannot merge statistics `{d.trunc_print(mine)}` (type {d.type_name(mine)}) and "
                f"`{d.trunc_print(value)}` (type {d.type_name(value)})."
            )
    return out


@term(Term.SYNC, "sync", "1", takes=(as_table,), determinism=NEVER)
def sync(env: Any, table: Table) -> dict[str, int]:
    """Returns when all acknowledged writes to the table are on disk."""
    require_table(env, "write", table)
    stored = getattr(table.source, "table", None)
    if stored is None:
        raise ReqlOpFailedError("Artificial tables don't support `sync()`.")
    env.data.sync(stored.table_id)
    return {"synced": 1}
