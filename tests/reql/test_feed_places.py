"""Feeds of rows that are in a range more than once, and of the first rows in an order, step by step."""

from __future__ import annotations

import random
from typing import Any

import pytest
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from proxy.reql.feeds import limit
from tests.reql.test_feed_readers import CONTINUE, Driver, Server, T

SEQUENCE, LIMIT, STATES = 1, 3, 5


@pytest.fixture
def server() -> Server:
    server = Server()
    server.world.make_table("m", [])
    server.write(M.index_create("a", multi=True))
    server.write(M.index_wait())
    return server


M = r.table("m")


def follow(server: Server, query: Any, driver: Driver | None = None) -> tuple[Driver, list[Any]]:
    """A driver that waits for what a feed tells next, and what it began with."""
    driver = server.connect() if driver is None else driver
    told = driver.follow(1, query)
    driver.say(1, CONTINUE)
    while more := driver.told():
        told += more
        driver.say(1, CONTINUE)
    return driver, told


def written(server: Server, driver: Driver, *queries: Any) -> list[Any]:
    """What the driver's feed tells of writes that all are done before anybody looks."""
    for query in queries:
        server.world.run(query)
    server.world.tell()
    return heard(driver)


def heard(driver: Driver) -> list[Any]:
    """What a driver's feed has told; it waits for more."""
    told: list[Any] = []
    while more := driver.told():
        told += more
        driver.say(1, CONTINUE)
    return told


def ids(elements: list[Any]) -> list[tuple[Any, Any]]:
    def name(row: Any) -> Any:
        return None if row is None else row["id"]

    return [(name(element["old_val"]), name(element["new_val"])) for element in elements]


@pytest.mark.parametrize(
    ("selection", "steps"),
    [
        (M.get_all(1, 1), [[(None, 1)] * 2, [(1, 1)] * 2, [(1, None)] * 2]),
        (M.get_all(7, index="a"), [[(None, 1)] * 2, [(1, 1), (1, None)], [(1, None)]]),
        (M.get_all(7, 7, index="a"), [[(None, 1)] * 4, [(1, 1)] * 2 + [(1, None)] * 2, [(1, None)] * 2]),
        (M.between(7, 9, index="a"), [[(None, 1)] * 3, [(1, 1)] * 2 + [(1, None)], [(1, None)] * 2]),
        (M.between(8, 9, index="a"), [[(None, 1)], [(1, 1)], [(1, None)]]),
    ],
)
def test_a_row_is_told_of_as_often_as_the_range_has_it(server: Server, selection: Any, steps: list[Any]) -> None:
    driver, _ = follow(server, selection.changes())
    changes = M.insert({"id": 1, "a": [7, 8, 7]}), M.get(1).update({"a": [8, 7]}), M.get(1).delete()
    for change, expected in zip(changes, steps, strict=True):
        assert ids(written(server, driver, change)) == expected


def test_squashed_a_row_is_told_of_once(server: Server) -> None:
    driver, _ = follow(server, M.between(7, 9, index="a").changes(squash=True))
    assert ids(written(server, driver, M.insert({"id": 1, "a": [7, 8, 7]}))) == [(None, 1)]
    assert ids(written(server, driver, M.get(1).update({"a": [8]}))) == [(1, 1)]


def test_the_changes_of_a_union_have_one_state(server: Server) -> None:
    driver = server.connect()
    options = {"include_initial": True, "include_states": True}
    server.write(M.insert({"id": 1, "a": [1]}))
    whole = M.filter({"id": 1}).union(M.filter({"id": 2})).changes(**options)
    told = driver.follow(1, whole)
    assert [element.get("state") for element in told] == ["initializing", None, "ready"]
    told = driver.follow(2, M.filter({"id": 1}).changes(**options).union(M.filter({"id": 2}).changes(**options)))
    assert sorted(element.get("state", "") for element in told) == ["", *["initializing"] * 2, *["ready"] * 2]


@pytest.mark.parametrize(
    ("feed", "notes"),
    [
        (T.changes(include_states=True), [SEQUENCE, STATES]),
        (T.changes(include_states=True).pluck("state"), [SEQUENCE, STATES]),
        (T.changes(include_states=True).limit(5), [SEQUENCE]),
        (T.union(T).changes(include_states=True), [SEQUENCE]),
        (T.order_by(index="id").limit(2).changes(include_states=True).limit(9), [LIMIT]),
    ],
)
def test_states_are_noted_of_feeds_that_are_the_whole_answer(server: Server, feed: Any, notes: list[int]) -> None:
    driver = server.connect()
    driver.say(1, ReQLEncoder().encode([1, feed]).encode())
    [(_, response)] = driver.heard()
    assert response["n"] == notes


@pytest.mark.parametrize(
    ("feed", "message", "path"),
    [
        (T.get(1).changes(include_offsets=True), "Cannot include offsets for point subs.", []),
        (T.changes(include_offsets=True), "Cannot include offsets for range subs.", []),
        (T.between(3, 1).changes(include_offsets=True), "Cannot include offsets for empty subs.", []),
        (T.between(3, 1).order_by(index="id").limit(2).changes(), "Cannot call `changes` on an eager stream.", [0, 0]),
        (T.between(3, 3).limit(2).changes(), "Cannot call `changes` on an eager stream.", [0, 0]),
        (T.limit(2).changes().map(lambda row: row), "Cannot get changes on the first elements of an unordered", []),
        (T.get(1).changes().count(), "Cannot call a terminal (`reduce`, `count`, etc.) on an infinite stream", [0, 0]),
    ],
)
def test_feeds_that_there_are_not(server: Server, feed: Any, message: str, path: list[int]) -> None:
    driver = server.connect()
    driver.say(1, ReQLEncoder().encode([1, feed]).encode())
    [(_, response)] = driver.heard()
    assert response["r"][0].startswith(message)
    assert response["b"] == path


def test_the_first_rows_are_told_of_step_by_step(server: Server) -> None:
    driver, _ = follow(server, T.order_by(index="id").limit(3).changes(include_offsets=True))
    told = written(
        server, driver, T.get(1).delete(), T.insert({"id": -1}), T.get(2).update({"a": 9}), T.get(8).delete()
    )
    assert ids(told) == [(1, 3), (3, -1), (2, 2)]
    assert [(element["old_offset"], element["new_offset"]) for element in told] == [(1, 2), (2, 0), (2, 2)]


def test_squashed_only_the_outcome_of_the_first_rows_is_told(server: Server) -> None:
    driver, _ = follow(server, T.order_by(index="id").limit(3).changes(squash=True))
    told = written(server, driver, T.get(1).delete(), T.insert({"id": -1}), T.get(8).delete())
    assert ids(told) == [(1, -1)]


def test_a_place_of_a_row_may_push_out_another_one_of_it(server: Server) -> None:
    server.write(M.insert([{"id": 1, "a": [0, 4]}, {"id": 2, "a": [4, 0]}, {"id": 3, "a": [1]}]))
    driver, _ = follow(server, M.order_by(index="a").limit(2).changes())
    [element] = written(server, driver, M.get(2).update({"a": [-1, 5]}))
    assert element == {"old_val": {"id": 2, "a": [4, 0]}, "new_val": {"id": 2, "a": [-1, 5]}}
    told = written(server, driver, M.insert({"id": 4, "a": [-2, -3, -4]}))
    assert ids(told) == [
        (1, 4),
        (2, 4),
    ]  # the last of its places come first, and that the first replaces one is no news


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("is_multi", [False, True])
@pytest.mark.parametrize("margin", [0, 2, 16])
def test_who_follows_the_steps_has_the_first_rows(
    server: Server, seed: int, is_multi: bool, margin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small margin what follows is read again and again, with a large one hardly ever."""
    monkeypatch.setattr(limit, "MARGIN", margin)
    dice = random.Random(seed)
    count, most = dice.randint(1, 5), dice.choice([6, 30])
    index = r.desc("a") if dice.random() < 0.5 else "a"
    if not is_multi:
        server.write(M.index_create("b", r.row["a"][0]))
        server.write(M.index_wait())
        index = r.desc("b") if dice.random() < 0.5 else "b"
    rows = M.order_by(index=index)
    if dice.random() < 0.4:
        rows = rows.filter(r.row["shown"])
    first = rows.limit(count)
    drivers = [server.connect() for _ in range(3)]  # who share what the first of them finds out
    feed = first.changes(include_initial=True, include_offsets=True)
    (driver, told), *others = [follow(server, feed, driver) for driver in drivers]
    assert all(also == told for _, also in others)
    here = [element["new_val"] for element in sorted(told, key=lambda element: element["new_offset"])]
    for _ in range(20):
        changes = []
        for _ in range(dice.randint(1, 6)):
            row = {"id": dice.randint(0, most), "a": [dice.randint(0, 3) for _ in range(dice.randint(1, 3))]}
            row["shown"] = dice.random() < 0.7
            one = M.get(row["id"])
            changes.append(dice.choice([M.insert(row, conflict="replace"), one.delete(), one.update({"a": row["a"]})]))
        news = written(server, driver, *changes)
        assert all(heard(other) == news for other, _ in others)
        for element in news:
            if element["old_offset"] is not None:
                assert here.pop(element["old_offset"]) == element["old_val"]
            if element["new_offset"] is not None:
                here.insert(element["new_offset"], element["new_val"])
        assert here == server.world.run(first.coerce_to("array"))
