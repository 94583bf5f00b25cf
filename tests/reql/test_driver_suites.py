"""What drivers' own test suites found: the order in which mistakes are told, arguments from `r.args`, long chains."""

from __future__ import annotations

import json
import sys
from functools import reduce

import orjson
import pytest
from rethinkdb import ast, r

from model.errors import (
    ReqlClientError,
    ReqlOpFailedError,
    ReqlQueryLogicError,
    ReqlResourceLimitError,
    ReqlUserError,
)
from proxy.answers import PARTIAL, SEQUENCE
from proxy.frames import parse_query
from server.daemon import RECURSION_LIMIT


@pytest.fixture
def frames_of_a_server():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(RECURSION_LIMIT)
    yield
    sys.setrecursionlimit(before)


def test_a_chain_of_many_calls_runs(run, frames_of_a_server):
    assert run(reduce(lambda sum, _: sum + 1, range(687), r.expr(1))) == 688


def test_deep_json_is_read_as_all_other_json_is(frames_of_a_server):
    deep = b"[" * 3000 + b'"%b"' + b"]" * 3000
    assert parse_query(b"[1," + deep % b"\\u00e4" + b"]") == [1, json.loads(deep % "ä".encode())]
    for wrong in (b"[1," + deep % b"\\ud800" + b"]", b"[1,[NaN," + deep % b"" + b"]]", b"[1," + deep):
        with pytest.raises(ReqlClientError):
            parse_query(wrong)
    with pytest.raises(ReqlResourceLimitError):
        parse_query(b"[1," + b"[" * 1_000_000 + b"]" * 1_000_000 + b"]")


def test_the_function_of_do_may_come_from_args(run):
    assert run(ast.FunCall(r.args([3, 4]))) == 3
    with pytest.raises(ReqlQueryLogicError, match="Expected 1 or more arguments but found 0"):
        run(ast.FunCall(r.args([])))


def test_a_join_looks_at_its_right_side_before_its_condition(run, table):
    table("t", [])
    for join in (r.expr([1]).inner_join, r.expr([1]).outer_join):
        with pytest.raises(ReqlQueryLogicError, match="Expected type SEQUENCE but found FUNCTION"):
            run(join(lambda left, right: left == right, r.table("t")))


def test_a_missing_index_is_told_to_who_reads(run, table):
    table("t", [])
    rows = r.table("t").get_all(1, index="missing")
    with pytest.raises(ReqlQueryLogicError, match="Expected type DATUM but found SELECTION"):
        run(rows.do(lambda found: found + 1))
    for query in (rows, rows.count(), rows.delete(), rows.changes()):
        with pytest.raises(ReqlOpFailedError, match="Index `missing` was not found"):
            run(query)


def test_what_could_not_be_read_again_is_not_stored(run, table, frames_of_a_server):
    table("t", [])

    def deep(levels):
        return r.range(levels).fold(1, lambda inner, _: [inner])

    assert run(r.table("t").insert({"id": 1, "deep": deep(1000)}))["inserted"] == 1
    assert run(r.table("t").get(1)["deep"].count()) == 1
    for write in (
        r.table("t").insert({"id": 2, "deep": deep(1100)}),
        r.table("t").get(1).update({"deep": deep(1100)}, non_atomic=True),
    ):
        done = run(write)
        assert (done["errors"], done["first_error"]) == (1, "A value cannot be nested more than 1024 levels deep.")
    assert run(r.table("t")["deep"].count()) == 1


def test_what_fails_in_a_range_leaves_the_reader_the_full_batches_before_it(world):
    numbers = r.range().map(lambda number: r.branch(number < 1200, number, r.error("no more")))
    answer = world.start(numbers)
    assert [orjson.loads(item) for item in answer.items] == list(range(500))
    assert [orjson.loads(item) for item in answer.cursor.next_batch().items] == list(range(500, 1000))
    with pytest.raises(ReqlUserError, match="no more"):
        answer.cursor.next_batch()


def test_a_range_that_ends_with_a_batch_ends_with_its_answer(world):
    assert world.start(r.range(500)).kind == SEQUENCE
    first = world.start(r.range(10, 1010))
    assert (first.kind, len(first.items)) == (PARTIAL, 500)
    assert (first.cursor.next_batch().kind, world.start(r.range(501).limit(500)).kind) == (SEQUENCE, SEQUENCE)
