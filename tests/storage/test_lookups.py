"""Lookups kept in memory: always what a scan would give, and one scan for many."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from model.keys import after_prefix
from storage.lookups import MOST_LENGTHS, RecentLookups, is_lookup
from storage.ring import Ring

INDEXES = st.sampled_from([b"i0001", b"i0002"])
TEXTS = st.text("ab", max_size=3).map(lambda text: text.encode() + b"\0")
ENTRIES = st.builds(lambda index, text, row: index + text + row, INDEXES, TEXTS, st.sampled_from([b"x", b"y", b"z"]))
UNDER = st.one_of(INDEXES, st.builds(bytes.__add__, INDEXES, TEXTS))


class Entries:
    """A sorted list of entries that counts its scans."""

    def __init__(self):
        self.values = {}
        self.scans = 0

    def scan(self, low, high, limit):
        self.scans += 1
        keys = sorted(self.values)
        keys = keys[bisect_left(keys, low) : bisect_left(keys, high)][:limit]
        return [self.values[key] for key in keys], keys[-1] if len(keys) == limit else b""


def recent_lookups(entries, ring_bytes=1 << 20):
    return RecentLookups(entries.scan, Ring(ring_bytes))


@given(
    st.lists(
        st.one_of(
            st.tuples(UNDER, st.integers(1, 5)),
            st.dictionaries(ENTRIES, st.one_of(st.none(), st.just(b"row")), min_size=1),
        )
    ),
    st.sampled_from([0, 8192, 1 << 20]),
)
def test_what_is_looked_up_is_what_a_scan_gives(steps, ring_bytes):
    entries = Entries()
    lookups = recent_lookups(entries, ring_bytes)
    for step in steps:
        if isinstance(step, dict):
            for key, value in step.items():
                if value is None:
                    entries.values.pop(key, None)
                else:
                    entries.values[key] = value
            lookups.written(step)
        else:
            low, limit = step
            assert is_lookup(low, after_prefix(low))
            assert lookups.values(low, after_prefix(low), limit) == entries.scan(low, after_prefix(low), limit)


def looked_up(lookups, low, limit=9):
    return lookups.values(low, after_prefix(low), limit)


def test_what_was_looked_up_is_not_scanned_again_before_it_changes():
    entries = Entries()
    entries.values = {b"i0001a\0x": b"x", b"i0001a\0y": b"y", b"i0001b\0x": b"x"}
    lookups = recent_lookups(entries)
    for _ in range(3):
        assert looked_up(lookups, b"i0001a\0") == ([b"x", b"y"], b"")
        assert looked_up(lookups, b"i0001c\0") == ([], b"")
    assert entries.scans == 2
    entries.values[b"i0001c\0z"] = b"z"
    lookups.written([b"i0001c\0z", b"r0001z"])
    assert looked_up(lookups, b"i0001c\0") == ([b"z"], b"")
    assert looked_up(lookups, b"i0001a\0") == ([b"x", b"y"], b"")
    assert entries.scans == 3


def test_a_lookup_that_did_not_come_to_its_end_is_not_kept():
    entries = Entries()
    entries.values = {b"i0001a\0%d" % row: b"%d" % row for row in range(5)}
    lookups = recent_lookups(entries)
    assert looked_up(lookups, b"i0001a\0", 2) == ([b"0", b"1"], b"i0001a\x001")
    assert looked_up(lookups, b"i0001a\0", 9)[0] == [b"0", b"1", b"2", b"3", b"4"]
    assert looked_up(lookups, b"i0001a\0", 5) == ([b"0", b"1", b"2", b"3", b"4"], b"i0001a\x004")
    assert entries.scans == 3


def test_keys_of_many_lengths_are_not_kept():
    entries = Entries()
    lookups = recent_lookups(entries)
    for length in range(1, MOST_LENGTHS + 3):
        looked_up(lookups, b"i0001" + b"a" * length)
    entries.scans = 0
    for length in range(1, MOST_LENGTHS + 3):
        looked_up(lookups, b"i0001" + b"a" * length)
    assert entries.scans == 2
    assert looked_up(lookups, b"i0002" + b"a" * 100) == looked_up(lookups, b"i0002" + b"a" * 100)
    assert entries.scans == 3


def test_only_all_that_begins_alike_in_an_index_is_a_lookup():
    assert is_lookup(b"i0001a\0", b"i0001a\1")
    assert not is_lookup(b"r0001a\0", b"r0001a\1")
    assert not is_lookup(b"i0001a\0", b"i0001b\0")
    assert not is_lookup(b"i0001a\0", b"i0001a\2")
    assert not is_lookup(b"i0001a\0", b"i0001a\0\0")
    assert not is_lookup(b"i0001a\xff", b"i0001b")
    assert not is_lookup(b"i000", b"i001")


def test_what_may_have_changed_is_forgotten():
    entries = Entries()
    ring = Ring(1 << 20)
    lookups = RecentLookups(entries.scan, ring)
    looked_up(lookups, b"i0001a\0")
    entries.values[b"i0001a\0x"] = b"x"
    ring.forget()
    lookups.forget()
    assert looked_up(lookups, b"i0001a\0") == ([b"x"], b"")
