"""Query shapes: queries that differ only in literals and in the numbers of variables are compiled once.

One rule: a literal is lifted out only where no term decides at compile time what to do with it (`LIFTED`), so that
a shape means the same for all literals. A lifted literal becomes a `Parameter`, [0, n], which no valid query has.

The key of a shape is the JSON text of the query after lifting, with the number of its parameters: a query that
itself sends [0, n] has fewer lifted literals than places, and so never meets another's shape.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.reql.ids import Term
from proxy.reql.literals import literal
from proxy.reql.nodes import MISSING, Parameter

ALL: Final = range(1, 1 << 30)

# Which arguments of a term are lifted when they are literals.
LIFTED: Final[dict[int, range]] = {
    **{
        int(term): ALL
        for term in (
            Term.GET_ALL, Term.EQ, Term.NE, Term.LT, Term.LE, Term.GT, Term.GE, Term.ADD, Term.SUB, Term.MUL,
            Term.DIV, Term.CONTAINS,
        )
    },
    **{int(term): range(1, 2) for term in (Term.GET, Term.LIMIT, Term.SKIP, Term.INSERT, Term.UPDATE, Term.REPLACE)},
    int(Term.BETWEEN): range(1, 3),
}  # fmt: skip

# Whose second argument may be an object, or a function that makes one, of which some values are literals.
WRITES_OBJECT: Final = frozenset({int(Term.INSERT), int(Term.UPDATE), int(Term.REPLACE)})

# Terms that keep the raw tree of a function, variables' numbers and all.
KEEPS_RAW: Final = frozenset({int(Term.INDEX_CREATE), int(Term.INFO), int(Term.SET_WRITE_HOOK)})

MAX_KEY_BYTES: Final = 4096
MAX_SHAPES: Final = 2000


class Unshaped(Exception):
    """The query is not worth keeping, or must not be."""


def lift(query: list[Any]) -> tuple[bytes | None, list[Any]]:
    """Lifts literals out of a parsed query, in place. Gives the key (None: compile it anew) and the literals."""
    parameters: list[Any] = []
    try:
        _lift(query, 1, parameters, {})
        key = orjson.dumps(query)
    except (Unshaped, TypeError):  # orjson writes 254 levels, and says of more that it is a TypeError
        return None, parameters
    if len(key) > MAX_KEY_BYTES:
        return None, parameters
    return b"%d:%b" % (len(parameters), key), parameters


def _lift(holder: Any, place: Any, parameters: list[Any], names: dict[int, int]) -> None:
    raw = holder[place]
    if raw.__class__ is dict:
        for name, value in raw.items():
            if value.__class__ is list or value.__class__ is dict:
                _lift(raw, name, parameters, names)
        return
    if raw.__class__ is not list or len(raw) < 2:
        return
    term, arguments = raw[0], raw[1]
    if term == 10:  # VAR
        if arguments.__class__ is list and len(arguments) == 1 and arguments[0] in names:
            raw[1] = [names[arguments[0]]]
        return
    if term in KEEPS_RAW:
        raise Unshaped
    if term == 69:  # FUNC
        names = _rename(arguments, names)
    if arguments.__class__ is list:
        lifted = LIFTED.get(term)
        for at, argument in enumerate(arguments):
            if lifted is not None and at in lifted:
                value = literal(argument)
                if value is not MISSING:
                    arguments[at] = Parameter((0, len(parameters)))
                    parameters.append(value)
                    continue
            if argument.__class__ is list or argument.__class__ is dict:
                _lift(arguments, at, parameters, names)
                if at == 1 and term in WRITES_OBJECT:
                    _lift_values(argument, parameters)
    elif arguments.__class__ is dict:
        _lift(raw, 1, parameters, names)
    if len(raw) > 2:
        _lift(raw, 2, parameters, names)


def _lift_values(raw: Any, parameters: list[Any]) -> None:
    """Lifts the strings and numbers out of an object that is written, or out of the one that a function makes."""
    if raw.__class__ is list and len(raw) > 1 and raw[0] == 69:  # FUNC, whose arguments `_rename` has checked
        raw = raw[1][1]
    if raw.__class__ is not dict or "$reql_type$" in raw:
        return
    for name, value in raw.items():
        if value.__class__ is str or value.__class__ is int or value.__class__ is float:
            value = literal(value)
            if value is not MISSING:
                raw[name] = Parameter((0, len(parameters)))
                parameters.append(value)
        elif value.__class__ is dict:
            _lift_values(value, parameters)


def _rename(arguments: Any, names: dict[int, int]) -> dict[int, int]:
    """Numbers a function's variables by their depth, as drivers count them up from query to query."""
    if arguments.__class__ is not list or len(arguments) != 2:
        raise Unshaped
    declared = arguments[0]
    if declared.__class__ is not list or len(declared) != 2 or declared[0] != 2 or declared[1].__class__ is not list:
        raise Unshaped
    if any(name.__class__ is not int or name < 0 for name in declared[1]):
        raise Unshaped
    first = len(names) + 1
    numbered = {name: first + at for at, name in enumerate(declared[1])}
    arguments[0] = [2, list(numbered.values())]
    if len(numbered) != len(declared[1]):
        raise Unshaped
    return {**names, **numbered}
