"""Queries of one shape are compiled once, and mean what they say whatever their literals."""

from __future__ import annotations

import pytest
from rethinkdb import r

T = r.table("t")

WRITES = {
    "update": lambda n: T.get(1).update({"a": r.row["a"] + 1, "s": f"text {n}", "n": n, "deep": {"x": n / 2}}),
    "function": lambda n: T.get(1).update(lambda row: {"a": row["a"] + 1, "s": f"text {n}"}),
    "replace": lambda n: T.get(1).replace(lambda row: {"id": 1, "a": row["a"], "n": n}),
    "insert": lambda n: T.insert({"id": n, "at": r.expr(1) + n, "s": f"text {n}"}),
    "times": lambda n: T.get(1).update(
        {"a": r.row["a"], "t": {"$reql_type$": "TIME", "epoch_time": n, "timezone": "Z"}}
    ),
    "flags": lambda n: T.get(1).update({"a": r.row["a"], "yes": True, "none": None, "n": n}),
}


@pytest.mark.parametrize("name", WRITES)
def test_objects_that_are_written_differ_in_literals_only(world, table, name):
    table("t", [{"id": 1, "a": 0}])
    make = WRITES[name]
    world.run(make(2))
    known = len(world.evaluator._shapes)
    for n in (3, 4, 2**53, -1.5):
        world.run(make(n), durability="soft")
        reference = {"id": n} if name == "insert" else {"id": 1}
        row = world.run(T.get(reference["id"]))
        assert row.get("s", f"text {n}") == f"text {n}"
        assert row.get("n", n) == n
        assert row.get("deep", {"x": n / 2}) == {"x": n / 2}
        assert (row.get("yes", True), row.get("none")) == (True, None)
        if name == "times":
            assert row["t"]["epoch_time"] == n
    if name != "times":  # what a pseudo-type holds is checked when it is compiled
        assert len(world.evaluator._shapes) <= known + 2


def test_an_error_is_blamed_on_the_same_place(failure, table):
    table("t", [{"id": 1, "a": "x"}])
    first = failure(T.get(1).update({"n": 5, "b": r.row["a"].add(1)})["first_error"].coerce_to("number"))
    again = failure(T.get(1).update({"n": 6, "b": r.row["a"].add(1)})["first_error"].coerce_to("number"))
    assert first == again
