"""The short way of `table.get(key)` as a whole query, the commonest of all: from the key to the row, nothing between.

One rule: it does all or nothing, and never waits, so that it needs no fiber and no run of its own. Whatever is unusual
about the query, its table or its key, and whatever would have to be waited for, is left to the general way, whose
errors, places and waits are its own. A law in `tests/reql/test_point_get.py` holds the two to the same answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model.errors import ReqlError, RewindError
from model.keys import primary_key_bytes
from proxy.reql.env import Env, World
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, Parameter
from proxy.reql.permissions import ADMIN
from proxy.reql.tables import StoredTable, names_are_fixed
from proxy.reql.writing import UNBROKEN

LookUp = Callable[[World, list[Any]], bytes | None]
"""(world, the query's literals) -> the text of the row, or `null`; None: nothing was done, it is no usual case."""

_PLAIN_KEYS: Final = (str, int, float)


def look_up_of(root: Node) -> LookUp | None:
    """How a compiled query is answered the short way, if it is one that can be. Its user has to be `admin`."""
    if root.term != Term.GET or root.optargs or len(root.arguments) != 2:
        return None
    target, key_node = root.arguments
    if target.term != Term.TABLE or key_node.raw.__class__ is not Parameter or not names_are_fixed(target):
        return None
    find, at = target.run, key_node.raw[1]
    known: tuple[Any, int, Any, int] = (None, 0, None, 0)  # the catalog, its revision, the table's traffic and number

    def look_up(world: World, parameters: list[Any]) -> bytes | None:
        nonlocal known
        data = world.data
        key = parameters[at]
        if key.__class__ not in _PLAIN_KEYS or not data.can_get():
            return None
        catalog, revision, traffic, table_id = known
        if catalog is not data.catalog or revision != catalog.revision:
            source = _source(find, world)
            if source is None:
                return None
            traffic, table_id = source.traffic, source.table.table_id
            known = (data.catalog, data.catalog.revision, traffic, table_id)
        try:
            row = data.get(table_id, primary_key_bytes(key))
        except (ReqlError, RewindError):
            return None  # the general way will meet it, too
        traffic.read += 1
        return b"null" if row is None else row

    return look_up


def _source(find: Callable[[Any], Any], world: World) -> StoredTable | None:
    """What the table's name stands for now, if it is a stored table."""
    try:
        source = find(Env(world, UNBROKEN, ADMIN, 0)).source
    except ReqlError:
        return None
    return source if source.__class__ is StoredTable else None
