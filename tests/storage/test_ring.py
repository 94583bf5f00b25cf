"""A ring of values: what it gives is what was put there, however full it is and however alike the keys are."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.ring import LAST_POSITION, LEAST_BYTES, MOST_KEY_BYTES, NEIGHBOURS, Ring

ROOM = LEAST_BYTES * 16
KEYS = st.one_of(
    st.sampled_from([b"", b"a", b"aa", b"aaa", b"a" * 64, b"a" * 65, b"a" * MOST_KEY_BYTES, b"a" * 256]),
    st.integers(0, 200).map(lambda number: b"%d" % number),  # a few for each place
)
VALUES = st.one_of(st.binary(max_size=4), st.integers(0, 1100).map(lambda size: b"a" * size))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("discard"), KEYS, st.none()),
        st.tuples(st.just("forget"), st.none(), st.none()),
    ),
    max_size=300,
)


@given(STEPS, st.sampled_from([0, LEAST_BYTES, ROOM]), st.integers(0, 2000))
def test_what_is_found_is_what_was_put(steps, limit_bytes, left):
    ring = Ring(limit_bytes)
    ring._move(LAST_POSITION - left)  # so that positions are used up on the way
    put = {}
    for what, key, value in steps:
        if what == "put":
            ring.put(key, put.setdefault(key, value))  # of a key that is here, the value is the same
        elif what == "get":
            assert ring.get(key) in (None, put.get(key))
        elif what == "discard":
            ring.discard(key)
            put.pop(key, None)
            assert ring.get(key) is None
        else:
            ring.forget()
            put.clear()
        assert all(ring.get(key) in (None, value) for key, value in put.items())


def test_all_that_has_room_is_found():
    ring = Ring(ROOM)
    keys = [b"%d" % number for number in range(1000)]
    keys = list({group_of(key, ROOM): key for key in keys}.values())[:60]  # not more than four of one group
    assert len(keys) == 60
    for key in keys:
        ring.put(key, key * 10)
    assert [ring.get(key) for key in keys] == [key * 10 for key in keys]
    ring.discard(keys[7])
    assert [ring.get(key) for key in keys[6:9]] == [keys[6] * 10, None, keys[8] * 10]
    ring.forget()
    assert not any(map(ring.get, keys))


def group_of(key, ring_bytes):
    """Which four places a key has."""
    return hash(key) % (ring_bytes // 128) // len(NEIGHBOURS)


def test_the_oldest_make_room_and_what_is_asked_for_stays():
    ring = Ring(ROOM)
    asked_for = b"asked for"
    others = (b"%d" % number for number in range(3 * ROOM // 512))
    others = [key for key in others if group_of(key, ROOM) != group_of(asked_for, ROOM)]
    ring.put(asked_for, b"1")
    for key in others:
        ring.put(key, bytes(500))
        assert ring.get(key) == bytes(500) and ring.get(asked_for) == b"1"
    assert ring.get(others[0]) is None


def test_where_all_places_of_a_key_are_taken_the_oldest_gives_way():
    ring = Ring(LEAST_BYTES)
    of_one = [key for key in (b"%d" % number for number in range(3000)) if group_of(key, LEAST_BYTES) == 0][:5]
    for key in of_one:
        ring.put(key, b"")
    assert [ring.get(key) for key in of_one] == [None, b"", b"", b"", b""]


def test_what_is_large_is_not_kept():
    ring = Ring(ROOM)
    for key, value in ((b"a" * (MOST_KEY_BYTES + 1), b"1"), (b"value", bytes(ROOM // 64)), (b"both", bytes(ROOM))):
        ring.put(key, value)
        assert ring.get(key) is None


def test_once_all_positions_are_used_up_it_begins_anew():
    ring = Ring(ROOM)
    ring.put(b"before", b"1")
    ring._move(LAST_POSITION - 1)
    ring.put(b"last", b"2")
    assert ring.get(b"before") is None
    for key in (b"before", b"last", b"next"):
        ring.put(key, key)
    assert [ring.get(key) for key in (b"before", b"last", b"next")] == [b"before", b"last", b"next"]


def test_a_kernel_without_huge_pages_has_a_ring_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 9999, raising=False)  # which no kernel knows
    with pytest.raises(OSError):
        mmap.mmap(-1, LEAST_BYTES).madvise(9999)
    ring = Ring(ROOM)
    ring.put(b"a", b"1")
    assert ring.get(b"a") == b"1"
