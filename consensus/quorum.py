"""When do enough members agree: majorities, and both majorities of a joint configuration.

Pure arithmetic over ids. The rule: an empty half agrees to everything, so that a joint
configuration with one empty half behaves like the other half.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Final

INFINITE: Final = (1 << 64) - 1
"""The index that a configuration without voters has committed."""


class Vote(Enum):
    """How far an election is."""

    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


def majority_of(indexes: list[int]) -> int:
    """The highest index that more than half of `indexes` reach; `INFINITE` for none at all.

    One index per voter, 0 for a voter that has acknowledged nothing. Sorts the list in place.
    """
    count = len(indexes)
    if count == 1:
        return indexes[0]
    if not count:
        return INFINITE
    indexes.sort()
    return indexes[(count - 1) // 2]


def committed_index(voters: Iterable[int], acked: Mapping[int, int]) -> int:
    """The highest index acknowledged by a majority of `voters`."""
    return majority_of([acked.get(voter, 0) for voter in voters])


def joint_committed_index(incoming: Iterable[int], outgoing: Iterable[int], acked: Mapping[int, int]) -> int:
    """The highest index acknowledged by a majority of each half."""
    return min(committed_index(incoming, acked), committed_index(outgoing, acked))


def vote_result(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """What `votes` (member id → yes or no) decide among `voters`."""
    if not voters:
        return Vote.WON
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter))
    if granted >= needed:
        return Vote.WON
    missing = sum(1 for voter in voters if voter not in votes)
    return Vote.PENDING if granted + missing >= needed else Vote.LOST


def joint_vote_result(incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """What `votes` decide when both halves have to agree: one lost half loses the election."""
    first, second = vote_result(incoming, votes), vote_result(outgoing, votes)
    if first is second:
        return first
    return Vote.LOST if Vote.LOST in (first, second) else Vote.PENDING
