"""Gaps: whatever is remembered of them, nothing that is there is passed over."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import gaps as gaps_module
from storage.gaps import Gaps

PREFIX = b"i0001"
KEYS = st.text("abc", min_size=1, max_size=3).map(lambda tail: PREFIX + tail.encode())
STEPS = st.lists(st.one_of(st.tuples(st.just("put"), KEYS), st.tuples(st.just("look"), KEYS, KEYS)), max_size=60)


def inside(pieces: list[tuple[bytes, bytes]], key: bytes) -> bool:
    return any(low <= key < high for low, high in pieces)


@given(most=st.sampled_from([2, 256]), steps=STEPS, bounds=st.tuples(KEYS, KEYS))
def test_pieces_hold_all_that_is_there(most: int, steps: list[tuple[bytes, ...]], bounds: tuple[bytes, bytes]) -> None:
    gaps, there = Gaps(), list[bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps_module, "MOST_GAPS", most)
        for name, *keys in steps:
            if name == "put":
                gaps.written({keys[0]: b"x", PREFIX: None})
                if keys[0] not in there:
                    there.insert(bisect_left(there, keys[0]), keys[0])
                continue
            low, high = sorted(keys)
            found = [key for key in there if low <= key < high]
            for start, end in zip([low, *(key + b"\0" for key in found)], [*found, high], strict=True):
                gaps.add(start, end)
    low, high = sorted(bounds)
    pieces = [*gaps.pieces(low, high)]
    assert [*gaps.pieces(low, high, reverse=True)] == pieces[::-1]
    assert [key for key in there if low <= key < high] == [key for key in there if inside(pieces, key)]
    assert pieces == sorted(pieces)
    assert all(low <= start < end <= high for start, end in pieces)
    assert len(pieces) <= most + 1


def test_what_was_found_empty_is_passed_over_until_something_comes() -> None:
    gaps = Gaps()
    gaps.add(PREFIX + b"b", PREFIX + b"f")
    gaps.add(PREFIX + b"f", PREFIX + b"h")
    assert [*gaps.pieces(PREFIX + b"a", PREFIX + b"z")] == [
        (PREFIX + b"a", PREFIX + b"b"),
        (PREFIX + b"h", PREFIX + b"z"),
    ]
    assert [*gaps.pieces(PREFIX + b"c", PREFIX + b"d")] == []
    gaps.written({PREFIX + b"c": None, PREFIX + b"e": b"x"})
    assert [*gaps.pieces(PREFIX + b"c", PREFIX + b"g")] == [(PREFIX + b"e", PREFIX + b"e\0")]
    gaps.forget()
    assert [*gaps.pieces(PREFIX + b"c", PREFIX + b"g")] == [(PREFIX + b"c", PREFIX + b"g")]


def test_nothing_is_remembered_of_what_is_more_than_a_table() -> None:
    gaps = Gaps()
    gaps.add(b"c", b"d")
    gaps.add(b"r", b"s")
    gaps.add(b"r0001a", b"r0003")
    gaps.add(b"r0001b", b"r0001a")
    assert not gaps.knows(b"c")
    assert not gaps.knows(b"r0001x")
    gaps.add(b"r0001a", b"r0002")
    assert gaps.knows(b"r0001x")


class Unreadable:
    """A cursor on a disk that takes its time and fails."""

    def valid(self) -> bool:
        return False

    def seek(self, key: bytes) -> None:
        """Finds nothing."""

    seek_for_prev = seek

    def next(self) -> None:
        raise AssertionError("nobody goes on from nowhere")

    prev = next

    def key(self) -> bytes:
        raise AssertionError("it is nowhere")

    def status(self) -> None:
        raise OSError("Input/output error")


@pytest.mark.parametrize("reverse", [False, True])
def test_what_cannot_be_read_is_not_empty(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "SLOW_STEP_S", -1.0)
    gaps = Gaps()
    with pytest.raises(OSError, match="Input"):
        gaps.find(Unreadable(), PREFIX + b"a", PREFIX + b"z", 9, reverse)
    assert not gaps


def test_inserts_all_over_a_gap_do_not_make_ever_more_of_it() -> None:
    gaps = Gaps()
    gaps.add(PREFIX, b"i0002")
    for at in range(1000):
        gaps.written({PREFIX + b"%04d" % (at * 617 % 1000): b"x"})
    assert len([*gaps.pieces(PREFIX, b"i0002")]) <= gaps_module.MOST_GAPS + 1
