"""count, sum, avg, min, max, reduce, fold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r

ROWS = [{"id": i, "n": i * 2, "k": i % 3, **({"opt": i} if i % 2 else {})} for i in range(300)]


@pytest.fixture
def t(table, run):
    table("t", ROWS)
    table("empty", [])
    run(r.table("t").index_create("n"))
    return r.table("t")


class TestCount:
    def test_counts_rows_values_and_conditions(self, run, t):
        assert run(t.count()) == 300
        assert run(t.between(10, 20).count()) == 10
        assert run(t.count(lambda row: row["opt"] > 100)) == 100
        assert run(t["k"].count(1)) == 100

    def test_gives_the_size_of_other_data(self, run):
        assert run(r.expr("añb").count()) == 3
        assert run(r.expr({"a": 1, "b": 2}).count()) == 2
        assert run(r.binary(b"abc").count()) == 3

    def test_refuses_what_has_no_size(self, failure):
        assert failure(r.expr(1).count()) == ("ReqlQueryLogicError", "Cannot convert NUMBER to SEQUENCE", [])


class TestSumAndAverage:
    def test_leave_out_what_is_absent_or_null(self, run, t):
        assert run(t.sum("opt")) == sum(row["opt"] for row in ROWS if "opt" in row)
        assert run(r.expr([1, None, 2]).sum()) == 3
        assert run(t.avg("opt")) == 150

    def test_of_nothing(self, run, failure):
        assert run(r.expr([]).sum()) == 0
        assert failure(r.expr([]).avg())[0] == "ReqlNonExistenceError"

    def test_of_what_are_no_numbers(self, failure):
        assert failure(r.expr([{"a": 1}, {"a": "x"}]).sum("a")) == (
            "ReqlQueryLogicError",
            "Expected type NUMBER but found STRING.",
            [],
        )

    @given(st.lists(st.integers(-(2**40), 2**40) | st.floats(-1e12, 1e12)))
    def test_sum_adds_doubles_one_after_the_other(self, numbers):
        # The world is not needed: the terminal is.
        from proxy.reql.terms.aggregate import Sum

        terminal, total = Sum(None), 0.0
        accumulator = terminal.begin(None)
        for at in range(0, len(numbers), 3):
            accumulator = terminal.step(None, accumulator, numbers[at : at + 3])
        for number in numbers:
            total += number
        assert math.isclose(terminal.end(None, accumulator), total, rel_tol=1e-12, abs_tol=1e-3)


class TestMinAndMax:
    def test_give_the_first_of_the_extreme_rows(self, run):
        rows = [{"a": 1, "i": 0}, {"a": 1, "i": 1}, {"a": 0, "i": 2}, {"i": 3}]
        assert run(r.expr(rows).max("a")) == rows[0]
        assert run(r.expr(rows).min("a")) == rows[2]
        assert run(r.expr([3, "a", None, [1]]).min()) == [1]

    def test_by_an_index_are_selections_found_when_looked_at(self, run, t):
        assert run(t.max(index="n")["id"]) == 299
        assert run(t.min(index="n").type_of()) == "SELECTION<OBJECT>"
        assert run(t.min(index="n").update({"n": 1000})["replaced"]) == 1
        assert run(t.max(index="n")["id"]) == 0

    def test_of_an_empty_index_fail_only_when_looked_at(self, run, failure, t):
        empty = r.table("empty")
        assert run(empty.min(index="id").type_of()) == "SELECTION<OBJECT>"
        assert failure(empty.min(index="id")["id"]) == (
            "ReqlQueryLogicError",
            "`min` found no entries in the specified index.",
            [0],
        )

    def test_take_a_function_or_an_index(self, failure, t):
        message = "Cannot provide both a function and an index to min."
        assert failure(t.min("n", index="n")) == ("ReqlQueryLogicError", message, [])
        assert failure(t.between(1, 2).max(index="n"))[1:] == ("Expected type TABLE but found TABLE_SLICE:", [0])


class TestReduce:
    def test_goes_from_left_to_right(self, run, t):
        assert run(t["n"].reduce(lambda a, b: a + b)) == sum(row["n"] for row in ROWS)
        assert run(r.expr([[1], [2], [3]]).reduce(lambda a, b: a + b)) == [1, 2, 3]

    def test_of_nothing_blames_the_function(self, run, failure):
        reduction = r.expr([]).reduce(lambda a, b: a + b)
        assert failure(reduction) == ("ReqlNonExistenceError", "Cannot reduce over an empty stream.", [1, 1])
        assert run(reduction.default(0)) == 0

    def test_null_counts(self, run):
        assert run(r.expr([None, None]).reduce(lambda a, b: r.expr([a, b]).count())) == 2


class TestFold:
    def test_leads_an_accumulator_through(self, run, t):
        assert run(t.order_by("id").fold(0, lambda acc, row: acc + row["n"])) == sum(row["n"] for row in ROWS)
        assert run(r.expr([1, 2]).fold(0, lambda a, x: a + x, final_emit=lambda a: [a])) == [3]

    def test_emits_on_its_way(self, run):
        folded = r.range(4).fold(
            0, lambda a, x: a + x, emit=lambda old, x, new: [old, new], final_emit=lambda a: ["end"]
        )
        assert run(folded) == [0, 0, 0, 1, 1, 3, 3, 6, "end"]
        assert run(folded.type_of()) == "STREAM"

    def test_emits_arrays(self, failure):
        got = failure(r.expr([1]).fold(0, lambda a, x: a, emit=lambda old, x, new: new))
        assert got == ("ReqlQueryLogicError", "Expected type ARRAY but found NUMBER.", [])

    def test_does_not_work_on_groups(self, failure, t):
        got = failure(t.group("k").fold(0, lambda a, x: a))
        assert got[1:] == ("Cannot treat the output of `group` as a stream (did you mean to `ungroup`?).", [0])
