"""Writes to system tables: the same decisions as for stored rows, but each table says itself what comes of them.

One rule: what a row is to become is decided from the newest row while nobody else changes the catalog; a write that
a table does not take is an error in the write's result, with RethinkDB's words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model.catalog import Catalog
from model.effect import Effect
from model.errors import ReqlPermissionError, ReqlRuntimeError
from model.keys import key_from_bytes
from proxy.reql.writing import ALWAYS_CHANGES, Stats, check_row
from server.system.site import Row
from server.system.table import Change, SystemSource, refuse_writes

Decide = Callable[[Any], Any]


class SystemWriter:
    """What insert, update, replace and delete write through (the port of `proxy.reql.writing.RowWriter`)."""

    is_full: Final = False

    def __init__(self, env: Any, stats: Stats, source: SystemSource, form: str) -> None:
        self._env = env
        self._stats = stats
        self._source = source
        self._form = form
        self._write = source.declared.write or refuse_writes(source.name)

    def require_permission(self) -> None:
        """Raises unless the query's user may write to the table."""
        self._source.require(self._env, "read")
        self._source.require(self._env, "write")

    def write(self, key: bytes, decide: Decide, offered: Any = None, key_is_made: bool = False) -> None:
        """Decides on one row and makes the change. Errors are counted, not raised."""
        self.require_permission()
        stats = self._stats
        stats.was_used = True
        tried = _Attempt(self, key_from_bytes(key), key, decide, key_is_made)
        try:
            if self._source.declared.changes_catalog:
                self._env.data.change_catalog(tried.make)
            else:
                tried.make(self._env.data.catalog, None)
            if tried.change is not None and tried.change.after is not None:
                self._tell_feeds()
                tried.stands = tried.change.after()
        except ReqlPermissionError:
            raise
        except ReqlRuntimeError as error:
            stats.add_error(error.message)
            if stats.return_changes == ALWAYS_CHANGES:
                stats.add_change({"old_val": tried.old, "new_val": tried.old, "error": error.message})
            return
        self._tell_feeds()
        old, new, stands = tried.old, tried.new, tried.stands
        stats.counts[_outcome(old, None if stands is None else new)] += 1
        if stats.return_changes == ALWAYS_CHANGES or (stats.return_changes and new != old):
            stats.add_change({"old_val": old, "new_val": stands})

    def flush(self, is_last: bool = False) -> None:
        """Every change was made at once."""

    def _tell_feeds(self) -> None:
        feeds = self._env.world.feeds
        if feeds is not None:
            feeds.poll()


class _Attempt:
    """One change, from the row as it stands to the effects; to be run when the catalog stands still."""

    def __init__(self, writer: SystemWriter, datum: Any, key: bytes, decide: Decide, key_is_made: bool) -> None:
        self._writer = writer
        self._datum = datum
        self._key = key
        self._decide = decide
        self._key_is_made = key_is_made
        self.old: Row | None = None
        self.new: Row | None = None
        self.stands: Row | None = None
        self.change: Change | None = None

    def make(self, catalog: Catalog, unused: Any) -> tuple[list[Effect], None]:
        writer = self._writer
        env, source = writer._env, writer._source
        self.old = old = source.row(env, self._datum)
        self.new = new = self._decide(old)
        if new is not None:
            check_row(source.primary_key, self._key, old, new)
        self.change = change = Change(env, self._datum, old, new, self._key_is_made, writer._form, catalog, unused)
        self.stands = writer._write(change)
        return change.effects, None


def _outcome(old: Any, new: Any) -> str:
    if old is None:
        return "skipped" if new is None else "inserted"
    if new is None:
        return "deleted"
    return "unchanged" if old == new else "replaced"
