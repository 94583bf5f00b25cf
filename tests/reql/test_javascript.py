"""`r.js` with the real engine, in this process: values both ways, functions, errors."""

from __future__ import annotations

import pytest
from rethinkdb import r

from server.javascript_worker import Engine
from tests.reql.conftest import SmallWorld

DOUBLE = r.js("(function (x) { return x * 2; })")


class Session:
    """The port without processes."""

    def __init__(self):
        self.engine = Engine()

    def evaluate(self, env, source, limit_ms, array_limit):
        return self.engine.run(source, None, limit_ms, array_limit)

    def call(self, env, source, calls, limit_ms, array_limit):
        answers = []
        for arguments in calls:
            answers.append(self.engine.run(source, arguments, limit_ms, array_limit))
            if answers[-1][0] != "value":
                break
        return answers


@pytest.fixture
def world():
    world = SmallWorld()
    world.javascript = type("Engines", (), {"session": staticmethod(Session)})
    return world


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.js("1 + 1"), 2),
        (r.js("'a' + 'b'"), "ab"),
        (r.js('[1, "x", [null, true]]'), [1, "x", [None, True]]),
        (r.js("({a: 1, b: {c: [2]}})"), {"a": 1, "b": {"c": [2]}}),
        (r.js("new Date(1500)"), {"$reql_type$": "TIME", "epoch_time": 1.5, "timezone": "+00:00"}),
        (r.js("1e300"), 1e300),
        (r.js("9007199254740993"), 9007199254740992),
        (r.js("-0").coerce_to("string"), "-0.0"),
        (r.js("'\\ud800'"), "�"),
        (r.js("Object.prototype.toJSON = () => 1; ({a: 1})"), {"a": 1}),
        (r.do(r.js("(function () { return 5; })")), 5),
        (r.do(1, 2, r.js("(function (a, b) { return a + b; })")), 3),
        (r.expr([1, 2, 3]).map(DOUBLE), [2, 4, 6]),
        (r.range(200).map(DOUBLE).sum(), 39800),
        (r.expr([1, 2, 3]).filter(r.js("(function (x) { return x > 1; })")), [2, 3]),
        (r.expr([1, 2]).reduce(r.js("(function (a, b) { return a + b; })")), 3),
        (r.expr([{"a": 1}]).map(r.js("(function (d) { d.b = 2; return d; })")), [{"a": 1, "b": 2}]),
        (r.do(r.epoch_time(2), r.js("(function (t) { return t.getTime(); })")), 2000),
        (r.js("x = 5").do(lambda _: r.js("x")), 5),  # the scripts of one query share a world
        (DOUBLE.info()["source_code"], "javascript timeout=5000ms, source=(function (x) { return x * 2; })"),
    ],
)
def test_values(world, query, value):
    assert world.run(query) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.js("undefined"), "Cannot convert javascript `undefined` to ql::datum_t.", []),
        (r.js("NaN"), "Number return value is not finite.", []),
        (r.js("/x/"), "Cannot convert RegExp to ql::datum_t.", []),
        (r.js("({f: function () {}})"), "Cannot convert function to ql::datum_t.", []),
        (r.js("10n"), "Unhandled value type when converting to ql::datum_t.", []),
        (r.js("a = []; a[0] = a; a"), "Recursion limit exceeded in js_to_json (circular reference?).", []),
        (r.js("syntax error here"), "SyntaxError: expecting ';'", []),
        (r.js("throw 'x'"), "x", []),
        (r.js("nosuchvariable"), "ReferenceError: 'nosuchvariable' is not defined", []),
        (r.js("(function f() { f(); })()"), "InternalError: stack overflow", []),
        (r.js("'x'.repeat(1e8)"), "InternalError: out of memory", []),
        (r.js(5), "Expected type STRING but found NUMBER.", []),
        (r.js("1", timeout="x"), "Expected type NUMBER but found STRING.", ["timeout"]),
        (
            r.js("while (true) {}", timeout=0.02),
            "JavaScript query `while (true) {}` timed out after 0.020 seconds.",
            [],
        ),
        (r.js("for (;;) {}", timeout=-1), "JavaScript query `for (;;) {}` timed out after 0.000 seconds.", []),
        (r.expr([1]).map(r.js("1")), "Expected type FUNCTION but found DATUM:", [1]),
        (r.expr([1]).map(r.js("(function () { throw 'oops'; })")), "oops", [1]),
        (
            r.expr([1]).map(r.js("(function () { return function () {}; })")),
            "Returning functions from within `r.js` is unsupported.",
            [1],
        ),
        (r.do(r.binary(b"x"), DOUBLE), "`r.binary` data cannot be used in `r.js`.", [0]),
        (r.do({"a": r.minval}, DOUBLE), "`r.minval` cannot be passed to `r.js`.", [0]),
        (r.expr([1]).order_by(DOUBLE), "Sorting by a non-deterministic function is not supported.", []),
    ],
)
def test_errors(world, failure, query, message, path):
    kind, said, at = failure(query)
    assert (kind, said, at) == ("ReqlQueryLogicError", message, path)


def test_an_array_over_the_limit_is_refused(world, failure):
    kind, message, _ = failure(r.js("Array.from({length: 11}, () => 1)"), array_limit=10)
    assert kind == "ReqlResourceLimitError"
    assert message.startswith("Array over size limit `10`.")


def test_no_function_in_javascript_becomes_an_index(world, failure):
    world.make_table("t", [])
    message = failure(r.table("t").index_create("x", lambda row: r.js("1")))[1]
    assert message == "Could not prove function deterministic.  Index functions must be deterministic."


def test_it_can_be_switched_off(world, failure):
    world.javascript = None
    assert failure(r.js("1"))[0] == "ReqlOpFailedError"
