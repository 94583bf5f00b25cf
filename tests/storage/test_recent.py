"""Values kept in memory: always those of the engine, and never too many."""

from hypothesis import given
from hypothesis import strategies as st

from storage.recent import OVERHEAD_BYTES, RecentValues

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


def held_bytes(recent):
    held = {**recent._old, **recent._young}
    return sum(OVERHEAD_BYTES + len(key) + len(value or b"") for key, value in held.items())


@given(
    st.lists(st.one_of(KEYS, st.dictionaries(KEYS, VALUES, min_size=1))), st.sampled_from([0, 1000, 10_000, 1 << 20])
)
def test_what_is_read_is_what_was_written(steps, limit_bytes):
    source = Source()
    recent = RecentValues(source.read, limit_bytes)
    for step in steps:
        if isinstance(step, dict):
            source.values.update(step)
            recent.written(step)
        else:
            assert recent.get(step) == source.values.get(step)
        assert held_bytes(recent) <= limit_bytes


def test_what_was_read_or_missed_is_not_asked_for_again():
    source = Source()
    source.values[b"a"] = b"1"
    recent = RecentValues(source.read, 1 << 20)
    assert [recent.get(key) for key in (b"a", b"b", b"a", b"b")] == [b"1", None, b"1", None]
    assert source.asked == 2
    recent.written({b"b": b"2", b"c": b"3"})
    assert [recent.get(key) for key in (b"b", b"c")] == [b"2", None]  # the source has no c: it was asked
    assert source.asked == 3


def test_what_is_asked_for_again_outlives_what_is_not():
    source = Source()
    recent = RecentValues(source.read, 20_000)
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
    recent = RecentValues(source.read, 100_000)
    for key in (b"small", b"large", b"small", b"large"):
        recent.get(key)
    assert source.asked == 3


def test_what_may_have_changed_is_forgotten():
    source = Source()
    recent = RecentValues(source.read, 1 << 20)
    recent.get(b"a")
    source.values[b"a"] = b"1"
    recent.forget()
    assert recent.get(b"a") == b"1"
