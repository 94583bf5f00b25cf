"""The text of stored functions: RethinkDB's recorded answers, its layout rules, its oddities."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import RethinkDB
from rethinkdb.ast import Func, ReQLEncoder

from model.function_blob import FunctionBlob, field_function, from_func_term
from model.pretty_query import function_text, index_query, term_text, write_hook_query
from proxy.reql.ids import Term

r = RethinkDB()


def built(term: Any) -> Any:
    """What the driver would send."""
    return json.loads(ReQLEncoder().encode(term))


def names(number: int) -> str:
    return Term(number).name if number in Term._value2member_map_ else ""


def blob(function: Callable[..., Any], **options: bool) -> FunctionBlob:
    """What a Python function becomes, its variables numbered from 1 as in a fresh process."""
    Func.lock.acquire()
    Func.nextVarId = 1
    Func.lock.release()
    return from_func_term(built(Func(function)), **options)


def text(term: Any) -> str:
    return term_text(built(r.expr(term)), names)


def test_recorded_from_rethinkdb_2_4_4() -> None:
    assert index_query("x", blob(lambda d: d["a"] + 1), names) == (
        "indexCreate('x', function(var1) { return r.add(var1(\"a\"), 1); })"
    )
    row = FunctionBlob(arg_ids=(1,), body=built(r.expr([r.row["a"], r.row["b"]])), multi=True)
    assert index_query("x", row, names) == (
        'indexCreate(\'x\', function(var1) { return r.expr([r.row("a"), r.row("b")]); }, {multi: true})'
    )


def test_published_texts() -> None:
    """As a table browser's parser for `index_status` lists them."""
    assert index_query("a", field_function("a"), names) == (
        "indexCreate('a', function(_var19) { return _var19.getField(\"a\"); })"
    )
    assert function_text(blob(lambda d: d.get_field("a").get_field("b")), names) == (
        'function(var1) { return var1.getField("a").getField("b"); }'
    )
    assert function_text(blob(lambda d: d["a"]["b"]), names) == 'function(var1) { return var1("a")("b"); }'
    assert text(r.row["a"]["b"]) == 'r.row("a")("b")'


def test_options_of_an_index() -> None:
    assert index_query("g", field_function("g", geo=True), names).endswith("}, {geo: true})")
    assert index_query("g", field_function("g", multi=True, geo=True), names).endswith("}, {multi: true, geo: true})")


def test_a_write_hook() -> None:
    hook = blob(lambda context, old, new: new.merge({"at": context["timestamp"]}))
    assert write_hook_query(hook, names) == (
        'setWriteHook(function(var1, var2, var3) { return var3.merge({"at": var1("timestamp")}); })'
    )


def test_functions_that_are_not_printed() -> None:
    assert (
        function_text(FunctionBlob(js_source="(function(x) { return x })"), names) == "r.js((function(x) { return x }))"
    )
    captured = FunctionBlob(arg_ids=(2,), body=[10, [1]], captured={1: 5})
    assert function_text(captured, names) == "non-printable function (captured scope not empty)"


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (5, "r.expr(5)"),
        (r.expr(1.5) + 2.0, "r.add(1.500000, 2)"),
        (r.expr(1e300), "r.expr(-9223372036854775808)"),
        (r.expr("a\0b"), 'r.expr("a")'),
        (r.expr('say "no"'), 'r.expr("say "no"")'),
        (r.expr(True), "r.expr(true)"),
        (r.expr(None), "r.expr(null)"),
        (r.expr([]), "r.expr([])"),
        (r.expr([1, ["x"]]), 'r.expr([1, ["x"]])'),
        (r.expr({"a": 1}), 'r.object("a", 1)'),
        (r.expr({"a": {"b": 1}}), 'r.object("a", {"b": 1})'),
        (r.expr([{"a": 1}]), 'r.expr([{"a": 1}])'),
        (r.minval, "r.minval"),
        (r.now(), "r.now()"),
        (r.now().year(), "r.now().year()"),
        (r.monday, "r.monday"),
        (r.branch(r.row["a"] > 1, 2, 3), 'r.branch(r.gt(r.row("a"), 1), 2, 3)'),
        (r.table("t").get(1), 'r.table("t").get(1)'),
        (r.db("d").table("t").get_all(1, 2, index="i"), 'r.db("d").table("t").getAll(1, 2, {"index": "i"})'),
        (r.table("t").changes(include_initial=True), 'r.table("t").changes({"includeInitial": true})'),
        (r.range(), "r.range()"),
        (r.row.default(0), "r.row.default(0)"),
        (r.point(1, 2).distance(r.point(3, 4), unit="km"), 'r.point(1, 2).distance(r.point(3, 4), {"unit": "km"})'),
    ],
)
def test_terms(term: Any, expected: str) -> None:
    assert text(term) == expected


def test_inner_calls_lose_their_prefix_behind_a_call() -> None:
    """RethinkDB prints the head of a chain with `r.` switched off, and its arguments with it."""
    assert text(r.branch(r.row["a"] > 1, 2, 3).default(0)) == 'r.branch(gt(row("a"), 1), 2, 3).default(0)'


def test_binary() -> None:
    term = [1, {"$reql_type$": "BINARY", "data": "QUJD"}]
    assert term_text(term, names) == "r.expr(Buffer(QUJD, 'base64'))"
    long = term_text([1, {"$reql_type$": "BINARY", "data": "QUJD" * 20}], names)
    assert "QUJD" * 19 + "\r\n" + "QUJD" in long


def test_a_function_inside() -> None:
    shown = function_text(blob(lambda d: d["tags"].map(lambda tag: tag * 10)), names)
    assert shown == (
        'function(var1) { return var1("tags").map(function (var2) {\n'
        + " " * (len('var1("tags").map(func'))
        + "return r.mul(var2, 10);\n"
        + " " * len('var1("tags").map(')
        + "}); }"
    )


def test_do_with_one_and_with_more_values() -> None:
    Func.nextVarId = 1
    assert re.sub(r"\s+", " ", text(r.expr(5).do(lambda x: x))) == "r.expr(5).do(function (var1) { return var1; })"
    several = text(r.do(1, 2, lambda x, y: x + y))
    assert re.sub(r"\s+", " ", several) == "r.do(function (var2, var3) { return r.add(var2, var3); }1, 2, )"


def test_deep_terms_end_in_dots() -> None:
    term: Any = r.row["a"]
    for _ in range(30):
        term = r.not_(term)
    assert "..." in text(term)
    assert text(term).count("not") == 15


terms = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.one_of(
        st.builds(
            lambda term, args, options: [term, args, options],
            st.sampled_from([int(term) for term in Term if term.name not in ("DATUM", "VAR", "FUNC", "BRACKET")]),
            st.lists(inner, min_size=2, max_size=4),
            st.dictionaries(st.text("abc_", max_size=8), inner, max_size=3),
        ),
        st.builds(lambda left, name: [170, [left, name]], inner, st.text(max_size=9)),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.builds(lambda items: [1, items], st.lists(st.integers(), max_size=3)),
    ),
    max_leaves=40,
)


@given(terms)
def test_every_term_prints(term: Any) -> None:
    assert isinstance(term_text(term, names), str)
