"""What a leader knows of its members: the window of messages under way, and when it sends what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.quorum import Vote
from consensus.tracker import Flow, Inflights, Membership, Progress, Tracker


@given(st.integers(1, 5), st.integers(0, 60), st.lists(st.integers(-3, 30), max_size=40))
def test_the_window_counts_what_was_sent_and_not_freed(most: int, most_bytes: int, steps: list[int]) -> None:
    """Positive: a message of that size is sent; else: everything up to some sent index is freed."""
    window, sent, index = Inflights(most, most_bytes), list[tuple[int, int]](), 0
    for step in steps:
        if step > 0 and not window.is_full:
            index += 1
            window.add(index, step)
            sent.append((index, step))
        elif step <= 0:
            window.free_to(index + step)
            sent = [each for each in sent if each[0] > index + step]
        assert len(window) == len(sent)
        assert window.bytes == sum(size for _, size in sent)
        assert window.is_full == (len(sent) >= most or (most_bytes > 0 and window.bytes >= most_bytes))


def test_a_full_window_takes_no_more() -> None:
    window = Inflights(1)
    window.add(1, 10)
    with pytest.raises(OverflowError):
        window.add(2, 10)


def progress(match: int = 3, following: int = 5, flow: Flow = Flow.PROBE) -> Progress:
    found = Progress(following, Inflights(2), match)
    found.flow = flow
    return found


def test_a_probe_goes_alone() -> None:
    probing = progress()
    assert not probing.is_paused
    probing.sent_entries(2, 10)
    assert probing.is_paused
    assert probing.next == 5


def test_streamed_entries_are_taken_for_sent_until_the_window_is_full() -> None:
    streaming = progress(flow=Flow.REPLICATE)
    streaming.sent_entries(2, 10)
    assert (streaming.next, streaming.is_paused) == (7, False)
    streaming.sent_entries(1, 10)
    assert (streaming.next, streaming.is_paused) == (8, True)


def test_a_snapshot_pauses_until_it_is_through() -> None:
    waiting = progress()
    waiting.become_snapshot(9)
    assert waiting.is_paused
    waiting.become_probe()
    assert (waiting.next, waiting.is_paused) == (10, False)


@pytest.mark.parametrize(("index", "news", "match", "following"), [(2, False, 3, 5), (4, True, 4, 5), (7, True, 7, 8)])
def test_an_acknowledgement_moves_match_and_never_back(index: int, news: bool, match: int, following: int) -> None:
    acked = progress()
    assert acked.try_update(index) is news
    assert (acked.match, acked.next) == (match, following)


@pytest.mark.parametrize(
    ("flow", "rejected", "hint", "news", "following"),
    [
        (Flow.PROBE, 4, 3, True, 4),
        (Flow.PROBE, 4, 0, True, 4),
        (Flow.PROBE, 9, 3, False, 5),
        (Flow.REPLICATE, 4, 4, True, 4),
        (Flow.REPLICATE, 3, 3, False, 5),
    ],
)
def test_a_refusal_moves_next_but_not_below_match(
    flow: Flow, rejected: int, hint: int, news: bool, following: int
) -> None:
    refused = progress(flow=flow)
    assert refused.try_decrease(rejected, hint) is news
    assert refused.next == following


def test_the_commit_index_is_told_once() -> None:
    told = progress(match=4, following=8, flow=Flow.REPLICATE)
    assert told.can_bump_commit(5)
    told.sent_commit = 7
    assert not told.can_bump_commit(9)


def group(voters: set[int], outgoing: set[int] = frozenset()) -> Tracker:  # type: ignore[assignment]
    found = Tracker(2, membership=Membership(frozenset(voters), frozenset(outgoing)))
    found.progress = {member: Progress(1, found.new_inflights(), match=member) for member in sorted(voters | outgoing)}
    return found


def test_both_halves_of_a_joint_configuration_commit_and_lease() -> None:
    tracker = group({1, 2, 3}, {3, 4, 5})
    assert tracker.committed() == 2
    for member, each in tracker.progress.items():
        each.acked_stamp = 10 * member
    assert tracker.quorum_stamp() == 20


def test_both_halves_vote() -> None:
    tracker = group({1, 2}, {3, 4})
    assert [tracker.record_vote(member, True) for member in (1, 2, 3, 4)] == [Vote.PENDING] * 3 + [Vote.WON]


def test_a_second_vote_of_a_member_does_not_count() -> None:
    tracker = group({1, 2, 3})
    tracker.record_vote(1, False)
    assert tracker.record_vote(1, True) is Vote.PENDING
    assert tracker.record_vote(2, False) is Vote.LOST


def test_a_quorum_is_active_when_both_halves_were_heard() -> None:
    tracker = group({1, 2, 3}, {3, 4, 5})
    for member in (1, 2, 4):
        tracker.progress[member].recent_active = True
    assert not tracker.is_quorum_active()
    tracker.progress[5].recent_active = True
    assert tracker.is_quorum_active()
