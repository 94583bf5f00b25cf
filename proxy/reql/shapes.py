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

ALL: Final = range(1 << 30)
REST: Final = range(1, 1 << 30)

# Which arguments of a term are lifted when they are literals.
LIFTED: Final[dict[int, range]] = {
    **{
        int(term): ALL
        for term in (
            Term.EQ, Term.NE, Term.LT, Term.LE, Term.GT, Term.GE, Term.ADD, Term.SUB, Term.MUL, Term.DIV, Term.MOD,
            Term.CONTAINS, Term.EPOCH_TIME, Term.POINT, Term.DISTANCE, Term.RANGE,
        )
    },
    **{
        int(term): REST
        for term in (
            Term.GET_ALL, Term.MERGE, Term.BRANCH, Term.APPEND, Term.PREPEND, Term.SET_INSERT, Term.SET_UNION,
            Term.SET_INTERSECTION, Term.SET_DIFFERENCE, Term.DIFFERENCE, Term.INSERT_AT, Term.CHANGE_AT,
            Term.DELETE_AT, Term.SPLICE_AT, Term.SLICE, Term.NTH, Term.SAMPLE, Term.MATCH, Term.SPLIT, Term.DURING,
            Term.DEFAULT, Term.GET_INTERSECTING, Term.GET_NEAREST, Term.INTERSECTS, Term.INCLUDES,
        )
    },
    **{
        int(term): range(1, 2)
        for term in (Term.GET, Term.LIMIT, Term.SKIP, Term.INSERT, Term.UPDATE, Term.REPLACE, Term.FILTER)
    },
    **{int(term): range(1) for term in (Term.MAP, Term.CONCAT_MAP, Term.FOR_EACH)},
    int(Term.BETWEEN): range(1, 3),
}  # fmt: skip

# Whose second argument may be an object, or a function that makes one, of which some values are literals.
WRITES_OBJECT: Final = frozenset({int(Term.INSERT), int(Term.UPDATE), int(Term.REPLACE)})

# Terms that keep the raw tree of a function, variables' numbers and all.
KEEPS_RAW: Final = frozenset({int(Term.INDEX_CREATE), int(Term.INFO), int(Term.SET_WRITE_HOOK)})

_KEPT: Final = 0
_VARIABLE: Final = 1
_FUNCTION: Final = 2
_RULES: Final[dict[int, range | int]] = {
    **LIFTED, **dict.fromkeys(KEEPS_RAW, _KEPT), int(Term.VAR): _VARIABLE, int(Term.FUNC): _FUNCTION
}  # fmt: skip
_NAMES: Final = frozenset({int(Term.IMPLICIT_VAR), int(Term.DB), int(Term.TABLE)})

Key = tuple[int, bytes]
"""Of a shape: how many literals were lifted, and the JSON text of what is left."""

MAX_KEY_BYTES: Final = 4096
MAX_SHAPES: Final = 2000


class Unshaped(Exception):
    """The query is not worth keeping, or must not be."""


def lift(query: list[Any]) -> tuple[Key | None, list[Any]]:
    """Lifts literals out of a parsed query, in place. Gives the key (None: compile it anew) and the literals."""
    parameters: list[Any] = []
    try:
        raw = query[1]
        if raw.__class__ is list:
            _lift_term(raw, parameters, {})
        elif raw.__class__ is dict:
            _lift_members(raw, parameters, {})
        text = orjson.dumps(query)
    except (Unshaped, TypeError):  # orjson writes 254 levels, and says of more that it is a TypeError
        return None, parameters
    if len(text) > MAX_KEY_BYTES or (len(query) > 2 and _is_over_array_limit(query[2], parameters)):
        return None, parameters
    return (len(parameters), text), parameters


def _is_over_array_limit(optargs: Any, parameters: list[Any]) -> bool:
    """Whether a lifted literal has an array that the query itself does not allow: compiling it tells which."""
    if optargs.__class__ is not dict or "array_limit" not in optargs:
        return False
    limit = optargs["array_limit"]
    return limit.__class__ is not int or any(_has_longer_array(value, limit) for value in parameters)


def _has_longer_array(value: Any, limit: int) -> bool:
    if value.__class__ is list:
        return len(value) > limit or any(_has_longer_array(item, limit) for item in value)
    return value.__class__ is dict and any(_has_longer_array(item, limit) for item in value.values())


def _lift_members(raw: dict[str, Any], parameters: list[Any], names: dict[int, int]) -> None:
    """Lifts out of the terms in an object, or in optargs."""
    for value in raw.values():
        if value.__class__ is list:
            _lift_term(value, parameters, names)
        elif value.__class__ is dict:
            _lift_members(value, parameters, names)


def _lift_term(raw: list[Any], parameters: list[Any], names: dict[int, int]) -> None:
    if len(raw) < 2:
        return
    arguments = raw[1]
    rule: Any = _RULES.get(raw[0])
    if rule.__class__ is int:
        if rule == _KEPT:
            raise Unshaped
        if rule == _VARIABLE:
            if arguments.__class__ is list and len(arguments) == 1 and arguments[0] in names:
                raw[1] = [names[arguments[0]]]
            return
        names = _rename(arguments, names)
        rule = None
    if arguments.__class__ is list:
        at = 0
        for argument in arguments:
            if rule is not None and at in rule:
                value = literal(argument)
                if value is not MISSING:
                    arguments[at] = Parameter((0, len(parameters)))
                    parameters.append(value)
                    at += 1
                    continue
            at += 1
            if argument.__class__ is list:
                if argument and argument[0] in _NAMES and _is_name(argument):
                    continue
                _lift_term(argument, parameters, names)
            elif argument.__class__ is dict:
                _lift_members(argument, parameters, names)
            else:
                continue
            if at == 2 and raw[0] in WRITES_OBJECT:
                _lift_values(argument, parameters)
    elif arguments.__class__ is dict:
        _lift_members(arguments, parameters, names)
    if len(raw) > 2:
        optargs = raw[2]
        if optargs.__class__ is dict:
            _lift_members(optargs, parameters, names)
        elif optargs.__class__ is list:
            _lift_term(optargs, parameters, names)


def _is_name(raw: list[Any]) -> bool:
    """Whether a term is nothing but [id, [a name]] or [id, []]: a shortcut past the leaves of nearly every query."""
    if len(raw) != 2 or raw[1].__class__ is not list:
        return False
    return not raw[1] or (len(raw[1]) == 1 and raw[1][0].__class__ is str)


def _lift_values(raw: Any, parameters: list[Any]) -> None:
    """Lifts strings, numbers and arrays out of an object that is written, or out of the one that a function makes."""
    if raw.__class__ is list and len(raw) > 1 and raw[0] == 69:  # FUNC, whose arguments `_rename` has checked
        raw = raw[1][1]
    if raw.__class__ is not dict or "$reql_type$" in raw:
        return
    for name, value in raw.items():
        if value.__class__ is str or value.__class__ is int or value.__class__ is float or value.__class__ is list:
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
