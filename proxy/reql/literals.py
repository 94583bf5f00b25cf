"""Literals in raw trees: what needs no term to be evaluated becomes a datum at once.

One rule: a query that must fail is left to the compiler, which knows the place to blame.
"""

from __future__ import annotations

from typing import Any, Final

from model import datum as d
from model.errors import ReqlError
from model.pseudo_time import from_iso8601
from proxy.reql.ids import Term
from proxy.reql.nodes import MISSING

MAX_INT: Final = d.MAX_INT
_DATUM, _MAKE_ARRAY, _ISO8601 = int(Term.DATUM), int(Term.MAKE_ARRAY), int(Term.ISO8601)  # asked for very often


def literal(raw: Any) -> Any:
    """The canonical datum that a raw tree of literals, arrays, objects and written-out times stands for.

    MISSING if it has other terms, or if the query must fail: then compiling it tells where. `raw` stays as it is.
    """
    kind = raw.__class__
    if kind is str or kind is bool or raw is None:
        return raw
    if kind is dict:
        return _literal_object(raw)
    if kind is int:
        return raw if -MAX_INT <= raw <= MAX_INT else _canonical(raw)
    if kind is float:
        return _canonical(raw)
    if len(raw) != 2:
        return MISSING
    term = raw[0]
    if term == _DATUM:
        return _canonical(copy_json(raw[1]))
    if raw[1].__class__ is not list:
        return MISSING
    if term == _MAKE_ARRAY:
        if len(raw[1]) > 100_000:
            return MISSING  # the array limit is the query's business
        items = []
        for value in raw[1]:
            kind = value.__class__
            if kind is not str and not (kind is int and -MAX_INT <= value <= MAX_INT):
                value = literal(value)
                if value is MISSING:
                    return MISSING
            items.append(value)
        return items
    if term == _ISO8601 and len(raw[1]) == 1 and raw[1][0].__class__ is str:
        try:
            return from_iso8601(raw[1][0])
        except ReqlError:
            return MISSING
    return MISSING


def _literal_object(raw: dict[str, Any]) -> Any:
    if "$reql_type$" in raw:
        return MISSING if any(map(has_terms, raw.values())) else _canonical(dict(raw))
    out = raw
    for key, value in raw.items():
        kind = value.__class__
        if kind is str:
            continue
        if kind is int:
            if -MAX_INT <= value <= MAX_INT:
                continue
            value = _canonical(value)
        elif kind is float:
            if -MAX_INT < value < MAX_INT and not value.is_integer():
                continue
            value = _canonical(value)
        elif kind is dict:
            value = _literal_object(value)
            if value is raw[key]:
                continue
        elif kind is bool or value is None:
            continue
        else:  # a list, or a Parameter, which is no literal
            value = literal(value)
        if value is MISSING:
            return MISSING
        if out is raw:
            out = raw.copy()
        out[key] = value
    return out


def _canonical(raw: Any) -> Any:
    try:
        return d.canonical(raw)
    except ReqlError:
        return MISSING


def has_terms(raw: Any) -> bool:
    return raw.__class__ in (list, dict)


def copy_json(raw: Any) -> Any:
    """A copy whose containers may be changed."""
    if raw.__class__ is dict:
        return {key: copy_json(value) if has_terms(value) else value for key, value in raw.items()}
    if raw.__class__ is list:
        return [copy_json(value) if has_terms(value) else value for value in raw]
    return raw


def is_func(raw: Any) -> bool:
    """Whether a raw term is a function, which may contain `r.literal` only if that who calls it says so."""
    return raw.__class__ is list and bool(raw) and raw[0] == Term.FUNC
