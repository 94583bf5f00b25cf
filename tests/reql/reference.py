"""A second reading of ReQL, as plain as can be: walks the raw tree and computes with Python values.

One rule: shares no code with the server but the total order of data, and knows only the terms that the random
expressions of `test_random_expressions` are made of.
"""

from __future__ import annotations

from typing import Any

from model import order
from proxy.reql.ids import Term


class Absent(Exception):
    """A non-existence error."""


class Wrong(Exception):
    """A logic error."""


class Reference:
    """Evaluates raw trees over tables given as lists of rows."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        self._tables = tables

    def run(self, raw: Any, scope: dict[int, Any] | None = None) -> Any:
        scope = scope or {}
        if isinstance(raw, dict):
            return {key: self.run(value, scope) for key, value in raw.items()}
        if not isinstance(raw, list):
            return raw
        term, arguments = Term(raw[0]), raw[1] if len(raw) > 1 else []
        method = getattr(self, f"_{term.name.lower()}", None)
        if method is None:
            raise AssertionError(f"the reference does not know {term.name}")
        return method(arguments, scope)

    def _all(self, arguments: list[Any], scope: dict[int, Any]) -> list[Any]:
        return [self.run(argument, scope) for argument in arguments]

    def _call(self, function: Any, scope: dict[int, Any], *values: Any) -> Any:
        if isinstance(function, list) and function[0] == Term.FUNC:
            names, body = function[1][0][1], function[1][1]
            return self.run(body, {**scope, **dict(zip(names, values, strict=True))})
        return self.run(function, scope)

    # -- values

    def _make_array(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return self._all(arguments, scope)

    def _var(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return scope[arguments[0]]

    def _db(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return None

    def _table(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return list(self._tables[arguments[-1]])

    def _coerce_to(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return _sequence(self.run(arguments[0], scope))

    # -- numbers and comparison

    def _numbers(self, arguments: list[Any], scope: dict[int, Any]) -> list[Any]:
        values = self._all(arguments, scope)
        for value in values:
            if not _is_number(value):
                raise Absent if value is None else Wrong
        return values

    def _add(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        values = self._all(arguments, scope)
        first = values[0]
        kinds = {_kind(value) for value in values}
        if None in values:
            raise _mixed(values)
        if len(kinds) > 1 or kinds <= {"bool", "dict"}:
            raise Wrong
        total = first
        for value in values[1:]:
            total = total + value
        return _number(total) if _is_number(total) else total

    def _sub(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        values = self._numbers(arguments, scope)
        return _number(values[0] - sum(values[1:]))

    def _eq(self, arguments: list[Any], scope: dict[int, Any]) -> bool:
        left, right = self._all(arguments, scope)
        return order.compare(left, right) == 0

    def _ne(self, arguments: list[Any], scope: dict[int, Any]) -> bool:
        return not self._eq(arguments, scope)

    def _lt(self, arguments: list[Any], scope: dict[int, Any]) -> bool:
        left, right = self._all(arguments, scope)
        return order.compare(left, right) < 0

    def _ge(self, arguments: list[Any], scope: dict[int, Any]) -> bool:
        return not self._lt(arguments, scope)

    # -- logic

    def _not(self, arguments: list[Any], scope: dict[int, Any]) -> bool:
        return not _truth(self.run(arguments[0], scope))

    def _and(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        value: Any = True
        for argument in arguments:
            value = self.run(argument, scope)
            if not _truth(value):
                return value
        return value

    def _or(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        value: Any = False
        for argument in arguments:
            value = self.run(argument, scope)
            if _truth(value):
                return value
        return value

    def _branch(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        test, yes, no = arguments
        return self.run(yes if _truth(self.run(test, scope)) else no, scope)

    def _default(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        try:
            value = self.run(arguments[0], scope)
        except Absent:
            value = None
        return value if value is not None else self.run(arguments[1], scope)

    # -- objects and sequences

    def _bracket(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        value, key = self._all(arguments, scope)
        return _field(value, key)

    def _has_fields(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        value, key = self._all(arguments, scope)
        if isinstance(value, list):
            present = [item for item in value if item is not None]
            return [item for item in present if _of_object(item) and item.get(key) is not None]
        return _of_object(value) and value.get(key) is not None

    def _count(self, arguments: list[Any], scope: dict[int, Any]) -> int:
        value = self.run(arguments[0], scope)
        if isinstance(value, (dict, str)):
            return len(value)
        return len(_sequence(value))

    def _map(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        return [self._call(arguments[1], scope, item) for item in _sequence(self.run(arguments[0], scope))]

    def _filter(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        out = []
        for item in _sequence(self.run(arguments[0], scope)):
            try:
                if _truth(self._call(arguments[1], scope, item)):
                    out.append(item)
            except Absent:
                continue
        return out

    def _concat_map(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        out = []
        for item in _sequence(self.run(arguments[0], scope)):
            out += _sequence(self._call(arguments[1], scope, item))
        return out

    def _limit(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        sequence, count = self._all(arguments, scope)
        return _sequence(sequence)[:count]

    def _skip(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        sequence, count = self._all(arguments, scope)
        return _sequence(sequence)[count:]

    def _distinct(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        out: list[Any] = []
        for item in sorted(_sequence(self.run(arguments[0], scope)), key=order.sort_key):
            if not out or order.compare(out[-1], item) != 0:
                out.append(item)
        return out

    def _order_by(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        rows = _sequence(self.run(arguments[0], scope))
        field = arguments[1]
        present = [row for row in rows if isinstance(row, dict) and field in row]
        absent = [row for row in rows if not (isinstance(row, dict) and field in row)]
        return sorted(present, key=lambda row: order.sort_key(row[field])) + absent

    def _sum(self, arguments: list[Any], scope: dict[int, Any]) -> Any:
        total = 0
        for row in _sequence(self.run(arguments[0], scope)):
            value = row.get(arguments[1]) if row is not None and _of_object(row) else None
            if value is None:
                continue  # what is absent does not count
            if not _is_number(value):
                raise Wrong
            total += value
        return _number(total)


def _kind(value: Any) -> str:
    return "number" if _is_number(value) else type(value).__name__


def _mixed(values: list[Any]) -> Exception:
    """The error for null among what is to be added: it depends on which comes first."""
    first = values[0]
    if first is None:
        return Absent()
    if _kind(first) in ("bool", "dict"):
        return Wrong()
    for value in values[1:]:
        if value is None:
            return Absent()
        if _kind(value) != _kind(first):
            return Wrong()
    return Wrong()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def _truth(value: Any) -> bool:
    return value is not None and value is not False


def _sequence(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Absent if value is None else Wrong


def _of_object(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    raise Absent if value is None else Wrong


def _field(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key not in value:
            raise Absent
        return value[key]
    if isinstance(value, list):
        present = [item for item in value if item is not None]  # what is absent inside is left out
        return [item[key] for item in present if _of_object(item) and key in item]
    raise Absent if value is None else Wrong
