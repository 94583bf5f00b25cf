"""type_of, coerce_to, info and binary, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import pytest
from rethinkdb import r

from model.errors import ReqlError, ReqlNonExistenceError

RAW = {"binary_format": "raw"}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.expr(1).coerce_to("string"), "1"),
        (r.expr(1e21).coerce_to("string"), "1e21"),
        (r.expr("a").coerce_to("string"), "a"),
        (r.expr(" 1.5").coerce_to("number"), 1.5),
        (r.expr("0x10").coerce_to("number"), 16),
        (r.expr(None).coerce_to("bool"), False),
        (r.expr(0).coerce_to("BOOL"), True),
        (r.expr({"b": 1, "a": 2}).coerce_to("array"), [["a", 2], ["b", 1]]),
        (r.expr([["a", 1]]).coerce_to("object"), {"a": 1}),
        (r.expr(1).coerce_to("stream"), 1),
        (r.binary(b"abc").coerce_to("string"), "abc"),
        (r.expr("é").coerce_to("binary"), {"$reql_type$": "BINARY", "data": "w6k="}),
        (r.epoch_time(1).coerce_to("object"), {"$reql_type$": "TIME", "epoch_time": 1, "timezone": "+00:00"}),
        (r.minval.type_of(), "MINVAL"),
        (r.binary(b"").type_of(), "PTYPE<BINARY>"),
        (r.db("test").type_of(), "DB"),
        (r.expr(1).info(), {"type": "NUMBER", "value": "1"}),
        (r.expr([1]).info(), {"type": "ARRAY", "value": "[\n\t1\n]"}),
        (r.expr(None).info(), {"type": "NULL"}),
        (
            r.binary(b"abc").info(),
            {"count": 3, "type": "PTYPE<BINARY>", "value": '{"$reql_type$":"BINARY","data":"YWJj"}'},
        ),
    ],
)
def test_values(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr(1).coerce_to("nosuchtype"), "Unknown Type: NOSUCHTYPE", ()),
        (r.expr(1).coerce_to("array"), "Cannot coerce NUMBER to ARRAY.", (0,)),
        (r.expr("a").coerce_to("number"), "Could not coerce `a` to NUMBER.", ()),
        (r.expr("1 ").coerce_to("number"), "Could not coerce `1 ` to NUMBER.", ()),
        (r.expr([[1, 2]]).coerce_to("object"), "Expected type STRING but found NUMBER.", ()),
        (r.expr([["a"]]).coerce_to("object"), "Expected array of size 2, but got size 1.", ()),
        (r.db("test").coerce_to("string"), "Cannot coerce DB to STRING.", (0,)),
        (
            r.binary(b"a\xff").coerce_to("string"),
            "String `a` (truncated) is not a UTF-8 string; Invalid initial byte seen at position 1.",
            (),
        ),
        (r.minval.coerce_to("string"), "Cannot convert `r.minval` to JSON.", ()),
        (r.binary(r.expr(1)), "Expected type STRING but found NUMBER.", ()),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)


def test_null_is_not_coerced_but_absent(run):
    with pytest.raises(ReqlNonExistenceError, match=r"^Cannot coerce NULL to NUMBER\.$"):
        run(r.expr(None).coerce_to("number"))


def test_functions_show_their_source(run):
    source = run(r.info(lambda row: row))["source_code"]
    variable = source.rpartition(" ")[2]
    assert source == f"function (captures = [(no implicit)]) (args = [{variable}]) {variable}"


def test_tables_and_what_comes_out_of_them(run, table):
    table("t", [{"id": 1, "a": "x"}])
    rows = r.table("t")
    kinds = [
        (rows, "TABLE"),
        (rows.between(0, 5), "TABLE_SLICE"),
        (rows.get(1), "SELECTION<OBJECT>"),
        (rows.get(9), "SELECTION<OBJECT>"),
        (rows.get_all(1), "SELECTION<STREAM>"),
        (rows.map(lambda row: row), "STREAM"),
        (rows.coerce_to("array"), "ARRAY"),
    ]
    assert [run(query.type_of()) for query, _ in kinds] == [kind for _, kind in kinds]
    info = run(rows.between(1, r.maxval, left_bound="open").info())
    assert info["table"].keys() == {"db", "doc_count_estimates", "id", "indexes", "name", "primary_key", "type"}
    assert [info["left_bound"], info["left_bound_type"], info["right_bound_type"]] == [1, "open", "unbounded"]
    assert run(rows.get(1).coerce_to("string")) == '{"a":"x","id":1}'


class TestArrayAsTheWholeAnswer:
    """`coerce_to("array")` at the end of a query does not look at the rows."""

    @pytest.mark.parametrize(
        "rows",
        [
            r.table("t"),
            r.table("t").order_by(index=r.desc("id")),
            r.table("t").order_by(index="id").limit(3),
            r.table("t").order_by(index="id").filter({"k": 1}),
            r.table("t").order_by(index="id").map(lambda row: row["k"]),
            r.table("t").get_all(1, index="k"),
            r.table("t").order_by("k"),
            r.table("t").order_by(index="id").concat_map(lambda row: [row["id"], {"b": 1, "a": [2]}]),
            r.table("t").filter({"k": 9}),
            r.range(5),
            r.expr([3, {"b": 1, "a": 2}]),
            r.expr({"b": 1, "a": 2}),
            r.table("t").group("k").get_field("id"),
            r.db("rethinkdb").table("table_config").pluck("name"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["array", "ARRAY"])
    def test_is_what_it_is_anywhere(self, world, run, rows, name):
        world.make_table("t", [{"id": at, "k": at % 3, "b": {"y": 1, "x": [at]}} for at in range(40)])
        run(r.table("t").index_create("k"))
        assert run(rows.coerce_to(name)) == run(r.branch(True, rows.coerce_to(name), None))

    def test_does_not_exceed_the_array_limit(self, world, failure):
        world.make_table("t", [{"id": at} for at in range(40)])
        kind, message, path = failure(r.table("t").coerce_to("array"), array_limit=39)
        assert (kind, path) == ("ReqlResourceLimitError", [])
        assert message.startswith("Array over size limit `39`.")
        kind, _, path = failure(r.range().coerce_to("array"))
        assert (kind, path) == ("ReqlQueryLogicError", [0])
        assert failure(r.branch(True, r.range().coerce_to("array"), 1))[2] == [1, 0]

    def test_comes_as_the_texts_that_are_stored(self, world, monkeypatch):
        world.make_table("t", [{"id": at} for at in range(3)])
        monkeypatch.setattr("model.datum.loads", None)
        answer = world.start(r.table("t").coerce_to("array"))
        assert (answer.kind, answer.items) == ("array", [b'{"id":0}', b'{"id":1}', b'{"id":2}'])
