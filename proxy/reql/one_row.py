"""The short way of writes to one row, which nearly all writes are: no groups, no batches, no list of changes.

One rule: it knows the usual case alone. Whatever is unusual about the query, its user, its table, the row or what
becomes of it is left to the general way, before anything is done, so that all errors, their places, statistics and
waits are that way's own. A law in `tests/reql/test_one_row.py` holds the two to the same answers and rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model import datum as d
from model.effect import DELETE_ROW, PUT_ROW, Effect
from model.errors import ReqlError
from model.keys import primary_key_bytes
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, Run
from proxy.reql.registry import CONSTANT_NOW
from proxy.reql.tables import StoredTable
from proxy.reql.writing import UNBROKEN, stored_text

_PLAIN_KEYS: Final = (str, int, float)
_UNKNOWN: Final = object()


def insert_runner(node: Node) -> Run:
    """How a compiled `insert` is run: the short way where it is one document into a named table, else as compiled."""
    durability = _durability(node)
    if durability is _UNKNOWN or len(node.arguments) != 2:
        return node.run
    target, document = node.arguments
    if target.term != Term.TABLE or document.term != Term.DATUM:
        return node.run
    general, find, document_of = node.run, target.run, document.run

    def run(env: Any) -> Any:
        row = document_of(env)
        if row.__class__ is not dict or d.PTYPE_KEY in row or env.permissions is not None:
            return general(env)
        source = find(env).source
        if source.__class__ is not StoredTable or source.table.write_hook is not None:
            return general(env)
        made = None
        if source.primary_key not in row:
            made = env.world.new_uuid()
            row = {**row, source.primary_key: made}
        table_id = source.table.table_id
        is_unusual = False
        try:
            key = primary_key_bytes(row[source.primary_key])
            if env.data.get_head(table_id, key) is None:
                text = stored_text(row)
            else:
                is_unusual = True
        except ReqlError:
            is_unusual = True
        if is_unusual:
            return general(env)
        _commit(env, source, (PUT_ROW, table_id, key, text), durability)
        out: dict[str, Any] = {"deleted": 0, "errors": 0, "inserted": 1, "replaced": 0, "skipped": 0, "unchanged": 0}
        if made is not None:
            out["generated_keys"] = [made]
        return out

    return run


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
    general, find, key_of = node.run, table.run, key_node.run

    def run(env: Any) -> Any:
        if env.permissions is not None:
            return general(env)
        rule = rule_of(env)
        source = find(env).source
        row_key = key_of(env)
        if (
            source.__class__ is not StoredTable
            or source.table.write_hook is not None
            or row_key.__class__ not in _PLAIN_KEYS
        ):
            return general(env)
        table_id = source.table.table_id
        effect: Effect | None = None
        new: Any = None
        fibers, env.fibers = env.fibers, UNBROKEN
        try:
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
            return general(env)
        source.traffic.read += 1
        _commit(env, source, effect, durability)
        is_gone = int(new is None)
        return {
            "deleted": is_gone, "errors": 0, "inserted": 0, "replaced": 1 - is_gone, "skipped": 0, "unchanged": 0
        }  # fmt: skip

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
    source.traffic.written += 1
    durability = durability or source.table.options.get("durability") or "hard"
    if env.may_promise:
        env.promise = env.data.promise([effect], durability)
    else:
        env.data.commit([effect], durability)
