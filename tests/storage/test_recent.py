"""Values kept in memory: always those of the engine, and never too many."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from storage.recent import OVERHEAD_BYTES, RecentValues
from storage.ring import Ring

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
VALUES = st.one_of(st.none(), st.integers(0, 3000).map(bytes))


class Source:
    """A dict that counts how often it is asked."""

    def __init__(self):
        self.values = {}
        self.asked = 0

    def read(self, key):
        self.asked += 1
        return self.values.get(key)

    def read_many(self, keys):
        return [self.read(key) for key in keys]


def recent_values(source, limit_bytes, ring_bytes=None):
    ring = Ring(ring_bytes) if ring_bytes is not None else None
    return RecentValues(source.read, source.read_many, limit_bytes, ring)


def held_bytes(recent):
    held = [*recent._leaving.items(), *recent._old.items(), *recent._young.items()]
    return sum(OVERHEAD_BYTES + len(key) + len(value or b"") for key, value in held)


@given(
    st.lists(st.one_of(KEYS, st.lists(KEYS), st.dictionaries(KEYS, VALUES, min_size=1))),
    st.sampled_from([0, 1000, 10_000, 100_000, 1 << 20]),
    st.sampled_from([None, 0, 100_000, 1 << 20]),
)
def test_what_is_read_is_what_was_written(steps, limit_bytes, ring_bytes):
    source = Source()
    recent = recent_values(source, limit_bytes, ring_bytes)
    for step in steps:
        if isinstance(step, dict):
            source.values.update(step)
            recent.written(step)
        elif isinstance(step, list):
            assert recent.get_many(step) == list(map(source.values.get, step))
        else:
            assert recent.get(step) == source.values.get(step)
        assert held_bytes(recent) <= limit_bytes


def test_what_was_read_or_missed_is_not_asked_for_again():
    source = Source()
    source.values[b"a"] = b"1"
    recent = recent_values(source, 1 << 20)
    assert [recent.get(key) for key in (b"a", b"b", b"a", b"b")] == [b"1", None, b"1", None]
    assert source.asked == 2
    recent.written({b"a": b"2", b"c": b"3"})
    assert [recent.get(key) for key in (b"a", b"c")] == [b"2", None]  # the source has no c: it was asked
    assert source.asked == 3


def test_new_values_do_not_push_out_what_is_read():
    source = Source()
    source.values[b"read"] = b"1"
    recent = recent_values(source, 1 << 20)
    recent.get(b"read")
    for number in range(10_000):
        key, value = b"%d" % number, bytes(1000)
        assert recent.get(key) is None  # as whoever inserts has to look
        source.values[key] = value
        recent.written({key: value})
    assert held_bytes(recent) < 1000
    source.asked = 0
    assert recent.get(b"read") == b"1" and source.asked == 0
    assert recent.get(b"7") == recent.get(b"7") == bytes(1000) and source.asked == 1


def test_of_many_those_that_are_not_known_are_asked_for_together():
    source = Source()
    source.values.update({b"a": b"1", b"b": b"2"})
    recent = recent_values(source, 1 << 20)
    asked = []
    recent._read_many = lambda keys: asked.append(list(keys)) or source.read_many(keys)
    assert recent.get_many([b"a", b"x"]) == [b"1", None]
    assert recent.get_many([b"x", b"b", b"a", b"b"]) == [None, b"2", b"1", b"2"]
    assert recent.get(b"b") == b"2"
    assert recent.get_many([b"a", b"b", b"x"]) == [b"1", b"2", None]
    assert asked == [[b"a", b"x"], [b"b", b"b"]]


def test_a_key_that_is_asked_for_twice_at_once_comes_back_from_the_old_generation_twice():
    source = Source()
    source.values.update({b"%d" % number: bytes(100) for number in range(1000)})
    recent = recent_values(source, 20_000)
    number = 0
    while b"0" not in recent._old:
        recent.get(b"%d" % number)
        number += 1
    assert recent.get_many([b"0", b"0"]) == [bytes(100)] * 2


def test_what_has_left_is_in_the_ring():
    source = Source()
    source.values.update({b"%d" % number: bytes(100) for number in range(1000)})
    recent = recent_values(source, 20_000, 1 << 20)
    for number in range(1000):
        recent.get(b"%d" % number)
    assert source.asked == 1000 and held_bytes(recent) <= 20_000
    assert recent.get_many([b"0", b"1", b"0"]) == [bytes(100)] * 3
    assert [recent.get(b"%d" % number) for number in range(1000)] == [bytes(100)] * 1000
    assert source.asked < 1200  # what is about to leave is nowhere else
    recent.written({b"500": b"new", b"501": None})
    source.values.update({b"500": b"new", b"501": None})
    assert recent.get(b"500") == recent.get_many([b"500"])[0] == b"new"
    assert recent.get(b"501") is recent.get_many([b"501"])[0] is None


def test_once_it_was_full_many_are_asked_for_in_the_ring():
    source = Source()
    source.values.update({b"%d" % number: bytes(100) for number in range(1000)})
    recent = recent_values(source, 20_000, 1 << 20)
    keys = list(source.values)
    for at in range(0, 1000, 10):
        recent.get_many(keys[at : at + 10])
    young = list(recent._young)
    for at in range(0, 1000, 10):
        assert recent.get_many(keys[at : at + 10] * 2) == [bytes(100)] * 20
    assert source.asked < 1200
    assert list(recent._young) == young  # to take each in would push out what is asked for one by one
    assert recent.get_many([b"none", b"0"]) == [None, bytes(100)]


def test_a_generation_leaves_bit_by_bit():
    source = Source()
    source.values.update({b"%03d" % number: bytes(100) for number in range(1000)})
    recent = recent_values(source, 20_000)
    left = []
    for number in range(1000):
        recent.get(b"%03d" % number)
        left.append(len(recent._leaving))
    assert max(left) > 10
    assert all(before - after <= 1 for before, after in pairwise(left))


def test_what_is_asked_for_again_outlives_what_is_not():
    source = Source()
    recent = recent_values(source, 20_000)
    source.values.update({b"%d" % number: bytes(100) for number in range(1000)})
    for number in range(1, 1000):
        recent.get(b"0")
        recent.get(b"%d" % number)
    assert source.asked == 1000
    recent.get(b"500")
    assert source.asked == 1001


def test_a_large_value_does_not_push_the_others_out():
    source = Source()
    source.values.update({b"small": b"1", b"large": bytes(10_000)})
    recent = recent_values(source, 100_000)
    for key in (b"small", b"large", b"small", b"large"):
        recent.get(key)
    assert source.asked == 3


def test_what_may_have_changed_is_forgotten():
    source = Source()
    recent = recent_values(source, 1 << 20)
    recent.get(b"a")
    source.values[b"a"] = b"1"
    recent.forget()
    assert recent.get(b"a") == b"1"
