"""Times: `{"$reql_type$": "TIME", "epoch_time": seconds, "timezone": "+hh:mm"}`.

One rule: a time is its epoch, in whole milliseconds; the time zone, always a fixed offset, only says how
it is shown. RethinkDB leaves calendar work to Boost, so its limits are Boost's: the years 1400 to 9999 and
offsets from -12:00 to +14:00 wherever a calendar is needed; a mere epoch may lie outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

from model import iso8601
from model.errors import ReqlQueryLogicError
from model.kinds import PTYPE_KEY, TIME, expect, is_number, type_name
from model.printing import trunc_print

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_SECOND: Final = 1_000_000  # microseconds
_DAY: Final = 86_400 * _SECOND
_FIRST: Final = (date(1400, 1, 1).toordinal() - _EPOCH_DAY) * _DAY
_END: Final = (date(9999, 12, 31).toordinal() + 1 - _EPOCH_DAY) * _DAY
_CLEAN_ZONE: Final = re.compile(r"[+-](?:[01][0-9]|2[0-4]):[0-5][0-9]\Z")
_LAST_INT: Final = 2**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN_ISO8601: Final = re.compile(
    r"(?:1[4-9]|[2-9]\d)\d\d-\d\d-\d\dT[0-2]\d:[0-5]\d:[0-5]\d(?:\.\d{1,6})?[+-](?:0\d|1[0-1]):[0-5]\d\Z", re.ASCII
)


def _number(value: float) -> int | float:
    """A finite result in canonical form (see `model.datum.number`, which may not be imported here)."""
    if not math.isfinite(value):
        text = "nan" if value != value else "inf" if value > 0 else "-inf"
        raise ReqlQueryLogicError(f"Non-finite number: {text}")
    if abs(value) <= _LAST_INT and value == int(value) and (value or math.copysign(1.0, value) > 0):
        return int(value)
    return value


def _round_half_away(value: float) -> float:
    """C's `round`: halves go away from zero."""
    if not math.isfinite(value):
        return value
    floor = math.floor(value)
    rest = value - floor
    rounded = float(floor + 1 if rest > 0.5 or (rest == 0.5 and value > 0) else floor)
    return math.copysign(rounded, value)


def to_milliseconds(seconds: float) -> float:
    """Seconds rounded to a thousandth, by the same steps as RethinkDB."""
    return _round_half_away(seconds * 1000.0) / 1000.0


def make_time(epoch: float, timezone: str = "+00:00") -> dict[str, Any]:
    """A time datum from seconds since 1970 and a zone already in its one form."""
    return {PTYPE_KEY: TIME, "epoch_time": _number(to_milliseconds(epoch)), "timezone": timezone}


def validated(datum: dict[str, Any]) -> dict[str, Any]:
    """The time in its one form; raises `Invalid time object constructed (...)`."""
    epoch, zone = datum.get("epoch_time"), datum.get("timezone")
    if len(datum) == 3 and type(zone) is str and (zone == "+00:00" or _clean(zone)):
        if type(epoch) is int:
            return datum
        if type(epoch) is float and -1e12 < epoch < 1e12 and math.floor(epoch * 1000.0 + 0.5) / 1000.0 == epoch:
            return datum if not epoch.is_integer() else make_time(epoch, zone)
    return _validated_slowly(datum)


def _clean(zone: str) -> bool:
    return zone != "-00:00" and _CLEAN_ZONE.match(zone) is not None


def _validated_slowly(datum: dict[str, Any]) -> dict[str, Any]:
    problem = ""
    fixed: dict[str, Any] = {PTYPE_KEY: TIME}
    for key in sorted(datum):
        value = datum[key]
        if key == "epoch_time":
            if not is_number(value):
                problem = f"field `epoch_time` must be a number (got `{trunc_print(value)}` of type {type_name(value)})"
                break
            fixed["epoch_time"] = value if type(value) is int else _number(to_milliseconds(value))
        elif key == "timezone":
            if type(value) is not str:
                problem = f"field `timezone` must be a string (got `{trunc_print(value)}` of type {type_name(value)})"
                break
            zone = value if _clean(value) else iso8601.zone_or_none(value)
            if zone is None:
                problem = f"invalid timezone string `{trunc_print(value)}`"
                break
            fixed["timezone"] = zone
        elif key != PTYPE_KEY:
            problem = f"unrecognized field `{key}`"
            break
    if not problem:
        problem = next((f"no field `{key}`" for key in ("epoch_time", "timezone") if key not in fixed), "")
    if problem:
        raise ReqlQueryLogicError(
            f"Invalid time object constructed ({problem}):\n{trunc_print({**datum, **fixed})}",
        )
    return fixed


# ---- the calendar ----------------------------------------------------------------------------------------------


def _calendar_error(reason: str) -> ReqlQueryLogicError:
    return ReqlQueryLogicError(f"Error in time logic: {reason}.")


def _checked(micros: int) -> int:
    """Microseconds since 1970 if they fall into the years that Boost knows."""
    if not _FIRST <= micros < _END:
        raise _calendar_error("Year is out of valid range: 1400..9999")
    return micros


def _offset(zone: str) -> int:
    """Microseconds east of Greenwich of a zone in its one form; raises when Boost would refuse it."""
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    if zone[0] == "-":
        minutes = -minutes
    if not -12 * 60 <= minutes <= 14 * 60:
        raise _calendar_error(f"Offset out of range: {zone.lstrip('+')}:00")
    return minutes * 60 * _SECOND


def _whole_micros(seconds: float) -> int:
    """Seconds as microseconds, halves away from zero."""
    whole = int(seconds)
    return whole * _SECOND + int((seconds - whole) * 1e6 + (-0.5 if seconds < 0 else 0.5))


def _local(time: dict[str, Any]) -> tuple[int, int]:
    """(microseconds since 1970 on the clock of the time's own zone, offset in microseconds)."""
    offset = _offset(time["timezone"])
    epoch = float(time["epoch_time"])
    if abs(epoch) > 1e12:  # far outside, and the product below must not overflow
        _checked(_END)
    utc = _checked(int(_round_half_away(epoch * 1000.0)) * 1000)
    return _checked(utc + offset), offset


def _date_of(micros: int) -> date:
    return date.fromordinal(_EPOCH_DAY + micros // _DAY)


def _day_start(year: int, month: int, day: int) -> int:
    """Microseconds from 1970 to the start of a day; raises Boost's errors, in the order in which Boost finds them."""
    if not 1 <= day <= 31:
        raise _calendar_error("Day of month value is out of range 1..31")
    if not 1 <= month <= 12:
        raise _calendar_error("Month number is out of range 1..12")
    if not 1400 <= year <= 9999:
        raise _calendar_error("Year is out of valid range: 1400..9999")
    try:
        ordinal = date(year, month, day).toordinal()
    except ValueError:
        raise _calendar_error("Day of month is not valid for year") from None
    return (ordinal - _EPOCH_DAY) * _DAY


# ---- construction ----------------------------------------------------------------------------------------------


def from_parts(
    year: int, month: int, day: int, hours: int, minutes: int, seconds: float, timezone: str
) -> dict[str, Any]:
    """`r.time`. Hours, minutes and seconds may exceed their range and carry over."""
    micros = _day_start(year, month, day)
    clock = (abs(hours) * 60 + abs(minutes)) * 60 * _SECOND
    micros += -clock if hours < 0 or minutes < 0 else clock
    micros += _whole_micros(seconds)
    zone = iso8601.zone(timezone)
    return make_time((_checked(micros) - _offset(zone)) / 1e6, zone)


def _from_plain_iso8601(text: str) -> dict[str, Any] | None:
    """The time in `YYYY-MM-DDThh:mm:ss.ssssss+hh:mm`, the form that drivers write, with a fraction or without.

    None if it has any peculiarity: then the long way, which takes ten times as long, tells what of it.
    """
    zone = text[-6:]
    if _PLAIN_ISO8601.match(text) is None or zone == "-00:00":
        return None
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    micros = since.microseconds
    epoch: float = since.days * 86_400 + since.seconds
    if micros:
        epoch = _number(to_milliseconds((epoch * _SECOND + micros) / 1e6))
    return {PTYPE_KEY: TIME, "epoch_time": epoch, "timezone": zone}


def from_iso8601(text: str, default_timezone: str = "") -> dict[str, Any]:
    """`r.iso8601`; raises RethinkDB's errors for what it does not read."""
    plain = _from_plain_iso8601(text)
    if plain is not None:
        return plain
    parts = iso8601.parse(text, default_timezone)
    if parts.week_date:
        raise ReqlQueryLogicError(
            "Due to limitations in the boost time library we use for parsing, we cannot support ISO week dates right "
            "now.  Sorry about that!  Please use years, calendar dates, or ordinal dates instead."
        )
    micros = _day_start(parts.year, parts.month, parts.day)
    if parts.day_of_year is not None:
        if not 1 <= parts.day_of_year <= 366:
            raise _calendar_error("Day of year value is out of range 1..366")
        micros += (parts.day_of_year - 1) * _DAY
    micros += ((parts.hours * 60 + parts.minutes) * 60 + parts.seconds) * _SECOND + parts.micros
    zone = parts.zone if parts.zone is not None else iso8601.default_zone(default_timezone)
    return make_time((_checked(micros) - _offset(zone)) / 1e6, zone)


def to_iso8601(time: dict[str, Any]) -> str:
    """`to_iso8601`: milliseconds only if there are any."""
    micros, _ = _local(time)
    day, clock = _date_of(micros), micros % _DAY
    seconds, fraction = divmod(clock, _SECOND)
    text = f"{day.year:04}-{day.month:02}-{day.day:02}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if fraction:
        text += f".{fraction // 1000:03}"
    return text + str(time["timezone"])


def in_timezone(time: dict[str, Any], timezone: Any) -> dict[str, Any]:
    """The same moment shown in another zone."""
    expect(timezone, "STRING")
    return {**time, "timezone": iso8601.zone(timezone)}


# ---- parts -----------------------------------------------------------------------------------------------------


def start_of_day(time: dict[str, Any]) -> dict[str, Any]:
    """`date`: midnight of the same day in the same zone."""
    micros, offset = _local(time)
    return make_time((micros - micros % _DAY - offset) / 1e6, time["timezone"])


def time_of_day(time: dict[str, Any]) -> int | float:
    """Seconds since midnight in the time's zone."""
    micros, _ = _local(time)
    return _number(to_milliseconds((micros % _DAY) / 1e6))


def _seconds(time: dict[str, Any], micros: int) -> int | float:
    # The fraction is the epoch's own, so before 1970 it is negative: that is how RethinkDB answers, too.
    fraction = math.modf(float(time["epoch_time"]))[0]
    return _number(micros // _SECOND % 60 + _round_half_away(fraction * 1000) / 1000)


_PORTIONS: Final[dict[str, Callable[[dict[str, Any], int], int | float]]] = {
    "year": lambda time, micros: _date_of(micros).year,
    "month": lambda time, micros: _date_of(micros).month,
    "day": lambda time, micros: _date_of(micros).day,
    "day_of_week": lambda time, micros: _date_of(micros).isoweekday(),
    "day_of_year": lambda time, micros: _date_of(micros).timetuple().tm_yday,
    "hours": lambda time, micros: micros % _DAY // (3600 * _SECOND),
    "minutes": lambda time, micros: micros // (60 * _SECOND) % 60,
    "seconds": _seconds,
}


def portion(time: dict[str, Any], name: str) -> int | float:
    """One of year, month, day, day_of_week (1 is Monday), day_of_year, hours, minutes, seconds, in its zone."""
    return _PORTIONS[name](time, _local(time)[0])


# ---- arithmetic ------------------------------------------------------------------------------------------------


def add_seconds(time: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The time so many seconds later, in the same zone."""
    return make_time(float(time["epoch_time"]) + seconds, time["timezone"])


def difference(left: dict[str, Any], right: dict[str, Any]) -> int | float:
    """Seconds from `right` to `left`."""
    return _number(to_milliseconds(float(left["epoch_time"]) - float(right["epoch_time"])))
