"""What backups keep in the log: documents of vaults, jobs and schedules, and the list of what happened.

One rule: documents are never changed in place; a change is a new document through the log, so that every member and
every restored copy knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from twisted.internet.defer import Deferred

from model.catalog import Catalog
from model.effect import Effect, Kind
from model.errors import RewindError
from server.backups.rows import ACTIVE, LOG, Row, time_at

log = logging.getLogger("rewinddb.backup")

KEPT_LOG_ROWS: Final = 2000
KEPT_JOBS: Final = 500


class Ledger:
    """propose(effects): through the log, fires when applied. is_leader(): whether this server may."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        propose: Callable[[list[Effect]], Deferred[None]],
        is_leader: Callable[[], bool],
        now_ms: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._propose = propose
        self.is_leader = is_leader
        self.now_ms = now_ms
        self.changed = changed
        self._numbers = count()

    def documents(self, collection: str) -> Mapping[str, Row]:
        return self._catalog().documents(collection)

    def commit(self, effects: list[Effect]) -> Deferred[None]:
        """Keeps the changes; a failure is logged and passed on."""
        try:
            done = self._propose(effects)
        except RewindError as error:
            done = Deferred()
            done.errback(error)

        def failed(failure: Any) -> Any:
            log.warning("what happened to a backup could not be kept: %s", failure.value)
            return failure

        return done.addErrback(failed)

    def put(self, collection: str, key: str, document: Row) -> Deferred[None]:
        return self.commit([put_effect(collection, key, document)])

    def amend(self, collection: str, key: str, changes: Row) -> None:
        """Changes fields of a document that is there; one that is gone stays gone."""
        document = self.documents(collection).get(key)
        if document is not None and any(document.get(name) != value for name, value in changes.items()):
            self.put(collection, key, {**document, **changes}).addErrback(_was_logged)

    def entry(self, event: str, message: str, fields: Row) -> list[Effect]:
        """The effects that add a row to `backup_log` and let the oldest go."""
        now_ms = self.now_ms()
        key = f"{now_ms:015d}-{next(self._numbers) % 1_000_000:06d}"
        row = {"id": key, "time": time_at(now_ms), "event": event, "message": message, **fields}
        surplus = sorted(self.documents(LOG))[: max(len(self.documents(LOG)) + 1 - KEPT_LOG_ROWS, 0)]
        return [put_effect(LOG, key, row), *(delete_effect(LOG, old) for old in surplus)]

    def old_jobs(self, collection: str) -> list[Effect]:
        """The effects that let the oldest finished jobs go."""
        finished = [row for row in self.documents(collection).values() if row["state"] not in ACTIVE]
        finished.sort(key=lambda row: row["requested"]["epoch_time"])
        return [delete_effect(collection, row["id"]) for row in finished[: max(len(finished) + 1 - KEPT_JOBS, 0)]]


def put_effect(collection: str, key: str, document: Row) -> Effect:
    return (int(Kind.PUT_SYSTEM), collection, key, document)


def delete_effect(collection: str, key: str) -> Effect:
    return (int(Kind.DELETE_SYSTEM), collection, key)


def _was_logged(failure: Any) -> None:
    """The failure was logged where it happened; the next attempt comes with the next event."""
