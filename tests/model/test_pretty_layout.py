"""The layout, by the examples RethinkDB tests its own with."""

from __future__ import annotations

from typing import Any

from model.pretty_layout import DOT, SPACE, Nest, joined, lay_out


def call(name: str, *args: Any) -> Any:
    return (name, "(", Nest(joined(args)), ")")


def dotted(*parts: Any) -> Any:
    chain: list[Any] = [".", parts[0]]
    for part in parts[1:]:
        chain += [DOT, part]
    return ("r", Nest(tuple(chain)))


def test_breaks_outside_any_nest_always_break() -> None:
    doc = ("some text", SPACE, "some more text")
    assert lay_out(doc, 80) == "some text\nsome more text"
    assert lay_out(Nest(doc), 80) == "some text some more text"
    assert lay_out(Nest(doc), 4) == "some text\nsome more text"


def test_a_nest_breaks_as_a_whole() -> None:
    doc = dotted(*[call("foo")] * 5)
    assert lay_out(doc, 80) == "r.foo().foo().foo().foo().foo()"
    assert lay_out(doc, 20) == "r.foo()\n .foo()\n .foo()\n .foo()\n .foo()"
    assert lay_out(doc, 4) == "r.foo()\n .foo()\n .foo()\n .foo()\n .foo()"


def test_inner_nests_that_fit_stay_whole() -> None:
    doc = dotted(
        call("expr", "5"),
        call("add", dotted(call("expr", "7"), call("frob"))),
        call(
            "mul",
            dotted(call("expr", "17")),
            call("mul", dotted(call("expr", "17"))),
            call("mul", dotted(call("expr", "17"))),
        ),
    )
    flat = "r.expr(5).add(r.expr(7).frob()).mul(r.expr(17), mul(r.expr(17)), mul(r.expr(17)))"
    assert lay_out(doc, 180) == flat
    assert lay_out(doc, 80) == flat.replace(").add", ")\n .add").replace(").mul", ")\n .mul")
    narrow = (
        "r.expr(5)\n .add(r.expr(7)\n       .frob())\n .mul(r.expr(17),\n      mul(r.expr(17)),\n      mul(r.expr(17)))"
    )
    assert lay_out(doc, 20) == narrow
    assert lay_out(doc, 4) == narrow
