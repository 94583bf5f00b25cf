"""Functions that outlive their query: variables from outside are replaced by what they were (func.cc's captures).

One rule: the result is a raw FUNC term without free variables, so that it can be stored and compiled anywhere.
"""

from __future__ import annotations

from typing import Any

from model.errors import ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.nodes import At, Compiled
from proxy.reql.values import Func


def closed_function(function: Func) -> list[Any]:
    """The raw FUNC term of a function value, closed over the variables that it captured."""
    if function.raw is None:
        raise ReqlQueryLogicError("This function cannot be stored.")
    captured = {name: function.env.slots[slot] for name, slot in function.captured.variables.items()}
    closed = _close(function.raw, captured)
    assert isinstance(closed, list)
    return closed


def _close(raw: Any, captured: dict[int, Any]) -> Any:
    if raw.__class__ is dict:
        return {key: _close(value, captured) for key, value in raw.items()}
    if raw.__class__ is At:
        return _close(raw.raw, captured)
    if raw.__class__ is Compiled:
        return _close(raw.node.raw, captured)
    if raw.__class__ is not list or not raw:
        return raw
    if raw[0] == Term.DATUM:
        return raw
    if raw[0] == Term.VAR and len(raw) > 1 and raw[1] and raw[1][0].__class__ is int and raw[1][0] in captured:
        return [int(Term.DATUM), captured[raw[1][0]]]
    if raw[0] == Term.FUNC and len(raw) > 1 and len(raw[1]) == 2:
        names = _names(raw[1][0])
        inner = {name: value for name, value in captured.items() if name not in names}
        return [raw[0], [raw[1][0], _close(raw[1][1], inner)]]
    out: list[Any] = [raw[0]]
    for part in raw[1:]:
        if part.__class__ is list:
            out.append([_close(item, captured) for item in part])
        else:
            out.append({key: _close(value, captured) for key, value in part.items()})
    return out


def _names(raw: Any) -> set[int]:
    items = raw[1] if raw.__class__ is list and len(raw) > 1 else []
    return {int(item) for item in items if item.__class__ in (int, float)}
