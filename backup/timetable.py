"""When a schedule is due: cron expressions in a time zone. One rule: no clock here; the caller says what time it is.

`cronsim` follows Debian's cron: a time that a clock change skips is run right after it, one that it doubles once.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from model.errors import BadSetting


def check_timetable(cron: str, zone: str) -> None:
    """Raises BadSetting unless there will be a time at which it is due."""
    next_due_ms(cron, zone, 0)


def next_due_ms(cron: str, zone: str, after_ms: int) -> int:
    """The first time after `after_ms` (milliseconds) at which it is due. Raises BadSetting."""
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSetting(f"There is no time zone {zone!r}.", "Write it as in Europe/Berlin, or UTC.") from error
    try:
        due = next(CronSim(cron, datetime.fromtimestamp(after_ms / 1000, place)))
    except (CronSimError, StopIteration) as error:
        raise BadSetting(
            f"{cron!r} is not a cron expression ({error or 'it is never due'}).",
            "It has five fields: minute, hour, day of the month, month, day of the week.",
        ) from error
    return int(due.timestamp() * 1000)
