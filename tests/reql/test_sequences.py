"""map, concat_map, filter, zip, range."""

from __future__ import annotations

import pytest
from rethinkdb import r

ROWS = [{"id": i, "a": i % 3, **({"opt": i} if i % 2 else {})} for i in range(600)]


@pytest.fixture
def t(table):
    table("t", ROWS)
    return r.table("t")


class TestMap:
    def test_applies_a_function_to_each_row(self, run, t):
        assert run(t.map(lambda row: row["id"] * 2)) == [row["id"] * 2 for row in ROWS]

    def test_of_an_array_is_an_array(self, run):
        assert run(r.expr([1, 2]).map(lambda x: x + 1).type_of()) == "ARRAY"

    def test_of_a_table_is_a_stream(self, run, t):
        assert run(t.map(lambda row: row).type_of()) == "STREAM"

    def test_several_sequences_end_with_the_shortest(self, run, t):
        assert run(r.map(r.range(), ["a", "b"], lambda n, s: [n, s])) == [[0, "a"], [1, "b"]]
        assert len(run(r.map(t, r.range(500), lambda row, n: n))) == 500

    def test_arity_must_fit_the_number_of_sequences(self, failure):
        message = "The function passed to `map` expects 1 argument, but 2 sequences were found."
        assert failure(r.map([1], [2], lambda x: x)) == ("ReqlQueryLogicError", message, [])

    def test_names_the_function_that_fails(self, failure):
        got = failure(r.expr([1, 0]).map(lambda x: 1 / x).count())
        assert got == ("ReqlQueryLogicError", "Cannot divide by zero.", [0, 1, 1])

    def test_of_what_is_no_sequence(self, failure):
        assert failure(r.expr(1).map(lambda x: x)) == ("ReqlQueryLogicError", "Cannot convert NUMBER to SEQUENCE", [])
        assert failure(r.expr(None).map(lambda x: x))[0] == "ReqlNonExistenceError"


class TestConcatMap:
    def test_joins_arrays_and_streams(self, run, t):
        assert run(r.expr([1, 2]).concat_map(lambda x: [x, x * 10])) == [1, 10, 2, 20]
        assert run(r.range(3).concat_map(lambda x: r.range(x))) == [0, 0, 1]
        assert run(r.expr([1, 2]).concat_map(lambda x: t.filter({"id": x})["id"])) == [1, 2]

    def test_takes_from_a_stream_without_end_what_is_needed(self, run):
        query = r.range().concat_map(lambda x: r.range(x).concat_map(lambda y: [x, y])).limit(5)
        assert run(query) == [1, 0, 2, 0, 2]

    def test_refuses_results_that_are_no_sequences(self, failure):
        got = failure(r.expr([1]).concat_map(lambda x: x))
        assert got == ("ReqlQueryLogicError", "Cannot convert NUMBER to SEQUENCE", [1])

    def test_works_on_groups(self, run, t):
        counts = run(t.group("a").concat_map(lambda row: [row["id"]] * 2).count())
        assert counts["data"] == [[0, 400], [1, 400], [2, 400]]


class TestFilter:
    def test_leaves_out_rows(self, run, t):
        assert run(t.filter(lambda row: row["a"] == 1)) == [row for row in ROWS if row["a"] == 1]

    def test_absent_fields_do_not_match_unless_said_so(self, run, t):
        condition = lambda row: row["opt"] > 590  # noqa: E731
        assert run(t.filter(condition)["id"]) == [591, 593, 595, 597, 599]
        assert len(run(t.filter(condition, default=True))) == 305

    def test_default_error_without_message_shows_what_is_absent(self, failure, t):
        got = failure(t.filter(lambda row: row["opt"] > 1, default=r.error()))
        assert got == ("ReqlNonExistenceError", "No attribute `opt` in object:", [1, 1, 0])
        assert failure(t.filter(lambda row: row["opt"] > 1, default=r.error("mine"))) == (
            "ReqlUserError",
            "mine",
            ["default"],
        )

    def test_objects_match_by_their_fields_at_every_depth(self, run):
        rows = [{"a": {"b": 1, "c": 2}}, {"a": {"b": 2}}, {"a": 1}, {}]
        assert run(r.expr(rows).filter({"a": {"b": 1}})) == rows[:1]
        assert run(r.expr(rows).filter({"a": r.literal({"b": 2})})) == rows[1:2]
        assert run(r.expr(rows).filter({})) == rows

    def test_true_is_not_one(self, run):
        assert run(r.expr([{"a": 1}, {"a": True}, {"a": 1.0}]).filter({"a": 1})) == [{"a": 1}, {"a": 1.0}]
        assert run(r.expr([{"a": "x"}, {"b": 0}, {"a": "x", "b": False}]).filter({"a": "x", "b": 0})) == []

    def test_an_object_is_no_match_for_null_and_an_error_for_other_data(self, run, failure):
        for pattern, found in (({"a": 1}, [{"a": 1}]), ({"a": {"b": 1}}, [])):
            assert run(r.expr([{"a": 1}, None]).filter(pattern)) == found
            assert failure(r.expr([{"a": 1}, 3]).filter(pattern)) == (
                "ReqlQueryLogicError",
                "Expected type OBJECT but found NUMBER.",
                [],
            )

    def test_null_and_false_are_false_and_all_else_is_true(self, run):
        assert run(r.expr([1, None, False, 0, ""]).filter(lambda x: x)) == [1, 0, ""]

    def test_of_a_selection_can_still_be_written_to(self, run, t):
        assert run(t.filter({"a": 1}).type_of()) == "SELECTION<STREAM>"
        assert run(t.filter({"a": 1}).update({"z": 1})["replaced"]) == 200

    def test_rows_that_are_no_objects_do_not_match_objects(self, failure):
        got = failure(r.expr([1]).filter({"a": 1}))
        assert got == ("ReqlQueryLogicError", "Expected type OBJECT but found NUMBER.", [])


class TestZip:
    def test_merges_both_sides(self, run):
        assert run(r.expr([{"left": {"a": 1}, "right": {"b": 2}}, {"left": {"a": 3}}]).zip()) == [
            {"a": 1, "b": 2},
            {"a": 3},
        ]

    def test_needs_a_left_side(self, failure):
        assert failure(r.expr([{"right": {}}]).zip())[1] == "ZIP can only be called on the result of a join."


class TestRange:
    @pytest.mark.parametrize("bounds", [(5,), (2, 5), (5, 2), (-2, 2), (0, 1000)])
    def test_counts_up(self, run, bounds):
        assert run(r.range(*bounds)) == list(range(*bounds))

    def test_without_end_can_be_cut_but_not_counted(self, run, failure):
        assert run(r.range().limit(3)) == [0, 1, 2]
        assert failure(r.range().map(lambda x: x).count()) == (
            "ReqlQueryLogicError",
            "Cannot use an infinite stream with an aggregation function (`reduce`, `count`, etc.) or coerce it to an "
            "array.",
            [0],
        )

    def test_bounds_are_whole_numbers(self, failure):
        assert failure(r.range(1.5)) == ("ReqlQueryLogicError", "Number not an integer: 1.5", [0])
