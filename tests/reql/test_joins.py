"""inner_join, outer_join, eq_join, union."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r

from model.errors import ReqlError

LEFT = [{"id": 1, "k": "x"}, {"id": 2, "k": "y"}, {"id": 3}, {"id": 4, "k": "x"}]
RIGHT = [{"id": "x", "n": 1}, {"id": "y", "n": 2}, {"id": "z", "n": 2}]


@pytest.fixture
def tables(table, run):
    table("a", LEFT)
    table("b", RIGHT)
    run(r.table("b").index_create("n"))
    return r.table("a"), r.table("b")


class TestInnerAndOuterJoin:
    def test_pair_rows_for_which_the_condition_holds(self, run, tables):
        a, b = tables
        same = lambda left, right: left["id"] == right["n"]  # noqa: E731
        pairs = [{"left": x, "right": y} for x in LEFT for y in RIGHT if x["id"] == y["n"]]
        assert run(a.inner_join(b, same)) == pairs
        assert run(a.outer_join(b, same)) == [*pairs, {"left": LEFT[2]}, {"left": LEFT[3]}]

    def test_of_arrays_are_arrays(self, run):
        assert run(r.expr([1, 2]).inner_join([2, 3], lambda x, y: x == y).type_of()) == "ARRAY"
        assert run(r.expr([1, 2]).outer_join([], lambda x, y: True)) == [{"left": 1}, {"left": 2}]

    def test_read_the_right_side_anew_where_it_may_differ(self, run):
        right = r.expr([1]).map(lambda x: r.random())
        pairs = run(r.expr([1, 2, 3]).inner_join(right, lambda x, y: True)["right"])
        assert len(set(pairs)) == 3

    def test_blame_the_condition(self, failure, tables):
        a, b = tables
        got = failure(a.inner_join(b, lambda left, right: left["missing"] == right["n"]))
        assert got == ("ReqlNonExistenceError", "No attribute `missing` in object:", [2, 1, 0])
        assert failure(r.expr([1]).inner_join(2, lambda x, y: True))[1:] == ("Cannot convert NUMBER to SEQUENCE", [])

    def test_join_within_groups(self, run, tables):
        a, b = tables
        joined = a.has_fields("k").group("k").inner_join(b, lambda left, right: left["k"] == right["id"]).count()
        assert run(joined)["data"] == [["x", 2], ["y", 1]]


class TestEqJoin:
    def test_by_primary_key_in_the_order_of_the_left_side(self, run, tables):
        a, b = tables
        expected = [
            {"left": row, "right": next(other for other in RIGHT if other["id"] == row["k"])}
            for row in LEFT
            if "k" in row
        ]
        assert run(a.order_by("id").eq_join("k", b)) == expected
        assert run(a.order_by("id").eq_join(lambda row: row["k"], b, ordered=True)) == expected

    def test_by_index(self, run, tables):
        a, b = tables
        assert run(a.eq_join("id", b, index="n").count()) == 3

    def test_zip_lays_the_right_side_over_the_left(self, run, table):
        rows = [{"id": at, "k": at % 3, "both": {"left": at}, "list": [1]} for at in range(300)]
        table("many", rows)
        table("few", [{"id": at, "both": {"right": at}, "list": [2]} for at in range(3)])
        joined = run(r.table("many").eq_join("k", r.table("few")).zip().order_by("k", "both"))
        assert len(joined) == 300
        assert joined[0] == {"id": 0, "k": 0, "both": {"left": 0, "right": 0}, "list": [2]}
        assert joined[299] == {"id": 2, "k": 2, "both": {"left": 299, "right": 2}, "list": [2]}
        pairs = run(r.table("many").eq_join("k", r.table("few")).coerce_to("array").zip().order_by("k", "both"))
        assert pairs == joined

    def test_zip_of_a_row_with_a_literal_replaces(self, run, table):
        table("few", [{"id": 0, "a": {"$reql_type$": "LITERAL", "value": {"x": 1}}}])
        assert run(r.expr([{"k": 0, "a": {"y": 1}}]).eq_join("k", r.table("few")).zip()) == [
            {"id": 0, "k": 0, "a": {"x": 1}}
        ]

    def test_by_index_gives_each_row_as_often_as_it_is_found(self, run, tables):
        a, b = tables
        assert run(a.order_by(index="id").eq_join("id", b, index="n")) == [
            {"left": LEFT[0], "right": RIGHT[0]},
            *({"left": LEFT[1], "right": row} for row in RIGHT[1:]),
        ]
        assert run(a.order_by(index="id").eq_join("id", b, index="n").zip()) == [
            {**LEFT[0], **RIGHT[0]}, {**LEFT[1], **RIGHT[1]}, {**LEFT[1], **RIGHT[2]}
        ]  # fmt: skip

    def test_blames_the_whole_row(self, failure, tables):
        a, b = tables
        kind, message, _ = failure(a.order_by(index="id").eq_join(lambda row: row["id"] + row["k"], b))
        assert (kind, message) == ("ReqlQueryLogicError", "Expected type NUMBER but found STRING.")

    def test_null_finds_nothing(self, run, tables):
        assert run(r.expr([{"r": None}, {}]).eq_join("r", tables[1])) == []

    def test_joins_tables(self, failure, tables):
        a, b = tables
        assert failure(a.eq_join("k", b.filter({})))[1:] == ("Expected type TABLE but found SELECTION:", [2])
        assert failure(a.eq_join(5, b))[1:] == ("Expected type STRING but found NUMBER.", [1])


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 1), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from('ab"é'), inner, max_size=2)),
    max_leaves=4,
)
ODD_VALUES = st.sampled_from(
    [{"$reql_type$": "LITERAL", "value": {"a": 1}}, {"$reql_type$": "TIME", "epoch_time": 1, "timezone": "+00:00"}]
)
NAMES = st.sampled_from(["a", "b", "z", "é", 'x"y', "a\\b", "id2"])
ROWS = st.lists(st.dictionaries(NAMES, st.one_of(VALUES, VALUES, ODD_VALUES), max_size=6), max_size=6)


@given(ROWS, ROWS, st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=6, max_size=6))
def test_a_join_of_texts_is_the_join_of_the_data(world_of_module, lefts, rights, refs):
    world = world_of_module
    for name, rows in (("left", lefts), ("right", rights)):
        if name in world.machine.catalog.databases["test"].tables:
            world.run(r.table_drop(name))
        world.make_table(name, [{**row, "id": at} for at, row in enumerate(rows)])
    for at, ref in zip(range(len(lefts)), refs, strict=False):
        if ref is not None:
            world.run(r.table("left").get(at).update({"ref": ref}))
    texts = r.table("left").order_by(index="id")
    data = texts.map(lambda row: row)  # of which nobody knows the texts
    for by in ("ref", lambda row: row["ref"]):
        joined = [rows.eq_join(by, r.table("right")) for rows in (texts, data)]
        for of_texts, of_data in (joined, [pairs.zip() for pairs in joined]):
            assert _outcome(world, of_texts) == _outcome(world, of_data)


def _outcome(world, query):
    try:
        return world.start(query).items
    except ReqlError as error:
        return error.message, error.path


class TestUnion:
    def test_of_arrays_is_an_array(self, run):
        assert run(r.expr([1, 2]).union([2], [3])) == [1, 2, 2, 3]
        assert run(r.expr([1]).union([2]).type_of()) == "ARRAY"
        assert run(r.union()) == []

    def test_takes_from_all_streams_in_turn(self, run, tables):
        a, b = tables
        assert len(run(a.union(b))) == 7
        assert "x" in run(r.range().union(b["id"]).limit(400))

    def test_one_after_the_other(self, run, tables):
        a, b = tables
        assert run(a["id"].union(b["n"], interleave=False)) == [1, 2, 3, 4, 1, 2, 2]

    def test_merged(self, run, failure):
        assert run(r.expr([1, 4]).union([2, 3, 9], [0], interleave=lambda x: x)) == [0, 1, 2, 3, 4, 9]
        rows = [{"a": 2, "b": 1}, {"a": 1, "b": 5}]
        merged = r.expr(rows).union([{"a": 2, "b": 2}], interleave=[r.desc("a"), "b"])
        assert run(merged) == [rows[0], {"a": 2, "b": 2}, rows[1]]
        assert failure(r.expr([2, 1]).union([3], interleave=lambda x: x))[1:] == (
            "The streams given as arguments are not ordered by given ordering.",
            [],
        )

    def test_of_groups_is_for_each_group(self, run):
        rows = r.expr([{"a": 1}, {"a": 2}]).group("a").union([0]).count()
        assert run(rows)["data"] == [[1, 2], [2, 2]]
