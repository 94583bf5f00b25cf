"""The short way of point gets gives what the general way gives, or nothing, and never raises or waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from model.errors import Corrupt, ReqlError
from tests.reql.conftest import SmallWorld

KEYS = st.one_of(
    st.sampled_from(["a", "b", 1, 2.5, -0.0, 2**60]),
    st.sampled_from([None, True, [], ["a", 1], {"a": 1}, "x" * 130, "nul\0", r.minval, r.now(), r.expr("a")]),
)
GETS: Any = st.one_of(
    st.builds(lambda name, key: r.table(name).get(key), st.sampled_from(["t", "u", "missing"]), KEYS),
    st.builds(lambda name, key: r.db(name).table("t").get(key), st.sampled_from(["test", "rethinkdb", "no"]), KEYS),
    st.sampled_from(
        [
            r.db("rethinkdb").table("table_config").get("x"),
            r.table("t", read_mode="outdated").get("a"),
            r.table("t", identifier_format="uuid").get("a"),
            r.table(r.expr("t")).get("a"),
            r.table("t").get("a")["n"],
            r.table("t").get("a").update({"n": 1})["replaced"],
            r.table("t").get_all("a"),
            r.table("t").get(r.args(["a"])),
            r.expr(1),
        ]
    ),
)
OPTIONS: Any = st.sampled_from(
    [
        {},
        {},
        {},
        {"db": r.db("test")},
        {"db": r.db("no")},
        {"db": 1},
        {"array_limit": 0},
        {"view": "x"},
        {"nonsense": 1},
    ]
)
EVENTS: Any = st.sampled_from(
    [
        r.table("t").insert({"id": "b", "n": 5}, conflict="replace"),
        r.table("t").get("a").delete(),
        r.table_drop("t"),
        r.table_create("t"),
        r.table("t").config().update({"name": "u"}),
        r.table_create("u"),
        r.db_drop("test"),
        r.db_create("test"),
    ]
)


def body_of(query: Any, options: dict[str, Any]) -> bytes:
    return str(ReQLEncoder().encode([1, query, options])).encode()


def made_world() -> SmallWorld:
    world = SmallWorld()
    world.make_table("t", [{"id": "a", "n": 1}, {"id": 1}, {"id": 2.5, "deep": {"x": [1]}}, {"id": 0}])
    return world


def outcome(world: SmallWorld, query: Any, options: dict[str, Any]) -> Any:
    try:
        answer = world.start(query, **options)
    except ReqlError as error:
        return type(error)
    return answer.kind, answer.items


@given(st.lists(st.one_of(st.tuples(GETS, OPTIONS), EVENTS), max_size=12))
def test_the_short_way_gives_what_the_general_way_gives(steps: list[Any]) -> None:
    world = made_world()
    for step in steps:
        if not isinstance(step, tuple):
            outcome(world, step, {})
            continue
        query, options = step
        glances = [world.evaluator.glance(body_of(query, options), "admin")]
        expected = outcome(world, query, options)
        glances.append(world.evaluator.glance(body_of(query, options), "admin"))
        for text in glances:
            assert text is None or expected == ("atom", [text])


@pytest.mark.parametrize("options", [{}, {"db": r.db("test")}])
def test_it_is_taken_by_what_drivers_send(options: dict[str, Any]) -> None:
    world = made_world()
    world.start(r.table("t").get("zzz"), **options)
    table = world.data.catalog.databases["test"].tables["t"]
    traffic = world.traffic(table.table_id)
    read = traffic.read
    for _ in range(2):
        for key, text in [("a", b'{"id":"a","n":1}'), (1, b'{"id":1}'), ("no", b"null"), (0.0, b'{"id":0}')]:
            assert world.evaluator.glance(body_of(r.table("t").get(key), options), "admin") == text
    assert traffic.read == read + 8
    world.run(r.table("t").get("a").update({"n": 2}))
    assert world.evaluator.glance(body_of(r.table("t").get("a"), options), "admin") == b'{"id":"a","n":2}'
    world.run(r.table_drop("t"))
    world.make_table("t", [{"id": "a", "n": 9}])
    assert world.evaluator.glance(body_of(r.table("t").get("a"), options), "admin") == b'{"id":"a","n":9}'


def ready() -> tuple[SmallWorld, bytes]:
    """A world, and a query that it answers at a glance."""
    world, query = made_world(), r.table("t").get("a")
    world.start(query)
    assert world.evaluator.glance(body_of(query, {}), "admin") is not None
    return world, body_of(query, {})


def test_others_than_admin_are_looked_at_in_the_general_way() -> None:
    world, body = ready()
    assert world.evaluator.glance(body, "jane") is None


def test_who_does_not_lead_gives_nothing() -> None:
    world, body = ready()
    world.data._log.can_serve = False
    assert world.evaluator.glance(body, "admin") is None


def test_a_lease_is_looked_at_again_in_the_general_way() -> None:
    world, body = ready()
    world.data._lease_until = float("-inf")
    assert world.evaluator.glance(body, "admin") is None
    world.start(r.table("t").get("a"))
    assert world.evaluator.glance(body, "admin") is not None


def test_soft_writes_that_are_not_applied_are_waited_for() -> None:
    world, body = ready()
    world.data._soft = (world.data._log.applied_index + 1, 1)
    assert world.evaluator.glance(body, "admin") is None


def test_a_row_that_cannot_be_read_is_the_general_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    world, body = ready()

    def get(table_id: int, key: bytes) -> bytes:
        raise Corrupt("the disk is broken")

    monkeypatch.setattr(world.data, "get", get)
    assert world.evaluator.glance(body, "admin") is None
