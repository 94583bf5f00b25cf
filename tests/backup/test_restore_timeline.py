"""Words for moments mean exactly one moment, or are refused; drops are found in the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.manifest import ImageManifest, SliceName
from backup.plan import Plan, Stop
from backup.selection import TableName
from backup.shelf import Shelf
from backup.timeline import Moment, NeverDropped, format_time, last_drop, parse_moment, parse_time_ms, stop_of
from model.effect import Effect, Kind, encode
from model.errors import BadSetting, UnfitArchive

NOON_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01 12:00 Z",
        "2026-03-01T12:00:00.000+00:00",
        "2026-03-01 12:00 UTC",
        "2026-03-01 13:00 Europe/Berlin",
        "2026-03-01T07:00-05:00",
        "2026-03-01 07:00:00 America/New_York",
        "20260301T120000Z",
    ],
)
def test_many_ways_to_write_one_time(text: str) -> None:
    assert parse_time_ms(text) == NOON_MS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-03-01 12:00", "no time zone"),
        ("2026-03-01", "no time zone"),
        ("2026-03-29 02:30 Europe/Berlin", "skip"),
        ("2026-10-25 02:30 Europe/Berlin", "comes twice"),
        ("2026-03-01T12:00Z Europe/Berlin", "two time zones"),
        ("2026-03-01 12:00 Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
        ("2026-03-01 12:00 ../../etc/passwd", "names no moment"),
        ("2026-02-30T12:00Z", "names no moment"),
        ("yesterday", "names no moment"),
        ("index:-1", "no log index"),
        ("index:", "no log index"),
        ("-10", "names no moment"),
        ("before-drop:rethinkdb.users", "special"),
        ("before-drop:a.b.c", "Invalid db or db.table name"),
    ],
)
def test_what_is_not_one_moment_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadSetting, match=why):
        parse_moment(text, NOON_MS)


def test_moments_that_are_no_times() -> None:
    assert parse_moment(" latest ", 0) == Moment("latest", newest=True)
    assert parse_moment("index:17", 0).index == 17
    assert parse_moment("image:full-1", 0).image == "full-1"
    assert parse_moment("before-drop:shop.orders", 0).before_drop == TableName("shop", "orders")
    assert parse_moment("-1h30m", NOON_MS).time_ms == NOON_MS - 90 * 60_000
    assert parse_moment("now-2d", NOON_MS).time_ms == NOON_MS - 2 * 86_400_000


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_iso_times_come_back(time: datetime, zone: timezone) -> None:
    placed = time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=zone)
    since = placed - datetime(1970, 1, 1, tzinfo=UTC)
    time_ms = since // timedelta(milliseconds=1)
    assert parse_time_ms(placed.isoformat()) == time_ms
    assert abs(parse_time_ms(format_time(time_ms)) - time_ms) <= 1


def database(name: str, uuid: str = "d1") -> Effect:
    return (int(Kind.CREATE_DATABASE), uuid, name)


def table(table_id: int, name: str) -> Effect:
    return (int(Kind.CREATE_TABLE), table_id, f"t{table_id}", "d1", name, "id", {})


def image(name: str, log_index: int, *catalog: Effect) -> ImageManifest:
    return ImageManifest(name, "c1", log_index, 1, log_index * 1000, 0, 0, "test", (), catalog, ())


def shelf_of(images: list[ImageManifest], log: dict[int, list[Effect]]) -> tuple[Shelf, list[str]]:
    slices = tuple(SliceName(index, index, index * 1000, index * 1000) for index in sorted(log))
    return Shelf(tuple(images), slices, frozenset(), (), (("images/torn/manifest", "torn"),)), []


def reader(log: dict[int, list[Effect]]):
    def read(plan: Plan):
        for replay in plan.replays:
            for index in range(replay.first_index, replay.last_index + 1):
                yield index, 1, index * 1000, encode(log[index], index * 1000)

    return read


def test_the_newest_drop_of_a_table_is_found() -> None:
    log: dict[int, list[Effect]] = {
        2: [table(1, "orders")],
        3: [(int(Kind.DROP_TABLE), 1)],
        4: [table(2, "orders"), table(3, "notes")],
        5: [(int(Kind.ALTER_TABLE), 3, {"name": "memos"})],
        6: [(int(Kind.DROP_TABLE), 2)],
        7: [table(4, "late")],
        8: [(int(Kind.DROP_TABLE), 3), (int(Kind.DROP_TABLE), 4), (int(Kind.DROP_DATABASE), "d1")],
    }
    shelf, _ = shelf_of([image("a", 1, database("shop"))], log)
    read = reader(log)
    assert last_drop(shelf, TableName("shop", "orders"), read).log_index == 6
    assert last_drop(shelf, TableName("shop", "memos"), read).table_id == 3
    assert last_drop(shelf, TableName("shop"), read).log_index == 8
    assert stop_of(shelf, parse_moment("before-drop:shop.orders", 0), read) == Stop(index=5)
    with pytest.raises(NeverDropped, match="does not tell"):
        last_drop(shelf, TableName("shop", "notes"), read)


def test_a_drop_before_the_newest_image_is_found_too() -> None:
    log: dict[int, list[Effect]] = {
        2: [table(1, "orders")],
        3: [(int(Kind.DROP_TABLE), 1)],
        4: [table(2, "notes")],
        5: [],
    }
    images = [image("a", 1, database("shop")), image("b", 4, database("shop"), table(2, "notes"))]
    shelf, _ = shelf_of(images, log)
    assert last_drop(shelf, TableName("shop", "orders"), reader(log)).log_index == 3


def test_a_drop_behind_a_gap_is_found_where_an_image_bridges_it() -> None:
    log: dict[int, list[Effect]] = {2: [table(1, "orders")], 3: [(int(Kind.DROP_TABLE), 1)], 9: []}
    shelf, _ = shelf_of([image("a", 1, database("shop")), image("b", 8, database("shop"))], log)
    assert last_drop(shelf, TableName("shop", "orders"), reader(log)).log_index == 3


def test_effects_that_cannot_be_are_refused() -> None:
    for bad in ([(int(Kind.CREATE_TABLE), 9)], [(int(Kind.ALTER_TABLE), 1, 7)], [(int(Kind.RENAME_INDEX), [], 1, 2)]):
        log: dict[int, list[Effect]] = {2: [table(1, "orders")], 3: bad}  # type: ignore[dict-item]
        shelf, _ = shelf_of([image("a", 1, database("shop"))], log)
        with pytest.raises(UnfitArchive, match="entry 3"):
            last_drop(shelf, TableName("shop", "orders"), reader(log))


def test_images_by_name() -> None:
    shelf, _ = shelf_of([image("a", 1), image("b", 8)], {})
    assert stop_of(shelf, parse_moment("image:b", 0), reader({})) == Stop(index=8)
    with pytest.raises(UnfitArchive, match="no image 'c'"):
        stop_of(shelf, parse_moment("image:c", 0), reader({}))
    with pytest.raises(UnfitArchive, match="torn"):
        stop_of(shelf, parse_moment("image:torn", 0), reader({}))
