"""Random expressions: never an internal error, and the same value as by the plain reference evaluator."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder, RqlQuery

from model import order
from model.errors import ReqlError, ReqlInternalError, ReqlNonExistenceError
from tests.reql.conftest import SmallWorld
from tests.reql.reference import Absent, Reference, Wrong

FIELDS = ("a", "b", "id")
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "x", "yy", "é"]))
ROWS = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 20)}, optional={"a": SCALARS, "b": st.lists(SCALARS, max_size=3)}),
    max_size=8,
    unique_by=lambda row: row["id"],
)


TABLES = st.one_of(
    st.just(r.table("t")),
    st.sampled_from(FIELDS).map(lambda field: r.table("t").order_by(field)),
    st.integers(0, 5).map(lambda count: r.table("t").order_by("id").limit(count)),
    st.integers(0, 5).map(lambda count: r.table("t").order_by("id").skip(count)),
).map(lambda rows: rows.coerce_to("array"))


def data() -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(r.expr)


def _either(field: str, value: RqlQuery) -> Any:
    return lambda row: r.branch(row == value, row, row[field].default(value))


def _at_least(field: str, value: RqlQuery) -> Any:
    return lambda row: row[field] >= value


def _twice(value: RqlQuery) -> Any:
    return lambda row: [row, value]


@st.composite
def sequences(draw: Any, values: st.SearchStrategy[RqlQuery]) -> RqlQuery:
    """Something that is mostly a sequence."""
    base = draw(st.one_of(st.lists(values, max_size=3).map(r.expr), TABLES, values))
    for _ in range(draw(st.integers(0, 2))):
        step = draw(st.sampled_from(["map", "filter", "distinct", "field", "concat_map"]))
        field = draw(st.sampled_from(FIELDS))
        value = draw(values)
        if step == "map":
            base = base.map(_either(field, value))
        elif step == "filter":
            base = base.filter(_at_least(field, value))
        elif step == "concat_map":
            base = base.concat_map(_twice(value))
        elif step == "distinct":
            base = base.distinct()
        else:
            base = base[field]
    return base


def extend(values: st.SearchStrategy[RqlQuery]) -> st.SearchStrategy[RqlQuery]:
    field = st.sampled_from(FIELDS)
    return st.one_of(
        st.builds(lambda x, y: x + y, values, values),
        st.builds(lambda x, y: x - y, values, values),
        st.builds(lambda x, y: x == y, values, values),
        st.builds(lambda x, y: x < y, values, values),
        st.builds(lambda x, y: r.and_(x, y), values, values),
        st.builds(lambda x, y: r.or_(x, y), values, values),
        st.builds(lambda x: ~x, values),
        st.builds(r.branch, values, values, values),
        st.builds(lambda x, y: x.default(y), values, values),
        st.builds(lambda x, f: x[f], values, field),
        st.builds(lambda x, f: x.has_fields(f), values, field),
        st.builds(lambda x: x.count(), sequences(values)),
        st.builds(lambda x, f: x.sum(f), sequences(values), field),
        sequences(values),
    )


EXPRESSIONS = st.recursive(data(), extend, max_leaves=5)


def normal(value: Any) -> Any:
    """A value in which the order of a table's rows, which nothing promises, does not count."""
    if isinstance(value, list):
        return sorted((normal(item) for item in value), key=order.sort_key)
    return value


@settings(max_examples=250, deadline=None)
@given(rows=ROWS, query=EXPRESSIONS)
def test_the_compiled_query_and_the_reference_agree(rows: list[dict[str, Any]], query: RqlQuery) -> None:
    world = SmallWorld()
    world.make_table("t", rows)
    raw = orjson.loads(ReQLEncoder().encode(query))
    try:
        expected: Any = Reference({"t": rows}).run(raw)
    except (Absent, Wrong) as error:
        expected = type(error)
    try:
        found: Any = world.run(query)
    except ReqlInternalError:
        raise
    except ReqlError as error:
        found = Absent if isinstance(error, ReqlNonExistenceError) else Wrong
    if isinstance(expected, type) or isinstance(found, type):
        assert found == expected, str(query)
    else:
        assert order.compare(normal(found), normal(expected)) == 0, str(query)


BOUNDS = st.one_of(st.integers(-5, 5), st.sampled_from(["", "x", "yy"]))


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, low=BOUNDS, high=BOUNDS)
def test_an_index_gives_what_a_filter_gives(rows: list[dict[str, Any]], low: Any, high: Any) -> None:
    world = SmallWorld()
    world.make_table("t", rows)
    table = r.table("t")
    world.run(table.index_create("a"))
    world.run(table.index_create("b", multi=True))
    kept = [row for row in rows if row.get("a") is not None]

    def ids(found: list[dict[str, Any]]) -> list[int]:
        return sorted(row["id"] for row in found)

    within = [row for row in kept if order.compare(low, row["a"]) <= 0 and order.compare(row["a"], high) < 0]
    assert ids(world.run(table.between(low, high, index="a"))) == ids(within)
    assert ids(world.run(table.get_all(low, index="a"))) == ids([row for row in kept if order.equal(row["a"], low)])
    by_index = world.run(table.order_by(index="a"))
    by_field = world.run(table.has_fields("a").order_by("a"))
    assert [row["a"] for row in by_index] == [row["a"] for row in by_field]
    tagged = [row["id"] for row in rows for tag in row.get("b", []) if order.equal(tag, low)]
    assert sorted(row["id"] for row in world.run(table.get_all(low, index="b"))) == sorted(tagged)
