"""Terms that make one value of a sequence: count, sum, avg, min, max, reduce (terms/seq.cc, shards.cc).

One rule: rows for which the function fails because something is absent are left out; a group all of whose rows
are left out does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold_left
from operator import add
from typing import Any, Final

from model import datum as d
from model import order
from model.errors import Path, ReqlError, ReqlNonExistenceError, ReqlQueryLogicError
from model.index_function import Fields
from model.pseudo_binary import binary_bytes
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.partial import NO_FIELDS
from proxy.reql.registry import fail, fail_absent, term
from proxy.reql.streams import NOTHING, Rows, Stream, Terminal, as_stream, run_terminal
from proxy.reql.tables import STORED
from proxy.reql.terms.fields import ABSENT, each_or, fields_of, func_or_field
from proxy.reql.terms.matching import Predicate
from proxy.reql.values import (
    PLAIN,
    Func,
    SingleSelection,
    Table,
    TableSlice,
    as_datum,
    as_func,
    as_string,
    as_table,
    in_turns,
    wrong_type,
)

_NUMBERS: Final = frozenset({int, float})
_STRINGS: Final = frozenset({str})


# ---- count -----------------------------------------------------------------------------------------------------


class Count(Terminal):
    """How many rows."""

    __slots__ = ()

    def reads(self) -> Fields:
        return NO_FIELDS

    def begin(self, env: Any) -> int:
        return 0

    def step(self, env: Any, accumulator: int, rows: Rows) -> int:
        return accumulator + len(rows)


class CountMatching(Terminal):
    """How many rows a condition holds for."""

    __slots__ = ("_keep", "_reads")

    def __init__(self, keep: Callable[[Rows], Rows], reads: Fields | None) -> None:
        self._keep = keep
        self._reads = reads

    def reads(self) -> Fields | None:
        return self._reads

    def begin(self, env: Any) -> Any:
        return NOTHING

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        kept = len(self._keep(rows))
        if accumulator is NOTHING:
            return kept or NOTHING
        return accumulator + kept

    def end(self, env: Any, accumulator: Any) -> int:
        return 0 if accumulator is NOTHING else accumulator


@term(Term.COUNT, "count", "1..2", grouped="stream")
def count(env: Any, value: Any, *wanted: Any) -> Any:
    """How many rows, or how many for which a function holds or that equal a value; the size of other data."""
    if not wanted:
        return _count_all(env, value)
    what = wanted[0]
    if isinstance(what, Func):
        predicate = Predicate(what)
        keep, reads = predicate.keep, predicate.reads()
    else:
        reads = None
        datum = argument(as_datum, env, what, 1)

        def keep(rows: Rows) -> Rows:
            return [row for row in rows if order.equal(row, datum)]

    return run_terminal(env, as_stream(env, value), CountMatching(keep, reads))


def _count_all(env: Any, value: Any) -> Any:
    if value.__class__ is Table:
        return value.source.count(env)
    if value.__class__ is SingleSelection and value.datum() is not None:
        value = value.datum()
    if value.__class__ is str:
        return len(value)
    if value.__class__ is dict:
        return len(binary_bytes(value)) if d.is_ptype(value, d.BINARY) else len(value)
    stream = as_stream(env, value)
    if stream.has_texts and not stream.operations:
        return _count_texts(env, stream)
    return run_terminal(env, stream, Count())


def _count_texts(env: Any, stream: Stream) -> int:
    """Counts rows without a look inside."""
    found = 0
    while (texts := stream.source_texts(env)) is not None:
        found += len(texts)
        env.fibers.breathe()
    return found


# ---- sum and avg -----------------------------------------------------------------------------------------------


class Aggregation(Terminal):
    """An aggregation of func(row), or of the rows themselves."""

    __slots__ = ("_func", "_place")

    def __init__(self, func: Func | None, place: Path | None = None) -> None:
        self._func = func
        self._place = place  # of what is no number, if not the term itself

    def begin(self, env: Any) -> Any:
        return NOTHING

    def reads(self) -> Fields | None:
        return None if self._func is None else fields_of([self._func])

    def numbers(self, rows: Rows) -> list[int | float]:
        """The numbers to take in; what is absent or null is left out."""
        values = rows if self._func is None else each_or(self._func, rows, ABSENT)
        if set(map(type, values)) <= _NUMBERS:
            return values
        kept = [value for value in values if value is not None and value is not ABSENT]
        for value in kept:
            if value.__class__ not in _NUMBERS:
                error = wrong_type("NUMBER", value)
                error.path = self._place
                raise error
        return kept


class Sum(Aggregation):
    __slots__ = ()

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        numbers = self.numbers(rows)
        if not numbers:
            return accumulator
        return fold_left(add, numbers, 0 if accumulator is NOTHING else accumulator)

    def end(self, env: Any, accumulator: Any) -> Any:
        return 0 if accumulator is NOTHING else d.number(accumulator)


class Average(Aggregation):
    __slots__ = ()

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        numbers = self.numbers(rows)
        if not numbers:
            return accumulator
        total, size = (0, 0) if accumulator is NOTHING else accumulator
        return fold_left(add, numbers, total), size + len(numbers)

    def end(self, env: Any, accumulator: Any) -> Any:
        if accumulator is NOTHING:
            fail_absent(_empty("average", "avg"))
        return d.number(accumulator[0] / accumulator[1])


def _empty(what: str, name: str) -> str:
    return (
        f"Cannot take the {what} of an empty stream.  (If you passed `{name}` a field name, it may be that no "
        "elements of the stream had that field.)"
    )


def _without_index(id: Term, name: str, terminal: type[Aggregation]) -> None:
    @term(id, name, "1..2", optargs={"index": None}, grouped="stream", wants_path=True)
    def aggregate(env: Any, value: Any, *funcs: Any, path: Path, **optargs: Any) -> Any:
        func = func_or_field(env, funcs[0], path, 1) if funcs else None
        if "index" in optargs:
            if func is not None:
                fail(f"Cannot provide both a function and an index to {name}.")
            argument(as_table, env, value, 0)
            fail(f"Cannot call {name} on an index.")
        stream = as_stream(env, value)
        place = () if isinstance(stream, STORED) else None  # the shards add up what they have, and they are no term
        return run_terminal(env, stream, terminal(func, place))


_without_index(Term.SUM, "sum", Sum)
_without_index(Term.AVG, "avg", Average)


# ---- min and max -----------------------------------------------------------------------------------------------


class Extreme(Aggregation):
    """The row with the least (sign -1) or greatest (sign 1) value; of several, the first. Accumulator: (value, row)."""

    __slots__ = ("_name", "_pick", "_sign")

    def __init__(self, func: Func | None, name: str, sign: int) -> None:
        super().__init__(func)
        self._name = name
        self._sign = sign
        self._pick: Callable[[list[Any]], Any] = max if sign > 0 else min

    def reads(self) -> None:
        """All of a row, as one is the result."""

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        if self._func is None:
            values = rows
        else:
            values = each_or(self._func, rows, ABSENT)
            if ABSENT in values:
                pairs = [pair for pair in zip(values, rows, strict=True) if pair[0] is not ABSENT]
                values, rows = [value for value, _ in pairs], [row for _, row in pairs]
        if not values:
            return accumulator
        keys = order.sort_keys(values)
        at = keys.index(self._pick(keys))  # type: ignore[arg-type]
        best = (values[at], rows[at])
        if accumulator is NOTHING or order.compare(best[0], accumulator[0]) == self._sign:
            return best
        return accumulator

    def end(self, env: Any, accumulator: Any) -> Any:
        if accumulator is NOTHING:
            fail_absent(_empty(self._name, self._name))
        return accumulator[1]


def _extreme(id: Term, name: str, sign: int) -> None:
    @term(id, name, "1..2", optargs={"index": None}, grouped="stream", wants_path=True)
    def extreme(env: Any, value: Any, *funcs: Any, path: Path, index: Any = ABSENT) -> Any:
        """The row with the extreme value; by an index, a selection that finds it when it is looked at."""
        func = func_or_field(env, funcs[0], path, 1) if funcs else None
        if index is ABSENT:
            if func is None and value.__class__ is Table:
                return _end_of_index(env, value, None, name, sign, path)
            return run_terminal(env, as_stream(env, value), Extreme(func, name, sign))
        if func is not None:
            fail(f"Cannot provide both a function and an index to {name}.")
        table = argument(as_table, env, value, 0)
        return _end_of_index(env, table, argument(as_string, env, index, "index"), name, sign, path)


_extreme(Term.MIN, "min", -1)
_extreme(Term.MAX, "max", 1)


def _end_of_index(env: Any, table: Table, index: str | None, name: str, sign: int, path: Path) -> SingleSelection:
    part = TableSlice(table, index if index is not None else table.source.primary_key, sorting=-sign)

    def find() -> bytes:
        try:
            stream = table.source.stream(env, table, part)
            while (texts := stream.texts(env)) is not None:
                if texts:
                    return texts[0]  # type: ignore[no-any-return]
        except ReqlError as error:
            if error.path is None:
                error.path = path
            raise
        raise ReqlQueryLogicError(f"`{name}` found no entries in the specified index.", path)

    return SingleSelection(table, None, None, ("extreme", part), find)


# ---- reduce ----------------------------------------------------------------------------------------------------


class Reduce(Terminal):
    """func(func(first, second), third) ..."""

    __slots__ = ("_func",)

    def __init__(self, func: Func) -> None:
        self._func = func

    def begin(self, env: Any) -> Any:
        return NOTHING

    def step(self, env: Any, accumulator: Any, rows: Rows) -> Any:
        at = 0
        if accumulator is NOTHING:
            accumulator, at = rows[0], 1
        func = self._func
        if len(func.slots) != 2:
            for row in in_turns(env, rows[at:]):
                accumulator = func.datum(accumulator, row)
            return accumulator
        left, right = func.slots
        run, values = func.run, func.env.slots
        for row in in_turns(env, rows[at:]):
            values[left] = accumulator
            values[right] = row
            accumulator = run(func.env)
            if accumulator.__class__ not in PLAIN:
                accumulator = func.as_datum(accumulator)
        return accumulator

    def end(self, env: Any, accumulator: Any) -> Any:
        if accumulator is NOTHING:
            raise ReqlNonExistenceError("Cannot reduce over an empty stream.", self._func.path)
        return accumulator


@term(Term.REDUCE, "reduce", "2", takes=(None, as_func), optargs={"base": None}, grouped="stream")
def reduce(env: Any, value: Any, func: Func, **optargs: Any) -> Any:
    return run_terminal(env, as_stream(env, value), Reduce(func))
