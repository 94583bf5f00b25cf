"""The short way of writes to one row, which nearly all writes are: no groups, no batches, no list of changes.

One rule: it knows the usual case alone. Whatever is unusual about the query, its user, its table, the row or what
becomes of it is left to the general way, before anything is done, so that all errors, their places, statistics and
waits are that way's own. A law in `tests/reql/test_one_row.py` holds the two to the same answers and rows.

Where the write is the whole query and its waiting may be left to a promise, it needs no fiber (`write_at_once`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model import datum as d
from model.effect import DELETE_ROW, PUT_ROW, Effect
from model.errors import ReqlError, RewindError
from model.keys import primary_key_bytes
from proxy.answers import ATOM, Answer, Promised
from proxy.reql.env import Env, World
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, Run
from proxy.reql.permissions import ADMIN
from proxy.reql.registry import CONSTANT_NOW
from proxy.reql.tables import StoredTable, names_are_fixed
from proxy.reql.writing import UNBROKEN, stored_text

_PLAIN_KEYS: Final = (str, int, float)
_UNKNOWN: Final = object()


def _result(inserted: int = 0, replaced: int = 0, deleted: int = 0) -> dict[str, Any]:
    return {
        "deleted": deleted, "errors": 0, "inserted": inserted, "replaced": replaced, "skipped": 0, "unchanged": 0
    }  # fmt: skip


# The same objects for all queries, as data are never changed: their answers need not be written anew each time.
_INSERTED: Final = _result(inserted=1)
_REPLACED: Final = _result(replaced=1)
_DELETED: Final = _result(deleted=1)
_ANSWERS: Final = {id(result): Answer(ATOM, [d.dumps(result)]) for result in (_INSERTED, _REPLACED, _DELETED)}


def write_at_once(write: Run, world: World, parameters: list[Any], slot_count: int) -> Promised | bytes | None:
    """Does a write that is the whole query, outside all fibers, for the user `admin`; `write` is a node's `at_once`.

    Gives what is promised, or the result's text where nothing has to be waited for. None: nothing was done.
    """
    env = Env(world, UNBROKEN, ADMIN, slot_count)
    env.params = parameters
    env.may_promise = True
    try:
        result = write(env)
    except (ReqlError, RewindError):
        return None  # all is worked out before anything is proposed, and what is refused is not done
    if result is None:
        return None
    answer = _ANSWERS.get(id(result)) or Answer(ATOM, [d.dumps(result)])
    return answer.items[0] if env.promise is None else Promised(answer, env.promise)


def insert_runner(node: Node) -> Run:
    """How a compiled `insert` is run: the short way where it is one document into a named table, else as compiled.

    Sets the node's `at_once`, if it can have one.
    """
    durability = _durability(node)
    if durability is _UNKNOWN or len(node.arguments) != 2:
        return node.run
    target, document = node.arguments
    if target.term != Term.TABLE or document.term != Term.DATUM:
        return node.run
    find, document_of = target.run, document.run

    def write(env: Any) -> dict[str, Any] | None:
        row = document_of(env)
        if row.__class__ is not dict or d.PTYPE_KEY in row or env.permissions is not None:
            return None
        source = find(env).source
        if source.__class__ is not StoredTable or source.table.write_hook is not None:
            return None
        made = None
        if source.primary_key not in row:
            made = env.world.new_uuid()
            row = {**row, source.primary_key: made}
        table_id = source.table.table_id
        try:
            key = primary_key_bytes(row[source.primary_key])
            if env.data.get_head(table_id, key) is not None:
                return None
            text = stored_text(row)
        except ReqlError:
            return None
        _commit(env, source, (PUT_ROW, table_id, key, text), durability)
        return _INSERTED if made is None else {**_INSERTED, "generated_keys": [made]}

    if names_are_fixed(target):
        node.at_once = write
    return _or_else(write, node.run)


def change_runner(node: Node, rule_of: Callable[[Any], Callable[[Any], Any]]) -> Run:
    """As `insert_runner`, for a compiled `update`, `replace` or `delete`.

    rule_of(env): what becomes of a row, as the general way finds it.
    """
    durability = _durability(node)
    target = node.arguments[0]
    if durability is _UNKNOWN or target.term != Term.GET or target.optargs or len(target.arguments) != 2:
        return node.run
    if any(argument.determinism & ~CONSTANT_NOW for argument in node.arguments[1:]):
        return node.run
    table, key_node = target.arguments
    if table.term != Term.TABLE or key_node.term != Term.DATUM:
        return node.run
    find, key_of = table.run, key_node.run

    def write(env: Any) -> dict[str, Any] | None:
        if env.permissions is not None:
            return None
        source = find(env).source
        row_key = key_of(env)
        if (
            source.__class__ is not StoredTable
            or source.table.write_hook is not None
            or row_key.__class__ not in _PLAIN_KEYS
        ):
            return None
        table_id = source.table.table_id
        effect: Effect | None = None
        new: Any = None
        fibers, env.fibers = env.fibers, UNBROKEN
        try:
            rule = rule_of(env)
            key = primary_key_bytes(row_key)
            old_text = env.data.get_head(table_id, key)
            if old_text is not None:
                old = d.loads(old_text)
                new = rule(old)
                if new is None:
                    effect = (DELETE_ROW, table_id, key)
                elif _keeps_its_key(source.primary_key, old, new):
                    text = stored_text(new)
                    if text != old_text:
                        effect = (PUT_ROW, table_id, key, text)
        except ReqlError:
            pass
        finally:
            env.fibers = fibers
        if effect is None:
            return None
        _commit(env, source, effect, durability)
        source.traffic.read += 1
        return _DELETED if new is None else _REPLACED

    # Another expression than these might be long in the making, and would want to take breath.
    if names_are_fixed(table) and all(change.term in (Term.DATUM, Term.FUNC) for change in node.arguments[1:]):
        node.at_once = write
    return _or_else(write, node.run)


def _or_else(write: Run, general: Run) -> Run:
    """The short way, and the general way where that gives nothing."""

    def run(env: Any) -> Any:
        result = write(env)
        return general(env) if result is None else result

    return run


def _keeps_its_key(primary_key: str, old: dict[str, Any], new: Any) -> bool:
    """Whether `new` is an object with the key of `old`; False if that needs a closer look."""
    if new.__class__ is not dict or d.PTYPE_KEY in new:
        return False
    kept, given = old[primary_key], new.get(primary_key)
    return given is kept or (given.__class__ is str and given == kept)


def _durability(node: Node) -> Any:
    """The durability that the term itself is given, None for the table's, _UNKNOWN if there are other optargs."""
    if not node.optargs:
        return None
    given = node.optargs.get("durability")
    if given is None or len(node.optargs) > 1 or given.constant not in ("hard", "soft"):
        return _UNKNOWN
    return given.constant


def _commit(env: Any, source: StoredTable, effect: Effect, durability: str | None) -> None:
    durability = durability or source.table.options.get("durability") or "hard"
    if env.may_promise:
        env.promise = env.data.promise([effect], durability)
        source.traffic.written += 1  # not before: what is refused is tried again the general way
    else:
        source.traffic.written += 1
        env.data.commit([effect], durability)
        env.read_prepared = False  # a soft commit may not be applied yet
