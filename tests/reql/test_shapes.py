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


ROWS = [{"id": 1, "n": 1, "l": [1]}, {"id": 2, "n": 2, "l": []}, {"id": 3, "s": "a1"}]

READS = {
    "filter": (lambda n: T.filter({"n": n}).count(), [0, 1, 1, 0]),
    "merge": (lambda n: T.get(3).merge({"n": n})["n"], [0, 1, 2, 3]),
    "append": (lambda n: T.get(1)["l"].append(n), [[1, 0], [1, 1], [1, 2], [1, 3]]),
    "set_insert": (lambda n: T.get(1)["l"].set_insert(n), [[1, 0], [1], [1, 2], [1, 3]]),
    "default": (lambda n: T.get(3)["n"].default(n), [0, 1, 2, 3]),
    "defaults of rows": (lambda n: T.map(r.row["n"].default(n)).sum(), [3, 4, 5, 6]),
    "branch": (lambda n: r.branch(T.get(1)["n"].gt(n), n, "no"), [0, "no", "no", "no"]),
    "first argument": (lambda n: r.expr(n) + T.get(1)["n"], [1, 2, 3, 4]),
    "contains": (lambda n: T.filter(lambda row: r.expr([n, n + 1]).contains(row["n"])).count(), [1, 2, 1, 0]),
    "slice": (lambda n: T.order_by("id")["id"].slice(n, n + 1), [[1], [2], [3], []]),
    "nth": (lambda n: T.order_by(index="id").nth(n).default({})["id"].default(None), [1, 2, 3, None]),
    "match": (lambda n: T.filter(r.row["s"].match(f"a{n}")).count(), [0, 1, 0, 0]),
    "times": (lambda n: r.epoch_time(n).during(r.epoch_time(1), r.epoch_time(n + 1)), [False, True, True, True]),
    "point": (lambda n: r.point(n, 0).to_geojson()["coordinates"][0], [0, 1, 2, 3]),
    "for_each": (lambda n: r.expr([n]).for_each(lambda id: T.get(id).update({"x": 1}))["skipped"], [1, 0, 0, 0]),
    "arrays": (lambda n: T.get(1).update({"l": [n, [n]], "m": r.row["n"]}, return_changes="always")["changes"][0][
        "new_val"]["l"], [[0, [0]], [1, [1]], [2, [2]], [3, [3]]]),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_reads_differ_in_literals_only(world, table, name):
    """Each of these was compiled anew for every literal, which took ten times as long as to run it."""
    table("t", ROWS)
    make, expected = READS[name]
    assert world.run(make(0)) == expected[0]
    known = len(world.evaluator._shapes)
    assert [world.run(make(n)) for n in (1, 2, 3)] == expected[1:]
    assert len(world.evaluator._shapes) == known


@pytest.mark.parametrize(
    "query",
    [
        r.expr(1).eq([1, 2, 3]),
        r.expr([1]).append([1, 2, 3]),
        r.expr({}).merge({"a": {"b": [1, 2, 3]}}),
        T.insert({"id": 9, "l": [1, 2, 3]}),
    ],
)
def test_an_array_over_the_limit_of_the_query_is_refused_wherever_it_stands(world, failure, table, query):
    table("t", ROWS)
    for limit in (3, 2, 2):
        if limit == 3:
            world.run(query, array_limit=limit)
        else:
            kind, message, _ = failure(query, array_limit=limit)
            assert kind == "ReqlResourceLimitError"
            assert message.startswith("Array over size limit `2`.")
