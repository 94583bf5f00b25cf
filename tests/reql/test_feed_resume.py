"""A changefeed goes on where it was left, with nothing missed and nothing told twice (rethinkdb#3471)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rethinkdb import r

from consensus.messages import Entry
from model.errors import ReqlOpFailedError, ReqlQueryLogicError
from proxy.reql.feeds.hub import FeedHub
from tests.reql.conftest import SmallWorld


class Log:
    """All that was applied, from some entry on."""

    def __init__(self, world: SmallWorld) -> None:
        self.kept: list[Entry] = []
        self.first = 1
        apply = world.machine.apply

        def record(entries: Sequence[tuple[int, bytes]]) -> None:
            self.kept += [Entry(index, 1, data=payload) for index, payload in entries]
            apply(entries)

        world.machine.apply = record  # type: ignore[method-assign]

    def first_index(self) -> int:
        return self.first

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        return [entry for entry in self.kept if max(low, self.first) <= entry.index < high]


class Fed(SmallWorld):
    """A world with changefeeds and a log."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(self)
        self.data.past = self.log
        hub = FeedHub(self.machine.watched.add, self.machine.watched.discard, lambda wake: wake())
        self.feeds = hub
        self.machine.on_changes = hub.on_changes
        self.make_table("t", [])

    def open(self, query: Any) -> Any:
        answer = self.start(query)
        return answer.cursor, [orjson.loads(item) for item in answer.items]

    def news(self, cursor: Any) -> list[Any]:
        """What a feed has to tell by now."""
        return [orjson.loads(item) for item in cursor.first_batch().items]


@pytest.fixture
def fed() -> Fed:
    return Fed()


def write(world: Fed, step: tuple[str, int, int]) -> None:
    name, key, value = step
    if name == "put":
        world.run(r.table("t").insert({"id": key, "v": value}, conflict="replace"))
    elif name == "delete":
        world.run(r.table("t").get(key).delete())
    else:
        world.run(r.table("t").insert([{"id": key, "v": value}, {"id": key + 1, "v": value}], conflict="replace"))


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "many"]), st.integers(0, 4), st.integers(0, 3)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, cut=st.integers(0, 40))
def test_resumed_at_any_change_a_feed_tells_the_rest(steps: list[tuple[str, int, int]], cut: int) -> None:
    fed = Fed()
    cursor, _ = fed.open(r.table("t").changes(include_positions=True))
    for step in steps:
        write(fed, step)
    told = fed.news(cursor)
    if not told:
        return
    cut %= len(told)
    again, first = fed.open(r.table("t").changes(resume_after=told[cut]["position"]))
    assert first + fed.news(again) == told[cut + 1 :]


def test_what_comes_after_the_resumption_follows_without_a_seam(fed: Fed) -> None:
    cursor, _ = fed.open(r.table("t").changes(include_positions=True))
    write(fed, ("put", 1, 1))
    [first] = fed.news(cursor)
    write(fed, ("put", 1, 2))
    again, missed = fed.open(r.table("t").changes(resume_after=first["position"]))
    write(fed, ("put", 1, 3))
    values = [change["new_val"]["v"] for change in missed + fed.news(again)]
    assert values == [2, 3]


def test_filters_hold_for_what_was_missed(fed: Fed) -> None:
    query = r.table("t").filter(r.row["v"] > 1).pluck("v")
    cursor, _ = fed.open(query.changes(include_positions=True))
    write(fed, ("put", 1, 2))
    [first] = fed.news(cursor)
    write(fed, ("put", 2, 1))
    write(fed, ("put", 1, 3))
    write(fed, ("put", 1, 0))
    _, missed = fed.open(query.changes(resume_after=first["position"]))
    assert [(change["old_val"], change["new_val"]) for change in missed] == [({"v": 2}, {"v": 3}), ({"v": 3}, None)]


def test_a_position_older_than_the_log_is_refused(fed: Fed) -> None:
    cursor, _ = fed.open(r.table("t").changes(include_positions=True))
    write(fed, ("put", 1, 1))
    [first] = fed.news(cursor)
    for value in range(5):
        write(fed, ("put", 1, value + 2))
    fed.log.first = fed.machine.applied_index - 1
    with pytest.raises(ReqlOpFailedError, match="keeps the log only from entry"):
        fed.open(r.table("t").changes(resume_after=first["position"]))


@pytest.mark.parametrize("text", ["", "x", "00:1", "ff:1-0"])
def test_what_is_no_position_of_this_history_is_refused(fed: Fed, text: str) -> None:
    with pytest.raises(ReqlQueryLogicError, match="position"):
        fed.open(r.table("t").changes(resume_after=text))


def test_feeds_without_positions_say_so(fed: Fed) -> None:
    with pytest.raises(ReqlQueryLogicError, match="Only feeds on single rows"):
        fed.open(r.table("t").order_by(index="id").limit(2).changes(include_positions=True))
