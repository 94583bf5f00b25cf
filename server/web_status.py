"""What the status page tells of the cluster and of backups, beside the server's own figures (`server/web`).

One rule: it is what the system tables say, read when somebody looks; nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from proxy.pages import BAD, GOOD, Section
from server.backups.archiver import OK
from server.backups.rows import BACKUPS, FAILED, TASKS
from server.backups.service import BackupService
from server.cluster.members import role_of
from server.cluster.membership import Cluster

JOBS_SHOWN: Final = 8


def cluster_section(cluster: Cluster) -> Section:
    """A row for each member; members that are not there show in its mood."""
    rows = []
    is_good = True
    for member in cluster.members.values():
        if member.is_removed and not role_of(member.member_id, cluster.conf):
            continue
        about = cluster.row_about(member)
        is_good = is_good and about["health"] == "ok"
        role = (
            "leader" if member.member_id == cluster.leader_id else role_of(member.member_id, cluster.conf) or "joining"
        )
        lag = about["lag_entries"]
        rows.append((member.name, member.address, role, about["health"], "" if lag is None else f"{lag:,}"))
    head = ("member", "address", "role", "health", "entries behind")
    return Section("Cluster", rows, head, "" if is_good else BAD, is_wide=True)


def backup_sections(service: BackupService) -> Iterator[Section]:
    """What is wrong, where copies go and how far they are, and the newest jobs."""
    issues = service.alarms.issues()
    if issues:
        told = [("critical" if issue.is_critical else "warning", issue.description) for issue in issues]
        yield Section(f"Alarms ({len(issues)})", told, mood=BAD, is_wide=True)
    shippings = list(service.archiver.shippings.values())
    rows = [
        (
            shipping.name,
            shipping.document["url"],
            shipping.shown_state,
            f"{service.archiver.gap_s(shipping):.1f} s",
            f"{shipping.shipped_index or 0:,}",
        )
        for shipping in shippings
    ]
    if rows:
        mood = GOOD if all(shipping.shown_state == OK for shipping in shippings) else BAD
        yield Section("Vaults", rows, ("vault", "where", "state", "gap", "log index"), mood, is_wide=True)
    elif service.ledger.is_leader():
        advice = "There is no vault, so nothing can be restored. Add one: rewinddb vault add NAME URL"
        yield Section("Vaults", [(advice,)], mood=BAD, is_wide=True)
    yield from _jobs(service)


def _jobs(service: BackupService) -> Iterator[Section]:
    for title, collection in (("Backups", BACKUPS), ("Verifications and drills", TASKS)):
        jobs = sorted(service.ledger.documents(collection).values(), key=_requested, reverse=True)[:JOBS_SHOWN]
        if jobs:
            mood = BAD if jobs[0]["state"] == FAILED else ""
            yield Section(
                title,
                [_job(job) for job in jobs],
                ("asked for", "name", "state", "rows", "log index"),
                mood,
                is_wide=True,
            )


def _requested(job: dict[str, Any]) -> float:
    return float(job["requested"]["epoch_time"])


def _job(job: dict[str, Any]) -> tuple[str, str, str, str, str]:
    when = datetime.fromtimestamp(_requested(job), UTC).strftime("%Y-%m-%d %H:%M UTC")
    index = "" if job["log_index"] is None else f"{job['log_index']:,}"
    return when, str(job.get("task") or job["name"]), str(job["error"] or job["state"]), f"{job['rows']:,}", index
