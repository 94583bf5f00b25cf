"""Questions about the past that any driver can ask, as tables whose rows are worked out when they are read:

    history       get([db, table, key])                         the versions of a document
    differences   get([from, to]) or get([from, to, [names]])   what changed between two moments
    vault_contents   get(name)                                  what a vault holds, as it is now

One rule: reading them reads a vault, in a child process, so they have a row for every key and none without one.
"""

from __future__ import annotations

from typing import Any, Final

from backup.selection import parse_name
from model.errors import BadSetting, ReqlOpFailedError, RewindError
from model.keys import primary_key_bytes
from server.restores.work import RestoreWork
from server.system import SystemTable
from server.system.site import Row

MOST_KEYS: Final = 1000  # listed per table; the counts are of all


def past_tables(work: RestoreWork) -> list[SystemTable]:
    """The tables of a server."""

    def history(env: Any, key: Any, form: str) -> Row:
        if not isinstance(key, list) or len(key) != 3 or not all(isinstance(name, str) for name in key[:2]):
            raise ReqlOpFailedError("A row of `history` is asked for with get([database, table, primary key]).")
        primary_key_bytes(key[2])
        return _answer(env, key, lambda: work.versions(f"{key[0]}.{_table(key)}", key[2]))

    def differences(env: Any, key: Any, form: str) -> Row:
        names = key[2] if isinstance(key, list) and len(key) == 3 else []
        is_fit = isinstance(key, list) and 2 <= len(key) <= 3 and all(isinstance(end, str) for end in key[:2])
        if not is_fit or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ReqlOpFailedError(
                "A row of `differences` is asked for with get([from, to]) or get([from, to, names])."
            )
        return _answer(env, key, lambda: work.differences(key[0], key[1], names, MOST_KEYS))

    def contents(env: Any, key: Any, form: str) -> Row | None:
        access = work.vault_named(key)
        return None if access is None else _answer(env, key, lambda: work.look(access))

    return [
        SystemTable("vault_contents", lambda env, form: (), row=contents, admin_only=True),
        SystemTable("history", lambda env, form: (), row=history, admin_only=True),
        SystemTable("differences", lambda env, form: (), row=differences, admin_only=True),
    ]


def _table(key: Any) -> str:
    try:
        parse_name(f"{key[0]}.{key[1]}")
    except BadSetting as error:
        raise ReqlOpFailedError(str(error)) from error
    return str(key[1])


def _answer(env: Any, key: Any, ask: Any) -> Row:
    try:
        found: Row = env.fibers.wait(ask())
    except RewindError as error:
        raise ReqlOpFailedError(str(error)) from error
    return {"id": key, **found}
