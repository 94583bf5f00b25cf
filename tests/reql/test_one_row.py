"""The short way of writes to one row gives what the general way gives, which an optarg without effect leads to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r

from model.errors import ReqlError
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
