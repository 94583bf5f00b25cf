"""The pace of catching up: bursts and pauses, larger bursts where the log grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.pacing import BURST_BYTES, LOOK_S, MOST, PERIOD_S, Pace

MESSAGE = 1 << 20


def catch_up(behind: int, growth_per_s: float, until_s: float, entry_bytes: int = 256 << 10) -> tuple[float, int]:
    """Brings a member up that has nothing of a log of so many entries; (seconds, entries still missing)."""
    pace, now, index = Pace(), 100.0, 0
    while now < 100.0 + until_s:
        commit = behind + int(growth_per_s * (now - 100.0))
        if index >= commit:
            return now - 100.0, 0
        wait = pace.wait_s(now)
        if wait:
            now += wait
            continue
        count = max(1, MESSAGE // entry_bytes)
        index += count
        pace.reached(index, commit, now)
        pace.sent(count * entry_bytes, now)
        now += 0.0005  # a link of 2 GB/s
    return until_s, behind + int(growth_per_s * until_s) - index


def test_a_gigabyte_takes_less_than_a_minute_and_a_half() -> None:
    took, missing = catch_up(4 << 10, 0.0, 100.0)
    assert not missing
    assert 78 < took < 85


@given(st.floats(0, 3000), st.sampled_from([1 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20]))
def test_a_member_comes_up_whatever_is_written_meanwhile(growth_mb_s: float, entry_bytes: int) -> None:
    """As far as the link carries more than what is written: with 2 GB/s, up to half of it."""
    growth_mb_s = min(growth_mb_s, 900.0)
    _, missing = catch_up((256 << 20) // entry_bytes, growth_mb_s * (1 << 20) / entry_bytes, 60.0, entry_bytes)
    assert not missing


def sends(pace: Pace, now: float, size: int = MESSAGE) -> int:
    """How many messages go at this moment."""
    count = 0
    while not pace.wait_s(now):
        pace.sent(size, now)
        count += 1
    return count


def test_a_burst_and_then_a_pause() -> None:
    pace = Pace()
    assert sends(pace, 10.0) == BURST_BYTES // MESSAGE
    assert pace.wait_s(10.1) == 10.0 + PERIOD_S - 10.1
    assert sends(pace, 10.0 + PERIOD_S) == BURST_BYTES // MESSAGE


def test_what_is_larger_than_a_burst_goes_whole() -> None:
    pace = Pace()
    assert sends(pace, 10.0, 3 * BURST_BYTES) == 1
    assert pace.wait_s(10.0) == pytest.approx(PERIOD_S)


def test_bursts_become_larger_while_the_log_grows_as_fast_and_smaller_after_that() -> None:
    pace, now, index, commit = Pace(), 10.0, 0, 1000

    def seconds(count: int, came: int, grew: int) -> None:
        nonlocal now, index, commit
        for _ in range(count):
            pace.reached(index, commit, now)
            now, index, commit = now + LOOK_S, index + came, commit + grew

    seconds(4, 100, 100)
    assert pace.times == 8
    assert sends(pace, now) == 8 * BURST_BYTES // MESSAGE
    seconds(20, 100, 60)
    assert pace.times == MOST
    seconds(3, 100, 40)
    assert pace.times == MOST
    seconds(8, 100, 10)
    assert pace.times == 1


def test_a_pause_of_catching_up_says_nothing_of_its_speed() -> None:
    pace = Pace()
    pace.reached(10, 1000, 10.0)
    pace.reached(11, 9000, 70.0)
    assert pace.times == 1
    pace.reached(2, 9000, 71.0)
    assert pace.times == 1
