"""Lenses: which changefeeds show the same of the same changes, so that only one of them has to work it out.

One rule: what a feed shows may depend on its query's shape, on the literals in it and on the change, and on nothing
else; where that is not certain, a feed has a lens of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from model import datum as d
from proxy.reql.ids import Term
from proxy.reql.nodes import Node
from proxy.reql.registry import ALWAYS

# Terms that a feed's rows may have come through: all that they do is in their arguments.
TRANSPARENT: Final = frozenset(
    {
        Term.FILTER, Term.MAP, Term.PLUCK, Term.WITHOUT, Term.WITH_FIELDS, Term.HAS_FIELDS, Term.MERGE, Term.GET_FIELD,
        Term.BRACKET, Term.BETWEEN, Term.GET_ALL, Term.ORDER_BY, Term.LIMIT,
    }
)  # fmt: skip


def shows_the_same(root: Node) -> bool:
    """Whether all queries of a compiled shape with equal literals show the same of a change."""
    if root.term != Term.CHANGES or not root.arguments:
        return False
    node = root.arguments[0]
    while node.term != Term.TABLE:
        if node.term not in TRANSPARENT or not _is_all_known(node):
            return False
        if any(part.determinism != ALWAYS for part in (*node.arguments[1:], *node.optargs.values())):
            return False
        node = node.arguments[0]
    return True


def _is_all_known(node: Node) -> bool:
    """Whether a node names all that its term was given; some terms keep a part to themselves."""
    arguments = node.raw[1] if len(node.raw) > 1 else []
    optargs = node.raw[2] if len(node.raw) > 2 else {}
    return len(node.arguments) == len(arguments) > 0 and set(node.optargs) == set(optargs)


def lens_of(shape: Hashable, parameters: list[Any]) -> Hashable:
    """The lens of a query of such a shape."""
    return shape, d.dumps(parameters)
