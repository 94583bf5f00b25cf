"""Users and permissions of a whole dump, given back to a server.

Passwords are kept as RewindDB stores them: SCRAM's stored key and server key, which let nobody log in. One rule:
nobody gets in without a password who had one: where the credentials are missing, the user gets a random password.
The user `admin` stays as it is on the server, so that whoever restores is not locked out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from backup.archives.layout import Manifest
from backup.driver_link import Session, r
from backup.selection import SYSTEM_DATABASE, Renames, TableName
from model.errors import ToolFailed

_ADMIN = "admin"


def restore_accounts(
    session: Session,
    manifest: Manifest,
    renames: Renames,
    force: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> int:
    """Makes missing users, with `force` replaces present ones, then grants; -> how many users were written."""
    if not manifest.users:
        return 0
    system = r.db(SYSTEM_DATABASE)
    try:
        present = {user["id"] for user in session.run("list users", system.table("users").pluck("id"))}
    except ToolFailed as error:
        warn(f"Users and permissions were not restored: {error}")
        return 0
    count = 0
    written = set()
    for user in manifest.users:
        name = user.get("id")
        if not isinstance(name, str) or name == _ADMIN:
            continue
        if name in present and not force:
            say(f"NOTE: the user `{name}` exists and was left as it is; --force replaces users.")
            continue
        try:
            _write_user(session, name, user, warn)
        except ToolFailed as error:
            warn(f"The user `{name}` was not restored: {error}")
            continue
        count += 1
        written.add(name)
    for row in manifest.permissions or []:
        if row.get("user") in written:
            _grant(session, row, renames, warn)
    return count


def _write_user(session: Session, name: str, user: dict[str, Any], warn: Callable[[str], None]) -> None:
    users = r.db(SYSTEM_DATABASE).table("users")
    credentials = user.get("credentials")
    password: Any = False
    if user.get("password") is not False:
        password = secrets.token_urlsafe(32)
    _expect_no_errors(session.run(f"user {name}", users.insert({"id": name, "password": password}, conflict="replace")))
    if password is False:
        return
    if isinstance(credentials, dict):
        table = r.db(SYSTEM_DATABASE).table("user_credentials")
        try:
            answer = session.run(f"user {name}", table.insert({**credentials, "id": name}, conflict="replace"))
            _expect_no_errors(answer)
            return
        except ToolFailed:
            warn(f"The server does not take the password of `{name}`; it has a random one now.")
            return
    warn(f"The archive does not hold the password of `{name}`; it has a random one now.")


def _grant(session: Session, row: dict[str, Any], renames: Renames, warn: Callable[[str], None]) -> None:
    """One row of `permissions`: for everything, a database or a table."""
    user, permissions = row["user"], row.get("permissions")
    database, table = row.get("database"), row.get("table")
    if not isinstance(permissions, dict):
        return
    scope: Any = r
    where = "everything"
    if isinstance(database, str):
        name = TableName(database, table) if isinstance(table, str) else TableName(renames.database(database))
        name = renames.table(name) if name.table is not None else name
        scope = r.db(name.database) if name.table is None else r.db(name.database).table(name.table)
        where = str(name)
    try:
        session.run(f"permissions of {user}", scope.grant(user, permissions))
    except ToolFailed as error:
        warn(f"The permissions of `{user}` on {where} were not restored: {error}")


def _expect_no_errors(answer: Any) -> None:
    if isinstance(answer, dict) and answer.get("errors"):
        raise ToolFailed(str(answer.get("first_error")))
