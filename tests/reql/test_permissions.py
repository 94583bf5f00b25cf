"""Who may do what: the rules by themselves, and which term asks for which permission."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rethinkdb import r

from model.errors import ReqlOpFailedError, ReqlPermissionError
from proxy.answers import PARTIAL
from proxy.reql.feeds.hub import FeedHub
from proxy.reql.permissions import SYSTEM_DB_UUID, Rights, merged, scope_at, with_scope
from tests.reql.conftest import SmallWorld

SCOPES = st.dictionaries(st.sampled_from(["read", "write", "config"]), st.booleans())
PLACES = st.sampled_from(["d1", "d2", SYSTEM_DB_UUID])
GRANTS = st.fixed_dictionaries(
    {},
    optional={
        "global": SCOPES,
        "databases": st.dictionaries(PLACES, SCOPES),
        "tables": st.dictionaries(st.sampled_from(["t1", "t2"]), SCOPES),
    },
)
T = r.db("test").table("t")
SYSTEM = r.db("rethinkdb")


@given(GRANTS, st.sampled_from(["read", "write", "config"]), PLACES, st.sampled_from(["t1", "t2"]))
def test_the_closest_scope_that_says_something_counts(
    granted: dict[str, Any], permission: str, database: str, table: str
) -> None:
    said = [
        granted.get("tables", {}).get(table, {}).get(permission),
        granted.get("databases", {}).get(database, {}).get(permission),
        None if database == SYSTEM_DB_UUID else granted.get("global", {}).get(permission),
    ]
    closest = next((word for word in said if word is not None), False)
    assert Rights(granted).has(permission, database, table) is closest


@given(GRANTS, SCOPES, st.sampled_from([(), ("d1",), ("d1", "t1")]))
def test_a_grant_changes_one_place_only(
    granted: dict[str, Any], scope: dict[str, bool], place: tuple[str, ...]
) -> None:
    before = orjson.dumps(granted)
    changed = with_scope(granted, place, scope)
    assert scope_at(changed, place) == scope
    assert orjson.dumps(granted) == before
    for other in {(), ("d1",), ("d2",), ("d1", "t1"), ("d1", "t2")} - {place}:
        assert scope_at(changed, other) == scope_at(granted, other)


@given(SCOPES, st.dictionaries(st.sampled_from(["read", "write", "config", "connect"]), st.none() | st.booleans()))
def test_null_leaves_open_and_what_is_not_mentioned_stays(
    scope: dict[str, bool], change: dict[str, bool | None]
) -> None:
    assert merged(scope, change, True) == {name: said for name, said in {**scope, **change}.items() if said is not None}


@pytest.mark.parametrize(
    ("change", "is_global", "message"),
    [
        (5, True, "Expected an object, got 5."),
        ({"read": 1}, True, "Expected a boolean or null for `read`, got 1."),
        ({"connect": True}, False, "The `connect` permission is only valid at the global scope."),
        ({"b": 1, "a": 2}, True, "Unexpected key(s) `a`, `b`."),
    ],
)
def test_a_wrong_grant_is_refused(change: Any, is_global: bool, message: str) -> None:
    with pytest.raises(ReqlOpFailedError) as caught:
        merged({}, change, is_global)
    assert caught.value.message == message


class Town(SmallWorld):
    """A world with a table and a user `ann`; `as_ann` runs a query as her."""

    def __init__(self) -> None:
        super().__init__()
        self.feeds = hub = FeedHub(self.machine.watched.add, self.machine.watched.discard, lambda wake: wake())
        self.machine.on_changes = hub.on_changes
        self.machine.on_catalog = lambda effect: hub.recheck()
        self.make_table("t", [{"id": at} for at in range(300)])
        self.run(SYSTEM.table("users").insert({"id": "ann", "password": False}))

    def as_ann(self, query: Any, **optargs: Any) -> Any:
        self.user = "ann"
        try:
            return self.run(query, **optargs)
        finally:
            self.user = "admin"

    def open_as_ann(self, query: Any) -> Any:
        self.user = "ann"
        try:
            return self.start(query)
        finally:
            self.user = "admin"


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def refusal(town: Town) -> Callable[..., tuple[str, list[int | str]]]:
    """refusal(query) -> (which permission is missing, backtrace)"""

    def find(query: Any) -> tuple[str, list[int | str]]:
        with pytest.raises(ReqlPermissionError) as caught:
            town.as_ann(query)
        words = caught.value.message.split("`")
        assert words[::2] == ["User ", " does not have the required ", " permission."]
        assert words[1] == "ann"
        return words[3], list(caught.value.path or ())

    return find


@pytest.mark.parametrize(
    ("query", "permission", "path"),
    [
        (T.get(1), "read", []),
        (T.get(1)["id"], "read", []),
        (T.get_all(1, 2), "read", []),
        (T.count(), "read", []),
        (T.map(lambda row: row["id"]).sum(), "read", []),
        (T.info()["name"], "read", [0]),
        (T.changes(), "read", []),
        (T.get(1).changes(), "read", []),
        (T.insert({"id": 2}), "write", []),
        (T.get(1).update({"a": 1}), "write", []),
        (T.get(1).delete(), "write", []),
        (T.delete(), "read", []),
        (T.sync(), "write", []),
        (r.expr([1]).for_each(lambda row: T.insert({"id": row})), "write", [1, 1]),
        (T.insert({"id": 2}, ignore_write_hook=True), "config", []),
        (T.index_create("x"), "config", []),
        (T.index_drop("x"), "config", []),
        (T.index_rename("x", "y"), "config", []),
        (T.set_write_hook(None), "config", []),
        (T.get_write_hook(), "config", []),
        (T.config(), "config", []),
        (T.reconfigure(shards=1, replicas=1), "config", []),
        (T.reconfigure(emergency_repair="unsafe_rollback"), "config", []),
        (T.rebalance(), "config", []),
        (r.db("test").config(), "config", []),
        (r.db("test").reconfigure(shards=1, replicas=1), "config", []),
        (r.db("test").table_create("x"), "config", []),
        (r.db("test").table_drop("t"), "config", []),
        (r.db_create("x"), "config", []),
        (r.db_drop("test"), "config", []),
        (r.grant("ann", {"read": True}), "read", []),
        (SYSTEM.table("users"), "read", []),
        (SYSTEM.table("users").get("ann"), "read", []),
        (SYSTEM.table("users").get("ann").update({"password": "x"}), "read", []),
        (SYSTEM.table("users").insert({"id": "x", "password": False}), "read", []),
        (SYSTEM.table("users").filter({"id": "ann"})["id"], "read", [0]),
        (SYSTEM.table("users").sync(), "write", []),
        (SYSTEM.table("jobs").changes(), "read", []),
    ],
)
def test_every_term_asks_for_its_permission(
    town: Town, refusal: Callable[..., Any], query: Any, permission: str, path: list[int | str]
) -> None:
    from server.system import SystemTable

    town.system.add(SystemTable("jobs", lambda env, form: []))
    assert refusal(query) == (permission, path)


@pytest.mark.parametrize(
    "query",
    [
        r.expr(1) + 1,
        r.db_list(),
        r.db("test").table_list(),
        T.index_list(),
        T.index_status(),
        T.status(),
        T.wait(),
        T.insert([]),
        SYSTEM.table("users").info(),
    ],
)
def test_what_needs_no_permission(town: Town, query: Any) -> None:
    town.as_ann(query)


def test_a_grant_holds_at_once_though_the_query_is_compiled_already(town: Town) -> None:
    assert town.run(T.get(1)) == {"id": 1}
    with pytest.raises(ReqlPermissionError):
        town.as_ann(T.get(1))
    town.run(T.grant("ann", {"read": True}))
    assert town.as_ann(T.get(1)) == {"id": 1}
    town.run(r.db("test").grant("ann", {"read": False}))
    assert town.as_ann(T.get(1)) == {"id": 1}
    town.run(T.grant("ann", {"read": None}))
    with pytest.raises(ReqlPermissionError):
        town.as_ann(T.get(1))


def test_who_may_not_read_may_not_write(town: Town, refusal: Callable[..., Any]) -> None:
    town.run(r.grant("ann", {"write": True}))
    assert refusal(T.insert({"id": 1000})) == ("write", [])
    town.run(r.grant("ann", {"read": True}))
    assert town.as_ann(T.insert({"id": 1000}))["inserted"] == 1


def test_a_database_is_dropped_only_with_all_its_tables(town: Town, refusal: Callable[..., Any]) -> None:
    town.run(r.grant("ann", {"config": True}))
    town.run(T.grant("ann", {"config": False}))
    assert refusal(r.db_drop("test")) == ("config", [])
    assert refusal(r.db("test").reconfigure(shards=2, replicas=1)) == ("config", [])
    town.run(T.grant("ann", {"config": True}))
    assert town.as_ann(r.db_drop("test"))["tables_dropped"] == 1


def test_a_permission_that_is_taken_away_ends_streams(town: Town) -> None:
    town.run(r.grant("ann", {"read": True}))
    answer = town.open_as_ann(T.map(lambda row: row))
    answer = answer if answer.cursor is not None else town.open_as_ann(T)
    town.run(r.grant("ann", {"read": False}))
    if answer.kind == PARTIAL:
        with pytest.raises(ReqlPermissionError):
            while answer.kind == PARTIAL:
                answer = answer.cursor.next_batch()


def test_a_permission_that_is_taken_away_ends_feeds(town: Town) -> None:
    town.run(r.grant("ann", {"read": True}))
    cursor = town.open_as_ann(T.changes()).cursor
    town.run(T.insert({"id": "new"}))
    town.run(r.grant("ann", {"read": False}))
    with pytest.raises(ReqlPermissionError):
        cursor.first_batch()


def test_a_user_who_is_gone_may_nothing(town: Town) -> None:
    town.run(r.grant("ann", {"read": True}))
    town.run(SYSTEM.table("users").get("ann").delete())
    with pytest.raises(ReqlPermissionError):
        town.as_ann(T.get(1))
    town.run(SYSTEM.table("users").insert({"id": "ann", "password": False}))
    with pytest.raises(ReqlPermissionError):
        town.as_ann(T.get(1))  # the grants went with her


def test_system_tables_inherit_nothing_and_some_are_for_admin_alone(town: Town, refusal: Callable[..., Any]) -> None:
    town.run(r.grant("ann", {"read": True, "write": True, "config": True}))
    assert refusal(SYSTEM.table("users").count()) == ("read", [])
    town.run(SYSTEM.grant("ann", {"read": True}))
    assert town.as_ann(SYSTEM.table("users").count()) == 1
    assert refusal(SYSTEM.table("users").get("ann").delete()) == ("write", [])
    assert refusal(SYSTEM.table("user_credentials").count()) == ("admin", [])
    assert refusal(SYSTEM.table("_debug_scratch").count()) == ("admin", [])
    town.run(SYSTEM.table("permissions").grant("ann", {"write": True}))
    assert town.as_ann(r.grant("ann", {"connect": True}))["granted"] == 1
