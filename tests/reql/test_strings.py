"""String terms and JSON, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import pytest
from rethinkdb import ast, r

from model.errors import ReqlError, ReqlNonExistenceError


def format_query(template, fields):
    """r.format is newer than the driver."""
    query = ast.RqlMethodQuery(template, fields)
    query.term_type = 197
    query.statement = "format"
    return query


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.expr("  a b\tc ").split(), ["a", "b", "c"]),
        (r.expr(" a  b  c ").split(None, 1), ["a", "b  c "]),
        (r.expr("a,,b").split(","), ["a", "", "b"]),
        (r.expr("a,b,c").split(",", 1), ["a", "b,c"]),
        (r.expr("").split(","), [""]),
        (r.expr("").split(), []),
        (r.expr("ab").split("", 1), ["a", "b"]),
        (r.expr("e\u0301x").split(""), ["e\u0301", "x"]),
        (r.expr("aß").upcase(), "Aß"),
        (r.expr("ÄB").downcase(), "Äb"),
        (r.expr("x").match("y"), None),
        (
            r.expr("éab").match("(a)(z)?b"),
            {"str": "ab", "start": 2, "end": 4, "groups": [{"str": "a", "start": 2, "end": 3}, None]},
        ),
        (r.expr({"b": 1e21, "a": [1.5, "\x1f"]}).to_json_string(), '{"a":[1.5,"\\u001F"],"b":1e21}'),
        (r.json('{"a": [1.0, 9007199254740993]}'), {"a": [1, 9007199254740992]}),
        (r.json("[" * 600 + "]" * 600).type_of(), "ARRAY"),
        (format_query("{a} is {b}!", {"a": "x", "b": [1]}), "x is [1]!"),
    ],
)
def test_values(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr("a").match("a(b"), "Error in regexp `a(b` (portion `a(b`): missing ): a(b", ()),
        (r.expr("a").split(1), "Expected type STRING but found NUMBER.", ()),
        (r.expr("a").split(",", -2), "Error: `split` size argument must be in range [-1, 99999].", ()),
        (r.expr(1).upcase(), "Expected type STRING but found NUMBER.", (0,)),
        (r.json("[1,]"), 'Failed to parse "[1,]" as JSON: Invalid value.', ()),
        (r.json("x" * 41), f'Failed to parse "{"x" * 37}..." as JSON: Invalid value.', ()),
        (r.json('{"a":1,"a":2}'), 'Duplicate key "a" in JSON.', ()),
        (r.json("a\0"), "Encountered unescaped null byte in JSON string.", ()),
        (format_query("{a", {}), "Parameter tag must be closed", ()),
        (format_query("a}", {}), "No parameter tags to close", ()),
        (format_query("{a{", {}), "Nested template parameters are not allowed", ()),
        (format_query("{a,}", {}), "Formatting separator `,` is not allowed in parameter name", ()),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)


def test_a_field_that_a_template_lacks_is_absent(run):
    with pytest.raises(ReqlNonExistenceError, match="No attribute `b` in object"):
        run(format_query("{b}", {"a": 1}))
