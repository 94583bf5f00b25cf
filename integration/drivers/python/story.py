"""What a small program does with a server, told once for every loop of the official driver.

One rule: a story knows no loop. It yields steps and is sent (or thrown) what came of them; a teller, one for each
loop, performs them: `Ask`, `Together`, `Follow`, `Leave` and `Reopen`.
"""

from __future__ import annotations

import datetime
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from rethinkdb import r
from rethinkdb.errors import ReqlError, ReqlNonExistenceError, ReqlOpFailedError, ReqlQueryLogicError

ROWS = 1_500  # several batches
UTC = r.make_timezone("+00:00")


@dataclass
class Ask:
    """Runs a query; gives its value, a cursor's rows as a list."""

    query: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Together:
    """Runs queries at once on one connection; gives what `Ask` gives, in their order."""

    queries: list[Any]


@dataclass
class Follow:
    """Opens a feed, runs writes while it is open, reads as many changes as said, closes it; gives the changes."""

    feed: Any
    writes: list[Any]
    changes: int


@dataclass
class Leave:
    """Reads as many rows of a cursor as said, closes it half way; gives those rows."""

    query: Any
    rows: int


class Reopen:
    """Waits for what nobody waited for, closes the connection, opens another."""


Step = Ask | Together | Follow | Leave | Reopen
Story = Generator[Step, Any, None]


def whole() -> Story:
    """Everything, in a database that it makes and drops."""
    yield Ask(r.db_create("story"))
    tales = r.db("story").table("tales")
    assert (yield Ask(r.db("story").table_create("tales")))["tables_created"] == 1
    yield from _rows(tales)
    yield from _kinds(tales)
    yield from _errors(tales)
    yield from _feeds(tales)
    yield from _unattended(tales)
    yield Ask(r.db_drop("story"))


def _rows(tales: Any) -> Story:
    rows = [{"id": n, "group": n % 7, "text": "x" * (n % 300)} for n in range(ROWS)]
    done = yield Ask(tales.insert(rows))
    assert (done["inserted"], done["errors"]) == (ROWS, 0), done
    read = yield Ask(tales, {"max_batch_rows": 40})
    assert sorted(row["id"] for row in read) == list(range(ROWS))
    assert (yield Ask(tales.get(3)))["group"] == 3
    assert (yield Ask(tales.get(-1))) is None
    done = yield Ask(tales.get(3).update({"group": r.row["group"] + 100}, return_changes=True))
    assert done["changes"][0]["new_val"]["group"] == 103, done
    yield Ask(tales.get(3).replace({"id": 3, "group": 3}))
    assert (yield Ask(tales.insert({"id": 3}, conflict="update")))["unchanged"] == 1
    yield Ask(tales.index_create("group"))
    assert [(entry["ready"]) for entry in (yield Ask(tales.index_wait("group")))] == [True]
    assert len((yield Ask(tales.get_all(3, index="group")))) == len(range(3, ROWS, 7))
    first = yield Ask(tales.order_by(index=r.desc("id")).limit(3)["id"])
    assert first == [ROWS - 1, ROWS - 2, ROWS - 3], first
    counts = yield Ask(tales.group("group").count())
    assert sum(counts.values()) == ROWS, counts
    answers = yield Together([tales.get(n)["id"] for n in range(40)] + [tales.count(), tales.between(5, 9)["id"]])
    assert answers[:40] == list(range(40)), answers
    assert answers[40] == ROWS, answers
    assert sorted(answers[41]) == [5, 6, 7, 8], answers
    assert len((yield Leave(tales.order_by(index="id"), 60))) == 60
    big = "y" * 3_000_000
    yield Ask(tales.insert({"id": "big", "text": big}))
    assert (yield Ask(tales.get("big")["text"])) == big
    assert (yield Ask(tales.get("big").delete()))["deleted"] == 1


def _kinds(tales: Any) -> Story:
    moment = datetime.datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    row = {"id": "kinds", "time": moment, "bytes": b"\0\xff\n", "none": None, "deep": {"list": [1, 2.5, "three", True]}}
    yield Ask(tales.insert(row))
    kept = yield Ask(tales.get("kinds"))
    assert {**kept, "bytes": bytes(kept["bytes"])} == row, kept
    raw = yield Ask(tales.get("kinds"), {"time_format": "raw", "binary_format": "raw"})
    assert raw["time"] == {"$reql_type$": "TIME", "epoch_time": 1770091506.789, "timezone": "+00:00"}, raw
    assert raw["bytes"] == {"$reql_type$": "BINARY", "data": "AP8K"}, raw
    point = yield Ask(r.point(-122.4, 37.8))
    assert point == {"$reql_type$": "GEOMETRY", "type": "Point", "coordinates": [-122.4, 37.8]}, point
    profiled = yield Ask(tales.get("kinds")["none"], {"profile": True})
    assert profiled["value"] is None, profiled
    assert profiled["profile"], profiled
    yield Ask(tales.get("kinds").delete())


def _errors(tales: Any) -> Story:
    yield from _refused(ReqlQueryLogicError, "Expected type STRING but found NUMBER.", r.expr("a") + 1)
    yield from _refused(ReqlNonExistenceError, "No attribute `missing` in object:", tales.get(1)["missing"])
    yield from _refused(ReqlOpFailedError, "Table `story.none` does not exist.", r.db("story").table("none"))
    done = yield Ask(tales.insert({"id": 1}))
    assert done["first_error"].startswith("Duplicate primary key `id`:"), done
    rows = tales.order_by(index="id").map(lambda row: r.branch(row["id"] < 500, row["id"], r.error("enough")))
    yield from _refused(ReqlError, "enough", rows)  # after some batches
    assert (yield Ask(r.expr(1))) == 1


def _refused(kind: type[Exception], words: str, query: Any) -> Story:
    try:
        answer = yield Ask(query, {"max_batch_rows": 50})
    except kind as error:
        assert error.message.startswith(words), error.message
        return
    raise AssertionError(f"{words!r} was expected, but it gave {answer!r}")


def _feeds(tales: Any) -> Story:
    writes = [tales.insert({"id": f"feed {n}", "n": n}) for n in range(5)] + [tales.get("feed 0").delete()]
    changes = yield Follow(tales.filter(r.row.has_fields("n")).changes(), writes, 6)
    assert [change["new_val"] and change["new_val"]["n"] for change in changes] == [0, 1, 2, 3, 4, None], changes
    changes = yield Follow(tales.get("feed 1").changes(include_initial=True), [tales.get("feed 1").update({"n": 9})], 2)
    assert changes[0] == {"new_val": {"id": "feed 1", "n": 1}}, changes
    assert changes[1]["new_val"]["n"] == 9, changes
    last = tales.order_by(index=r.desc("id")).limit(2).changes(include_initial=True, include_states=True)
    changes = yield Follow(last, [tales.insert({"id": "zzz"})], 5)
    assert [change.get("state") for change in changes] == ["initializing", None, None, "ready", None], changes
    assert changes[4]["new_val"]["id"] == "zzz", changes


def _unattended(tales: Any) -> Story:
    yield Ask(r.db("story").table_create("later"))
    later = r.db("story").table("later")
    for n in range(100):
        yield Ask(later.insert({"id": n}, durability="soft"), {"noreply": True})
    yield Reopen()
    assert (yield Ask(later.count())) == 100
