"""The log that is kept: whole segments, the newest first, never less than the open one."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from server.retention import CatchUp, KeptLog


@dataclass
class Segment:
    first_index: int
    end: int


@dataclass
class Segments:
    segments: list = field(default_factory=list)


def kept(sizes, retain_bytes):
    log = Segments([Segment(10 * number + 1, size) for number, size in enumerate(sizes)])
    return KeptLog(log, retain_bytes).first_index()


def test_without_retention_the_rest_decides():
    assert kept([100, 100], 0) is None


def test_a_log_that_fits_is_kept_whole():
    assert kept([100, 100, 50], 250) == 1


def test_the_oldest_segments_go_first():
    assert kept([100, 100, 50], 249) == 11


def test_the_open_segment_always_stays():
    assert kept([100, 1000], 10) == 11


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(1, 300))
def test_what_is_kept_fits_or_is_one_segment(sizes, retain_bytes):
    first = kept(sizes, retain_bytes)
    kept_sizes = sizes[(first - 1) // 10 :]
    assert sum(kept_sizes) <= retain_bytes or len(kept_sizes) == 1
    one_more = sizes[(first - 1) // 10 - 1 :] if first > 1 else None
    assert one_more is None or sum(one_more) > retain_bytes


def catch_up(sizes, size, slowest):
    log = Segments([Segment(10 * number + 1, size) for number, size in enumerate(sizes)])
    return CatchUp(KeptLog(log, 0), size, lambda: slowest).first_index()


def test_what_a_member_lags_behind_is_kept():
    assert catch_up([100, 100, 100], 1000, 7) == 8
    assert catch_up([100, 100, 100], 1000, None) is None


def test_a_member_that_lags_too_far_does_not_hold_the_log():
    assert catch_up([100, 100, 100], 200, 7) == 11
    assert catch_up([100, 100, 100], 200, 15) == 16
    assert catch_up([100, 100, 100], 10, 0) == 21
