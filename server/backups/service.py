"""Backups as a part of the server: vaults that the log flows into, jobs, schedules, alarms, and their tables.

One rule: nothing here is in the way of a query. What takes long is a child process or a thread; what is kept goes
through the log like any change. The leader sees to all of it; images may be taken by another member for it.

    rows in system tables ──► documents in the log ──► lanes (jobs) ──► children, here or there ──► vaults
                                                   └─► archiver (log) ──► a child per vault ──► vault
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread

from model.effect import Effect
from server.backups.alarms import Alarms, Thresholds
from server.backups.archiver import Archiver, LogState, vault_rows
from server.backups.children import Children
from server.backups.lane import Job, Lane
from server.backups.ledger import Ledger
from server.backups.restore import Restores
from server.backups.rows import BACKUPS, RESTORES, SUCCESSFUL, TASKS, VAULTS, Row, new_task
from server.backups.schedules import Schedules
from server.backups.work import BackupWork
from server.images.taking import ImageTaker, Source
from server.images.work import ImageWork

log = logging.getLogger("rewinddb.backup")

LOOK_EVERY_S: Final = 900.0
AFTER_BACKUP: Final = "retention"  # who asks for a task that follows from a backup


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """Plain values of the settings' section `backup`."""

    max_log_bytes: int
    max_bytes_per_s: int
    stall_s: float
    alarm_gap_s: float
    alarm_age_s: float


class Clock(Protocol):
    """The reactor's time."""

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: Any) -> Any: ...
    def seconds(self) -> float: ...


class Pauses:
    """`pause` on a reactor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def pause(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._clock.callLater(seconds, done.callback, None)
        return done


class BackupService:
    """All of it. `tick` is to be called each second on the reactor's thread."""

    def __init__(
        self,
        settings: BackupSettings,
        source: Source,
        state: LogState,
        propose: Callable[[list[Effect]], Deferred[None]],
        is_leader: Callable[[], bool],
        changed: Callable[[], None],
        children: Children,
        clock: Clock,
        now_ms: Callable[[], int],
        folder: Path,
        cluster_id: str,
        version: str,
        restores: Restores | None = None,
    ) -> None:
        self._clock = clock
        self.state = state
        self.children = children
        self.ledger = ledger = Ledger(lambda: source.catalog, propose, is_leader, now_ms, changed)
        self.work = BackupWork(
            ledger, children, Pauses(clock), deferToThread, folder, cluster_id, version, settings.stall_s
        )
        self.archiver = Archiver(
            state,
            children,
            lambda: ledger.documents(VAULTS),
            lambda vault_id, changes: ledger.amend(VAULTS, vault_id, changes),
            cluster_id,
            now_ms,
            settings.max_log_bytes,
        )
        self.taker = ImageTaker(
            source,
            children,
            Pauses(clock),
            deferToThread,
            folder,
            cluster_id,
            version,
            settings.stall_s,
            settings.max_bytes_per_s,
        )
        self.images = ImageWork(self.taker, ledger, self.archiver, self.work.vault)
        self.restores = restores or Restores()
        seconds = children.seconds
        self.lanes = {
            BACKUPS: Lane(BACKUPS, ledger, seconds, self._back_up, told_backup),
            TASKS: Lane(TASKS, ledger, seconds, self._do_task, told_task),
            RESTORES: Lane(RESTORES, ledger, seconds, self.restores.restore, told_restore),
        }
        self.schedules = Schedules(ledger)
        thresholds = Thresholds(settings.alarm_gap_s, settings.alarm_age_s)
        self.alarms = Alarms(self.archiver, ledger, thresholds)
        self._looked_s: dict[str, float] = {}
        self.work.clean_up()

    # -- life

    def tick(self) -> None:
        """Once per second."""
        if not self.ledger.is_leader():
            self.archiver.stop()
        else:
            self.archiver.tick()
            self.schedules.tick()
            self._look_now_and_then()
        for lane in self.lanes.values():
            lane.tick()

    def stop(self) -> None:
        """The server stops, or has failed."""
        for lane in self.lanes.values():
            lane.stop()
        self.archiver.stop()
        self.children.stop()

    def keep_from(self) -> int | None:
        """The first entry of the log that is still needed; None if none is."""
        return self.archiver.keep_from()

    def vault_rows(self) -> list[Row]:
        return list(vault_rows(self.archiver, self.ledger.documents(VAULTS), self.work.inventories))

    # -- inside

    async def _back_up(self, job: Job) -> Row:
        result = await self.images.back_up(job)
        for image in result["images"]:
            self._after_new_image(self.work.vault(image["vault"]))
        return result

    async def _do_task(self, job: Job) -> Row:
        result = await self.work.do_task(job)
        for name in job.row["vaults"]:
            if job.row["task"] == "synthesise":
                self._after_new_image(self.work.vault(name))
            self._note_expired(name)
        return result

    def _after_new_image(self, vault: Row) -> None:
        """What the retention lets go of is deleted by a task of its own; without one the vault is looked at."""
        if not vault["retention"]:
            ensureDeferred(self.work.look(vault)).addErrback(_log_failure)
            return
        document = new_task("expire", [vault["name"]], self.ledger.now_ms(), AFTER_BACKUP)
        self.ledger.put(TASKS, document["id"], document).addErrback(_log_failure)

    def _note_expired(self, name: str) -> None:
        """Marks, in rows of backups, the images that a vault was seen not to hold any more."""
        inventory = self.work.inventories.get(self.work.vault(name)["id"])
        if inventory is None:
            return
        there = {image["image"] for image in inventory["images"]}
        for key, row in self.ledger.documents(BACKUPS).items():
            gone = [image["vault"] == name and image["image"] not in there for image in row["images"]]
            if any(gone):
                images = [
                    {**image, "expired": True} if is_gone else image
                    for image, is_gone in zip(row["images"], gone, strict=True)
                ]
                self.ledger.amend(BACKUPS, key, {"images": images})

    def _look_now_and_then(self) -> None:
        now_s = self.children.seconds()
        for vault_id, document in self.ledger.documents(VAULTS).items():
            is_due = now_s - self._looked_s.get(vault_id, -LOOK_EVERY_S) >= LOOK_EVERY_S
            if is_due and document["claimed"] and not document["pause"]:
                self._looked_s[vault_id] = now_s
                ensureDeferred(self.work.look(document)).addErrback(_log_failure)


def _log_failure(failure: Any) -> None:
    log.error("a chore of backups failed: %s", failure.getTraceback())


def _subject(row: Row) -> str:
    named = [*(f"database {name}" for name in row["databases"]), *(f"table {name}" for name in row["tables"])]
    return ", ".join(named) or "the whole server"


def _by(row: Row) -> str:
    """Which server took it; rows of an earlier version do not say."""
    return f" by server {row['server']}" if row.get("server") else ""


_TOLD_OF_BACKUPS: Final = ("name", "databases", "tables", "rows", "bytes", "log_index", "seconds")


def told_backup(row: Row) -> tuple[str, str, Row]:
    """The row of `backup_log` for a finished backup."""
    fields = {name: row[name] for name in _TOLD_OF_BACKUPS}
    fields |= {"backup": row["id"], "where": row["images"], "error": row["error"], "server": row.get("server")}
    if row["state"] != SUCCESSFUL:
        return "backup failed", f"backup failed: {row['name']} of {_subject(row)}{_by(row)}: {row['error']}", fields
    places = ", ".join(f"{image['vault']} ({image['url']})" for image in row["images"])
    message = (
        f"backup successful: {row['name']} of {_subject(row)}: {row['rows']} rows, {row['bytes']} bytes at log index "
        f"{row['log_index']} in {row['seconds']} s{_by(row)}, in {places}"
    )
    return "backup successful", message, fields


def told_task(row: Row) -> tuple[str, str, Row]:
    """The row of `backup_log` for a finished task."""
    fields = {name: row[name] for name in ("name", "task", "vaults", "seconds", "result", "error")}
    event = f"{row['task']} {'successful' if row['state'] == SUCCESSFUL else 'failed'}"
    why = "" if row["error"] is None else f": {row['error']}"
    return event, f"{event}: {row['name']} in {', '.join(row['vaults'])}, {row['seconds']} s{why}", fields


def told_restore(row: Row) -> tuple[str, str, Row]:
    """The row of `backup_log` for a finished restore."""
    fields = {name: row[name] for name in ("name", "rows", "bytes", "log_index", "seconds", "error")}
    fields["restore"] = row["id"]
    if row["state"] != SUCCESSFUL:
        return "restore failed", f"restore failed: {row['name']}: {row['error']}", fields
    return "restore successful", f"restore successful: {row['name']}: {row['rows']} rows in {row['seconds']} s", fields
