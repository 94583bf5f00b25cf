"""Reads ISO 8601 dates, times and zones, letter by letter as RethinkDB does, with its messages.

One rule: nothing here knows the calendar; it only says which numbers were written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from model.errors import ReqlQueryLogicError

_POSIX_ZONE: Final = re.compile(r"([A-Za-z<>]*)(?:([+-])?([0-9]+)(?::([0-9]+))?)?")


@dataclass(slots=True)
class Parts:
    """What the text says. `day_of_year` is set for `2020-123`; `zone` is None if the text has none."""

    year: int
    month: int = 1
    day: int = 1
    day_of_year: int | None = None
    week_date: bool = False
    hours: int = 0
    minutes: int = 0
    seconds: int = 0
    micros: int = 0
    zone: str | None = None


class _Reader:
    """A text and a place in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def done(self) -> bool:
        return self.at == len(self.text)

    def digits(self, count: int) -> str:
        start = self.at
        for _ in range(count):
            if self.at >= len(self.text):
                raise ReqlQueryLogicError(
                    f"Invalid time zone string `{self.text}`. Valid time zones are `+hh:mm`, `-hh:mm`, `+hhmm`, "
                    "`-hhmm`, `+hh`, `-hh` and `Z`."
                )
            letter = self.text[self.at]
            if not "0" <= letter <= "9":
                raise ReqlQueryLogicError(f"Invalid date string `{self.text}` (got `{letter}` but expected a digit).")
            self.at += 1
        return self.text[start : self.at]

    def skip(self, letter: str) -> bool:
        if self.text[self.at : self.at + 1] == letter:
            self.at += 1
            return True
        return False

    def end(self, what: str) -> None:
        if not self.done:
            raise ReqlQueryLogicError(
                f"Garbage characters `{self.text[self.at :]}` at end of {what} string `{self.text}`."
            )


def _date(text: str) -> Parts:
    reader = _Reader(text)
    parts = Parts(int(reader.digits(4)))
    if reader.done:
        return parts
    first_hyphen = reader.skip("-")
    if reader.skip("W"):
        parts.week_date = True
        reader.digits(2)
        if reader.done:
            return parts
        reader.skip("-")
        reader.digits(1)
    elif len(text) - reader.at == 3:
        parts.day_of_year = int(reader.digits(3))
    else:
        parts.month = int(reader.digits(2))
        if first_hyphen and reader.done:
            return parts
        if first_hyphen != reader.skip("-"):
            raise ReqlQueryLogicError(f"Date string `{text}` must have 0 or 2 hyphens.")
        parts.day = int(reader.digits(2))
    reader.end("date")
    return parts


def _time(text: str, parts: Parts) -> None:
    reader = _Reader(text)
    parts.hours = int(reader.digits(2))
    if reader.done:
        return
    first_colon = reader.skip(":")
    parts.minutes = int(reader.digits(2))
    if reader.done:
        return
    if first_colon != reader.skip(":"):
        raise ReqlQueryLogicError(f"Time string `{text}` must have 0 or 2 colons.")
    parts.seconds = int(reader.digits(2))
    if reader.skip("."):
        fraction = reader.digits(len(text) - reader.at)
        parts.micros = int((fraction + "000000")[:6])  # digits beyond microseconds are dropped
    reader.end("time")


def zone(text: str) -> str:
    """A time zone in its one form, `+hh:mm`; raises RethinkDB's errors."""
    if text in ("-00", "-00:00"):
        raise ReqlQueryLogicError(f"`{text}` is not a valid time offset.")
    if text == "Z":
        return "+00:00"
    reader = _Reader(text)
    sign = "-" if reader.skip("-") else "+" if reader.skip("+") else ""
    if not sign:
        raise ReqlQueryLogicError(f"Timezone `{text}` does not start with `-` or `+`.")
    hours = reader.digits(2)
    if reader.done:
        return f"{sign}{hours}:00"
    reader.skip(":")
    minutes = reader.digits(2)
    reader.end("timezone")
    if int(hours) > 24:
        raise ReqlQueryLogicError(f"Hours out of range in `{text}`.")
    if int(minutes) > 59:
        raise ReqlQueryLogicError(f"Minutes out of range in `{text}`.")
    return f"{sign}{hours}:{minutes}"


def zone_or_none(text: str) -> str | None:
    """A time zone in its one form, or None if it is not one."""
    try:
        return zone(text)
    except ReqlQueryLogicError:
        return None


def default_zone(text: str) -> str:
    """The zone of the `default_timezone` argument, which RethinkDB reads as a POSIX zone: a name, then an offset."""
    if text == "":
        raise ReqlQueryLogicError("ISO 8601 string has no time zone, and no default time zone was provided.")
    match = _POSIX_ZONE.match(text)
    name, sign, hours, minutes = match.groups() if match else ("", None, None, None)
    shown = f"{name}{sign or '+'}{int(hours or 0):02}" + (f":{int(minutes):02}" if minutes and int(minutes) else "")
    if shown == "Z+00":
        return "+00:00"
    if not name and (found := zone_or_none(shown)) is not None:
        return found
    if not name and hours and int(hours) >= 100:
        raise ReqlQueryLogicError(f"Error in time logic: Offset out of range: {int(hours)}:{int(minutes or 0):02}:00.")
    raise ReqlQueryLogicError(f"Invalid ISO 8601 timezone: `{shown}`.")


def parse(text: str, default_timezone: str) -> Parts:
    """The parts of a date, or of a date and time parted by `T`."""
    day, separator, rest = text.partition("T")
    parts = _date(day)
    if separator:
        sign_at = next((at for at in (rest.find(sign) for sign in "-+Z") if at >= 0), len(rest))
        _time(rest[:sign_at], parts)
        if sign_at < len(rest):
            parts.zone = zone(rest[sign_at:])
    return parts
