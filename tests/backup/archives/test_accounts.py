"""Nobody gets in without a password who had one, whatever the archive or the server lacks."""

from __future__ import annotations

import json
from typing import Any

from rethinkdb.ast import ReQLEncoder

from backup.archives.accounts import restore_accounts
from backup.archives.layout import Manifest
from backup.driver_link import Session, Target
from backup.selection import Renames
from model.errors import ToolFailed

CREDENTIALS = {"salt": "c2FsdA==", "iterations": 4096, "stored_key": "a2V5", "server_key": "c2VydmVy"}


class Notebook(Session):
    """A session with a server that only notes what it is asked, and refuses some of it."""

    def __init__(self, present: list[str], refuse: str = "") -> None:
        super().__init__(Target())
        self.present = present
        self.refuse = refuse
        self.asked: list[str] = []

    def run(self, what: str, query: Any, **options: Any) -> Any:
        text = ReQLEncoder().encode(query)
        if self.refuse and self.refuse in text:
            raise ToolFailed("refused")
        if what == "list users":
            return [{"id": name} for name in self.present]
        self.asked.append(text)
        return {"errors": 0}


def restored(session: Notebook, users: list[dict[str, Any]], force: bool = False) -> tuple[int, list[str], list[str]]:
    said: list[str] = []
    warned: list[str] = []
    permissions = [
        {"user": "ann", "permissions": {"read": True}},
        {"user": "ann", "database": "shop", "permissions": {"write": True}},
        {"user": "ann", "database": "shop", "table": "orders", "permissions": {"read": False}},
        {"user": "bob", "permissions": {"connect": True}},
        {"user": "ann", "permissions": "malformed"},
    ]
    manifest = Manifest({}, users, permissions)
    renames = Renames.parse(["shop=store", "shop.orders=store.sales"])
    count = restore_accounts(session, manifest, renames, force, said.append, warned.append)
    return count, said, warned


def test_users_come_back_with_their_credentials_and_permissions() -> None:
    session = Notebook(["admin"])
    users = [{"id": "admin", "password": True}, {"id": "ann", "password": True, "credentials": CREDENTIALS}]
    assert restored(session, users) == (1, [], [])
    insert, credentials, *grants = session.asked
    assert '"ann"' in insert and json.loads(insert)[1][1]["password"] not in (False, "", None)
    assert '"user_credentials"' in credentials and '"stored_key":"a2V5"' in credentials
    assert [json.loads(grant)[0] for grant in grants] == [188, 188, 188]
    assert '"store"' in grants[1] and '"sales"' in grants[2] and '"shop"' not in "".join(grants)


def test_a_user_without_a_password_stays_without_one() -> None:
    session = Notebook([])
    assert restored(session, [{"id": "ann", "password": False}])[0] == 1
    assert '"password":false' in session.asked[0]


def test_what_is_missing_becomes_a_random_password_and_a_warning() -> None:
    for refuse, user in (
        ("", {"id": "ann", "password": True}),
        ("user_credentials", {"id": "ann", "password": True, "credentials": CREDENTIALS}),
        ("", {"id": "ann"}),
    ):
        session = Notebook([], refuse)
        count, _, warned = restored(session, [user])
        assert count == 1
        assert "random" in warned[0]
        assert len(json.loads(session.asked[0])[1][1]["password"]) > 30


def test_present_users_are_left_alone_without_force() -> None:
    session = Notebook(["ann"])
    count, said, warned = restored(session, [{"id": "ann", "password": False}])
    assert (count, warned, session.asked) == (0, [], [])
    assert "--force" in said[0]
    assert restored(Notebook(["ann"]), [{"id": "ann", "password": False}], force=True)[0] == 1


def test_a_server_that_refuses_is_warned_of() -> None:
    assert restored(Notebook([], refuse='"users"'), [{"id": "ann", "password": False}])[2][0].startswith(
        "Users and permissions were not restored"
    )
    count, _, warned = restored(Notebook([], refuse="[188,"), [{"id": "ann", "password": False}])
    assert count == 1
    assert len(warned) == 3
    assert restored(Notebook([]), []) == (0, [], [])
