"""Queries that come again byte for byte: known by sight, run anew each time; and writes that leave a row unread."""

import pytest
from rethinkdb import r

from proxy.reql.evaluator import HEARD_BYTES, MAX_HEARD


def test_a_query_that_is_known_is_run_anew(run, table):
    table("t", [{"id": 1, "n": 1}])
    query = r.table("t").get(1)
    assert [run(query)["n"] for _ in range(2)] == [1, 1]
    more = query.update({"n": r.row["n"] + 1})
    assert [run(more)["replaced"] for _ in range(3)] == [1, 1, 1]
    assert run(query)["n"] == 4
    run(r.table("t").get(1).delete())
    assert run(query) is None


@pytest.mark.parametrize(
    "query",
    [
        r.expr([3, 1, 2]).append(4).order_by(lambda x: x),
        r.expr([1]).set_insert(2).splice_at(0, [9]),
        r.expr({"a": {"b": [1]}}).merge({"a": {"c": 2}, "d": r.literal([1])}),
        r.table("t").insert({"id": 1, "deep": {"list": [1, 2]}}, conflict="replace", return_changes="always"),
    ],
)
def test_literals_of_a_known_query_stay_as_they_came(run, table, query):
    table("t", [{"id": 1, "deep": {"list": [1, 2]}}])
    first = run(query)
    assert [run(query) for _ in range(3)] == [first] * 3


def test_a_known_insert_makes_a_new_key_each_time(run, table):
    table("t", [])
    query = r.table("t").insert({"a": 1})
    keys = {run(query)["generated_keys"][0] for _ in range(3)}
    assert len(keys) == 3
    assert run(r.table("t").count()) == 3


def test_what_is_known_is_bounded(run, world):
    known = world.evaluator
    for number in range(3 * MAX_HEARD):
        assert world.evaluator.start(b"[1,%d]" % number, world_context(world)).items == [b"%d" % number]
    assert run(r.expr("x" * HEARD_BYTES)) == "x" * HEARD_BYTES
    assert len(known._heard) + len(known._heard_before) <= 2 * MAX_HEARD
    assert max(map(len, [*known._heard, *known._heard_before])) <= HEARD_BYTES


def world_context(world):
    from proxy.answers import QueryContext

    return QueryContext("admin", ("127.0.0.1", 0), 1, world.fibers)


def test_a_write_to_one_row_looks_at_it_once(run, world, table):
    table("t", [{"id": 1, "n": 1}, {"id": 2}, {"id": 3}])

    def refuse(table_id, key):
        raise AssertionError("the applied state is not what a write goes by")

    world.data.get = refuse
    row = r.table("t").get
    assert run(row(1).update({"n": r.row["n"] + 1}, return_changes=True))["changes"][0]["new_val"]["n"] == 2
    assert run(row(2).replace({"id": 2, "n": 5}))["replaced"] == 1
    assert run(row(3).delete())["deleted"] == 1
    assert run(row(4).update({"n": 1}))["skipped"] == 1


def test_a_write_whose_value_is_chance_goes_by_the_row_as_read(run, table):
    table("t", [{"id": 1, "n": 1}])
    query = r.table("t").get(1).update({"n": r.row["n"] + r.random(1, 2)}, non_atomic=True)
    assert run(query)["replaced"] == 1
    assert run(r.table("t").get(1)["n"]) == 2
    result = run(r.table("t").get(9).update({"n": r.random(1, 2)}, non_atomic=True))
    assert result["first_error"] == "Expected type OBJECT but found NULL."


def test_a_write_whose_value_is_chance_does_not_delete(run, table):
    table("t", [{"id": 1}])
    chance = r.random(1, 2)
    for replacement, message in (
        (lambda row: r.branch(chance.gt(0), None, row), "Expected type OBJECT but found NULL."),
        (lambda row: {"id": 2, "n": chance}, 'Primary key `id` cannot be changed (`{\n\t"id":\t1\n}` -> `{'),
        (lambda row: {"n": chance}, 'Inserted object must have primary key `id`:\n{\n\t"n":\t1\n}'),
    ):
        result = run(r.table("t").get(1).replace(replacement, non_atomic=True, return_changes="always"))
        assert (result["errors"], result["changes"]) == (1, [])
        assert result["first_error"].startswith(message)
    assert run(r.table("t").get(2).replace(lambda row: {"id": 2, "n": chance}, non_atomic=True))["inserted"] == 1
    constant = r.branch(chance.gt(0), None, {})  # is evaluated once, and then as any other
    assert run(r.table("t").get(2).replace(constant, non_atomic=True))["deleted"] == 1


def test_a_key_that_cannot_be_one_is_blamed_on_who_looks_at_the_row(failure, table):
    table("t", [])
    for write in (r.table("t").get({}).delete(), r.table("t").get(r.expr(None)).update({"n": 1})):
        _, message, path = failure(write)
        assert path == []
        assert message.startswith("Primary keys must be either")


NESTED = "Cannot nest writes or meta ops in stream operations.  Use FOR_EACH instead."
NO_TERM = "Expected a TermType as a NUMBER but found "


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        ([39, [[15, ["t"]], [69, [[2, [1]], [54, [[15, ["t"]]]]]], 5]], NESTED, [1, 1]),
        ([39, [[15, ["t"], {"nope": 1}], [69, [[2, [1]], [54, [[15, ["t"]]]]]]]], NESTED, [1, 1]),
        ([24, [[15, ["t", 1, 2]], [73, [1]]]], "ASC may only be used as an argument to ORDER_BY or UNION.", [1]),
        ([[1, 2], [3]], NO_TERM + "ARRAY.", []),
        ([39, [[[1, 2], [3]], [[1], 1]]], NO_TERM + "ARRAY.", [0]),
        ([24, [{"a": [[1, 2]]}, 3, 4], {"x": 1}], NO_TERM + "ARRAY.", [0, "a"]),
        ([24, [[1, [54, 1]], 1], {"nope": 1}], "Unrecognized optional argument `nope`.", ["nope"]),
    ],
)
def test_what_is_in_a_wrong_place_is_complained_of_first(failure, query, message, path):
    assert failure(query) == ("ReqlCompileError", message, path)
