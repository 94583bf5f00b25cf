"""Object terms, on objects and on sequences of them, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import pytest
from rethinkdb import r

from model.errors import ReqlError, ReqlNonExistenceError

DOC = {"a": 1, "b": {"c": 2, "d": [{"e": 3, "f": 4}, {"e": 5}]}, "n": None}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.expr(DOC)["a"], 1),
        (r.expr([{"a": 1}, {}, {"a": None}, None])["a"], [1, None]),
        (r.expr([1, 2, 3])[-1], 3),
        (r.expr(DOC).get_field("b")["c"], 2),
        (r.expr(DOC).keys(), ["a", "b", "n"]),
        (r.expr({"b": 1, "a": 2}).values(), [2, 1]),
        (r.object("a", 1, "b", [2]), {"a": 1, "b": [2]}),
        (r.expr(DOC).pluck("a", "x"), {"a": 1}),
        (r.expr(DOC).pluck({"b": {"d": "e"}}), {"b": {"d": [{"e": 3}, {"e": 5}]}}),
        (r.expr(DOC).pluck({"b": {"c": True, "d": {"f": True}}}), {"b": {"c": 2, "d": [{"f": 4}, {}]}}),
        (r.expr(DOC).pluck({"a": "x"}), {}),
        (r.expr(DOC).without("n", {"b": {"d": "e"}}), {"a": 1, "b": {"c": 2, "d": [{"f": 4}, {}]}}),
        (r.expr(DOC).has_fields("a"), True),
        (r.expr(DOC).has_fields("a", "n"), False),
        (r.expr(DOC).has_fields({"b": {"c": True}}), True),
        (r.expr([DOC, {"a": None}, {}]).has_fields("a").pluck("a"), [{"a": 1}]),
        (r.expr([DOC, {"b": 1}]).with_fields("a"), [{"a": 1}]),
        (r.expr({"a": 1}).merge({"b": 2}, {"a": 3}), {"a": 3, "b": 2}),
        (r.expr({"a": 1}).merge(lambda doc: {"b": doc["a"] + 1}), {"a": 1, "b": 2}),
        (r.expr({"a": {"b": 1}}).merge({"a": r.literal({"c": 2})}), {"a": {"c": 2}}),
        (r.expr({"a": 1, "b": 2}).merge({"a": r.literal()}), {"b": 2}),
        (r.expr([{"a": 1}, {"a": 2}]).merge({"b": 3}), [{"a": 1, "b": 3}, {"a": 2, "b": 3}]),
        (r.expr({"a": 1}).merge(2), 2),
        (r.expr({"a": {"b": 1}})["a"]["b"].default(0), 1),
        (r.expr({})["a"].default(0), 0),
        (r.expr(DOC)[r.args(["a"])], 1),
    ],
)
def test_values(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr({"b": 1})["a"], 'No attribute `a` in object:\n{\n\t"b":\t1\n}', ()),
        (r.expr(1)["a"], "Cannot perform bracket on a non-object non-sequence `1`.", (0,)),
        (r.expr([[1]])["a"], "Cannot perform bracket on a sequence of sequences.", ()),
        (r.expr({})[r.expr([])], "Expected NUMBER or STRING as second argument to `bracket` but found ARRAY.", ()),
        (r.expr([1])[1], "Index out of bounds: 1", ()),
        (r.expr(1)[0], "Cannot convert NUMBER to SEQUENCE", ()),
        (r.epoch_time(5)["timezone"], "Cannot call `bracket` on objects of type `PTYPE<TIME>`.", (0,)),
        (r.epoch_time(5).keys(), "Cannot call `keys` on objects of type `PTYPE<TIME>`.", (0,)),
        (r.expr({}).pluck(1), "Invalid path argument `1`.", ()),
        (r.expr(1).pluck("a"), "Cannot perform pluck on a non-object non-sequence `1`.", (0,)),
        (r.expr({}).merge(r.epoch_time(1)), "Cannot merge objects of type `PTYPE<TIME>`.", (1,)),
        (r.object("a"), "OBJECT expects an even number of arguments (but found 1).", ()),
        (r.object("a", 1, "a", 2), 'Duplicate key "a" in object.  (got 1 and 2 as values)', ()),
        (r.object(1, 2), "Expected type STRING but found NUMBER.", (0,)),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)


@pytest.mark.parametrize("query", [r.expr(None)["a"], r.expr(None).pluck("a"), r.expr({})["a"], r.expr([])[0]])
def test_what_is_absent_can_be_replaced(run, query):
    with pytest.raises(ReqlNonExistenceError):
        run(query)
    assert run(query.default("none")) == "none"


def test_rows_stay_rows(run, table):
    table("t", [{"id": 1, "a": 1}, {"id": 2}])
    rows = r.table("t")
    assert run(rows.get(1)["a"]) == 1
    assert run(rows["a"]) == [1]
    assert run(rows.has_fields("a")) == [{"id": 1, "a": 1}]
    assert run(rows.has_fields("a").type_of()) == "SELECTION<STREAM>"
    assert run(rows.pluck("id").type_of()) == "STREAM"
    assert run(rows[1]) == {"id": 2}
