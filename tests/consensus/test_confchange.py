"""Laws of membership changes: whatever was asked for, what comes out holds together and shares a majority."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.confchange import BadConfChange, Changed, enter_joint, leave_joint, restore, simple
from consensus.messages import Change, ChangeKind
from consensus.tracker import Membership, Tracker

CHANGE = st.builds(Change, st.sampled_from(ChangeKind), st.integers(0, 6))
STEP = st.tuples(st.sampled_from(["simple", "enter", "leave"]), st.lists(CHANGE, max_size=4), st.booleans())


def change(tracker: Tracker, step: tuple[str, list[Change], bool]) -> Changed:
    name, changes, auto_leave = step
    if name == "simple":
        return simple(tracker, 10, changes)
    if name == "enter":
        return enter_joint(tracker, 10, changes, auto_leave)
    return leave_joint(tracker, 10)


def quorums(membership: Membership) -> list[frozenset[int]]:
    """Every smallest set of members that decides."""

    def majorities(voters: frozenset[int]) -> list[frozenset[int]]:
        return (
            [frozenset(each) for each in combinations(sorted(voters), len(voters) // 2 + 1)]
            if voters
            else [frozenset()]
        )

    return [first | second for first in majorities(membership.voters) for second in majorities(membership.outgoing)]


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=8))
def test_memberships_that_follow_each_other_share_a_majority(steps: list[tuple[str, list[Change], bool]]) -> None:
    tracker = Tracker(10)
    tracker = tracker.switched(*simple(tracker, 1, [Change(ChangeKind.ADD_VOTER, 1)]))
    for step in steps:
        with suppress(BadConfChange):
            before = tracker.membership
            tracker = tracker.switched(*change(tracker, step))
            after = tracker.membership
            assert all(one & other for one in quorums(before) for other in quorums(after))
            assert after.voters
            assert not after.all_voters & after.learners
            assert set(tracker.progress) == after.all_voters | after.learners
            assert list(tracker.progress) == sorted(tracker.progress)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=8))
def test_a_configuration_survives_a_snapshot(steps: list[tuple[str, list[Change], bool]]) -> None:
    tracker = Tracker(10)
    tracker = tracker.switched(*simple(tracker, 1, [Change(ChangeKind.ADD_VOTER, 1)]))
    for step in steps:
        with suppress(BadConfChange):
            tracker = tracker.switched(*change(tracker, step))
    membership, progress = restore(Tracker(10), 10, tracker.membership.conf_state())
    assert membership == tracker.membership
    assert {member: each.is_learner for member, each in progress.items()} == {
        member: each.is_learner for member, each in tracker.progress.items()
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(CHANGE, max_size=5))
def test_a_joint_change_comes_to_what_its_changes_say(changes: list[Change]) -> None:
    """Entered and left, it ends with the same voters as the changes made one by one in a plain set."""
    tracker = Tracker(10)
    for member in (1, 2, 3):
        tracker = tracker.switched(*simple(tracker, 1, [Change(ChangeKind.ADD_VOTER, member)]))
    voters, learners = {1, 2, 3}, set[int]()
    for each in changes:
        if each.member_id and each.kind is not ChangeKind.UPDATE:
            voters.discard(each.member_id)
            learners.discard(each.member_id)
            if each.kind is ChangeKind.ADD_VOTER:
                voters.add(each.member_id)
            elif each.kind is ChangeKind.ADD_LEARNER:
                learners.add(each.member_id)
    with suppress(BadConfChange):
        joint = tracker.switched(*enter_joint(tracker, 10, changes, True))
        membership, _ = leave_joint(joint, 10)
        assert (set(membership.voters), set(membership.learners)) == (voters, learners)


def test_a_change_touches_neither_the_tracker_nor_its_progress() -> None:
    tracker = Tracker(10)
    tracker = tracker.switched(*simple(tracker, 1, [Change(ChangeKind.ADD_VOTER, 1)]))
    membership, progress = tracker.membership, dict(tracker.progress)
    enter_joint(tracker, 10, [Change(ChangeKind.ADD_LEARNER, 1), Change(ChangeKind.ADD_VOTER, 2)], True)
    assert (tracker.membership, tracker.progress) == (membership, progress)
    assert not tracker.progress[1].is_learner
