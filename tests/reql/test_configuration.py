"""config, status, reconfigure, rebalance, wait, grant: answers and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rethinkdb import r

from proxy.answers import ARRAY, ATOM, SEQUENCE
from tests.reql.conftest import SmallWorld

T = r.db("test").table("t")
USERS = r.db("rethinkdb").table("users")
RECONFIGURE = 176
REBALANCE = 179
WAIT = 177


@pytest.fixture(autouse=True)
def _tables(table: Callable[..., None]) -> None:
    table("t", [{"id": 1}, {"id": 2}])
    table("empty", [])


def test_config_is_a_row_that_can_be_written(run: Callable[..., Any]) -> None:
    assert run(T.config().type_of()) == "SELECTION<OBJECT>"
    assert run(T.config()["shards"].count()) == 1
    assert run(T.config().update({"durability": "soft"}))["replaced"] == 1
    assert run(T.config()["durability"]) == "soft"
    assert run(r.db("test").config().update({"name": "renamed"}))["replaced"] == 1
    assert run(r.db("renamed").table("t").count()) == 2


def test_reconfigure_tells_what_it_changed(run: Callable[..., Any]) -> None:
    planned = run(T.reconfigure(shards=3, replicas=1, dry_run=True))
    assert planned["reconfigured"] == 0
    assert run(T.config()["shards"].count()) == 1
    done = run(T.reconfigure(shards=3, replicas=1))
    assert done["reconfigured"] == 1
    assert done["config_changes"] == planned["config_changes"]
    assert len(done["status_changes"][0]["old_val"]["shards"]) == 1
    assert len(done["status_changes"][0]["new_val"]["shards"]) == 3
    assert run(T.config()) == done["config_changes"][0]["new_val"]
    assert sum(run(T.info()["doc_count_estimates"])) >= 2


def test_all_tables_of_a_database_at_once(run: Callable[..., Any]) -> None:
    done = run(r.db("test").reconfigure(shards=2, replicas=1))
    assert done["reconfigured"] == 2
    assert len(done["config_changes"]) == len(done["status_changes"]) == 2
    assert run(r.db("test").rebalance()["rebalanced"]) == 1  # an empty table cannot be spread
    assert run(r.db("test").wait()) == {"ready": 2}
    run(r.db_create("none"))
    assert run(r.db("none").reconfigure(shards=2, replicas=1)) == {}


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        (T.reconfigure(), "ReqlQueryLogicError", "Missing required argument `shards`."),
        (T.reconfigure(shards=1), "ReqlQueryLogicError", "Missing required argument `replicas`."),
        (
            T.reconfigure(emergency_repair="unsafe_rollback_or_erase"),
            "ReqlOpFailedError",
            "This table doesn't need to be repaired.",
        ),
        (
            r.db("test").reconfigure(emergency_repair="unsafe_rollback"),
            "ReqlQueryLogicError",
            "Can't emergency repair an entire database at once; instead you should run `reconfigure()` on each table "
            "individually.",
        ),
        (
            T.reconfigure(emergency_repair="unsafe_rollback", shards=1),
            "ReqlQueryLogicError",
            "In emergency repair mode, you can't specify shards, replicas, etc.",
        ),
        (T.reconfigure(shards=0), "ReqlQueryLogicError", "Every table must have at least one shard."),
        (
            r.db("test").table_create("x", primary_key=1, shards="y"),
            "ReqlQueryLogicError",
            "Expected type NUMBER but found STRING.",
        ),
        (T.wait(timeout=0), "ReqlOpFailedError", "Timed out while waiting for tables."),
        ([RECONFIGURE, []], "ReqlQueryLogicError", "`reconfigure` can only be called on a table or database."),
        ([REBALANCE, []], "ReqlQueryLogicError", "`rebalance` can only be called on a table or database."),
        ([WAIT, []], "ReqlQueryLogicError", "`wait` can only be called on a table or database."),
        (USERS.config(), "ReqlOpFailedError", "Database `rethinkdb` is special; you can't configure the tables in it."),
        (
            USERS.status(),
            "ReqlOpFailedError",
            "Database `rethinkdb` is special; the system tables in it don't have meaningful status information.",
        ),
        (
            USERS.rebalance(),
            "ReqlOpFailedError",
            "Database `rethinkdb` is special; you can't rebalance the tables in it.",
        ),
        (
            USERS.reconfigure(shards=1, replicas=1),
            "ReqlOpFailedError",
            "Database `rethinkdb` is special; you can't configure the tables in it.",
        ),
        (
            USERS.set_write_hook(lambda c, o, n: n),
            "ReqlOpFailedError",
            "Database `rethinkdb` is special; you can't set a write hook on the tables in it.",
        ),
        (USERS.index_drop("x"), "ReqlOpFailedError", "Index `x` does not exist on table `rethinkdb.users`."),
        (USERS.index_rename("x", "y"), "ReqlOpFailedError", "Index `x` does not exist on table `rethinkdb.users`."),
        (USERS.sync(), "ReqlOpFailedError", "Artificial tables don't support `sync()`."),
        (
            r.grant("admin", {"read": False}),
            "ReqlOpFailedError",
            "The permissions of the user `admin` can't be modified.",
        ),
        (r.grant("nobody", {"read": True}), "ReqlOpFailedError", "User `nobody` not found."),
    ],
)
def test_refusals(failure: Callable[..., Any], query: Any, kind: str, message: str) -> None:
    assert failure(query)[:2] == (kind, message)


def test_nothing_is_waited_for_in_no_time(run: Callable[..., Any]) -> None:
    run(r.db_create("none"))
    assert run(r.db("none").wait(timeout=0)) == {"ready": 0}


def test_a_system_table_without_rows_has_no_order(world: SmallWorld) -> None:
    """RethinkDB knows beforehand that there is nothing to sort."""
    tables = r.db("rethinkdb").table("table_config")
    some = tables.without("id").order_by("name")
    assert world.start(some).kind is ATOM
    world.run(r.db_drop("test"))
    assert world.start(some).kind is SEQUENCE
    assert world.start(tables.order_by("name")).kind is ARRAY


def test_grants_are_told_as_they_were_and_are(run: Callable[..., Any]) -> None:
    run(USERS.insert({"id": "ann", "password": False}))
    assert run(r.grant("ann", {"read": True})) == {
        "granted": 1,
        "permissions_changes": [{"old_val": None, "new_val": {"read": True}}],
    }
    assert run(T.grant("ann", {"write": True}))["permissions_changes"][0]["new_val"] == {"write": True}
    assert run(r.grant("ann", {"read": None}))["permissions_changes"] == [{"old_val": {"read": True}, "new_val": None}]
    rows = run(r.db("rethinkdb").table("permissions").filter({"user": "ann"}))
    assert [(row["database"], row["table"], row["permissions"]) for row in rows] == [("test", "t", {"write": True})]
