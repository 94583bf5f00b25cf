"""What an operator must know of backups: issues for `current_issues`.

One rule: an alarm is worked out from what is known now, never switched on and off by events that could be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server.backups.archiver import REFUSED, UNAVAILABLE, Archiver, Shipping
from server.backups.ledger import Ledger
from server.backups.rows import BACKUPS, FAILED, SUCCESSFUL, TASKS, VAULTS, Row
from server.vitals.issues import Issue


@dataclass(frozen=True, slots=True)
class Thresholds:
    """gap_s: seconds of changes that a vault may lack. age_s: of the newest whole backup; 0 for never mind."""

    gap_s: float
    age_s: float


class Alarms:
    """What is wrong at the moment."""

    def __init__(self, archiver: Archiver, ledger: Ledger, thresholds: Thresholds) -> None:
        self._archiver = archiver
        self._ledger = ledger
        self._thresholds = thresholds

    def issues(self) -> list[Issue]:
        """What `current_issues` shows; nothing where this server does not lead."""
        if not self._ledger.is_leader():
            return []
        found = [issue for shipping in self._archiver.shippings.values() for issue in self._of_vault(shipping)]
        return [*found, *self._of_age(), *self._of_tasks()]

    def _of_vault(self, shipping: Shipping) -> Iterator[Issue]:
        name, document, gap_s = shipping.name, shipping.document, self._archiver.gap_s(shipping)
        info = {"vault": name, "url": document["url"], "gap": round(gap_s, 1), "error": shipping.error or None}
        if shipping.state in (UNAVAILABLE, REFUSED):
            text = f"The log does not reach vault {name}: {shipping.error}"
            yield Issue("backup_vault_unavailable", name, True, text, info)
        elif gap_s > self._thresholds.gap_s and not document["pause"]:
            text = f"Vault {name} lacks the changes of the last {gap_s:.0f} s."
            yield Issue("backup_gap", name, True, text, info)
        if document["missing"]:
            first, last = document["missing"]
            text = (
                f"Vault {name} lacks the log entries {first} to {last}, which had to be released: moments between the "
                "image before them and the next one cannot be restored. Take a new backup."
            )
            yield Issue("backup_vault_broken", name, True, text, {**info, "missing": [first, last]})
        elif shipping.is_let_go:
            text = f"Vault {name} was too far behind, so the log it needs was released: it will need a new backup."
            yield Issue("backup_log_limit", name, True, text, info)

    def _of_age(self) -> Iterator[Issue]:
        limit_s = self._thresholds.age_s
        if not limit_s or not self._ledger.documents(VAULTS):
            return
        age_s = self.last_success_age_s()
        if age_s is None:
            text = "There are vaults, but no backup of the whole server has ever succeeded."
            yield Issue("backup_too_old", "all", False, text, {"age": None})
        elif age_s > limit_s:
            text = f"The last successful backup of the whole server is {age_s / 3600:.1f} hours old."
            yield Issue("backup_too_old", "all", True, text, {"age": round(age_s)})

    def _of_tasks(self) -> Iterator[Issue]:
        for task in ("verify", "drill"):
            last = self.newest(TASKS, lambda row: row["task"] == task)  # noqa: B023  (called at once)
            if last is not None and last["state"] == FAILED:
                info = {"task": last["id"], "vaults": last["vaults"], "error": last["error"]}
                text = f"The last {task} of backups failed: {last['error']}"
                yield Issue(f"backup_{task}_failed", task, True, text, info)
        last = self.newest(BACKUPS, lambda row: True)
        if last is not None and last["state"] == FAILED:
            info = {"backup": last["id"], "name": last["name"], "error": last["error"]}
            yield Issue("backup_failed", "backup", True, f"The last backup failed: {last['error']}", info)

    def newest(self, collection: str, fits: Any) -> Row | None:
        """The job of a table that was finished last."""
        rows = [row for row in self._ledger.documents(collection).values() if row["finished"] is not None and fits(row)]
        return max(rows, key=lambda row: row["finished"]["epoch_time"], default=None)

    def last_success_age_s(self) -> float | None:
        """How old the newest backup of the whole server is; None if there is none."""
        times = [
            row["finished"]["epoch_time"]
            for row in self._ledger.documents(BACKUPS).values()
            if row["state"] == SUCCESSFUL and not row["databases"] and not row["tables"]
        ]
        return self._ledger.now_ms() / 1000 - max(times) if times else None
