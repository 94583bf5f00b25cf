"""Which rows stay: predicates of filter, count and offsets_of, and how an object matches a row (func.cc).

One rule: what fails because something is absent does not match, unless the filter says what to do then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model import datum as d
from model import order
from model.errors import Path, ReqlEmptyUserError, ReqlError, ReqlNonExistenceError
from model.index_function import Fields
from proxy.reql.partial import fields_read
from proxy.reql.values import PLAIN, Func, NativeFunc, in_turns

Default = Callable[[], bool]


class Predicate:
    """A function as a condition. default: decides for rows where something is absent; None: they do not stay."""

    __slots__ = ("_default", "_flat", "_pattern", "func")

    def __init__(self, func: Func, default: Default | None = None) -> None:
        self.func = func
        self._default = default
        self._pattern: Any = None
        if func.matches_object and isinstance(func, NativeFunc):
            self._pattern = func.datum(None)  # a constant
        self._flat = _flat_fields(self._pattern) if default is None else None

    def keep(self, rows: list[Any]) -> list[Any]:
        """The rows for which it holds."""
        func = self.func
        if self._flat is not None:
            return self._keep_flat(rows, self._flat)
        if func.matches_object or len(func.slots) != 1:
            return [row for row in in_turns(func.env, rows) if self.holds(row)]
        code = func.row_code(len(rows))
        if code is not None:
            return func.use_code(code.keep, rows, self.holds)
        slot, run, env = func.slots[0], func.run, func.env
        values = env.slots
        out: list[Any] = []
        for row in in_turns(env, rows):
            values[slot] = row
            try:
                value = run(env)
                if value is True:
                    out.append(row)
                elif value is not False:
                    if value.__class__ not in PLAIN:
                        value = func.as_datum(value)
                    if value is not None and value is not False:
                        out.append(row)
            except ReqlNonExistenceError as error:
                if self._default is not None and self._decide(error):
                    out.append(row)
        return out

    def _keep_flat(self, rows: list[Any], fields: list[tuple[str, Any]]) -> list[Any]:
        """The rows with these strings and numbers in their fields; to Python, only true and false are like others."""
        if not all(row.__class__ is dict and d.PTYPE_KEY not in row for row in rows):
            return [row for row in rows if self.holds(row)]
        for key, wanted in fields:
            rows = [row for row in rows if row.get(key) == wanted]
            if wanted.__class__ is not str:
                rows = [row for row in rows if row[key].__class__ is not bool]
        return rows

    def reads(self) -> Fields | None:
        """The fields of a row that it looks at; None: all, or it is not known."""
        if self._pattern is not None:
            return None if self._pattern.get(d.PTYPE_KEY) == d.LITERAL else frozenset(self._pattern)
        read = fields_read(self.func)
        if read is not None and self.func.matches_object:
            body = self.func.raw[1][1]
            return read | body.keys() if body.__class__ is dict else None
        return read

    def holds(self, row: Any) -> bool:
        """Whether it holds for one row."""
        func = self.func
        try:
            if func.matches_object:
                pattern = self._pattern if self._pattern is not None else func.datum(row)
                if pattern.__class__ is dict:
                    return self._matches(pattern, row)
            else:
                pattern = func.datum(row)
            return pattern is not None and pattern is not False
        except ReqlNonExistenceError as error:
            return self._decide(error)

    def _matches(self, pattern: dict[str, Any], row: Any) -> bool:
        result = matches(pattern, row, self.func.path)
        if result.__class__ is bool:
            return result
        if self._default is None:
            return False
        raise ReqlNonExistenceError(f"No attribute `{result}` in object.", self.func.path)

    def _decide(self, error: ReqlNonExistenceError) -> bool:
        """What the default says of a row where something is absent; `r.error()` says that this is an error."""
        if self._default is None:
            return False
        try:
            return self._default()
        except ReqlEmptyUserError:
            raise error from None


def _flat_fields(pattern: Any) -> list[tuple[str, Any]] | None:
    """The fields of a pattern of strings and numbers alone."""
    if pattern.__class__ is not dict or not pattern or not {value.__class__ for value in pattern.values()} <= _FLAT:
        return None
    return None if d.PTYPE_KEY in pattern else list(pattern.items())


_FLAT: Final = frozenset({str, int, float})


def matches(pattern: dict[str, Any], row: Any, path: Path) -> bool | str:
    """Whether the row has all that the pattern has; the name of the first attribute that it lacks altogether.

    path: of the function that gave the pattern; one frame up is to blame for rows that are no objects.
    """
    if pattern.get(d.PTYPE_KEY) == d.LITERAL:
        if "value" not in pattern:
            raise ReqlNonExistenceError(f"No attribute `value` in object:\n{d.print_datum(pattern)}", path[:-1])
        return order.equal(pattern["value"], row)
    if pattern and not d.is_object(row):
        try:
            d.expect(row, "OBJECT")
        except ReqlError as error:
            error.path = path[:-1]
            raise
    for key in sorted(pattern) if len(pattern) > 1 else pattern:
        wanted = pattern[key]
        found = row.get(key, _MISSING)
        if found is _MISSING:
            return key
        if wanted.__class__ is dict and d.is_object(wanted) and d.is_object(found):
            result = matches(wanted, found, path)
            if result is not True:
                return result
        elif not order.equal(found, wanted):
            return False
    return True


_MISSING: Final = object()
