"""How members are, in words and figures: what `rewinddb status` and the table `members` show.

One rule: only what is known now is told; of a silent member that is nothing.
"""

from __future__ import annotations

from typing import Any, Final

from consensus.messages import ConfState
from consensus.tracker import Flow, Progress
from server.cluster.members import Member, role_of
from server.cluster.vitals import Vitals

UNREACHABLE: Final = "unreachable"
DISK_LOW: Final = "disk nearly full"


def health_of(
    member: Member, conf: ConfState, vitals: Vitals | None, progress: Progress | None, is_linked: bool
) -> str:
    """One word or two. progress: what a leader knows of the member's log."""
    if vitals is None:
        return "starting" if is_linked else UNREACHABLE
    if not role_of(member.member_id, conf):
        return "joining"
    if progress is not None and progress.flow is Flow.SNAPSHOT:
        return "taking a snapshot"
    if vitals.is_disk_low:
        return DISK_LOW
    return "building indexes" if vitals.indexes_waiting else "ok"


def figures_of(
    vitals: Vitals | None, progress: Progress | None, committed: int, shipped: tuple[int, int] | None
) -> dict[str, Any]:
    """The member's positions, lag, stalls and disk. committed: the newest entry known to be committed here.

    shipped: (bytes that arrived, bytes in all) of a snapshot that is being sent to it.
    """
    row: dict[str, Any] = {"log": None, "lag_entries": None}
    if vitals is not None:
        row["log"] = {
            "last": vitals.last_index,
            "committed": vitals.commit_index,
            "applied": vitals.applied_index,
        }
        row["lag_entries"] = max(0, committed - vitals.applied_index)
        row["longest_stall_ms"] = vitals.stall_ms
        row["free_disk_bytes"] = vitals.free_bytes
        row["leader_heard_ms_ago"] = vitals.silent_ms
        row["indexes_in_construction"] = vitals.indexes_waiting
        row["connected_to"] = vitals.connected
    if progress is not None:
        row["acknowledged"] = progress.match
        row["lag_entries"] = max(0, committed - progress.match)
    if shipped is not None:
        row["snapshot"] = {"sent_bytes": shipped[0], "bytes": shipped[1]}
    return row
