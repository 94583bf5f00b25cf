"""users, user_credentials and permissions: who may log in, and what they were granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rethinkdb import r

from model.effect import Kind
from proxy.auth import Credential, make_credential
from server.system.accounts import MAX_ITERATIONS
from server.system.table import system_table_uuid
from tests.reql.conftest import DATABASE, SmallWorld

SYSTEM = r.db("rethinkdb")
USERS = SYSTEM.table("users")
CREDENTIALS = SYSTEM.table("user_credentials")
PERMISSIONS = SYSTEM.table("permissions")
SYSTEM_DB_UUID = "b99b9572-8e53-5fef-9a2b-5e6aba3edf1c"
USERS_UUID = system_table_uuid("users")


@pytest.fixture(autouse=True)
def _people(world: SmallWorld) -> None:
    world.make_table("t", [])
    document = {**make_credential("").to_document(), "has_password": False}
    world.apply((Kind.PUT_SYSTEM, "users", "admin", document), (Kind.PUT_SYSTEM, "users", "ann", document))


def credential(world: SmallWorld, user: str) -> Credential:
    return Credential.from_document(world.machine.catalog.documents("users")[user])


def test_a_password_is_set_kept_and_unset(world: SmallWorld) -> None:
    assert world.run(USERS.insert({"id": "bob", "password": "secret"}))["inserted"] == 1
    assert credential(world, "bob").fits("secret")
    assert world.run(USERS.get("bob")) == {"id": "bob", "password": True}
    assert world.run(USERS.get("bob").update({"password": True}))["unchanged"] == 1
    assert credential(world, "bob").fits("secret")
    assert world.run(USERS.get("bob").update({"password": {"password": "new", "iterations": 5}}))["replaced"] == 1
    assert (credential(world, "bob").iterations, credential(world, "bob").fits("new")) == (5, True)
    assert world.run(USERS.get("bob").update({"password": False}))["replaced"] == 1
    assert credential(world, "bob").fits("")
    assert world.run(USERS.get("bob").delete())["deleted"] == 1
    assert world.run(USERS.order_by("id")["id"]) == ["admin", "ann"]


def test_no_answer_and_no_document_shows_a_password(world: SmallWorld) -> None:
    result = world.run(USERS.insert({"id": "bob", "password": "s3cr3t"}, return_changes=True))
    again = world.run(USERS.get("bob").update({"password": "s3cr3t2"}, return_changes=True))
    assert "s3cr3t" not in repr((result, again, world.machine.catalog.system))
    assert again["replaced"] == 1


def test_a_new_password_keeps_what_was_granted(world: SmallWorld) -> None:
    world.run(r.grant("ann", {"read": True}))
    world.run(USERS.get("ann").update({"password": "x"}))
    assert world.run(PERMISSIONS.get(["ann"])["permissions"]) == {"read": True}


@pytest.mark.parametrize(
    ("password", "message"),
    [
        (5, "Expected an object, string or boolean for `password`, got 5."),
        (
            True,
            "Expected an object or string to set the password, or `false` to keep it unset, got true.",
        ),
        ({"password": "x"}, "Expected a field named `iterations`."),
        ({"iterations": 1}, "Expected a field named `password`."),
        ({"iterations": 0, "password": "x"}, "Expected `iterations` to be an integer greater than zero, got 0."),
        ({"iterations": 1.5, "password": "x"}, "Expected `iterations` to be an integer greater than zero, got 1.5."),
        (
            {"iterations": MAX_ITERATIONS + 1, "password": "x"},
            f"Expected `iterations` to be at most {MAX_ITERATIONS}, got {MAX_ITERATIONS + 1}.",
        ),
        ({"iterations": 1, "password": 5}, "Expected `password` to be a string, got 5."),
        ({"iterations": 1, "password": "x", "y": 1}, "Unexpected key(s) `y`."),
    ],
)
def test_wrong_passwords(complaint: Callable[..., str], password: Any, message: str) -> None:
    assert complaint(USERS.insert({"id": "bob", "password": password})) == message


def test_wrong_users(complaint: Callable[..., str]) -> None:
    assert complaint(USERS.insert({"id": "bob"})) == "Expected a field named `password`."
    assert complaint(USERS.insert({"id": "", "password": False})) == "Empty username"
    assert complaint(USERS.insert({"id": 5, "password": False})) == ("Expected a username as the primary key, got 5.")
    assert complaint(USERS.get("admin").delete()) == "The user `admin` can't be deleted."
    assert complaint(USERS.get("nobody").delete()) == "User `nobody` not found."


def test_credentials_go_from_one_server_to_another(world: SmallWorld) -> None:
    world.run(USERS.insert({"id": "bob", "password": "secret"}))
    rows = world.run(CREDENTIALS)
    assert [row["id"] for row in rows] == ["bob"]  # ann has no password
    other = SmallWorld()
    other.run(USERS.insert({"id": "bob", "password": "random"}))
    assert other.run(CREDENTIALS.insert(rows, conflict="replace"))["replaced"] == 1
    assert credential(other, "bob") == credential(world, "bob")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, f"Expected `iterations` to be an integer from 1 to {MAX_ITERATIONS}."),
        ({"stored_key": "?"}, "Expected `stored_key` to be a key in base64."),
        ({"server_key": "eHg="}, "Expected `server_key` to be a key in base64."),
        ({"more": 1}, "Unexpected key(s): more"),
    ],
)
def test_wrong_credentials(complaint: Callable[..., str], change: dict[str, Any], message: str) -> None:
    row = {"id": "ann", **make_credential("x", 1).to_document(), **change}
    assert complaint(CREDENTIALS.insert(row, conflict="replace")) == message


def test_permissions_are_rows_too(world: SmallWorld) -> None:
    table = next(iter(world.machine.catalog.tables.values())).uuid
    key = ["ann", DATABASE, table]
    row = {"id": key, "permissions": {"read": True}, "user": "ann", "database": "test", "table": "t"}
    assert world.run(PERMISSIONS.insert(row))["inserted"] == 1
    assert world.run(PERMISSIONS.get(key)) == row
    assert world.run(SYSTEM.table("permissions", identifier_format="uuid").get(key).pluck("database", "table")) == {
        "database": DATABASE,
        "table": table,
    }
    assert world.run(PERMISSIONS.get(key).update({"permissions": {"read": None}}))["deleted"] == 1
    assert (
        world.run(PERMISSIONS.insert({"id": ["ann", SYSTEM_DB_UUID], "permissions": {"read": True}}))["inserted"] == 1
    )
    assert world.run(PERMISSIONS.get(["ann", SYSTEM_DB_UUID]).delete())["deleted"] == 1
    assert world.run(PERMISSIONS.count()) == 2  # admin's


def test_grants_on_system_tables_are_shown_and_can_be_written(world: SmallWorld) -> None:
    status = system_table_uuid("table_status")
    key = ["ann", SYSTEM_DB_UUID, status]
    world.run(SYSTEM.table("table_status").grant("ann", {"read": True}))
    row = {"id": key, "permissions": {"read": True}, "user": "ann", "database": "rethinkdb", "table": "table_status"}
    assert world.run(PERMISSIONS.get(key)) == row
    assert world.run(PERMISSIONS.get(key).update({"permissions": {"write": False}}))["replaced"] == 1
    assert world.run(PERMISSIONS.get(key)["permissions"]) == {"read": True, "write": False}
    assert world.run(PERMISSIONS.get(key).delete())["deleted"] == 1
    assert world.run(PERMISSIONS.insert(row))["inserted"] == 1
    assert world.run(SYSTEM.table("permissions", identifier_format="uuid").get(key).pluck("database", "table")) == {
        "database": SYSTEM_DB_UUID,
        "table": status,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "You must specify a primary key."),
        ({"id": []}, "Expected an array of one to three items in the primary key, got []."),
        ({"id": [5]}, "Expected a string as the username, got 5."),
        ({"id": ["admin"]}, "The permissions of the user `admin` can't be modified."),
        ({"id": ["nobody"]}, "No user named `nobody`."),
        ({"id": ["ann"]}, "Expected a field `permissions`."),
        ({"id": ["ann"], "user": "bob", "permissions": {}}, "The key `user` does not match the primary key."),
        (
            {"id": ["ann", DATABASE], "database": "x", "permissions": {}},
            "The key `database` does not match the primary key.",
        ),
        ({"id": ["ann", DATABASE], "database": 5, "permissions": {}}, "Expected a database name; got 5"),
        ({"id": ["ann"], "permissions": {"read": True}, "database": "test"}, "Unexpected key(s) `database`."),
        (
            {"id": ["ann", DATABASE], "permissions": {"connect": True}},
            "The `connect` permission is only valid at the global scope.",
        ),
        ({"id": ["ann", SYSTEM_DB_UUID[:-1] + "0"]}, f"No database with UUID `{SYSTEM_DB_UUID[:-1]}0` exists."),
        ({"id": ["ann", DATABASE, "x"]}, 'Expected a UUID as the table, got "x".'),
        ({"id": ["ann", DATABASE, USERS_UUID]}, f"No table with UUID `{USERS_UUID}` exists."),
        (
            {"id": ["ann", SYSTEM_DB_UUID, USERS_UUID], "table": "jobs", "permissions": {}},
            "The key `table` does not match the primary key.",
        ),
        ({"id": ["ann", DATABASE, DATABASE]}, f"No table with UUID `{DATABASE}` exists."),
    ],
)
def test_wrong_permissions(complaint: Callable[..., str], row: dict[str, Any], message: str) -> None:
    assert complaint(PERMISSIONS.insert(row, conflict="replace")) == message
