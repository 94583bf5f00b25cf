"""The name of a field where a function is expected: `sum('a')`, `group('a')`, `order_by('a')` (GET_FIELD_SHORTCUT).

One rule: it gives what the term `get_field` gives, without the price of a call per row.
"""

from __future__ import annotations

from typing import Any, Final

from model import datum as d
from model.errors import Path, ReqlNonExistenceError
from model.index_function import Fields
from proxy.reql.absent import NoAttribute
from proxy.reql.partial import fields_read
from proxy.reql.registry import fail
from proxy.reql.values import PLAIN, Func, NativeFunc, SingleSelection, Value, as_datum, in_turns, wrong_kind

ABSENT: Final = object()
"""Stands for the value of a function that failed with a non-existence error."""


class FieldFunc(NativeFunc):
    """The function that gets one field of a row."""

    __slots__ = ("key",)

    def __init__(self, env: Any, key: Any, path: Path) -> None:
        super().__init__(env, self._get, 1, path)
        self.key = key

    def each(self, rows: list[Any]) -> list[Any]:
        try:
            found = [row[self.key] for row in rows if row.__class__ is dict and d.PTYPE_KEY not in row]
        except KeyError:
            found = []
        return found if len(found) == len(rows) else [self.call(row) for row in rows]

    def each_or(self, rows: list[Any], instead: Any) -> list[Any]:
        """`each`, with `instead` for rows without the field."""
        key = self.key
        if key.__class__ is str:
            found = [row.get(key, instead) for row in rows if row.__class__ is dict and d.PTYPE_KEY not in row]
            if len(found) == len(rows):
                return found
        return _each_or(self, rows, instead)

    def _get(self, row: Any) -> Any:
        if row.__class__ is list:
            return [self._of_object(item) for item in row if self._is_in(item)]
        _check_object(row)
        return self._of_object(row)

    def _of_object(self, row: dict[str, Any]) -> Any:
        key = self.key
        if key.__class__ is not str:
            d.expect(key, "STRING")
        try:
            return row[key]
        except KeyError:
            raise NoAttribute(key, row) from None

    def _is_in(self, item: Any) -> bool:
        """Whether an element has the field; null, as anything absent, has none."""
        if item.__class__ is list:
            fail("Cannot perform get_field on a sequence of sequences.")
        if item is None:
            return False
        _check_object(item)
        return self.key.__class__ is not str or self.key in item


def _check_object(row: Any) -> None:
    if not d.is_object(row):
        d.fail_typed(row, f"Cannot perform get_field on a non-object non-sequence `{d.trunc_print(row)}`.")
    if d.PTYPE_KEY in row:
        fail(f"Cannot call `get_field` on objects of type `{d.type_name(row)}`.")


def func_or_field(env: Any, value: Any, path: Path, at: int) -> Func:
    """A function as it is, a datum as the function that gets this field. `at`: the argument; `path`: of its term."""
    if isinstance(value, Func):
        return value
    if value.__class__ not in PLAIN and isinstance(value, Value) and value.__class__ is not SingleSelection:
        error = wrong_kind("FUNCTION", value)
        error.at = at
        raise error
    return FieldFunc(env, as_datum(env, value), (*path, at))


def fields_of(funcs: list[Func]) -> Fields | None:
    """The fields of a row that any of the functions looks at; None: all, or it is not known."""
    found: Fields = frozenset()
    for func in funcs:
        if isinstance(func, FieldFunc):
            read = frozenset({func.key}) if func.key.__class__ is str else None
        else:
            read = fields_read(func)
        if read is None:
            return None
        found |= read
    return found


def each_or(func: Func, rows: list[Any], instead: Any) -> list[Any]:
    """The function's value for every row, `instead` where it fails with a non-existence error."""
    if isinstance(func, FieldFunc):
        return func.each_or(rows, instead)
    return _each_or(func, rows, instead)


def _each_or(func: Func, rows: list[Any], instead: Any) -> list[Any]:
    out: list[Any] = []
    add = out.append
    datum = func.datum
    if len(func.slots) == 1:
        code = func.row_code(len(rows))
        if code is not None:
            return func.use_code(code.each, rows, lambda row: _one_or(func, row, instead))
        slot, run, env = func.slots[0], func.run, func.env
        values = env.slots
        for row in in_turns(env, rows):
            values[slot] = row
            try:
                value = run(env)
                add(value if value.__class__ in PLAIN else func.as_datum(value))
            except ReqlNonExistenceError:
                add(instead)
        return out
    for row in in_turns(func.env, rows):
        try:
            add(datum(row))
        except ReqlNonExistenceError:
            add(instead)
    return out


def _one_or(func: Func, row: Any, instead: Any) -> Any:
    try:
        return func.datum(row)
    except ReqlNonExistenceError:
        return instead
