"""Laws of times and binaries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from model import pseudo_time
from model.datum import checked_object
from model.pseudo_binary import binary_bytes, decode_base64, encode_base64, make_binary

offsets = st.integers(-12 * 60, 14 * 60).map(
    lambda minutes: f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
)
moments = st.datetimes(datetime(1500, 1, 1), datetime(9998, 12, 31)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)


def time_of(moment, zone):
    seconds = moment.second + moment.microsecond / 1e6
    return pseudo_time.from_parts(moment.year, moment.month, moment.day, moment.hour, moment.minute, seconds, zone)


@given(moments, offsets)
def test_a_time_knows_the_parts_it_was_made_of(moment, zone):
    time = time_of(moment, zone)
    for part in ("year", "month", "day"):
        assert pseudo_time.portion(time, part) == getattr(moment, part)
    assert pseudo_time.portion(time, "hours") == moment.hour
    assert pseudo_time.portion(time, "minutes") == moment.minute
    assert pseudo_time.portion(time, "day_of_week") == moment.isoweekday()
    assert pseudo_time.portion(time, "day_of_year") == moment.timetuple().tm_yday


@given(moments, offsets)
def test_a_time_s_epoch_is_that_of_the_standard_library(moment, zone):
    time = time_of(moment, zone)
    minutes = int(zone[1:3]) * 60 + int(zone[4:])
    utc = moment - timedelta(minutes=-minutes if zone[0] == "-" else minutes)
    assert round(time["epoch_time"] * 1000) == (utc - datetime(1970, 1, 1)) // timedelta(milliseconds=1)


@given(moments, offsets)
def test_iso8601_text_reads_back_as_the_same_time(moment, zone):
    time = time_of(moment, zone)
    if zone != "-00:00":
        assert pseudo_time.from_iso8601(pseudo_time.to_iso8601(time)) == time
        assert datetime.fromisoformat(pseudo_time.to_iso8601(time)).astimezone(UTC) is not None


@given(
    st.datetimes(datetime(1400, 1, 1), datetime(9999, 12, 31, 23, 59, 59)),
    st.one_of(st.just(""), st.from_regex(r"\A\.[0-9]{1,6}\Z")),
    offsets,
)
def test_the_form_that_drivers_write_is_read_as_any_other(moment, fraction, zone):
    """It goes a short way; a zone without a colon is read letter by letter."""
    text = moment.replace(microsecond=0).isoformat() + fraction
    if zone != "-00:00":
        assert pseudo_time.from_iso8601(text + zone) == pseudo_time.from_iso8601(text + zone.replace(":", ""))


@given(moments, offsets)
def test_a_day_and_the_time_of_day_make_the_time(moment, zone):
    time = time_of(moment, zone)
    again = pseudo_time.add_seconds(pseudo_time.start_of_day(time), pseudo_time.time_of_day(time))
    assert abs(pseudo_time.difference(again, time)) <= 0.001


@given(st.floats(-1e11, 1e11), offsets)
def test_a_valid_time_is_in_its_one_form(epoch, zone):
    time = pseudo_time.make_time(epoch, zone)
    assert pseudo_time.validated(dict(time)) == time
    raw = {"$reql_type$": "TIME", "epoch_time": epoch, "timezone": zone}
    assert pseudo_time.validated(raw) == time
    assert type(pseudo_time.validated(raw)["epoch_time"]) is type(time["epoch_time"])


@given(st.binary(max_size=400))
def test_base64_gives_the_bytes_back_with_or_without_padding_and_line_breaks(raw):
    text = encode_base64(raw)
    assert all(len(line) <= 76 for line in text.split("\r\n"))
    assert decode_base64(text) == raw
    assert decode_base64(text.replace("\r\n", "").rstrip("=")) == raw
    assert binary_bytes(make_binary(raw)) == raw
    assert checked_object(make_binary(raw)) == make_binary(raw)
