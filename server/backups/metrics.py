"""Figures of backups for Prometheus. One rule: read when they are asked for, from what is known anyway."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from server.backups.archiver import REFUSED, UNAVAILABLE
from server.backups.rows import BACKUPS, FAILED, SUCCESSFUL, TASKS
from server.backups.service import BackupService


class BackupCollector(Collector):
    """Gaps and states of vaults, ages and counts of backups, the last drill."""

    def __init__(self, service: BackupService) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        service = self._service
        yield _gauge("backup_alarms", "Issues that concern backups.", len(service.alarms.issues()))
        age_s = service.alarms.last_success_age_s()
        if age_s is not None:
            yield _gauge("backup_age_seconds", "How old the newest backup of the whole server is.", age_s)
        backups = GaugeMetricFamily("rewinddb_backups", "Backups that are remembered, by state.", labels=["state"])
        for state in (SUCCESSFUL, FAILED):
            rows = service.ledger.documents(BACKUPS).values()
            backups.add_metric([state], sum(row["state"] == state for row in rows))
        yield backups
        yield from self._vaults()
        drill = service.alarms.newest(TASKS, lambda row: row["task"] == "drill")
        if drill is not None:
            results = (drill["result"] or {}).values()
            seconds = max((result.get("restore_seconds", 0.0) for result in results), default=0.0)
            yield _gauge("drill_success", "Whether the last restore drill succeeded.", drill["state"] == SUCCESSFUL)
            yield _gauge("drill_restore_seconds", "How long its restore took: the proven time to restore.", seconds)

    def _vaults(self) -> Iterator[GaugeMetricFamily]:
        gap = GaugeMetricFamily("rewinddb_vault_gap_seconds", "Seconds of changes a vault lacks.", labels=["vault"])
        index = GaugeMetricFamily("rewinddb_vault_shipped_index", "The last entry in a vault.", labels=["vault"])
        shipped = GaugeMetricFamily("rewinddb_vault_shipped_bytes", "Log shipped since the start.", labels=["vault"])
        up = GaugeMetricFamily("rewinddb_vault_up", "Whether a vault takes the log.", labels=["vault"])
        for shipping in self._service.archiver.shippings.values():
            name = [shipping.name]
            gap.add_metric(name, self._service.archiver.gap_s(shipping))
            index.add_metric(name, shipping.shipped_index or 0)
            shipped.add_metric(name, shipping.bytes)
            up.add_metric(name, shipping.state not in (UNAVAILABLE, REFUSED))
        yield from (gap, index, shipped, up)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"rewinddb_{name}", text, value=value)
