"""What records come to: entries that count, their raft_terms, and refusals of what does not follow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import Corrupt
from wal.chart import Chart, EntryMap, TermRuns
from wal.record import Kind, Record


def charted(*records):
    chart = Chart()
    for number, record in enumerate(records):
        chart.take(record, 1, number * 100)
    return chart


HEAD = Record(Kind.SEGMENT, 0, 0)


@pytest.mark.parametrize(
    "records",
    [
        [HEAD, Record(Kind.ENTRY, 1, 2)],
        [HEAD, Record(Kind.ENTRY, 1, 1), Record(Kind.ENTRY, 1, 1)],
        [HEAD, Record(Kind.ENTRY, 2, 1), Record(Kind.ENTRY, 1, 2)],
        [HEAD, Record(Kind.ENTRY, 1, 1), Record(Kind.SEGMENT, 1, 2)],
        [HEAD, Record(Kind.ENTRY, 1, 1), Record(Kind.SEGMENT, 2, 1)],
        [HEAD, Record(Kind.TRUNCATE, 0, 1)],
        [HEAD, Record(9, 0, 1)],
    ],
)
def test_what_does_not_follow_is_refused(records):
    with pytest.raises(Corrupt):
        charted(*records)


def test_a_log_may_begin_with_any_segment():
    chart = charted(Record(Kind.SEGMENT, 3, 70), Record(Kind.ENTRY, 4, 71))
    assert (chart.first_index, chart.last_index, chart.last_term) == (71, 71, 4)
    assert (chart.terms.term(70), chart.terms.term(71)) == (3, 4)


def test_a_truncation_below_the_first_segment_that_is_left_moves_the_beginning():
    chart = charted(Record(Kind.SEGMENT, 3, 70), Record(Kind.TRUNCATE, 2, 60), Record(Kind.ENTRY, 4, 61))
    assert (chart.first_index, chart.last_index, chart.terms.term(60), chart.terms.term(61)) == (61, 61, 2, 4)


def test_a_repeated_configuration_is_kept_once():
    chart = charted(
        HEAD,
        Record(Kind.CONF_STATE, 0, 4, b"a"),
        Record(Kind.CONF_STATE, 0, 8, b"b"),
        Record(Kind.CONF_STATE, 0, 8, b"b"),
    )
    assert [(record.log_index, record.payload) for record in chart.conf_states] == [(4, b"a"), (8, b"b")]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 5)), max_size=12), st.integers(0, 40))
def test_terms_are_those_of_the_entries_that_are_left(steps, released):
    runs, terms, raft_term = TermRuns(0, 0), [0], 0
    for count, newer, back in steps:
        if back:
            keep = max(len(terms) - 1 - back, 0)
            runs.truncate_after(keep)
            del terms[keep + 1 :]
        raft_term += newer
        for _ in range(count):
            terms.append(raft_term)
            runs.note(len(terms) - 1, raft_term)
    released = min(released, len(terms) - 1)
    runs.release_before(released)
    assert [runs.term(index) for index in range(released, len(terms))] == terms[released:]
    assert runs.last_term == terms[-1]


def test_the_first_entry_after_a_truncation_is_always_an_anchor():
    entry_map = EntryMap()
    for index in range(1, 10):
        entry_map.note(index, 1, index * 10)
    entry_map.truncate_after(5)
    entry_map.note(6, 1, 200)
    entry_map.note(7, 2, 0)
    assert [(anchor.log_index, anchor.segment, anchor.offset) for anchor in entry_map.anchors(1, 9)] == [
        (1, 1, 10),
        (6, 1, 200),
        (7, 2, 0),
    ]
    assert [anchor.log_index for anchor in entry_map.anchors(6, 9)] == [6, 7]
    entry_map.release_before(2)
    assert [anchor.log_index for anchor in entry_map.anchors(1, 9)] == [7]
