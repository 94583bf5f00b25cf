"""Values kept in memory: always those of the engine, and never too many."""

import random
from itertools import pairwise

import pytest

from storage.recent import OVERHEAD_BYTES, RecentValues
from storage.ring import Ring


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


@pytest.mark.parametrize("ring_bytes", [None, 16_000, 1 << 20])
@pytest.mark.parametrize("limit_bytes", [0, 1000, 20_000, 40_000, 1 << 20])  # some are full again and again
@pytest.mark.parametrize("seed", range(5))
def test_what_is_read_is_what_was_written(seed, limit_bytes, ring_bytes):
    dice = random.Random(seed)
    source = Source()
    ring = Ring(ring_bytes) if ring_bytes is not None else None
    recent = RecentValues(source.read, source.read_many, limit_bytes, ring)
    for step in range(400):
        first, count = dice.randrange(150), dice.choice((1, 5, 40, 150))
        keys = [b"%03d" % (key % 150) for key in range(first, first + count)]
        kind = dice.choice(("get", "get many", "get", "get many", "write", "write", "delete"))
        if kind == "get":
            assert list(map(recent.get, keys)) == list(map(source.values.get, keys))
        elif kind == "get many":
            assert recent.get_many(keys) == list(map(source.values.get, keys))
        else:
            rows = dict.fromkeys(keys, b"%d" % step + bytes(dice.randrange(100)) if kind == "write" else None)
            source.values.update(rows)
            recent.written(rows)
        if dice.random() < 0.01:
            if ring is not None:
                ring.forget()
            recent.forget()
        assert held_bytes(recent) <= limit_bytes * 3 // 2  # what leaves has not left yet


def test_a_write_that_fills_it_leaves_nothing_of_before_behind():
    source = Source()
    keys = [b"%03d" % number for number in range(150)]
    source.values.update(dict.fromkeys(keys, b"old"))
    recent = recent_values(source, 20_000, 1 << 20)
    for key in keys[:90]:
        recent.get(key)
    rows = dict.fromkeys(keys[::-1], b"new" * 30)
    source.values.update(rows)
    recent.written(rows)
    for _ in range(2):
        assert [recent.get(key) for key in keys] == recent.get_many(keys) == list(rows.values())


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
