"""Generated code for functions of a row gives what the closures give, for every kind of row, error or not."""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from model import keys
from model.catalog import Index
from model.datum import dumps
from model.errors import ReqlError
from proxy.reql.index_functions import compile_function, index_function
from proxy.reql.rowcode import MIN_ROWS, row_code
from proxy.reql.values import Func

TIME = {"$reql_type$": "TIME", "epoch_time": 5, "timezone": "+00:00"}
VALUES: list[Any] = [
    None, True, False, 0, 1, 30, -2, 2.5, -0.0, 2**53, 1e308, "", "a", "Oslo", "x.y.z", "\0é", [], [1, "a"], {},
    {"b": 1}, TIME,
]  # fmt: skip
ABSENT = object()
ROWS: list[Any] = [
    {key: value for key, value in (("a", a), ("b", b)) if value is not ABSENT}
    for a, b in product([*VALUES, ABSENT], repeat=2)
]
ROWS += [None, 3, "text", [], [{"a": 1}], TIME, {**TIME, "a": 1}]


def nested(value: Any, levels: int) -> Any:
    return value if levels == 0 else r.expr([nested(value, levels - 1)])


CODED = {
    "a field": lambda row: row["a"],
    "get_field": lambda row: row.get_field("b"),
    "a field of a field": lambda row: row["a"]["b"],
    "several fields": lambda row: row.has_fields("a", "b"),
    "a default": lambda row: row["a"].default(7),
    "equal": lambda row: row["a"] == row["b"],
    "not equal": lambda row: row["a"] != "Oslo",
    "less": lambda row: row["a"] < row["b"],
    "at most": lambda row: row["a"] <= 30,
    "greater": lambda row: row["a"] > 2.5,
    "at least": lambda row: row["a"] >= "Oslo",
    "a literal on the left": lambda row: r.lt(1, row["a"]),
    "compared with a sum": lambda row: row["a"] > row["b"] + 1,
    "and": lambda row: (row["a"] > 1) & (row["b"] == "Oslo"),
    "or": lambda row: (row["a"] > 1) | (row["b"] == "Oslo"),
    "not": lambda row: ~(row["a"] > 1),
    "not of any value": lambda row: ~row["a"],
    "plus": lambda row: row["a"] + row["b"],
    "minus": lambda row: row["a"] - row["b"],
    "times": lambda row: row["a"] * row["b"],
    "divided": lambda row: row["a"] / row["b"],
    "parts": lambda row: row["a"].split("."),
    "parts by a field": lambda row: row["a"].split(row["b"]),
    "how many parts": lambda row: row["a"].split(".").count(),
    "how many": lambda row: row["a"].count(),
    "an array": lambda row: [row["a"], row["b"], 1],
    "an object": lambda row: {"x": row["a"], "y": row["b"] == 1},
}
NOT_CODED = {
    "a piece of the text": lambda row: row["a"].slice(0, 1),
    "a nested function": lambda row: row["a"].map(lambda item: item),
    "an unusual number of arguments": lambda row: r.add(row["a"], row["b"], 1),
    "a pseudo-type": lambda row: {"$reql_type$": row["a"]},
    "spread arguments": lambda row: r.eq(r.args([row["a"], 1])),
    "a deep one": lambda row: nested(row["a"], 20),
}


def function(make: Any) -> Func:
    return compile_function(orjson.loads(ReQLEncoder().encode(r.expr(make))))


def outcome(call: Any, *arguments: Any) -> Any:
    try:
        return repr(call(*arguments))
    except ReqlError as error:
        return type(error).__name__, error.message, error.path


@pytest.mark.parametrize("make", CODED.values(), ids=CODED.keys())
def test_code_gives_what_the_closures_give(make: Any) -> None:
    func = function(make)
    assert func.body is not None
    code = row_code(func.body, func.slots[0])
    assert code is not None
    by_itself = 0
    for row in ROWS:
        expected = outcome(func.datum, row)
        assert outcome(lambda row: code.each([row], (), 100_000, func.datum)[0][0], row) == expected, row
        kept = code.keep([row], (), 100_000, lambda row: None)
        by_itself += not kept[1]
        if not kept[1]:
            assert bool(kept[0]) == (expected not in ("None", "False")), row
    assert by_itself > 10


@pytest.mark.parametrize("make", [*CODED.values(), *NOT_CODED.values()], ids=[*CODED, *NOT_CODED])
@pytest.mark.parametrize("is_multi", [False, True])
def test_an_index_has_rows_under_what_the_closures_give(make: Any, is_multi: bool) -> None:
    func = function(make)
    rows = [row for row in ROWS if row.__class__ is dict and "$reql_type$" not in row]
    expected = []
    for row in rows:
        try:
            expected.append(keys.index_keys(func.datum(row), is_multi))
        except ReqlError:
            expected.append([])
    definition = {"function": func.raw, "multi": is_multi}
    keys_of, fields, decoder = index_function(None, Index(1, "i", definition))  # type: ignore[arg-type]
    for decode in {decoder(fields), decoder(None)}:  # what else is decoded, for other indexes, makes no difference
        assert keys_of(decode(list(map(dumps, rows)))) == expected
        assert [keys_of(decode([dumps(row)]))[0] for row in rows] == expected
    if fields is not None:  # rows that are alike in those have the same keys
        by_fields: dict[bytes, list[bytes]] = {}
        for row, found in zip(rows, expected, strict=True):
            alike = dumps({name: row[name] for name in sorted(fields) if name in row})
            assert by_fields.setdefault(alike, found) == found


@pytest.mark.parametrize("make", NOT_CODED.values(), ids=NOT_CODED.keys())
def test_what_has_no_code_is_left_to_the_closures(make: Any) -> None:
    func = function(make)
    assert func.body is not None and row_code(func.body, func.slots[0]) is None


def test_what_a_query_says_stays_data() -> None:
    name = "a'] + __import__('os').getcwd() + row['\\\n\""
    func = function(lambda row: row[name] == name)
    assert func.body is not None
    code = row_code(func.body, func.slots[0])
    assert code is not None and code.each([{name: name}], (), 100_000, func.datum) == ([True], 0)


def test_the_array_limit_holds() -> None:
    func = function(lambda row: row["a"].split(","))
    assert func.body is not None
    code = row_code(func.body, func.slots[0])
    assert code is not None
    assert code.each([{"a": "1,2,3"}], (), 3, lambda row: "asked") == (["asked"], 1)


def test_a_function_that_its_code_does_not_fit_goes_back_to_closures() -> None:
    func = function(lambda row: row["a"] + 1)
    func.env.slots = [None] * 4
    rows = [{"a": TIME}] * MIN_ROWS
    assert func.each(rows) == [{**TIME, "epoch_time": 6}] * MIN_ROWS
    assert func.body is None


@pytest.mark.parametrize("limit", [30, 30.5, "Oslo", None, True])
def test_literals_that_were_lifted_out_are_looked_at_in_each_run(run: Any, table: Any, limit: Any) -> None:
    rows = [{"id": at, "a": VALUES[at % len(VALUES)]} for at in range(3 * MIN_ROWS)]
    table("t", rows)
    one_by_one = [row["id"] for row in rows if run(r.expr(row)["a"] > limit)]
    for _ in range(2):
        found = run(r.table("t").filter(r.row["a"] > limit)["id"])
        assert sorted(found) == one_by_one
