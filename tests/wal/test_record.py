"""The record format: what was written comes back, and every other run of bytes is told for what it is."""

from hypothesis import given
from hypothesis import strategies as st

from wal.record import HEAD_BYTES, MAGIC, Kind, Record, Why, decode, encode, encode_all, read_run

numbers = st.integers(0, 2**64 - 1)
payloads = st.one_of(st.binary(max_size=60), st.just(MAGIC * 3), st.binary(max_size=3).map(lambda part: part * 2000))
records = st.builds(Record, st.sampled_from(list(Kind)).map(int), numbers, numbers, payloads)
groups = st.lists(st.lists(records, min_size=1, max_size=4), min_size=1, max_size=4)


def written(segment, groups):
    """The bytes of a segment to which `groups` were written, and where each group begins."""
    data, starts = b"", []
    for group in groups:
        starts.append(len(data))
        data += encode_all(group, segment, len(data))
    return data, starts


def flat(groups):
    return [record for group in groups for record in group]


@given(groups, st.integers(0, 2**32 - 1))
def test_what_was_written_comes_back(groups, segment):
    data, _ = written(segment, groups)
    decoded = decode(data, segment)
    assert (decoded.records, decoded.good_until, decoded.why) == (flat(groups), len(data), Why.END)
    assert [data[offset : offset + 4] for offset in decoded.offsets] == [MAGIC] * len(decoded.records)


@given(groups, st.integers(HEAD_BYTES, 9000))
def test_zeros_behind_a_log_are_its_end(groups, zeros):
    data, _ = written(7, groups)
    decoded = decode(data + bytes(zeros), 7)
    assert (decoded.records, decoded.good_until, decoded.why) == (flat(groups), len(data), Why.ZERO_FILL)


@given(groups, st.data())
def test_a_log_cut_anywhere_gives_a_prefix(groups, data):
    content, _ = written(7, groups)
    cut = data.draw(st.integers(0, len(content)))
    decoded = decode(content[:cut], 7)
    count = len(decoded.records)
    assert decoded.records == flat(groups)[:count]
    assert decoded.good_until <= cut
    assert decoded.why is (Why.END if decoded.good_until == cut else Why.TORN)
    if count < len(flat(groups)):
        assert cut < decoded.good_until + HEAD_BYTES + len(flat(groups)[count].payload)


@given(groups, st.data())
def test_a_flipped_bit_is_damage_if_and_only_if_a_later_group_follows(groups, data):
    content, starts = written(7, groups)
    at, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    broken = bytearray(content)
    broken[at] ^= 1 << bit
    decoded = decode(bytes(broken), 7)
    assert decoded.records == flat(groups)[: len(decoded.records)]
    assert decoded.good_until <= at
    is_in_last_group = at >= starts[-1]
    assert decoded.why is (Why.TORN if is_in_last_group else Why.DAMAGED)
    if not is_in_last_group:
        assert decoded.later in starts


@given(groups, groups)
def test_records_of_another_segment_are_not_of_this_one(old, new):
    """What a recycled file held before stands behind what it holds now."""
    before, _ = written(3, old)
    now, _ = written(4, new)
    content = now + bytes(HEAD_BYTES) + before[len(now) + HEAD_BYTES :]
    decoded = decode(content, 4)
    assert (decoded.records, decoded.why) == (flat(new), Why.ZERO_FILL)


def test_a_recycled_file_that_was_not_written_yet_holds_nothing():
    old, _ = written(3, [[Record(Kind.SEGMENT, 0, 0), Record(Kind.ENTRY, 1, 1, b"one")]])
    decoded = decode(old, 4)
    assert (decoded.records, decoded.good_until, decoded.why) == ([], 0, Why.TORN)


def test_the_rest_of_a_torn_group_behind_zeros_is_a_torn_tail():
    first = encode(Record(Kind.ENTRY, 1, 1, b"one"), 7, 0)
    group = len(first)
    torn = encode_all([Record(Kind.ENTRY, 1, 2, b"x" * 5000), Record(Kind.ENTRY, 1, 3, b"three")], 7, group)
    content = first + bytes(4096) + torn[4096:]
    decoded = decode(content, 7)
    assert (decoded.good_until, decoded.why, len(decoded.records)) == (group, Why.TORN, 1)


def test_zeros_over_synced_records_are_damage():
    first = encode(Record(Kind.ENTRY, 1, 1, b"one"), 7, 0)
    second = encode(Record(Kind.ENTRY, 1, 2, b"two"), 7, len(first))
    third = encode(Record(Kind.ENTRY, 1, 3, b"three"), 7, len(first) + len(second))
    decoded = decode(first + bytes(len(second)) + third, 7)
    assert (decoded.good_until, decoded.why, decoded.later) == (len(first), Why.DAMAGED, len(first) + len(second))


def test_a_length_beyond_the_data_asks_for_no_memory():
    data = bytearray(encode(Record(Kind.ENTRY, 1, 1, b"one"), 7, 0))
    data[8:12] = b"\xff\xff\xff\xff"
    assert decode(bytes(data), 7).why is Why.TORN


def test_a_run_says_how_much_more_the_next_record_needs():
    data = encode(Record(Kind.ENTRY, 1, 1, b"one"), 7, 0) + encode(Record(Kind.ENTRY, 1, 2, b"x" * 900), 7, 0)
    found, offsets, end, needed = read_run(data[:200], 7)
    assert ([record.log_index for record in found], offsets, end, needed) == ([1], [0], 43, HEAD_BYTES + 900)
