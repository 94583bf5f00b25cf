"""How a membership becomes another one: by one voter at a time, or through a joint configuration.

Pure: takes a tracker, gives a new membership and new progress, and touches neither. The rule: two
memberships that follow each other share a majority, so no two leaders can be elected side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from consensus.messages import Change, ChangeKind, ConfChange, ConfState
from consensus.tracker import Membership, Progress, Tracker
from model.errors import RewindError


class BadConfChange(RewindError):
    """The change does not fit the configuration it is applied to."""


Changed = tuple[Membership, dict[int, Progress]]


@dataclass(slots=True)
class _Draft:
    """A membership while it is changed."""

    tracker: Tracker
    last_index: int
    voters: set[int]
    outgoing: set[int]
    learners: set[int]
    learners_next: set[int]
    progress: dict[int, Progress]

    @classmethod
    def of(cls, tracker: Tracker, last_index: int) -> _Draft:
        """A draft to change; raises `BadConfChange` if the tracker does not hold together."""
        membership = tracker.membership
        _check(membership, tracker.progress)
        return cls(
            tracker,
            last_index,
            set(membership.voters),
            set(membership.outgoing),
            set(membership.learners),
            set(membership.learners_next),
            {member: progress.copy() for member, progress in tracker.progress.items()},
        )

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes one after the other."""
        for change in changes:
            if not change.member_id:
                continue
            if change.kind is ChangeKind.ADD_VOTER:
                self._add_voter(change.member_id)
            elif change.kind is ChangeKind.ADD_LEARNER:
                self._add_learner(change.member_id)
            elif change.kind is ChangeKind.REMOVE:
                self._remove(change.member_id)
        if not self.voters:
            raise BadConfChange("removed all voters")

    def _add_voter(self, member: int) -> None:
        self.voters.add(member)
        progress = self.progress.get(member)
        if progress is None:
            self._track(member, is_learner=False)
            return
        progress.is_learner = False
        self.learners.discard(member)
        self.learners_next.discard(member)

    def _add_learner(self, member: int) -> None:
        progress = self.progress.get(member)
        if progress is None:
            self.learners.add(member)
            self._track(member, is_learner=True)
            return
        if progress.is_learner:
            return
        self._remove(member)
        self.progress[member] = progress
        if member in self.outgoing:
            self.learners_next.add(member)
        else:
            progress.is_learner = True
            self.learners.add(member)

    def _remove(self, member: int) -> None:
        if member not in self.progress:
            return
        self.voters.discard(member)
        self.learners.discard(member)
        self.learners_next.discard(member)
        if member not in self.outgoing:
            del self.progress[member]

    def _track(self, member: int, is_learner: bool) -> None:
        progress = Progress(max(self.last_index, 1), self.tracker.new_inflights(), is_learner=is_learner)
        progress.recent_active = True  # or the next check of the quorum counts a member that could not answer yet
        self.progress[member] = progress

    def finish(self, auto_leave: bool = False) -> Changed:
        """The changed membership, checked."""
        membership = Membership(
            frozenset(self.voters),
            frozenset(self.outgoing),
            frozenset(self.learners),
            frozenset(self.learners_next),
            auto_leave,
        )
        progress = dict(sorted(self.progress.items()))
        _check(membership, progress)
        return membership, progress


def simple(tracker: Tracker, last_index: int, changes: Iterable[Change]) -> Changed:
    """Change at most one voter, and learners freely. Raises `BadConfChange`."""
    draft = _Draft.of(tracker, last_index)
    if tracker.membership.is_joint:
        raise BadConfChange("can't apply simple config change in joint config")
    draft.apply(changes)
    if len(draft.voters ^ tracker.membership.voters) > 1:
        raise BadConfChange("more than one voter changed without entering joint config")
    return draft.finish()


def enter_joint(tracker: Tracker, last_index: int, changes: Iterable[Change], auto_leave: bool) -> Changed:
    """Change any number of members; until `leave_joint`, both the old and the new voters decide."""
    draft = _Draft.of(tracker, last_index)
    if tracker.membership.is_joint:
        raise BadConfChange("config is already joint")
    if not draft.voters:
        raise BadConfChange("can't make a zero-voter config joint")
    draft.outgoing = set(draft.voters)
    draft.apply(changes)
    return draft.finish(auto_leave)


def leave_joint(tracker: Tracker, last_index: int) -> Changed:
    """Leave the old voters of a joint configuration behind. Raises `BadConfChange`."""
    draft = _Draft.of(tracker, last_index)
    if not tracker.membership.is_joint:
        raise BadConfChange("can't leave a non-joint config")
    for member in draft.learners_next:
        draft.learners.add(member)
        draft.progress[member].is_learner = True
    draft.learners_next = set()
    for member in draft.outgoing - draft.voters - draft.learners:
        del draft.progress[member]
    draft.outgoing = set()
    return draft.finish()


def changed(tracker: Tracker, last_index: int, change: ConfChange) -> Changed:
    """Make the step that a committed entry asks for. Raises `BadConfChange`."""
    if change.leaves_joint:
        return leave_joint(tracker, last_index)
    if change.enters_joint:
        return enter_joint(tracker, last_index, change.changes, change.auto_leave)
    return simple(tracker, last_index, change.changes)


def state_after(state: ConfState, changes: Iterable[ConfChange]) -> ConfState:
    """The configuration that `state` becomes by committed changes. Raises `BadConfChange`."""
    tracker = Tracker(max_inflight=1)
    tracker = tracker.switched(*restore(tracker, 0, state))
    for change in changes:
        tracker = tracker.switched(*changed(tracker, 0, change))
    return tracker.membership.conf_state()


def restore(tracker: Tracker, last_index: int, state: ConfState) -> Changed:
    """The membership of a snapshot, built from an empty tracker by the changes that lead to it."""
    incoming = [Change(ChangeKind.REMOVE, member) for member in state.voters_outgoing]
    incoming += [Change(ChangeKind.ADD_VOTER, member) for member in state.voters]
    incoming += [Change(ChangeKind.ADD_LEARNER, member) for member in state.learners]
    incoming += [Change(ChangeKind.ADD_LEARNER, member) for member in state.learners_next]
    if not state.voters_outgoing:
        return _one_by_one(tracker, last_index, incoming)
    outgoing = [Change(ChangeKind.ADD_VOTER, member) for member in state.voters_outgoing]
    before = tracker.switched(*_one_by_one(tracker, last_index, outgoing))
    return enter_joint(before, last_index, incoming, state.auto_leave)


def _one_by_one(tracker: Tracker, last_index: int, changes: Iterable[Change]) -> Changed:
    for change in changes:
        tracker = tracker.switched(*simple(tracker, last_index, [change]))
    return tracker.membership, tracker.progress


def _check(membership: Membership, progress: dict[int, Progress]) -> None:
    """Raise `BadConfChange` where a membership contradicts itself."""
    for member in sorted(membership.all_voters | membership.learners | membership.learners_next):
        if member not in progress:
            raise BadConfChange(f"no progress for {member}")
    for member in sorted(membership.learners_next):
        if member not in membership.outgoing:
            raise BadConfChange(f"{member} is in LearnersNext, but not Voters[1]")
        if progress[member].is_learner:
            raise BadConfChange(f"{member} is in LearnersNext, but is already marked as learner")
    for member in sorted(membership.learners):
        if member in membership.all_voters:
            raise BadConfChange(f"{member} is in Learners and among the voters")
        if not progress[member].is_learner:
            raise BadConfChange(f"{member} is in Learners, but is not marked as learner")
    if not membership.is_joint and (membership.learners_next or membership.auto_leave):
        raise BadConfChange("only a joint config has next learners and leaves by itself")
