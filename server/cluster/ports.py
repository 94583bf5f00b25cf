"""What the cluster needs of the links to the other servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Links(Protocol):
    """The connections to the other servers (`server.cluster.links`)."""

    def send_query(self, member: int, payload: bytes) -> bool:
        """Something beside Raft to a member; False if there is no link to it."""

    def set_members(self, addresses: Mapping[int, tuple[str, int]]) -> None:
        """Whom to be linked to; links to others end."""

    def is_linked(self, member: int) -> bool: ...
    def snapshot_progress(self, member: int) -> tuple[int, int] | None:
        """(bytes that arrived, bytes in all) of a snapshot that is being sent to a member."""
