"""group and ungroup, and what terms do with groups."""

from __future__ import annotations

import pytest
from rethinkdb import r

ROWS = [
    {"id": i, "a": i % 3, "b": ["x", "y"][i % 2], "tags": [i % 2, "t"], **({"opt": i} if i < 3 else {})}
    for i in range(30)
]


@pytest.fixture
def t(table, run):
    table("t", ROWS)
    run(r.table("t").index_create("a"))
    run(r.table("t").index_create("tags", multi=True))
    run(r.table("t").index_create("when", lambda row: r.epoch_time(row["a"]).in_timezone("+02:00")))
    return r.table("t")


def groups(result):
    assert result["$reql_type$"] == "GROUPED_DATA"
    return [(group, held) for group, held in result["data"]]


class TestGroup:
    def test_by_field_function_and_both(self, run, t):
        assert groups(run(t.group("a").count())) == [(0, 10), (1, 10), (2, 10)]
        assert groups(run(t.group(lambda row: row["id"] < 5).count())) == [(False, 25), (True, 5)]
        assert groups(run(t.group("b", lambda row: row["a"] == 0).count())) == [
            (["x", False], 10),
            (["x", True], 5),
            (["y", False], 10),
            (["y", True], 5),
        ]

    def test_what_is_absent_is_the_group_null(self, run, t):
        assert groups(run(t.group("opt").count())) == [(None, 27), (0, 1), (1, 1), (2, 1)]

    def test_multi_takes_every_combination_of_elements(self, run, t):
        assert groups(run(t.group("tags", multi=True).count())) == [(0, 15), (1, 15), ("t", 30)]
        assert groups(run(r.expr([{"a": [1, 2], "b": [3], "c": []}]).group("a", "b", "c", multi=True).count())) == [
            ([1, 3, None], 1),
            ([2, 3, None], 1),
        ]

    def test_by_index(self, run, t):
        assert groups(run(t.group(index="a").count())) == [(0, 10), (1, 10), (2, 10)]
        assert groups(run(t.group(index="id").count()))[:2] == [(0, 1), (1, 1)]
        assert groups(run(t.group(index="tags").sum("a")))[2] == ("t", 30)
        assert groups(run(t.group("b", index="a").count()))[0] == (["x", 0], 5)

    def test_by_an_index_of_times_keeps_their_zone(self, run, t):
        assert [group["timezone"] for group, _ in groups(run(t.group(index="when").count()))] == ["+02:00"] * 3

    def test_needs_something_to_group_by(self, failure, t):
        assert failure(t.group()) == ("ReqlQueryLogicError", "Cannot group by nothing.", [])

    def test_cannot_be_grouped_again(self, failure, t):
        message = "Cannot call `group` on the output of `group` (did you mean to `ungroup`?)."
        assert failure(t.group("a").group("b")) == ("ReqlQueryLogicError", message, [0])

    def test_too_many_groups(self, failure, t):
        assert failure(t.group("id").count(), array_limit=10)[:2] == (
            "ReqlResourceLimitError",
            "Too many groups (> 10).",
        )


class TestGrouped:
    def test_operations_run_in_each_group(self, run, t):
        assert groups(run(t.group("a").filter({"b": "x"}).map(lambda row: row["id"]).sum())) == [
            (a, sum(row["id"] for row in ROWS if row["a"] == a and row["b"] == "x")) for a in range(3)
        ]
        assert groups(run(t.group("a")["opt"].count())) == [(0, 1), (1, 1), (2, 1)]

    def test_groups_without_rows_are_left_out(self, run, t):
        assert groups(run(t.group("a").filter({"id": 4}).count())) == [(1, 1)]
        assert groups(run(t.group("id").sum("opt"))) == [(0, 0), (1, 1), (2, 2)]

    def test_other_terms_work_on_each_result(self, run, t):
        assert groups(run(t.group("a").count() + 1)) == [(0, 11), (1, 11), (2, 11)]
        assert groups(run(t.group("a").order_by(r.desc("id")).limit(1)["id"])) == [(0, [27]), (1, [28]), (2, [29])]
        assert groups(run(t.group("a").nth(0)["id"])) == [(0, 0), (1, 1), (2, 2)]
        assert groups(run(t.group("a").count().do(lambda n: n * 2)))[0] == (0, 20)

    def test_types(self, run, t):
        assert run(t.group("a").type_of()) == "GROUPED_STREAM"
        assert run(t.group("a").count().type_of()) == "GROUPED_DATA"

    def test_an_answer_has_arrays(self, run, t):
        assert groups(run(t.group("b").pluck("a")))[0][1][:2] == [{"a": 0}, {"a": 2}]

    def test_an_answer_stays_within_the_array_limit(self, failure, t):
        got = failure(t.group("a"), array_limit=20)
        assert got[:2] == (
            "ReqlResourceLimitError",
            "Grouped data over size limit `20`.  Try putting a reduction (like `.reduce` or `.count`) on the end.",
        )


class TestUngroup:
    def test_gives_groups_in_order(self, run, t):
        assert run(t.group("b").count().ungroup()) == [
            {"group": "x", "reduction": 15},
            {"group": "y", "reduction": 15},
        ]

    def test_of_what_is_not_grouped(self, failure):
        got = failure(r.expr([1]).ungroup())
        assert got == ("ReqlQueryLogicError", "Expected type GROUPED_DATA but found DATUM:", [0])
