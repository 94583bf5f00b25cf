"""Others have a turn while a query is at work, however long each of its rows takes."""

import pytest
from rethinkdb import r

from model.errors import ReqlResourceLimitError
from proxy.reql import writing
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
