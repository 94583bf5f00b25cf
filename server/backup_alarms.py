"""What an operator must know of backups: rows of `current_issues`, and figures for monitoring.

One rule: an alarm is worked out from what is known now, never switched on and off by events that could be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from server.backup_archiver import REFUSED, UNAVAILABLE, Archiver, Shipping
from server.backup_ledger import Ledger
from server.backup_rows import BACKUPS, FAILED, SUCCESSFUL, TASKS, VAULTS, Row

ISSUE_IDS: Final = UUID("5f0a4f0e-8c0e-4b1a-9c53-3d8b9a6f6a11")


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

    def issues(self) -> list[Row]:
        """Rows of `current_issues`, as RethinkDB shapes them."""
        if not self._ledger.is_leader():
            return []
        found = [issue for shipping in self._archiver.shippings.values() for issue in self._of_vault(shipping)]
        return [*found, *self._of_age(), *self._of_tasks()]

    def _of_vault(self, shipping: Shipping) -> Iterator[Row]:
        name, document = shipping.name, shipping.document
        info = {"vault": name, "url": document["url"], "gap": round(shipping.gap_s, 1), "error": shipping.error or None}
        if shipping.state in (UNAVAILABLE, REFUSED):
            yield issue(
                "backup_vault_unavailable", name, True, info, f"The log does not reach vault {name}: {shipping.error}"
            )
        elif shipping.gap_s > self._thresholds.gap_s and not document["pause"]:
            yield issue(
                "backup_gap", name, True, info, f"Vault {name} lacks the changes of the last {shipping.gap_s:.0f} s."
            )
        if document["missing"]:
            first, last = document["missing"]
            text = (
                f"Vault {name} lacks the log entries {first} to {last}, which had to be released: moments between the "
                "image before them and the next one cannot be restored. Take a new backup."
            )
            yield issue("backup_vault_broken", name, True, {**info, "missing": [first, last]}, text)
        elif shipping.is_let_go:
            text = f"Vault {name} was too far behind, so the log it needs was released: it will need a new backup."
            yield issue("backup_log_limit", name, True, info, text)

    def _of_age(self) -> Iterator[Row]:
        limit_s = self._thresholds.age_s
        if not limit_s or not self._ledger.documents(VAULTS):
            return
        age_s = self.last_success_age_s()
        if age_s is None:
            text = "There are vaults, but no backup of the whole server has ever succeeded."
            yield issue("backup_too_old", "all", True, {"age": None}, text)
        elif age_s > limit_s:
            text = f"The last successful backup of the whole server is {age_s / 3600:.1f} hours old."
            yield issue("backup_too_old", "all", True, {"age": round(age_s)}, text)

    def _of_tasks(self) -> Iterator[Row]:
        for task in ("verify", "drill"):
            last = self._newest(TASKS, lambda row: row["task"] == task)  # noqa: B023  (called at once)
            if last is not None and last["state"] == FAILED:
                info = {"task": last["id"], "vaults": last["vaults"], "error": last["error"]}
                text = f"The last {task} of backups failed: {last['error']}"
                yield issue(f"backup_{task}_failed", task, True, info, text)
        last = self._newest(BACKUPS, lambda row: True)
        if last is not None and last["state"] == FAILED:
            info = {"backup": last["id"], "name": last["name"], "error": last["error"]}
            yield issue("backup_failed", "backup", True, info, f"The last backup failed: {last['error']}")

    def _newest(self, collection: str, fits: Any) -> Row | None:
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

    def metrics(self) -> dict[str, float]:
        """Figures by Prometheus's names, labels included."""
        figures: dict[str, float] = {"rewinddb_backup_alarms": len(self.issues())}
        age_s = self.last_success_age_s()
        if age_s is not None:
            figures["rewinddb_backup_age_seconds"] = age_s
        for state in (SUCCESSFUL, FAILED):
            rows = self._ledger.documents(BACKUPS).values()
            figures[f'rewinddb_backups{{state="{state}"}}'] = sum(row["state"] == state for row in rows)
        for shipping in self._archiver.shippings.values():
            label = f'{{vault="{shipping.name}"}}'
            figures[f"rewinddb_vault_gap_seconds{label}"] = shipping.gap_s
            figures[f"rewinddb_vault_shipped_index{label}"] = shipping.shipped_index or 0
            figures[f"rewinddb_vault_shipped_bytes_total{label}"] = shipping.bytes
            figures[f"rewinddb_vault_up{label}"] = float(shipping.state not in (UNAVAILABLE, REFUSED))
        drill = self._newest(TASKS, lambda row: row["task"] == "drill")
        if drill is not None:
            figures["rewinddb_drill_success"] = float(drill["state"] == SUCCESSFUL)
            seconds = [result.get("restore_seconds", 0.0) for result in (drill["result"] or {}).values()]
            figures["rewinddb_drill_restore_seconds"] = max(seconds, default=0.0)
        return figures


def issue(kind: str, subject: str, critical: bool, info: Row, text: str) -> Row:
    """A row of `current_issues`; the same problem has the same id."""
    return {
        "id": str(uuid5(ISSUE_IDS, f"{kind} {subject}")),
        "type": kind,
        "critical": critical,
        "info": info,
        "description": text,
    }
