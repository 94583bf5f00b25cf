"""`users`, who may log in (auth/user.cc, password.cc), and `user_credentials`, how their passwords are checked.

A user is a document of the catalog's collection `users`: SCRAM's salt, iterations, stored key and server key, whether
the password is empty, and what the user was granted. One rule: a password is turned into keys at once, and neither
the log, nor a table, nor an answer ever shows it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet import threads

from model import datum as d
from model.effect import Kind
from model.errors import ReqlError, ReqlOpFailedError
from proxy.auth import Credential, make_credential
from proxy.reql.permissions import ADMIN, refuse_keys
from server.system import fields
from server.system.site import Row
from server.system.table import Change, SystemTable

USERS: Final = "users"  # the catalog's collection
MAX_ITERATIONS: Final = 10_000_000  # about four seconds of work; more is a mistake or an attack
CHEAP_ITERATIONS: Final = 8192  # about three milliseconds

MakeCredential = Callable[[Any, str, int | None], Credential]
"""(env, password, iterations or None for the usual) -> its credential. Many iterations take seconds: may wait."""


def make_at_once(env: Any, password: str, iterations: int | None) -> Credential:
    """A MakeCredential that does not wait."""
    return make_credential(password) if iterations is None else make_credential(password, iterations)


def make_in_thread(env: Any, password: str, iterations: int | None) -> Credential:
    """A MakeCredential for a server: where it would hold up others, they go on meanwhile."""
    if iterations is None or iterations <= CHEAP_ITERATIONS:
        return make_at_once(env, password, iterations)
    made: Credential = env.fibers.wait(threads.deferToThread(make_credential, password, iterations))
    return made


def users_table(make: MakeCredential) -> SystemTable:
    def rows(env: Any, form: str) -> Iterator[Row]:
        return (_user_row(name, document) for name, document in env.data.catalog.documents(USERS).items())

    def row(env: Any, key: Any, form: str) -> Row | None:
        document = env.data.catalog.documents(USERS).get(key) if key.__class__ is str else None
        return None if document is None else _user_row(key, document)

    def write(change: Change) -> Row | None:
        return _write_user(change, make)

    return SystemTable("users", rows, row, write, is_listed=True, changes_catalog=True)


def _user_row(name: str, document: dict[str, Any]) -> Row:
    return {"id": name, "password": bool(document.get("has_password"))}


def _write_user(change: Change, make: MakeCredential) -> Row | None:
    name = change.key
    if name.__class__ is not str or change.key_is_made:
        raise ReqlOpFailedError(f"Expected a username as the primary key, got {d.print_datum(name)}.")
    document = change.catalog.documents(USERS).get(name)
    if change.new is None:
        if name == ADMIN:
            raise ReqlOpFailedError(f"The user `{name}` can't be deleted.")
        if document is None:
            raise ReqlOpFailedError(f"User `{name}` not found.")
        change.effects.append((int(Kind.DELETE_SYSTEM), USERS, name))
        return None
    changed = _changed(change, document, make)
    if changed is not document:
        change.effects.append((int(Kind.PUT_SYSTEM), USERS, name, changed))
    return _user_row(name, changed)


def _changed(change: Change, document: dict[str, Any] | None, make: MakeCredential) -> dict[str, Any]:
    """The user's document as the new row wants it."""
    new = change.new
    assert new is not None
    if not change.key:
        raise ReqlOpFailedError("Empty username")
    if "password" not in new:
        raise ReqlOpFailedError("Expected a field named `password`.")
    refuse_keys(set(new) - {"id", "password"})
    wanted = new["password"]
    iterations = None
    if wanted.__class__ is bool:
        has_password = document is not None and bool(document.get("has_password"))
        if wanted and not has_password:
            raise ReqlOpFailedError(
                "Expected an object or string to set the password, or `false` to keep it unset, got true."
            )
        if document is not None and wanted == has_password:
            return document
        wanted = ""
    elif d.type_name(wanted) == "OBJECT":
        wanted, iterations = _password_of(wanted)
    elif wanted.__class__ is not str:
        raise ReqlOpFailedError(f"Expected an object, string or boolean for `password`, got {d.print_datum(wanted)}.")
    credential = make(change.env, wanted, iterations).to_document()
    return {**(document or {}), **credential, "has_password": wanted != ""}


def _password_of(wanted: dict[str, Any]) -> tuple[str, int]:
    """(password, iterations) of the long form of a password."""
    if "iterations" not in wanted:
        raise ReqlOpFailedError("Expected a field named `iterations`.")
    given = wanted["iterations"]
    try:
        iterations = d.to_int(given) if d.is_number(given) else 0
    except ReqlError:
        iterations = 0
    if iterations < 1:
        raise ReqlOpFailedError(
            f"Expected `iterations` to be an integer greater than zero, got {d.print_datum(given)}."
        )
    if iterations > MAX_ITERATIONS:
        raise ReqlOpFailedError(f"Expected `iterations` to be at most {MAX_ITERATIONS}, got {iterations}.")
    if "password" not in wanted:
        raise ReqlOpFailedError("Expected a field named `password`.")
    password = wanted["password"]
    if password.__class__ is not str:
        raise ReqlOpFailedError(f"Expected `password` to be a string, got {d.print_datum(password)}.")
    refuse_keys(set(wanted) - {"iterations", "password"})
    return password, iterations


# ---- user_credentials --------------------------------------------------------------------------------------------


def credentials_table() -> SystemTable:
    """For backups: {"id", "iterations", "salt", "stored_key", "server_key"}, the last three in base64. They check a
    password, but let nobody log in. A row that is put changes an existing user's password."""

    def rows(env: Any, form: str) -> Iterator[Row]:
        for name, document in env.data.catalog.documents(USERS).items():
            if document.get("has_password"):
                yield {"id": name, **Credential.from_document(document).to_document()}

    def write(change: Change) -> Row | None:
        document = change.catalog.documents(USERS).get(change.key) if change.key.__class__ is str else None
        if document is None:
            raise ReqlOpFailedError(f"User `{change.key}` not found.")
        if change.new is None:
            raise ReqlOpFailedError("Credentials are deleted with their user, in `rethinkdb.users`.")
        credential = _credential(change.new)
        changed = {**document, **credential.to_document(), "has_password": True}
        change.effects.append((int(Kind.PUT_SYSTEM), USERS, change.key, changed))
        return change.new

    return SystemTable("user_credentials", rows, write=write, changes_catalog=True, admin_only=True)


def _credential(new: Row) -> Credential:
    row = fields.Fields(new)
    row.take("id")
    iterations = row.take("iterations")
    if not d.is_number(iterations) or not 1 <= iterations <= MAX_ITERATIONS or iterations != int(iterations):
        raise ReqlOpFailedError(f"Expected `iterations` to be an integer from 1 to {MAX_ITERATIONS}.")
    keys = []
    for name in ("salt", "stored_key", "server_key"):
        try:
            key = base64.b64decode(fields.string(row.take(name)), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key or (name != "salt" and len(key) != 32) or len(key) > 64:
            raise ReqlOpFailedError(f"Expected `{name}` to be a key in base64.")
        keys.append(key)
    row.end()
    return Credential(keys[0], int(iterations), keys[1], keys[2])
