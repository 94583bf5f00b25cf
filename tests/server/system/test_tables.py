"""System tables as tables: found by name, read by every term, written through their own rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from rethinkdb import r

from model.errors import ReqlError, ReqlOpFailedError
from proxy.reql.feeds.hub import FeedHub
from server.system import Change, Row, SystemTable
from tests.reql.conftest import SmallWorld

SYSTEM = r.db("rethinkdb")


def letters(written: list[Any]) -> SystemTable:
    """A table of three rows that notes what is written."""

    def write(change: Change) -> Row | None:
        written.append((change.key, change.old, change.new, change.key_is_made))
        if change.new is not None and change.new.get("bad"):
            raise ReqlOpFailedError("That is bad.")
        return change.new

    rows = [{"id": letter, "at": at} for at, letter in enumerate("cab")]
    return SystemTable("letters", lambda env, form: rows, write=write)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (SYSTEM.table("letters").count(), 3),
        (SYSTEM.table("letters").get("a")["at"], 1),
        (SYSTEM.table("letters").get("z"), None),
        (SYSTEM.table("letters").order_by(index="id")["id"], ["a", "b", "c"]),
        (SYSTEM.table("letters").order_by(index=r.desc("id"))["id"], ["c", "b", "a"]),
        (SYSTEM.table("letters").between("b", r.maxval)["id"], ["b", "c"]),
        (SYSTEM.table("letters").between("a", "b", left_bound="open", right_bound="closed")["id"], ["b"]),
        (SYSTEM.table("letters").get_all("b", "b", "x")["id"], ["b", "b"]),
        (SYSTEM.table("letters").filter({"at": 2})["id"], ["b"]),
        (SYSTEM.table("letters").info()["doc_count_estimates"], [3]),
        (SYSTEM.table("letters").type_of(), "TABLE"),
        (SYSTEM.table_list().contains("letters"), False),
        (r.expr([{"l": "a"}]).eq_join("l", SYSTEM.table("letters")).zip()["at"], [1]),
    ],
)
def test_every_term_reads_them(world: SmallWorld, query: Any, value: Any) -> None:
    world.system.add(letters([]))
    assert world.run(query) == value


def test_a_write_says_what_is_there_and_whether_the_key_was_made(world: SmallWorld) -> None:
    written: list[Any] = []
    world.system.add(letters(written))
    table = SYSTEM.table("letters")
    assert world.run(table.insert({"id": "z"}))["inserted"] == 1
    made = world.run(table.insert({"x": 1}))["generated_keys"][0]
    assert world.run(table.get("a").update({"at": 1}))["unchanged"] == 1
    assert world.run(table.get("a").delete(return_changes=True))["changes"] == [
        {"old_val": {"id": "a", "at": 1}, "new_val": None}
    ]
    assert world.run(table.get("nobody").delete())["skipped"] == 1
    assert written == [
        ("z", None, {"id": "z"}, False),
        (made, None, {"id": made, "x": 1}, True),
        ("a", {"id": "a", "at": 1}, {"id": "a", "at": 1}, False),
        ("a", {"id": "a", "at": 1}, None, False),
        ("nobody", None, None, False),
    ]


def test_what_a_table_refuses_is_counted(world: SmallWorld) -> None:
    world.system.add(letters([]))
    result = world.run(SYSTEM.table("letters").insert([{"id": "y", "bad": True}, {"id": "z"}], return_changes="always"))
    assert (result["errors"], result["inserted"], result["first_error"]) == (1, 1, "That is bad.")
    assert result["changes"][0]["error"] == "That is bad."


def test_a_table_without_a_rule_takes_nothing(complaint: Callable[..., str]) -> None:
    table = SYSTEM.table("table_status")
    assert complaint(table.insert({"name": "x"})) == "It's illegal to write to the `rethinkdb.table_status` table."


def test_scratch_takes_everything(world: SmallWorld) -> None:
    table = SYSTEM.table("_debug_scratch")
    world.run(table.insert([{"id": 1}, {"id": [1, "x"]}]))
    world.run(table.get(1).update({"a": {"b": 1}}))
    assert world.run(table.get(1)) == {"id": 1, "a": {"b": 1}}
    assert world.run(table.insert({"id": 2, "a": r.minval}))["errors"] == 1
    assert world.run(table.delete())["deleted"] == 2


class Fed(SmallWorld):
    """A world with changefeeds."""

    def __init__(self) -> None:
        super().__init__()
        self.feeds = FeedHub(self.machine.watched.add, self.machine.watched.discard, lambda wake: wake())
        self.system.add(letters([]))

    def news(self, answer: Any) -> list[Any]:
        for feed in answer.cursor._env.feeds:
            feed.look_again()
        return [orjson.loads(item) for item in answer.cursor.first_batch().items]


def test_feeds_keep_to_what_was_asked_for() -> None:
    world = Fed()
    table = SYSTEM.table("_debug_scratch")
    low = world.start(table.between(1, 5).filter(lambda row: row["a"] > 0).changes())
    point = world.start(table.get(2).changes(include_initial=True))
    assert [orjson.loads(item) for item in point.items] == [{"new_val": None}]
    world.run(table.insert([{"id": 2, "a": 1}, {"id": 3, "a": 0}, {"id": 7, "a": 1}]))
    assert world.news(low) == [{"old_val": None, "new_val": {"id": 2, "a": 1}}]
    assert world.news(point) == [{"old_val": None, "new_val": {"id": 2, "a": 1}}]
    world.run(table.get(2).update({"a": 0}))
    assert world.news(low) == [{"old_val": {"id": 2, "a": 1}, "new_val": None}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            SYSTEM.table("letters").order_by(index="id").limit(1),
            "System tables don't support changefeeds on `.limit()`.",
        ),
        (SYSTEM.table("letters").min(index="id"), "System tables don't support changefeeds on `.limit()`."),
        (SYSTEM.table("letters").order_by("id"), "Cannot call `changes` on an eager stream."),
        (
            SYSTEM.table("letters").map(lambda row: r.random()),
            "Cannot call `changes` after a non-deterministic function.",
        ),
        (SYSTEM.table("letters").get_all("a", index="x"), "Index `x` was not found on table `rethinkdb.letters`."),
    ],
)
def test_feeds_that_there_are_not(query: Any, message: str) -> None:
    with pytest.raises(ReqlError) as caught:
        Fed().start(query.changes())
    assert caught.value.message == message
