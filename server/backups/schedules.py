"""Schedules: what is due becomes a job.

One rule: `last_due_ms` in the log only moves forward, together with the job that it made, in one entry: nothing that
was due runs twice, whatever the clock or the leader do; what was missed while nobody led runs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from backup.timetable import next_due_ms
from model.errors import BadSetting
from server.backups.ledger import Ledger, put_effect
from server.backups.rows import (
    ACTIVE,
    BACKUPS,
    SCHEDULES,
    TASKS,
    VAULTS,
    Row,
    default_name,
    job_fields,
    new_task,
    time_at,
)

SCHEDULER: Final = "schedule"


class Schedules:
    """All schedules. `tick` is called each second where this server leads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next: dict[str, tuple[Row, int]] = {}  # id -> (the document it was worked out for, next due time)
        self._under_way = False

    def tick(self) -> None:
        if self._under_way:
            return
        now_ms = self._ledger.now_ms()
        for schedule_id, document in self._ledger.documents(SCHEDULES).items():
            if document["enabled"] and self.due_ms(schedule_id, document) <= now_ms:
                self._run(schedule_id, document, now_ms)
                return

    def due_ms(self, schedule_id: str, document: Row) -> int:
        """When a schedule is due next."""
        known = self._next.get(schedule_id)
        if known is None or known[0] is not document:
            known = (document, _due(document))
            self._next[schedule_id] = known
        return known[1]

    def _run(self, schedule_id: str, document: Row, now_ms: int) -> None:
        # What was missed several times is made up for once: the next one is after now.
        later = {**document, "last_due_ms": max(now_ms, document["last_due_ms"]), "runs": document["runs"] + 1}
        effects = [put_effect(SCHEDULES, schedule_id, later)]
        if not self._is_still_running(document):
            collection, job = self.job_of(document, now_ms)
            effects.append(put_effect(collection, job["id"], job))
        else:
            message = f"schedule {document['name']} was due, but its last job is still running"
            effects += self._ledger.entry("schedule skipped", message, {"schedule": document["name"]})
        self._under_way = True

        def over(_: Any) -> None:
            self._under_way = False

        self._ledger.commit(effects).addBoth(over)

    def _is_still_running(self, document: Row) -> bool:
        collection = BACKUPS if document["action"] == "backup" else TASKS
        rows = self._ledger.documents(collection).values()
        return any(row["state"] in ACTIVE and row.get("schedule") == document["name"] for row in rows)

    def job_of(self, document: Row, now_ms: int) -> tuple[str, Row]:
        """(collection, document) of the job that a schedule makes."""
        vaults = document["vaults"] or sorted(vault["name"] for vault in self._ledger.documents(VAULTS).values())
        action = document["action"]
        if action == "backup":
            name = default_name(document["databases"], document["tables"], now_ms)
            job = {**job_fields(str(uuid4()), name, now_ms, SCHEDULER), "schedule": document["name"], "vaults": vaults}
            job |= {"databases": document["databases"], "tables": document["tables"]}
            return BACKUPS, {**job, "max_bytes_per_s": 0, "hold": False, "server": None, "images": []}
        parts = document["parts"]
        part = [document["runs"] % parts + 1, parts] if parts > 1 else None
        job = {**new_task(action, vaults, now_ms, SCHEDULER), "schedule": document["name"], "part": part}
        return TASKS, {**job, "depth": document["depth"], "to": document["to"]}

    def rows(self) -> list[Row]:
        """The rows of `rethinkdb.backup_schedules`."""
        return [self._shown(key, document) for key, document in self._ledger.documents(SCHEDULES).items()]

    def _shown(self, schedule_id: str, document: Mapping[str, Any]) -> Row:
        row = {name: value for name, value in document.items() if name != "last_due_ms"}
        due_ms = self.due_ms(schedule_id, dict(document) if not isinstance(document, dict) else document)
        row["next_run"] = time_at(due_ms) if document["enabled"] else None
        return row


def _due(document: Row) -> int:
    try:
        return next_due_ms(document["cron"], document["timezone"], document["last_due_ms"])
    except BadSetting:  # a time zone that this machine does not know any more
        return 1 << 62
