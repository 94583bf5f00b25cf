"""Times, against what RethinkDB 2.4.4 answered."""

from __future__ import annotations

import pytest

from model import pseudo_time as times
from model.errors import ReqlError

VALID_ZONES = "Valid time zones are `+hh:mm`, `-hh:mm`, `+hhmm`, `-hhmm`, `+hh`, `-hh` and `Z`."


@pytest.mark.parametrize(
    ("text", "epoch", "zone"),
    [
        ("2020-01-02T03:04:05Z", 1577934245, "+00:00"),
        ("2020-01-02T03:04:05.678-07:00", 1577959445.678, "-07:00"),
        ("2020-01-02T03:04:05.123456Z", 1577934245.123, "+00:00"),
        ("2020-01-02T03:04:05.123456+00:00", 1577934245.123, "+00:00"),
        ("2020-01-02T03:04:05.9996-07:00", 1577959446, "-07:00"),
        ("1969-12-31T23:59:59.75+00:00", -0.25, "+00:00"),
        ("20200102T030405+0230", 1577925245, "+02:30"),
        ("2020-01-02T03Z", 1577934000, "+00:00"),
        ("2020-01-02T25:00:00Z", 1578013200, "+00:00"),
        ("2020", 1577836800, "+00:00"),
        ("2020-05", 1588291200, "+00:00"),
        ("2020-123", 1588377600, "+00:00"),
        ("2019-366", 1577836800, "+00:00"),
    ],
)
def test_iso8601(text, epoch, zone):
    assert times.from_iso8601(text, "Z") == times.make_time(epoch, zone)


@pytest.mark.parametrize(
    ("text", "default", "message"),
    [
        ("2020-01-02", "", "ISO 8601 string has no time zone, and no default time zone was provided."),
        ("2020-01-02", "bogus", "Invalid ISO 8601 timezone: `bogus+00`."),
        ("202005", "Z", f"Invalid time zone string `202005`. {VALID_ZONES}"),
        ("2020-13-01", "Z", "Error in time logic: Month number is out of range 1..12."),
        ("2019-02-29", "Z", "Error in time logic: Day of month is not valid for year."),
        ("2020-1-2", "Z", "Invalid date string `2020-1-2` (got `-` but expected a digit)."),
        ("2020-0102", "Z", "Date string `2020-0102` must have 0 or 2 hyphens."),
        ("2020-01-02T0304:05", "Z", "Time string `0304:05` must have 0 or 2 colons."),
        ("2020-01-02x", "Z", "Garbage characters `x` at end of date string `2020-01-02x`."),
        ("2020-01-02T03:04:05+23:59", "Z", "Error in time logic: Offset out of range: 23:59:00."),
        ("2020-W10-3", "Z", "Due to limitations in the boost time library we use for parsing, we cannot support ISO"),
    ],
)
def test_text_that_is_not_read(text, default, message):
    with pytest.raises(ReqlError) as caught:
        times.from_iso8601(text, default)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("EST", "Timezone `EST` does not start with `-` or `+`."),
        ("", "Timezone `` does not start with `-` or `+`."),
        ("+5", f"Invalid time zone string `+5`. {VALID_ZONES}"),
        ("+25:00", "Hours out of range in `+25:00`."),
        ("+05:60", "Minutes out of range in `+05:60`."),
        ("-00:00", "`-00:00` is not a valid time offset."),
        ("+05:00x", "Garbage characters `x` at end of timezone string `+05:00x`."),
    ],
)
def test_zones_that_are_not_read(zone, message):
    with pytest.raises(ReqlError) as caught:
        times.from_parts(2020, 1, 1, 0, 0, 0, zone)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("parts", "epoch"),
    [
        ((2020, 1, 2, 3, 4, 5.6789), 1577934245.679),
        ((2020, 1, 1, 24, 0, 0), 1577923200),
        ((2020, 1, 1, 23, 59, 59.9999), 1577923200),
        ((1969, 12, 31, 23, 59, 59), -1),
        ((1400, 1, 1, 0, 0, 0), -17987443200),
        ((2020, 1, 2, -1, 30, 0), 1577917800),
    ],
)
def test_parts_make_a_time(parts, epoch):
    assert times.from_parts(*parts, "Z")["epoch_time"] == epoch


def test_the_calendar_ends_where_boost_s_does():
    with pytest.raises(ReqlError, match=r"^Error in time logic: Year is out of valid range: 1400\.\.9999\.$"):
        times.from_parts(10000, 1, 1, 0, 0, 0, "Z")
    for epoch in (253402300800, -17987443201, 1e300):
        with pytest.raises(ReqlError, match="Year is out of valid range"):
            times.portion(times.make_time(epoch), "year")


def test_epochs_are_rounded_to_milliseconds():
    assert times.make_time(1.23456)["epoch_time"] == 1.235
    assert times.make_time(1e20)["epoch_time"] == 9.999999999999998e19
    assert times.make_time(-0.0005)["epoch_time"] == -0.001


def test_parts_of_a_time_before_1970():
    time = times.make_time(-0.25)
    assert times.to_iso8601(time) == "1969-12-31T23:59:59.750+00:00"
    assert times.portion(time, "seconds") == 58.75  # RethinkDB's own answer


def test_zones_shift_the_parts():
    time = times.in_timezone(times.from_parts(2021, 3, 4, 1, 30, 0, "+02:00"), "-03:30")
    assert [times.portion(time, part) for part in ("day", "hours", "minutes")] == [3, 20, 0]
    assert times.time_of_day(time) == 72000
    assert times.to_iso8601(times.start_of_day(time)) == "2021-03-03T00:00:00-03:30"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"epoch_time": 5, "timezone": "bogus"}, 'invalid timezone string `"bogus"`'),
        ({"epoch_time": "x", "timezone": "Z"}, 'field `epoch_time` must be a number (got `"x"` of type STRING)'),
        ({"epoch_time": 5, "timezone": 1}, "field `timezone` must be a string (got `1` of type NUMBER)"),
        ({"epoch_time": 5, "timezone": "Z", "extra": 1}, "unrecognized field `extra`"),
        ({"timezone": "Z"}, "no field `epoch_time`"),
        ({"epoch_time": 1}, "no field `timezone`"),
    ],
)
def test_invalid_time_objects(fields, problem):
    with pytest.raises(ReqlError) as caught:
        times.validated({"$reql_type$": "TIME", **fields})
    assert caught.value.message.startswith(f"Invalid time object constructed ({problem}):\n{{\n\t")
