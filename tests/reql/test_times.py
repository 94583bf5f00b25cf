"""Time terms, against RethinkDB 2.4.4's answers; the calendar itself is tested in tests/model."""

from __future__ import annotations

import pytest
from rethinkdb import r

from model.errors import ReqlError

T = r.time(2020, 12, 31, 23, 59, 58.5, "-02:00")


def epoch(seconds, zone="+00:00"):
    return {"$reql_type$": "TIME", "epoch_time": seconds, "timezone": zone}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.now(), epoch(1_000_000)),
        (r.epoch_time(1.23456), epoch(1.235)),
        (r.time(2020, r.july, 4, "Z"), epoch(1593820800)),
        (r.time(r.args([2020, 5, 6, "Z"])), epoch(1588723200)),
        (r.iso8601("2020-01-02", default_timezone="+03:00"), epoch(1577912400, "+03:00")),
        (T.to_iso8601(), "2020-12-31T23:59:58.500-02:00"),
        (T.to_epoch_time(), 1609466398.5),
        (T.in_timezone("Z").year(), 2021),
        ([T.year(), T.month(), T.day(), T.hours(), T.minutes(), T.seconds()], [2020, 12, 31, 23, 59, 58.5]),
        ([T.day_of_week(), T.day_of_year(), T.timezone()], [4, 366, "-02:00"]),
        (T.date(), epoch(1609380000, "-02:00")),
        (T.time_of_day(), 86398.5),
        (r.epoch_time(10) + 5, epoch(15)),
        (5 + r.epoch_time(10), epoch(15)),
        (r.epoch_time(10) - 5, epoch(5)),
        (r.epoch_time(10) - r.epoch_time(4), 6),
        (r.epoch_time(10) == r.epoch_time(10).in_timezone("+01:00"), True),
        (r.epoch_time(1).during(r.epoch_time(1), r.epoch_time(9)), True),
        (r.epoch_time(9).during(r.epoch_time(1), r.epoch_time(9)), False),
        (r.epoch_time(9).during(r.epoch_time(1), r.epoch_time(9), right_bound="closed"), True),
        (r.epoch_time(1).during(r.epoch_time(1), r.epoch_time(9), left_bound="open"), False),
        (r.expr([r.monday, r.sunday, r.january, r.december]), [1, 7, 1, 12]),
    ],
)
def test_values(run, query, value):
    assert run(r.expr(query)) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr(5).to_epoch_time(), "Not a TIME pseudotype: `5`.", (0,)),
        (r.time(2020, 1, 1, 1, "Z"), "Got 5 arguments to TIME (expected 4 or 7).", ()),
        (r.time(2020, 1.5, 1, "Z"), "Number not an integer: 1.5", (1,)),
        (r.time(2020, 1, 1, 5), "Expected type STRING but found NUMBER.", (3,)),
        (r.time(2020, 13, 1, "Z"), "Error in time logic: Month number is out of range 1..12.", ()),
        (
            r.iso8601("2020-13-01", default_timezone="Z"),
            "Error in time logic: Month number is out of range 1..12.",
            (0,),
        ),
        (r.epoch_time(10) + r.epoch_time(4), "Expected type NUMBER but found PTYPE<TIME>.", ()),
        (5 - r.epoch_time(10), "Expected type NUMBER but found PTYPE<TIME>.", ()),
        (r.epoch_time(0).in_timezone(5), "Expected type STRING but found NUMBER.", ()),
        (r.epoch_time(5).during(1, r.epoch_time(9)), "Not a TIME pseudotype: `1`.", (1,)),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)
