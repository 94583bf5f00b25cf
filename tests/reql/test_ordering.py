"""order_by and distinct."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r

from model import datum as d
from proxy.reql.terms.fields import FieldFunc
from proxy.reql.terms.sorting import Comparison, Sorter, sort_one_by_one, sort_rows

ROWS = [{"id": i, "a": (i * 7) % 5, "b": ["x", "y"][i % 2], **({"c": i % 4} if i % 3 else {})} for i in range(60)]


@pytest.fixture
def t(table, run):
    table("t", ROWS)
    for index in ("a", "c"):
        run(r.table("t").index_create(index))
    run(r.table("t").index_create("m", lambda row: [row["a"], row["b"]], multi=True))
    run(r.table("t").index_create("when", lambda row: r.epoch_time(row["a"]).in_timezone("-01:00")))
    return r.table("t")


class TestOrderBy:
    def test_fields_functions_and_directions(self, run, t):
        assert run(t.order_by("a", "id")["id"]) == [row["id"] for row in sorted(ROWS, key=lambda w: (w["a"], w["id"]))]
        expected = sorted(ROWS, key=lambda row: (-row["a"], row["b"], row["id"]))
        assert run(t.order_by(r.desc("a"), r.asc("b"), lambda row: row["id"])) == expected

    def test_rows_without_the_field_come_first_and_last_when_descending(self, run):
        rows = [{"a": 1}, {"b": 1}, {"a": 0}]
        assert run(r.expr(rows).order_by("a")) == [rows[1], rows[2], rows[0]]
        assert run(r.expr(rows).order_by(r.desc("a"))) == [rows[0], rows[2], rows[1]]

    def test_equal_rows_stay_as_they_came(self, run):
        rows = [{"i": i, "k": i % 2} for i in range(10)]
        assert [row["i"] for row in run(r.expr(rows).order_by(r.desc("k")))] == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]

    def test_functions_are_only_asked_where_needed(self, run, failure):
        assert run(r.expr([1]).order_by(lambda x: r.error("never"))) == [1]
        rows = [{"a": 1}, {"a": 2}]
        assert run(r.expr(rows).order_by("a", lambda x: r.error("never"))) == rows
        assert failure(r.expr([1, 2]).order_by(lambda x: r.error("asked"))) == ("ReqlUserError", "asked", [1, 1])

    def test_a_selection_stays_one(self, run, t):
        assert run(t.order_by("id").type_of()) == "SELECTION<ARRAY>"
        assert run(t.order_by("a").limit(2).delete()["deleted"]) == 2

    def test_keeps_the_array_limit(self, failure, t):
        assert failure(t.order_by("id"), array_limit=10)[0] == "ReqlResourceLimitError"
        assert failure(t.order_by("id").limit(1), array_limit=10)[0] == "ReqlResourceLimitError"

    def test_with_limit_gives_the_same_first_rows(self, run, t):
        for count in (0, 1, 7, 60, 100):
            assert run(t.order_by("b", r.desc("a")).limit(count)) == run(t.order_by("b", r.desc("a")))[:count]

    def test_needs_something_deterministic_to_order_by(self, failure, t):
        assert failure(t.order_by())[1:] == ("Must specify something to order by.", [])
        assert failure(t.order_by(lambda row: r.random())) == (
            "ReqlQueryLogicError",
            "Sorting by a non-deterministic function is not supported.",
            [],
        )


class TestOrderByIndex:
    def test_comes_in_the_order_of_the_index(self, run, t):
        assert run(t.order_by(index="id")["id"]) == list(range(60))
        assert run(t.order_by(index=r.desc("id"))["id"]) == list(range(59, -1, -1))
        assert run(t.order_by(index="c").count()) == 40

    def test_further_fields_sort_within_a_value(self, run, t):
        expected = sorted(ROWS, key=lambda row: (row["a"], -row["id"]))
        assert run(t.order_by(r.desc("id"), index="a")) == expected

    def test_too_many_rows_with_one_value(self, failure, t):
        got = failure(t.order_by("id", index="a"), array_limit=5)
        assert got[:2] == ("ReqlResourceLimitError", "Too many rows (> 5) with the same value for index `a`:")

    def test_works_on_tables_and_their_slices_only(self, run, failure, t):
        assert run(t.between(10, 20).order_by(index=r.desc("id")).limit(2)["id"]) == [19, 18]
        assert failure(t.filter({}).order_by(index="id"))[1].startswith("Indexed order_by can only be performed on")
        assert failure(t.between(1, 2).order_by(index="a"))[1:] == (
            "Cannot order by index `a` after calling BETWEEN on index `id`.",
            [0, 0],
        )
        assert failure(t.order_by(index="id").order_by(index="id"))[1:] == (
            "Cannot perform multiple indexed ORDER_BYs on the same table.",
            [0, 0],
        )


class TestDistinct:
    def test_of_data_is_a_sorted_array(self, run):
        assert run(r.expr(["b", 1, None, "a", [2], 1.0, {}]).distinct()) == [[2], None, 1, {}, "a", "b"]

    def test_of_an_index_is_a_stream_of_its_values(self, run, t):
        assert run(t.distinct(index="a")) == [0, 1, 2, 3, 4]
        assert run(t.distinct(index="a").type_of()) == "STREAM"
        assert run(t.order_by(index=r.desc("a")).distinct(index="a")) == [4, 3, 2, 1, 0]
        assert run(t.between(1, 3, index="a").distinct(index="a")) == [1, 2]
        assert run(t.distinct(index="m")) == [0, 1, 2, 3, 4, "x", "y"]
        assert run(t.distinct(index="id").count()) == 60
        assert run(t.distinct().count()) == 60

    def test_of_an_index_of_times_keeps_their_zone(self, run, t):
        assert {value["timezone"] for value in run(t.distinct(index="when"))} == {"-01:00"}

    def test_of_another_index_than_the_order(self, run, failure, t):
        assert run(t.order_by(index="a").distinct()["id"].count()) == 60
        assert failure(t.between(2, 5).distinct(index="a"))[1:] == (
            "Can only perform an indexed distinct on a TABLE.",
            [],
        )


values = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]) | st.just([1])
rows = st.lists(st.fixed_dictionaries({"i": st.integers(0, 99)}, optional={"a": values, "b": values}), max_size=30)
directions = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans()), min_size=1, max_size=3)


class Anywhere:
    """An Env for functions that need none."""

    slots: list[object] = []  # noqa: RUF012


@given(rows, directions, st.integers(0, 10))
def test_sorting_at_once_row_by_row_and_by_leading_rows_come_to_the_same(rows, directions, count):
    comparisons = [Comparison(FieldFunc(Anywhere, key, ()), descending) for key, descending in directions]
    expected = sort_one_by_one(rows, comparisons)
    assert sort_rows(rows, comparisons) == expected
    leading = Sorter(comparisons, count)
    for at in range(0, len(rows), 4):
        leading.take(rows[at : at + 4], rows[at : at + 4])
    assert leading.rows() == expected[:count]
    texts = Sorter(comparisons, count, d.loads)
    texts.take(rows, list(map(d.dumps, rows)))
    assert list(map(d.loads, texts.rows())) == expected[:count]
    assert list(map(d.loads, sort_one_by_one(list(map(d.dumps, rows)), comparisons, d.loads))) == expected
