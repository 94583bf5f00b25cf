"""db_config, table_config, server_config, cluster_config: what is taken, and RethinkDB's words for what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rethinkdb import r

from model.errors import ReqlOpFailedError
from tests.reql.conftest import SmallWorld

SYSTEM = r.db("rethinkdb")
DATABASES = SYSTEM.table("db_config")
TABLES = SYSTEM.table("table_config")
SERVERS = SYSTEM.table("server_config")
CLUSTER = SYSTEM.table("cluster_config")
T = r.db("test").table("t")
SHARD = {"replicas": ["small"], "primary_replica": "small", "nonvoting_replicas": []}
WRONG_TABLE = "The change you're trying to make to `rethinkdb.table_config` has the wrong format. "
WRONG_DATABASE = "The change you're trying to make to `rethinkdb.db_config` has the wrong format. "
WRONG_SERVER = "The row you're trying to put into `rethinkdb.server_config` has the wrong format. "


@pytest.fixture(autouse=True)
def _table(world: SmallWorld) -> None:
    world.make_table("t", [{"id": 1}])


def test_databases_are_made_renamed_and_dropped(run: Callable[..., Any]) -> None:
    made = run(DATABASES.insert({"name": "new"}))["generated_keys"][0]
    assert run(r.db("new").info()["id"]) == made
    run(r.db("new").table_create("x"))
    assert run(DATABASES.get(made).update({"name": "newer"}))["replaced"] == 1
    assert run(r.db("newer").table_list()) == ["x"]
    assert run(DATABASES.get(made).delete())["deleted"] == 1
    assert run(r.db_list()) == ["rethinkdb", "test"]
    assert run(TABLES.count()) == 1


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (DATABASES.insert({"name": "test"}), "Database `test` already exists."),
        (DATABASES.insert({"name": "rethinkdb"}), "Database `rethinkdb` already exists."),
        (DATABASES.insert({"id": "x", "name": "y"}), WRONG_DATABASE + 'In `id`: Expected a UUID; got "x"'),
        (
            DATABASES.insert({"id": "00000000-0000-4000-8000-0000000000aa", "name": "y"}),
            "If you want to create a new table by inserting into `rethinkdb.db_config`, you must use an auto-generated "
            "primary key.",
        ),
        (
            DATABASES.nth(0).update({"name": "rethinkdb"}),
            "Cannot rename database `test` to `rethinkdb` because database `rethinkdb` already exists.",
        ),
        (DATABASES.nth(0).update({"name": 5}), WRONG_DATABASE + "In `name`: Expected a db name; got 5"),
        (DATABASES.nth(0).update({"b": 1, "a": 1}), WRONG_DATABASE + "Unexpected key(s): a b"),
    ],
)
def test_wrong_databases(complaint: Callable[..., str], write: Any, message: str) -> None:
    assert complaint(write) == message


def test_tables_are_made_moved_changed_and_dropped(run: Callable[..., Any]) -> None:
    made = run(TABLES.insert({"name": "x", "db": "test", "primary_key": "k"}, return_changes=True))
    row = made["changes"][0]["new_val"]
    assert row == run(r.db("test").table("x").config())
    assert (row["primary_key"], row["durability"], len(row["shards"])) == ("k", "hard", 1)
    run(r.db_create("other"))
    changed = {"db": "other", "name": "y", "durability": "soft", "write_acks": "single", "shards": [SHARD, SHARD]}
    assert run(TABLES.get(row["id"]).update(changed))["replaced"] == 1
    assert run(r.db("other").table("y").config()) == {**row, **changed}
    assert run(TABLES.get(row["id"]).update(changed))["unchanged"] == 1
    assert run(TABLES.get(row["id"]).delete())["deleted"] == 1
    assert run(r.db("other").table_list()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "bad name"}, 'In `name`: "bad name" is not a valid table name; Use A-Z, a-z, 0-9, _ and - only'),
        ({"db": 5}, "Expected a database name; got 5"),
        ({"db": "nosuch"}, "Database `nosuch` does not exist."),
        ({"indexes": ["x"]}, "The `indexes` field is read-only and can't be used to create or drop indexes."),
        ({"indexes": [5]}, "In `indexes`: Expected a string; got 5"),
        ({"indexes": ["x", "x"]}, 'In `indexes`: "x" was specified more than once.'),
        ({"primary_key": 5}, "In `primary_key`: Expected a string; got 5"),
        ({"write_acks": 5}, 'In `write_acks`: Expected "single" or "majority", got: 5'),
        ({"durability": 5}, 'In `durability`: Expected "soft" or "hard", got: 5'),
        (
            {"write_hook": {"function": 1}},
            "The `write_hook` field is read-only and can't be used to create or drop a write hook function.",
        ),
        ({"shards": []}, "In `shards`: You must specify at least one shard."),
        ({"shards": [5]}, "In `shards`: Expected an object; got 5"),
        ({"shards": [{}]}, "In `shards`: Expected a field named `replicas`."),
        ({"shards": [{**SHARD, "x": 1}]}, "In `shards`: Unexpected key(s): x"),
        ({"shards": [{**SHARD, "replicas": 5}]}, "In `shards`: In `replicas`: Expected an array, got 5"),
        ({"shards": [{**SHARD, "replicas": []}]}, "In `shards`: You must specify at least one replica for each shard."),
        (
            {"shards": [{**SHARD, "replicas": ["small", "small"]}]},
            "In `shards`: In `replicas`: Server `small` is listed more than once.",
        ),
        (
            {"shards": [{**SHARD, "replicas": ["big"]}]},
            "In `shards`: In `replicas`: Server `big` does not exist or is not connected.",
        ),
        (
            {"shards": [{**SHARD, "primary_replica": 5}]},
            "In `shards`: In `primary_replica`: Expected a server name; got 5",
        ),
        (
            {"shards": [{**SHARD, "nonvoting_replicas": ["small"]}]},
            "In `shards`: The primary replica (`small`) must not be a nonvoting replica.",
        ),
        ({"bogus": 1}, "Unexpected key(s): bogus"),
    ],
)
def test_wrong_tables(complaint: Callable[..., str], change: Any, message: str) -> None:
    assert complaint(T.config().update({**change, **{key: r.literal(value) for key, value in change.items()}})) == (
        WRONG_TABLE + message
    )


def test_tables_that_cannot_be_changed_or_made_so(run: Callable[..., Any], complaint: Callable[..., str]) -> None:
    run(r.db("test").table_create("u"))
    assert complaint(T.config().update({"primary_key": "k"})) == "It's illegal to change a table's primary key"
    assert complaint(T.config().update({"name": "u"})) == (
        "Can't rename table `test.t` to `test.u` because table `test.u` already exists."
    )
    assert complaint(T.config().replace(lambda row: row.without("write_hook"))) == (
        WRONG_TABLE + "Expected a field named `write_hook`."
    )
    assert complaint(TABLES.insert({"name": "t", "db": "test"})) == "Table `test.t` already exists."
    assert complaint(TABLES.insert({"id": "x", "name": "y", "db": "test"})).startswith(
        "There is no existing table with the given ID."
    )


def test_a_write_hook_is_shown_as_get_write_hook_shows_it(run: Callable[..., Any]) -> None:
    run(T.set_write_hook(lambda context, old, new: new))
    assert run(T.config()["write_hook"] == T.get_write_hook())
    assert run(T.config().update({"durability": "soft"}))["replaced"] == 1


def test_ids_instead_of_names(run: Callable[..., Any], world: SmallWorld) -> None:
    by_id = SYSTEM.table("table_config", identifier_format="uuid")
    row = run(by_id.nth(0))
    assert row["db"] == run(r.db("test").info()["id"])
    assert row["shards"][0]["primary_replica"] == world.system.site.server_id
    assert run(by_id.get(row["id"]).update({"durability": "soft"}))["replaced"] == 1
    assert (
        run(by_id.get(row["id"]).update({"db": "test"}))["first_error"] == WRONG_TABLE + 'Expected a UUID; got "test"'
    )


def test_a_server_is_renamed_and_tagged(run: Callable[..., Any]) -> None:
    assert run(SERVERS.nth(0)) == {
        "id": "51000000-0000-4000-8000-000000000000",
        "name": "small",
        "tags": ["default"],
        "cache_size_mb": "auto",
    }
    assert run(SERVERS.update({"name": "big", "tags": ["b", "a", "b"], "cache_size_mb": 100}))["replaced"] == 1
    assert run(SERVERS["tags"]) == [["a", "b"]]
    assert run(SYSTEM.table("server_status")["name"]) == ["big"]
    assert run(T.config()["shards"][0]["primary_replica"]) == "big"
    with pytest.raises(ReqlOpFailedError, match="Could not find any servers with server tag `default`"):
        run(T.reconfigure(shards=1, replicas=1))
    assert run(T.reconfigure(shards=1, replicas={"a": 1}, primary_replica_tag="a"))["reconfigured"] == 1


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (SERVERS.update({"tags": [5]}), WRONG_SERVER + "In `tags`: Expected a server tag; got 5"),
        (SERVERS.update({"cache_size_mb": -1}), WRONG_SERVER + "In `cache_size_mb`: Cache size cannot be negative."),
        (SERVERS.update({"cache_size_mb": 1e15}), WRONG_SERVER + "In `cache_size_mb`: Value is too big."),
        (SERVERS.insert({}), "It's illegal to insert new rows into the `rethinkdb.server_config` system table."),
        (SERVERS.delete(), "It's illegal to delete rows from the `rethinkdb.server_config` system table."),
        (
            CLUSTER.get("heartbeat").update({"heartbeat_timeout_secs": 1}),
            "The heartbeat timeout must be at least two seconds",
        ),
        (CLUSTER.insert({"id": "x"}), "It's illegal to insert new rows into the `rethinkdb.cluster_config` table."),
        (CLUSTER.get("nosuch").delete(), "It's illegal to delete rows from the `rethinkdb.cluster_config` table."),
    ],
)
def test_wrong_servers_and_clusters(complaint: Callable[..., str], write: Any, message: str) -> None:
    assert complaint(write) == message


def test_the_heartbeat_is_kept(run: Callable[..., Any]) -> None:
    assert run(CLUSTER.get("heartbeat").update({"heartbeat_timeout_secs": 20}))["replaced"] == 1
    assert run(CLUSTER) == [{"id": "heartbeat", "heartbeat_timeout_secs": 20}]
