"""Jobs of one table, one after the other: queued, running, then successful or failed, each step kept in the log.

One rule: a job is successful only if its work said so; whatever else happens, a crash of the server included, makes
it failed with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import ensureDeferred

from model.errors import RewindError
from server.backups.ledger import Ledger, put_effect
from server.backups.rows import ACTIVE, FAILED, QUEUED, RUNNING, SUCCESSFUL, Row, time_at

log = logging.getLogger("rewinddb.backup")

Done = Callable[..., None]
TELL_EVERY_S: Final = 0.2
LOST_LEAD: Final = "This server does not lead any more."
ORPHANED: Final = "The server that led stopped before it was done, or lost the lead."


class Job:
    """One job that is running. `row` is what the table shows; work changes it through `update`."""

    def __init__(self, row: Row, lane: Lane, began_s: float) -> None:
        self.row = row
        self._lane = lane
        self.began_s = began_s
        self.on_cancel: Callable[[str], None] | None = None
        self.cancelled = ""

    @property
    def id(self) -> str:
        return str(self.row["id"])

    def update(self, **fields: Any) -> None:
        """Shows how far it is. Rows are never changed in place: who reads one keeps it."""
        self.row = {**self.row, **fields}
        self._lane.told()

    def progress(self, percent: float, rows: int, size: int) -> None:
        seconds = max(self._lane.seconds() - self.began_s, 0.001)
        self.update(percent=round(min(percent, 99.9), 1), rows=rows, bytes=size, rows_per_s=round(rows / seconds))

    def cancel(self, why: str) -> None:
        self.cancelled = why
        if self.on_cancel is not None:
            self.on_cancel(why)


Work = Callable[[Job], Coroutine[Any, Any, Row]]
"""Does a job and gives the fields of its row that are then known; raises RewindError if it was not done."""

Told = Callable[[Row], tuple[str, str, Row]]
"""From a finished row to (event, message, fields) of its row in `backup_log`."""


class Lane:
    """collection: of the documents. seconds: a monotonic clock."""

    def __init__(self, collection: str, ledger: Ledger, seconds: Callable[[], float], work: Work, told: Told) -> None:
        self.collection = collection
        self.seconds = seconds
        self._ledger = ledger
        self._work = work
        self._describe = told
        self._job: Job | None = None
        self._waiting: dict[str, list[Done]] = {}
        self._told_s = 0.0
        self._has_looked_back = False
        self._is_stopped = False

    @property
    def running(self) -> Job | None:
        return self._job

    def rows(self) -> list[Row]:
        """All jobs as they stand now."""
        documents = self._ledger.documents(self.collection)
        job = self._job
        return [job.row if job is not None and key == job.id else row for key, row in documents.items()]

    def when_done(self, job_id: str, done: Done) -> None:
        """Calls `done(None, row)` when the job is finished, at once if it is."""
        document = self._ledger.documents(self.collection).get(job_id)
        if document is not None and document["state"] not in ACTIVE:
            done(None, document)
        elif document is None:
            done(RewindError(f"The job {job_id} is gone."))
        else:
            self._waiting.setdefault(job_id, []).append(done)
            self.tick()

    def tick(self) -> None:
        """Starts the oldest job that waits, if none is running."""
        if self._is_stopped or not self._ledger.is_leader():
            self._has_looked_back = False
            if self._job is not None and not self._job.cancelled:
                self._job.cancel(LOST_LEAD)
            return
        if not self._has_looked_back:
            self._has_looked_back = True
            self._fail_orphans()
        if self._job is None:
            queued = [row for row in self._ledger.documents(self.collection).values() if row["state"] == QUEUED]
            if queued:
                self._start(min(queued, key=lambda row: (row["requested"]["epoch_time"], row["id"])))

    def cancel(self, job_id: str, why: str) -> bool:
        """Ends the job if it is running; whether it was."""
        if self._job is None or self._job.id != job_id:
            return False
        self._job.cancel(why)
        return True

    def stop(self) -> None:
        """The server stops: what runs is failed at the next start."""
        self._is_stopped = True
        if self._job is not None:
            self._job.cancel("The server was stopped.")

    def told(self) -> None:
        """A job's row changed: who watches is told, but not too often."""
        now_s = self.seconds()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._ledger.changed()

    # -- inside

    def _fail_orphans(self) -> None:
        """Jobs that ran when the server, or the leader before, ended."""
        for row in list(self._ledger.documents(self.collection).values()):
            if row["state"] == RUNNING and (self._job is None or self._job.id != row["id"]):
                over = {"state": FAILED, "finished": time_at(self._ledger.now_ms())}
                self._finish({**row, **over, "error": ORPHANED})

    def _start(self, document: Row) -> None:
        started = {**document, "state": RUNNING, "started": time_at(self._ledger.now_ms())}
        self._job = job = Job(started, self, self.seconds())
        self._ledger.changed()
        ensureDeferred(self._run(job)).addErrback(self._lost)

    async def _run(self, job: Job) -> None:
        try:
            await self._ledger.put(self.collection, job.id, job.row)
            fields = await self._work(job)
            if job.cancelled:
                raise RewindError(job.cancelled)
            row = {**job.row, **fields, "state": SUCCESSFUL, "percent": 100, "error": None}
        except Exception as error:
            if not isinstance(error, RewindError):
                log.exception("a job of %s failed in an unforeseen way", self.collection)
            row = {**job.row, "state": FAILED, "error": job.cancelled or str(error)}
        seconds = self.seconds() - job.began_s
        row |= {"seconds": round(seconds, 3), "finished": time_at(self._ledger.now_ms())}
        row["rows_per_s"] = round(row["rows"] / max(seconds, 0.001))
        if self._is_stopped:
            self._job = None
            return
        try:
            await self._finish(row)
        finally:
            self._job = None
        self._ledger.changed()
        self.tick()

    async def _finish_now(self, row: Row) -> None:
        event, message, fields = self._describe(row)
        effects = [*self._ledger.entry(event, message, fields), *self._ledger.old_jobs(self.collection)]
        if row["id"] in self._ledger.documents(self.collection):
            effects.append(put_effect(self.collection, row["id"], row))
        (log.info if row["state"] == SUCCESSFUL else log.error)("%s", message)
        try:
            await self._ledger.commit(effects)
        except RewindError as error:
            self._has_looked_back = False  # it still counts as running: to be looked at again
            self._tell_waiting(row["id"], error, None)
        else:
            self._tell_waiting(row["id"], None, row)

    def _finish(self, row: Row) -> Any:
        return ensureDeferred(self._finish_now(row))

    def _tell_waiting(self, job_id: str, error: Exception | None, row: Row | None) -> None:
        for done in self._waiting.pop(job_id, ()):
            done(error, row)

    def _lost(self, failure: Any) -> None:
        log.error("a job of %s ended without a word: %s", self.collection, failure.getTraceback())
