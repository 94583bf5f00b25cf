"""Which server is to take an image: the followers first, so that the leader, whom all writes need, is not disturbed.

One rule: pure, and a preference only. Whoever is chosen may turn out to be unable; then the next one is asked, and
the server that leads is always the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_LAG_ENTRIES: Final = 10_000  # a member further behind is busy with catching up


@dataclass(frozen=True, slots=True)
class Candidate:
    """Another member, as the leader sees it.

    is_able: it is up, holds the data, and its version can do it. lag_entries: of the log, not yet applied there.
    """

    member_id: int
    name: str
    is_able: bool
    is_learner: bool
    lag_entries: int
    is_disk_low: bool
    indexes_waiting: int


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that may be asked, the best first: not busy with indexes, the least behind, a learner before a voter.

    A member whose disk is nearly full is not asked at all: a checkpoint keeps files that would be deleted.
    """
    fit = [one for one in candidates if one.is_able and not one.is_disk_low and one.lag_entries <= MAX_LAG_ENTRIES]
    return sorted(fit, key=lambda one: (one.indexes_waiting > 0, one.lag_entries, not one.is_learner, one.member_id))
