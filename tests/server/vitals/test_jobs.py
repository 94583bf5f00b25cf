"""What runs, as rows; deleting the row of a query ends it."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from rethinkdb import r

from model.errors import ReqlPermissionError
from proxy.clients import RunningQuery
from server.vitals.jobs import MAX_QUERY_BYTES, Jobs, query_text
from tests.reql.conftest import SmallWorld

JOBS = r.db("rethinkdb").table("jobs")
IDS = [f"00000000-0000-4000-8000-00000000000{at}" for at in range(3)]


class Queries:
    """Two queries under way, of two users."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    def running(self) -> list[RunningQuery]:
        body = b'[1,[15,[[14,["d"]],"t"]],{}]'
        return [
            RunningQuery(IDS[at], at, user, ("10.0.0.1", 5000 + at), 1.5 + at, body)
            for at, user in enumerate(("admin", "ann"))
            if IDS[at] not in self.killed
        ]

    def kill(self, query_id: str) -> bool:
        self.killed.append(query_id)
        return True


class Workshop(SmallWorld):
    """A world with jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = Queries()
        self.sizes: dict[str, int] = {}
        self.seconds = 100.0
        self.jobs = Jobs(self.system, [self.queries], lambda: self.sizes, lambda: self.seconds)
        self.system.add(self.jobs.declared())

    def start(self, query: Any, **optargs: Any) -> Any:
        """As always, but indexes are built only when a test says so."""
        from rethinkdb.ast import ReQLEncoder

        from proxy.answers import QueryContext

        body = ReQLEncoder().encode([1, query, optargs]).encode()
        context = QueryContext(self.user, ("127.0.0.1", 0), 1, self.fibers)
        return self.evaluator.start(body, context)


@pytest.fixture
def world() -> Workshop:
    return Workshop()


def test_a_query_is_a_row(world: Workshop) -> None:
    assert world.run(JOBS.get(["query", IDS[1]])) == {
        "duration_sec": 2.5,
        "id": ["query", IDS[1]],
        "info": {
            "client_address": "10.0.0.1",
            "client_port": 5001,
            "query": 'r.db("d").table("t")',
            "user": "ann",
        },
        "servers": ["small"],
        "type": "query",
    }


def test_deleting_a_row_ends_the_query(world: Workshop) -> None:
    assert world.run(JOBS.get(["query", IDS[1]]).delete())["deleted"] == 1
    assert world.queries.killed == [IDS[1]]
    assert world.run(JOBS.get(["query", IDS[2]]).delete())["skipped"] == 1
    assert world.run(JOBS.get("x").delete())["skipped"] == 1
    assert world.queries.killed == [IDS[1]]


def test_only_queries_can_be_ended(world: Workshop) -> None:
    refused = world.run(JOBS.get(["index_construction", IDS[0]]).delete())
    assert refused["first_error"] == "Jobs of type `index_construction` cannot be interrupted."
    refused = world.run(JOBS.get(["query", IDS[0]]).update({"duration_sec": 0}))
    assert refused["first_error"] == (
        "The `rethinkdb.jobs` system table only allows deletions, not inserts or updates."
    )


def test_others_see_and_end_their_own_queries_only(world: Workshop) -> None:
    world.run(r.db("rethinkdb").table("users").insert({"id": "ann", "password": False}))
    world.user = "ann"
    with pytest.raises(ReqlPermissionError):
        world.run(JOBS.count())
    world.user = "admin"
    world.run(JOBS.grant("ann", {"read": True, "write": True}))
    world.user = "ann"
    assert world.run(JOBS["id"]) == [["query", IDS[1]]]
    assert world.run(JOBS.get(["query", IDS[0]]).delete())["skipped"] == 1
    assert world.run(JOBS.delete())["deleted"] == 1
    assert world.queries.killed == [IDS[1]]


def test_an_index_under_construction_is_a_job_until_it_is_ready(world: Workshop) -> None:
    world.make_table("t", [{"id": at, "a": at} for at in range(10)])
    world.machine.on_catalog = lambda effect: world.jobs.index_began(effect[2]) if effect[0] == 30 else None
    world.run(r.table("t").index_create("a"))
    world.seconds += 7
    job = world.run(JOBS.filter({"type": "index_construction"}).nth(0))
    assert job["duration_sec"] == 7
    assert job["info"] == {"db": "test", "index": "a", "progress": 0, "table": "t"}
    while world.machine.build_step():
        pass
    assert world.run(JOBS.filter({"type": "index_construction"}).count()) == 0


def test_compaction_is_a_job_without_a_duration(world: Workshop) -> None:
    world.sizes["running_compactions"] = 1
    assert world.run(JOBS.filter({"type": "disk_compaction"}).pluck("duration_sec", "info", "servers")) == [
        {"duration_sec": None, "info": {}, "servers": ["small"]}
    ]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (r.table("t").get(1).update({"a": r.row["b"] + 1}), 'r.table("t").get(1).update({a: r.add('),
        (r.expr(1), "r.expr(1)"),
    ],
)
def test_the_text_of_a_query(query: Any, text: str) -> None:
    from rethinkdb.ast import ReQLEncoder

    body = ReQLEncoder().encode([1, query, {}]).encode()
    printed = re.sub(r"\n *", "", query_text(body))  # where lines break depends on how many variables there were before
    assert printed.startswith(text[:20])


def test_texts_of_what_is_no_query_or_too_long() -> None:
    assert query_text(b"[1]") == "[1]"
    assert query_text(b"\xff") == "�"
    assert query_text(b"[1,[99999,[]]]") == "[1,[99999,[]]]"
    long = orjson.dumps([1, "x" * MAX_QUERY_BYTES])
    assert query_text(long) == f"(a query of {len(long)} bytes)"
