"""Others have a turn while a query is at work, however long each of its rows takes."""

import pytest
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from model.errors import ReqlResourceLimitError
from proxy.reql import writing
from proxy.reql.evaluator import GLANCE_BYTES
from tests.reql.conftest import SmallWorld

ROWS = 300


class Breaths:
    """Fibers that count breaths, and for whom each row of a write takes `row_s` seconds."""

    def __init__(self, fibers, row_s=0.0):
        self.fibers, self.row_s = fibers, row_s
        self.count, self.rows = 0, 0
        self.wait, self.wait_for = fibers.wait, fibers.wait_for
        self.current = None

    def breathe(self):
        self.count += 1
        self.rows = 0

    def run_s(self):
        self.rows += 1
        return self.rows * self.row_s


@pytest.mark.parametrize(
    "query",
    [
        r.range(ROWS).map(lambda n: r.do(n, lambda n: n.coerce_to("string"))).count(),
        r.range(ROWS).coerce_to("array").filter(lambda n: r.do(n, lambda n: n.coerce_to("string") != "")).count(),
        r.range(ROWS).map(r.range(ROWS), lambda a, b: r.object("a", a, "b", b)).count(),
        r.range(ROWS).reduce(lambda a, b: r.do(a, lambda a: a.coerce_to("number") + b)),
        r.range(ROWS).fold(0, lambda a, b: r.do(a, lambda a: a.coerce_to("number") + b)),
        r.range(ROWS).coerce_to("array").order_by(lambda n: r.do(n, lambda n: n.coerce_to("string"))).count(),
    ],
)
def test_functions_of_any_cost_leave_turns_within_a_chunk(query):
    world = SmallWorld()
    world.fibers = breaths = Breaths(world.fibers)
    world.run(query)
    assert breaths.count >= ROWS / 32


def test_a_write_whose_rows_take_long_is_committed_in_smaller_batches():
    world = SmallWorld()
    world.run(r.db_create("d"))
    world.run(r.db("d").table_create("t"))
    world.run(r.db("d").table("t").insert([{"id": n} for n in range(ROWS)]))
    began = world.data.applied_index
    world.fibers = Breaths(world.fibers, writing.MAX_BATCH_S / 10)
    assert world.run(r.db("d").table("t").update({"a": 1}, durability="soft"))["replaced"] == ROWS
    assert world.data.applied_index - began >= ROWS / 10


def test_a_string_of_too_many_parts_is_refused():
    world = SmallWorld()
    for text in ("a" * 100_001, "é" * 100_001):
        with pytest.raises(ReqlResourceLimitError):
            world.run(r.expr(text).split(""))
    assert world.run(r.expr("é" * 100_000).split("").count()) == 100_000


def test_many_different_rows_come_in_order():
    world = SmallWorld()
    rows = r.range(9000).map(lambda n: {"at": (n * 7919) % 9001}).coerce_to("array")
    assert world.run(rows.distinct()["at"] == rows["at"].order_by(lambda at: at)) is True


def test_others_have_a_turn_between_the_parsing_of_a_large_query_and_its_work(monkeypatch):
    world = SmallWorld()
    world.make_table("t", [])
    world.fibers = breaths = Breaths(world.fibers)
    written = []
    commit = world.data.commit
    monkeypatch.setattr(
        world.data, "commit", lambda effects, *more: written.append(breaths.count) or commit(effects, *more)
    )
    world.run(r.table("t").insert([{"id": at, "text": "x" * 1000} for at in range(GLANCE_BYTES // 1000)]))
    assert written[0] == 1
    written.clear()
    before = breaths.count
    world.run(r.table("t").insert([{"id": -at} for at in range(1, 100)]))
    assert written == [before]  # a small one is parsed and begun in one turn


def test_a_large_document_is_not_parsed_at_a_glance():
    world = SmallWorld()
    world.make_table("t", [])
    for size, is_seen in ((1000, True), (GLANCE_BYTES, False)):
        insert = r.table("t").insert({"id": size, "text": "x" * size})
        assert world.run(insert)["inserted"] == 1  # the shape is known from here on
        query = r.table("t").get(size).update({"text": "y" * size})
        assert world.run(query)["replaced"] == 1
        body = ReQLEncoder().encode([1, r.table("t").get(size).update({"text": "z" * size}), {}]).encode()
        assert (world.evaluator.glance(body, "admin") is not None) == is_seen
