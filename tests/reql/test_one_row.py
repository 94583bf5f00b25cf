"""The short way of writes to one row gives what the general way gives, which an optarg without effect leads to."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder

from model.errors import NotLeader, Overloaded, ReqlError, ReqlOpFailedError
from proxy.answers import Promised, QueryContext
from proxy.frames import parse_query
from proxy.reql import evaluator
from proxy.reql.evaluator import HEARD_BYTES
from proxy.reql.terms import writes
from tests.reql.conftest import SmallWorld

IDS = st.one_of(
    st.sampled_from(["a", "b", "c", 1, 2, 2.5, -0.0]),
    st.sampled_from([None, True, [], ["a", 1], [None], {"a": 1}, "x" * 130, "nul\0"]),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(-3, 3),
        "s": st.sampled_from(["", "é", "a\0b"]),
        "deep": st.recursive(st.none() | st.booleans() | st.floats(-9, 9), lambda x: st.lists(x) | st.dictionaries(
            st.sampled_from("ab"), x), max_leaves=4),
        "$reql_type$": st.sampled_from(["TIME", "BINARY", "nonsense"]),
    },
)  # fmt: skip
DOCUMENTS = st.one_of(FIELDS, st.builds(lambda fields, key: {**fields, "id": key}, FIELDS, IDS), st.integers(0, 1))
CHANGES: Any = st.one_of(
    DOCUMENTS.map(lambda document: lambda: document),
    st.sampled_from(
        [
            lambda: {"n": r.row["n"] + 1},
            lambda: {"id": r.row["id"], "n": r.row["missing"].default(5)},
            lambda: r.row.merge({"more": r.literal({"a": 1})}),
            lambda: {"deep": r.literal({"b": 2}), "gone": r.literal()},
            lambda: r.row,
            lambda: None,
            lambda: {"low": r.minval},
            lambda: {"at": r.now()},
            lambda: {"dice": r.random(2)},
            lambda: r.branch(r.row["n"] > 0, r.error("refused"), {"n": 7}),
            lambda: r.table("t").get("b"),
        ]
    ),
)
WRITES: Any = st.one_of(
    st.builds(lambda document: ("insert", lambda table: table.insert, (lambda: document,)), DOCUMENTS),
    st.builds(lambda key, change: ("update", lambda table: table.get(key).update, (change,)), IDS, CHANGES),
    st.builds(lambda key, change: ("replace", lambda table: table.get(key).replace, (change,)), IDS, CHANGES),
    st.builds(lambda key: ("delete", lambda table: table.get(key).delete, ()), IDS),
)
TABLES = st.sampled_from(["t", "t", "t", "soft", "hooked", "missing"])
USERS = st.sampled_from(["admin", "admin", "reader"])


def world() -> SmallWorld:
    made = SmallWorld()
    for name in ("t", "soft", "hooked"):
        made.make_table(name, [{"id": "a", "n": 1}, {"id": 1, "n": 0, "deep": {"a": [1]}}, {"id": 2.5}])
    made.run(r.table("hooked").set_write_hook(lambda context, old, new: new.merge({"hook": 1})))
    made.run(r.table("soft").config().update({"durability": "soft"}))
    made.run(r.db("rethinkdb").table("users").insert({"id": "reader", "password": False}))
    made.run(r.grant("reader", {"read": True}))
    return made


def rows(asked: SmallWorld) -> Any:
    store = asked.machine.store
    return [(store.count(table_id), list(store.scan(table_id))) for table_id in store.catalog.tables]


def outcome(asked: SmallWorld, query: Any) -> Any:
    try:
        return asked.run(query)
    except ReqlError as error:
        return type(error), error.message, error.path


@given(st.lists(st.tuples(WRITES, TABLES, USERS, st.sampled_from([None, "hard", "soft"])), min_size=1, max_size=8))
def test_both_ways_give_the_same(history: list[Any]) -> None:
    short, general = world(), world()
    for (_, term_of, given_), table, user, durability in history:
        optargs = {} if durability is None else {"durability": durability}
        short.user = general.user = user
        arguments = [make() for make in given_]
        one = outcome(short, term_of(r.table(table))(*arguments, **optargs))
        other = outcome(general, term_of(r.table(table))(*arguments, return_changes=False, **optargs))
        assert one == other
        assert rows(short) == rows(general)
    traffic = [
        [(one.traffic(table).read, one.traffic(table).written) for table in one.machine.catalog.tables]
        for one in (short, general)
    ]
    assert traffic[0] == traffic[1]


def glance(asked: SmallWorld, query: Any, user: str = "admin", **optargs: Any) -> Any:
    """What a glance at the query comes to, as data; None if that was nothing."""
    body = ReQLEncoder().encode([1, query, optargs]).encode()
    seen = asked.evaluator.glance(body, user)
    if not isinstance(seen, Promised):
        return None if seen is None else orjson.loads(seen)
    told: list[Any] = []
    seen.begin(lambda error, value=None: told.append(error))
    assert told == [None]
    return orjson.loads(seen.answer.items[0])


@given(st.lists(st.tuples(WRITES, TABLES, st.sampled_from([None, "hard", "soft"])), min_size=1, max_size=8))
def test_a_glance_does_the_same_or_nothing(history: list[Any]) -> None:
    glancing, general = world(), world()
    for (_, term_of, given_), table, durability in history:
        optargs = {} if durability is None else {"durability": durability}
        term = term_of(r.table(table))
        query = term(*[make() for make in given_], **optargs)
        before = rows(glancing)
        done = glance(glancing, query)
        expected = outcome(general, query)
        if done is None:
            assert rows(glancing) == before
            done = outcome(glancing, query)
        assert done == expected
        assert rows(glancing) == rows(general)


FILL = "x" * 2 * HEARD_BYTES  # makes a query long, so that it is not known by sight


@pytest.mark.parametrize("fill", ["", FILL])
@pytest.mark.parametrize("options", [{}, {"db": r.db("test")}])
def test_a_glance_is_enough_for_what_drivers_write(fill: str, options: dict[str, Any]) -> None:
    asked = world()
    t, soft = r.table("t"), r.table("soft")

    def writes_to(id: Any) -> list[Any]:
        return [
            t.insert({"id": id, "fill": fill}),
            t.insert({"id": id + 1, "fill": fill}, durability="hard"),
            soft.insert({"id": id, "fill": fill}),
            t.get(id).update({"fill": fill + "y"}),
            t.get(id).update({"n": r.row["fill"] + fill}),
            t.get(id).replace({"id": id, "n": fill}),
            *([t.get(id).delete()] if not fill else []),
        ]

    for query in writes_to(10):
        asked.run(query, **options)
    for query in writes_to(20):
        assert glance(asked, query, **options) == {
            **dict.fromkeys(("deleted", "errors", "inserted", "replaced", "skipped", "unchanged"), 0),
            {56: "inserted", 53: "replaced", 55: "replaced", 54: "deleted"}[query.term_type]: 1,
        }
    made = glance(asked, t.insert({"fill": fill}), **options)
    assert asked.run(t.get(made["generated_keys"][0]))["fill"] == fill


def test_a_glance_in_vain_is_all_the_parsing_that_a_query_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = world()
    asked.run(r.table("t").insert({"id": 8, "fill": FILL}))
    parsed = []
    monkeypatch.setattr(evaluator, "parse_query", lambda body: parsed.append(body) or parse_query(body))
    body = ReQLEncoder().encode([1, r.table("t").insert({"id": 8, "fill": FILL}), {}]).encode()
    assert asked.evaluator.glance(body, "admin") is None  # there is such a row
    context = QueryContext("admin", ("", 0), 1, asked.fibers)  # type: ignore[arg-type]
    assert b"Duplicate" in asked.evaluator.start(body, context).items[0]  # type: ignore[union-attr]
    assert parsed == [body]
    same = bytes(bytearray(body))
    asked.evaluator.start(same, context)
    assert parsed == [body, same]


@pytest.mark.parametrize("error", [NotLeader("it moved"), Overloaded("too much")])
def test_what_the_log_refuses_is_not_done_and_not_promised_any_more(error: Exception) -> None:
    asked = world()

    def insert(key: Any) -> Any:
        return r.table("t").insert({"id": key, "fill": FILL})

    def change(key: Any) -> Any:
        return r.table("t").get(key).update({"fill": FILL + "!"})

    for query in (insert(8), insert(7), change(7)):  # a glance knows queries of shapes that were there
        asked.run(query)

    def propose(payload: bytes) -> Any:
        raise error

    before = rows(asked)
    asked.data._log.propose = propose  # type: ignore[method-assign]
    for query in (insert(9), change(8)):
        body = ReQLEncoder().encode([1, query, {}]).encode()
        promised = asked.evaluator.glance(body, "admin")
        assert isinstance(promised, Promised)
        told: list[Any] = []
        promised.begin(told.append)
        assert told == [error]
        assert rows(asked) == before
    with pytest.raises(type(error)):
        asked.run(insert(9))


def test_what_may_not_be_written_is_left_to_the_general_way() -> None:
    asked = world()
    query = r.table("t").insert({"id": 8, "fill": FILL})
    asked.run(query)
    asked.data.refusal = "This server is read-only."
    assert glance(asked, r.table("t").insert({"id": 9, "fill": FILL})) is None
    with pytest.raises(ReqlOpFailedError, match="read-only"):
        asked.run(r.table("t").insert({"id": 9, "fill": FILL}))


def test_others_than_admin_and_who_may_not_write_get_no_glance() -> None:
    asked = world()
    query = r.table("t").insert({"fill": FILL})
    asked.run(query)
    assert glance(asked, query, "jane") is None
    asked.data.refusal = "read only"
    assert glance(asked, query) is None
    asked.data.refusal = ""
    asked.data._log.can_serve = False
    assert glance(asked, query) is None


def test_usual_writes_need_nothing_of_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = world()

    def refuse(*_: Any) -> Any:
        raise AssertionError("the general way")

    monkeypatch.setattr(writes, "writer_for", refuse)
    t = r.table("t")
    assert asked.run(t.insert({"id": 7, "tags": ["a"]}))["inserted"] == 1
    assert asked.run(t.insert({"n": 7}, durability="hard"))["generated_keys"]
    assert asked.run(t.get("a").update({"n": r.row["n"] + 1}))["replaced"] == 1
    assert asked.run(t.get("a").update({"s": "x"}, durability="soft"))["replaced"] == 1
    assert asked.run(t.get("a").replace({"id": "a", "n": 9}))["replaced"] == 1
    assert asked.run(t.get("a").delete())["deleted"] == 1
    with pytest.raises(AssertionError, match="the general way"):
        asked.run(t.insert({"id": 7}))
