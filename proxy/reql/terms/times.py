"""Times (terms/time.cc). One rule: all calendar work is in `model.pseudo_time`; here are only the terms."""

from __future__ import annotations

from typing import Any

from model import datum as d
from model import order
from model import pseudo_time as times
from model.errors import THE_TERM, ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.registry import CONSTANT_NOW, fail, term, unevaluated
from proxy.reql.terms.select import BOUNDS
from proxy.reql.values import as_datum, as_integer, as_number, as_string, wrong_type


def as_time(env: Any, value: Any) -> dict[str, Any]:
    """A time; raises `Not a TIME pseudotype`, and for a binary what RethinkDB says instead."""
    value = as_datum(env, value)
    if not d.is_ptype(value, d.TIME):
        if d.is_ptype(value, d.BINARY):
            error = wrong_type("OBJECT", value)
            error.at = THE_TERM
            raise error
        raise ReqlQueryLogicError(f"Not a TIME pseudotype: `{d.trunc_print(value)}`.")
    return value  # type: ignore[no-any-return]


# ---- construction and conversion -------------------------------------------------------------------------------


@term(Term.NOW, "now", "0", determinism=CONSTANT_NOW)
def now(env: Any) -> dict[str, Any]:
    """The time at which the query began."""
    return times.make_time(env.now_s())


@term(Term.TIME, "time", "4..7", takes=(as_integer, as_integer, as_integer, None))
def time(env: Any, *arguments: Any) -> dict[str, Any]:
    """From (year, month, day, timezone) or (year, month, day, hours, minutes, seconds, timezone)."""
    count = len(arguments)
    if count not in (4, 7):
        fail(f"Got {count} arguments to TIME (expected 4 or 7).")
    kinds: list[Any] = [as_integer] * 5 + [as_number]
    parts: list[Any] = []
    for at, given in enumerate(arguments):
        parts.append(argument(as_string if at == count - 1 else kinds[at], env, given, at))
    if count == 4:
        parts[3:3] = [0, 0, 0]
    for whole in parts[:5]:
        if not -(2**31) <= whole < 2**31:
            fail(f"Integer too large: {whole}", parts.index(whole))
    return times.from_parts(*parts)


@term(Term.EPOCH_TIME, "epoch_time", "1", takes=(as_number,))
def epoch_time(env: Any, seconds: float) -> dict[str, Any]:
    return times.make_time(seconds)


@term(Term.TO_EPOCH_TIME, "to_epoch_time", "1", takes=(as_time,))
def to_epoch_time(env: Any, value: dict[str, Any]) -> Any:
    return value["epoch_time"]


@term(Term.ISO8601, "iso8601", "1", takes=(as_string,), optargs={"default_timezone": as_string})
def iso8601(env: Any, text: str, default_timezone: str = "") -> dict[str, Any]:
    try:
        return times.from_iso8601(text, default_timezone)
    except ReqlQueryLogicError as error:
        error.at = 0
        raise


@term(Term.TO_ISO8601, "to_iso8601", "1", takes=(as_time,))
def to_iso8601(env: Any, value: dict[str, Any]) -> str:
    return times.to_iso8601(value)


@term(Term.IN_TIMEZONE, "in_timezone", "2", takes=(as_time, as_datum))
def in_timezone(env: Any, value: dict[str, Any], timezone: Any) -> dict[str, Any]:
    return times.in_timezone(value, timezone)


@term(Term.TIMEZONE, "timezone", "1", takes=(as_time,))
def timezone_of(env: Any, value: dict[str, Any]) -> Any:
    return value["timezone"]


# ---- parts and ranges ------------------------------------------------------------------------------------------


@term(Term.DATE, "date", "1", takes=(as_time,))
def date(env: Any, value: dict[str, Any]) -> dict[str, Any]:
    return times.start_of_day(value)


@term(Term.TIME_OF_DAY, "time_of_day", "1", takes=(as_time,))
def time_of_day(env: Any, value: dict[str, Any]) -> int | float:
    return times.time_of_day(value)


def _portion(id: Term) -> None:
    name = id.name.lower()

    @term(id, name, "1", takes=(as_time,))
    def portion(env: Any, value: dict[str, Any]) -> int | float:
        return times.portion(value, name)


for _id in (
    Term.YEAR, Term.MONTH, Term.DAY, Term.DAY_OF_WEEK, Term.DAY_OF_YEAR, Term.HOURS, Term.MINUTES, Term.SECONDS,
):  # fmt: skip
    _portion(_id)


@term(
    Term.DURING,
    "during",
    "3",
    takes=(as_time, as_time, as_time),
    optargs={"left_bound": unevaluated, "right_bound": unevaluated},
)
def during(env: Any, value: Any, low: Any, high: Any, **bounds: Any) -> bool:
    """Whether a time lies between two others. A bound is looked at if it matters."""

    def is_open(name: str, default: bool) -> bool:
        return default if name not in bounds else argument(BOUNDS[name], env, bounds[name](), name) == "open"

    after, before = order.compare(value, low), order.compare(value, high)
    return (after > 0 or (after == 0 and not is_open("left_bound", False))) and (
        before < 0 or (before == 0 and not is_open("right_bound", True))
    )


# ---- names of days and months ----------------------------------------------------------------------------------


def _constant(id: Term, value: int) -> None:
    @term(id, id.name.lower(), "0")
    def constant(env: Any) -> int:
        return value


for _value, _id in enumerate(
    (Term.MONDAY, Term.TUESDAY, Term.WEDNESDAY, Term.THURSDAY, Term.FRIDAY, Term.SATURDAY, Term.SUNDAY), 1
):
    _constant(_id, _value)
for _value, _id in enumerate(
    (
        Term.JANUARY, Term.FEBRUARY, Term.MARCH, Term.APRIL, Term.MAY, Term.JUNE, Term.JULY, Term.AUGUST,
        Term.SEPTEMBER, Term.OCTOBER, Term.NOVEMBER, Term.DECEMBER,
    ), 1,
):  # fmt: skip
    _constant(_id, _value)
