"""Writes to system tables: the same decisions as for stored rows, but each table says itself what comes of them.

One rule: a write that a table does not take is an error in the write's result, with RethinkDB's words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model.errors import ReqlRuntimeError
from model.keys import key_from_bytes
from proxy.reql.writing import ALWAYS_CHANGES, Stats, check_row

Write = Callable[[Any, Any, Any, Any], None]
"""(env, key, old row or None, new row or None): makes the change or raises ReqlRuntimeError."""

Decide = Callable[[Any], Any]


class SystemWriter:
    """What insert, update, replace and delete write through (the port of `proxy.reql.writing.RowWriter`)."""

    is_full: Final = False

    def __init__(self, env: Any, stats: Stats, read: Callable[[Any], Any], write: Write) -> None:
        self._env = env
        self._stats = stats
        self._read = read
        self._write = write

    def write(self, key: bytes, decide: Decide, offered: Any = None) -> None:
        """Decides on one row and makes the change. Errors are counted, not raised."""
        stats = self._stats
        datum = key_from_bytes(key)
        old = self._read(datum)
        new = offered
        try:
            new = decide(old)
            if new is not None:
                check_row("id", key, old, new)
            if new != old:
                self._write(self._env, datum, old, new)
        except ReqlRuntimeError as error:
            stats.add_error(error.message)
            if stats.return_changes == ALWAYS_CHANGES:
                stats.add_change({"old_val": old, "new_val": old, "error": error.message})
            return
        stats.counts[_outcome(old, new)] += 1
        if stats.return_changes == ALWAYS_CHANGES or (stats.return_changes and new != old):
            stats.add_change({"old_val": old, "new_val": new})

    def flush(self) -> None:
        """Every change was made at once."""


def _outcome(old: Any, new: Any) -> str:
    if old is None:
        return "skipped" if new is None else "inserted"
    if new is None:
        return "deleted"
    return "unchanged" if old == new else "replaced"
