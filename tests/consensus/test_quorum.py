"""Quorums against the definition, spelled out slowly."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from consensus.quorum import (
    INFINITE,
    Vote,
    committed_index,
    joint_committed_index,
    joint_vote_result,
    majority_of,
    vote_result,
)

MEMBERS = st.integers(1, 9)
VOTERS = st.frozensets(MEMBERS, max_size=7)
ACKED = st.dictionaries(MEMBERS, st.integers(0, 20))
VOTES = st.dictionaries(MEMBERS, st.booleans())


def naive_committed(voters: frozenset[int], acked: dict[int, int]) -> int:
    """The highest index that some majority has whole, looking at every majority."""
    if not voters:
        return INFINITE
    majorities = combinations(sorted(voters), len(voters) // 2 + 1)
    return max(min(acked.get(member, 0) for member in majority) for majority in majorities)


def naive_vote(voters: frozenset[int], votes: dict[int, bool]) -> Vote:
    """Won if every way to fill in the missing votes wins, lost if none does."""
    missing = [voter for voter in voters if voter not in votes]

    def wins(extra: int) -> bool:
        granted = sum(votes.get(voter, False) for voter in voters) + extra
        return not voters or granted * 2 > len(voters)

    outcomes = {wins(extra) for extra in range(len(missing) + 1)}
    return Vote.WON if outcomes == {True} else Vote.LOST if outcomes == {False} else Vote.PENDING


@given(VOTERS, ACKED)
def test_committed_index(voters: frozenset[int], acked: dict[int, int]) -> None:
    assert committed_index(voters, acked) == naive_committed(voters, acked)


@given(VOTERS, VOTERS, ACKED)
def test_joint_committed_index_needs_both_halves(
    first: frozenset[int], second: frozenset[int], acked: dict[int, int]
) -> None:
    expected = min(naive_committed(first, acked), naive_committed(second, acked))
    assert joint_committed_index(first, second, acked) == expected


@given(VOTERS, VOTES)
def test_vote_result(voters: frozenset[int], votes: dict[int, bool]) -> None:
    assert vote_result(voters, votes) is naive_vote(voters, votes)


@given(VOTERS, VOTERS, VOTES)
def test_joint_vote_result_needs_both_halves(
    first: frozenset[int], second: frozenset[int], votes: dict[int, bool]
) -> None:
    halves = {naive_vote(first, votes), naive_vote(second, votes)}
    expected = Vote.LOST if Vote.LOST in halves else Vote.PENDING if Vote.PENDING in halves else Vote.WON
    assert joint_vote_result(first, second, votes) is expected


@given(st.lists(st.integers(0, 20), min_size=1))
def test_more_than_half_reach_the_majority_index(indexes: list[int]) -> None:
    index = majority_of(list(indexes))
    assert sum(each >= index for each in indexes) * 2 > len(indexes)
    assert sum(each > index for each in indexes) * 2 <= len(indexes)


@given(VOTERS, ACKED)
def test_a_configuration_joined_with_itself_or_with_none_is_itself(
    voters: frozenset[int], acked: dict[int, int]
) -> None:
    assert joint_committed_index(voters, voters, acked) == committed_index(voters, acked)
    assert joint_committed_index(voters, frozenset(), acked) == committed_index(voters, acked)
