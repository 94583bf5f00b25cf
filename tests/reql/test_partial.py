"""Decoding no more of a row than what is read of it: nobody must be able to tell."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from proxy.reql.index_functions import compile_function
from proxy.reql.partial import decoder, fields_read

ROWS = [
    {"id": i, "a": i % 7, "b": {"c": i, "d": [i]}, "é": "x" * (i % 5), **({"opt": i} if i % 2 else {})}
    for i in range(400)
]


@pytest.fixture(scope="module")
def t(world_of_module):
    world_of_module.make_table("t", ROWS)
    return r.table("t")


@pytest.fixture
def world(world_of_module):
    return world_of_module


def read_by(function):
    query = orjson.loads(ReQLEncoder().encode(r.expr([]).map(function)))
    return fields_read(compile_function(query[1][1]))


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        (lambda row: row["a"] + row["b"]["c"], {"a", "b"}),
        (lambda row: r.expr([1]).map(lambda x: row["a"] + x), {"a"}),
        (lambda row: row.has_fields("a") & row.get_field("b").gt(1), {"a", "b"}),
        (lambda row: {"x": row["a"], "y": row.pluck("b", "c")}, {"a", "b", "c"}),
        (r.row["a"] > 1, {"a"}),
        (lambda row: 1, set()),
        (lambda row: row, None),
        (lambda row: row["a"].add(row.count()), None),
        (lambda row: row[r.expr("a") + "b"], None),
        (lambda row: row.merge({"x": 1}), None),
        (lambda row: row.pluck({"a": True}), None),
        (lambda row: r.expr([row]).count(), None),
    ],
)
def test_finds_the_fields_that_a_function_reads(function, fields):
    assert read_by(function) == (None if fields is None else frozenset(fields))


QUERIES = {
    "filter": lambda s: s.filter(lambda row: row["a"] == 3),
    "filter, absent": lambda s: s.filter(lambda row: row["opt"] > 300),
    "filter, default": lambda s: s.filter(lambda row: row["opt"] > 300, default=True),
    "filter, object": lambda s: s.filter({"a": 3, "b": {"c": 3}}),
    "filter twice": lambda s: s.filter({"a": 3}).filter(lambda row: row["b"]["c"] > 100).has_fields("opt"),
    "filter, count": lambda s: s.filter(lambda row: row["a"] == 3).count(),
    "filter, limit": lambda s: s.filter(lambda row: row["a"] == 3).skip(30).limit(20),
    "filter, max": lambda s: s.filter(lambda row: row["a"] == 3).max("id"),
    "map": lambda s: s.map(lambda row: [row["é"], row["b"]["d"]]),
    "map, filter": lambda s: s.map(lambda row: {"x": row["a"], "y": row["id"]}).filter({"x": 2})["y"],
    "field": lambda s: s["opt"],
    "pluck": lambda s: s.pluck("a", "opt"),
    "pluck below": lambda s: s.pluck({"b": "c"}),
    "sum": lambda s: s.sum("opt"),
    "count": lambda s: s.count(lambda row: row["a"] == 3),
    "group": lambda s: s.group("a").sum("opt"),
    "group, rows": lambda s: s.group("a").filter({"b": {"c": 100}}).count(),
    "group, max": lambda s: s.group("a").max("id"),
    "constant": lambda s: s.map(lambda row: 1).sum(),
    "order_by": lambda s: s.order_by("a", r.desc("id")),
    "order_by, absent": lambda s: s.order_by(r.desc("opt"), lambda row: row["b"]["c"]),
    "order_by, limit": lambda s: s.order_by(r.desc("a"), "id").limit(5),
    "order_by, slice, map": lambda s: s.order_by(lambda row: 0 - row["id"])[3:8].map(lambda row: row["b"]),
    "order_by, order_by": lambda s: s.order_by("id").order_by("a").pluck("id", "opt"),
    "order_by, group": lambda s: s.order_by("a").group("a").count(),
    "order_by, failing late": lambda s: s.order_by("id", lambda row: row["a"].split("x")),
}


@pytest.mark.parametrize("name", QUERIES)
def test_gives_what_whole_rows_give(world, t, name):
    ordered = t.order_by(index="id")
    assert world.run(QUERIES[name](ordered)) == world.run(QUERIES[name](r.expr(ROWS)))


def test_errors_show_the_whole_row(world, failure, t):
    rows = t.order_by(index="id").skip(199).limit(1).map(lambda row: row["opt"])
    assert failure(t.order_by(index="id").map(lambda row: row["opt"]).skip(1))[1] == "No attribute `opt` in object:"
    with pytest.raises(Exception, match='"b"') as caught:
        world.run(t.between(100, 400).filter(lambda row: row["id"] != 100).map(lambda row: row["missing"]))
    assert '"é"' in str(caught.value)
    assert world.run(rows) == [199]


names = st.text(max_size=4)
data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(names, data, max_size=5), max_size=5), st.frozensets(names, max_size=3))
def test_decodes_these_fields_and_no_others(rows, fields):
    texts = [orjson.dumps(row) for row in rows]
    whole = list(map(orjson.loads, texts))
    expected = [{name: value for name, value in row.items() if name in fields} for row in whole]
    assert decoder(fields)(texts) == (expected if all(map(str.isascii, fields)) else whole)
