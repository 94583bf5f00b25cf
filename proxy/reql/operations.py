"""What is done to the rows of a stream: operations from rows to rows, and the aggregations at the end.

One rule: they take whole chunks, and hold nothing of a row for longer than they need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from model.errors import Path
from model.index_function import Fields
from proxy.reql.partial import fields_read

Rows = list[Any]

NOTHING: Final = object()
"""An accumulator that has not taken anything in: its group does not exist yet."""


class Operation:
    """One step of a stream. `kind` and `func` let `changes` and the planner look inside; `path` is the term's.

    Where `expands` is set, `expand` gives the rows piece by piece, because one row may become any number.
    Where `keeps_rows` is set, it leaves rows out or divides them, but what is left are the rows that came.
    """

    __slots__ = ("func", "kind", "path")
    expands = False
    keeps_rows = False

    def __init__(self, kind: str, path: Path, func: Any = None) -> None:
        self.kind = kind
        self.path = path
        self.func = func

    def apply(self, env: Any, rows: Rows) -> Any:
        raise AssertionError(f"{self.kind} does not say how to apply it")

    def expand(self, env: Any, rows: Rows) -> Iterator[Rows]:
        raise AssertionError(f"{self.kind} does not expand")

    def reads(self) -> Fields | None:
        """The fields of the rows that it looks at; None: all, or it is not known."""
        return None


class MapRows(Operation):
    """Gives func(row) for each row."""

    __slots__ = ()

    def __init__(self, func: Any, path: Path) -> None:
        super().__init__("map", path, func)

    def apply(self, env: Any, rows: Rows) -> Rows:
        return self.func.each(rows)  # type: ignore[no-any-return]

    def reads(self) -> Fields | None:
        return fields_read(self.func)


class RowOperation(Operation):
    """Any operation given as a Python function from (env, rows) to rows."""

    __slots__ = ("_apply",)

    def __init__(self, kind: str, path: Path, apply: Callable[[Any, Rows], Any], func: Any = None) -> None:
        super().__init__(kind, path, func)
        self._apply = apply

    def apply(self, env: Any, rows: Rows) -> Any:
        return self._apply(env, rows)


class Terminal:
    """An aggregation: `begin` an accumulator, `step` over rows, `end` to a value. One accumulator per group.

    An accumulator may be NOTHING until something was taken in; a group that stays NOTHING is left out.
    """

    __slots__ = ()

    def reads(self) -> Fields | None:
        """The fields of the rows that it looks at; None: all, or it is not known."""
        return None

    def begin(self, env: Any) -> Any:
        raise AssertionError("a terminal must say how it begins")

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        raise AssertionError("a terminal must say how it goes on")

    def end(self, env: Any, accumulator: Any) -> Any:
        return accumulator
