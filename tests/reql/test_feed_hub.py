"""Changes on their way to feeds: nothing is lost, missed or told twice, and what waits is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ReqlOpFailedError, ReqlPermissionError
from proxy.reql.feeds.chain import MAX_WAITING_BYTES, Feed
from proxy.reql.feeds.hub import MAX_PAUSE_S, PAUSE_PER_READER_S, ROUND_S, FeedHub
from proxy.reql.feeds.resume import PastChange

TABLE = 7


class Tables:
    """A hub, what it watches, and a log that goes on."""

    def __init__(self, *later: Any, **options: Any) -> None:
        self.watched: set[int] = set()
        self.soon: list[Any] = []
        self.hub = FeedHub(self.watched.add, self.watched.discard, self.soon.append, *later, **options)
        self.log_index = 0

    def change(self, *keys: bytes, table_id: int = TABLE, new: bytes = b"1") -> None:
        """One entry that changes these rows."""
        self.log_index += 1
        self.hub.on_changes(self.log_index, 0, [PastChange(table_id, key, None, new) for key in keys])

    def turn(self) -> None:
        """What was to be done soon is done."""
        due, self.soon[:] = list(self.soon), []
        for call in due:
            call()


def taken(feed: Feed) -> list[tuple[int, bytes, int]]:
    return [(change.log_index, change.key, change.ordinal) for change in feed.take()]


def test_every_feed_is_told_all_in_order_from_when_it_began():
    tables = Tables()
    first = tables.hub.subscribe(TABLE, 100)
    tables.change(b"a", b"b")
    second = tables.hub.subscribe(TABLE, 100)
    tables.change(b"c")
    tables.change(b"x", table_id=TABLE + 1)
    assert taken(second) == [(2, b"c", 0)]
    assert taken(first) == [(1, b"a", 0), (1, b"b", 1), (2, b"c", 0)]
    assert taken(first) == []


def test_a_table_is_watched_while_it_has_feeds():
    tables = Tables()
    feeds = [tables.hub.subscribe(TABLE, 1), tables.hub.subscribe(TABLE, 1, b"a"), tables.hub.subscribe(TABLE, 1, b"a")]
    assert (tables.watched, tables.hub.open_count) == ({TABLE}, 3)
    for feed in feeds:
        assert tables.watched == {TABLE}
        feed.close()
        feed.close()
    assert (tables.watched, tables.hub.open_count) == (set(), 0)


def test_a_feed_on_a_row_hears_of_no_other():
    tables = Tables()
    feed = tables.hub.subscribe(TABLE, 100, b"b")
    woken: list[int] = []
    feed.listen(lambda: woken.append(1))
    tables.change(b"a", b"c")
    tables.turn()
    assert (feed.has_news, woken) == (False, [])
    tables.change(b"a", b"b")
    tables.turn()
    assert woken == [1]
    assert taken(feed) == [(2, b"b", 1)]


class EagerQueue:
    """RethinkDB's rule, in the plainest way: the queue of one reader."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queue: list[int] = []
        self.skipped = 0

    def push(self, number: int) -> None:
        if len(self.queue) >= self.limit:
            self.skipped += len(self.queue) + 1
            self.queue.clear()
        elif self.skipped:
            self.skipped += 1
        else:
            self.queue.append(number)

    def read(self) -> tuple[int, list[int]]:
        skipped, self.skipped = self.skipped, 0
        taken, self.queue = self.queue, []
        return skipped, taken


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.lists(st.one_of(st.just("change"), st.integers(0, 3)), max_size=60),
)
def test_what_is_too_much_is_given_up_as_if_each_had_a_queue(limits, steps):
    tables = Tables()
    feeds = [tables.hub.subscribe(TABLE, limit) for limit in limits]
    queues = [EagerQueue(limit) for limit in limits]
    for step in [*steps, *range(len(limits))]:
        if step == "change":
            tables.change(b"a")
            for queue in queues:
                queue.push(tables.log_index)
        elif step < len(limits):
            skipped, expected = queues[step].read()
            assert feeds[step].take_skipped() == skipped
            assert [change.log_index for change in feeds[step].take()] == expected


def test_what_a_reader_that_never_reads_may_not_keep_is_let_go():
    tables = Tables()
    sleeper, reader = tables.hub.subscribe(TABLE, 10), tables.hub.subscribe(TABLE, 1000)
    for _ in range(30):
        tables.change(b"a")
        assert sleeper.waiting_count <= 15
    assert len(taken(reader)) == 30
    assert sleeper.take_skipped() == 30


def test_what_waits_is_bounded_in_bytes_as_well():
    tables = Tables()
    sleeper = tables.hub.subscribe(TABLE, 100_000)
    for _ in range(20):
        tables.change(b"a", new=bytes(MAX_WAITING_BYTES // 8))
        assert sleeper.tail.size - sleeper.at.size <= MAX_WAITING_BYTES * 1.5
    assert sleeper.take_skipped() == 20


def test_a_long_chain_is_let_go_without_recursion():
    tables = Tables()
    feed = tables.hub.subscribe(TABLE, 1_000_000)
    for _ in range(200_000):
        tables.change(b"a")
    assert feed.waiting_count == 200_000
    feed.at = feed.tail
    feed.close()


def test_a_response_takes_no_more_than_its_bytes():
    tables = Tables()
    feed = tables.hub.subscribe(TABLE, 100)
    for _ in range(5):
        tables.change(b"a", new=bytes(10))
    assert [len(feed.take_links(25)) for _ in range(3)] == [3, 2, 0]


def test_a_dropped_table_ends_its_feeds_after_what_they_were_told():
    tables = Tables()
    feed = tables.hub.subscribe(TABLE, 100)
    woken: list[int] = []
    tables.change(b"a")
    feed.listen(lambda: woken.append(1))
    tables.hub.on_table_gone(TABLE)
    tables.turn()
    assert woken == [1]
    assert len(feed.take()) == 1
    with pytest.raises(ReqlOpFailedError, match="aborted"):
        feed.take()


def test_who_may_not_read_any_more_is_told_nothing_more():
    tables = Tables()
    feed = tables.hub.subscribe(TABLE, 100)

    def guard() -> None:
        raise ReqlPermissionError("no")

    feed.guard = guard
    tables.change(b"a")
    tables.hub.recheck()
    tables.change(b"b")
    assert feed.take_skipped() == 0
    with pytest.raises(ReqlPermissionError):
        feed.take()


def test_who_went_away_is_not_woken_nor_kept():
    tables = Tables()
    feed, other = tables.hub.subscribe(TABLE, 100), tables.hub.subscribe(TABLE, 100)
    other.listen(lambda: None)
    for _ in range(3):
        feed.listen(lambda: pytest.fail("woken"))
        feed.unlisten()
    assert list(feed.channel.waiting) == [other]
    feed.listen(lambda: pytest.fail("woken"))
    feed.close()
    tables.change(b"a")
    tables.turn()


class Clocked(Tables):
    """With a clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.later: list[tuple[float, Any]] = []
        super().__init__(lambda seconds, call: self.later.append((seconds, call)), seconds=lambda: self.now_s)


def test_the_first_change_is_told_at_once_and_the_next_ones_together():
    tables = Clocked()
    feeds = [tables.hub.subscribe(TABLE, 100) for _ in range(10)]
    told: list[int] = []

    def listen() -> None:
        for feed in feeds:
            feed.listen(lambda feed=feed: told.append(len(feed.take())))

    listen()
    tables.change(b"a")
    assert (len(tables.soon), tables.later) == (1, [])
    tables.turn()
    assert told == [1] * 10
    listen()
    tables.change(b"a")
    tables.change(b"b")
    assert tables.soon == []
    [(seconds, call)] = tables.later
    assert seconds == pytest.approx(10 * PAUSE_PER_READER_S)
    call()
    assert told == [1] * 10 + [2] * 10
    tables.later.clear()
    listen()
    tables.now_s += 1.0
    tables.change(b"c")
    assert (len(tables.soon), tables.later) == (1, [])


def test_who_comes_back_in_a_pause_is_told_with_all_others_after_it():
    tables = Clocked()
    feeds = [tables.hub.subscribe(TABLE, 100) for _ in range(10)]
    told: list[int] = []

    def reader(feed: Feed) -> Any:
        return lambda: told.append(len(feed.take()))

    for feed in feeds:
        assert not feed.waits_for_round(reader(feed))
        feed.listen(reader(feed))
    tables.change(b"a")
    tables.turn()
    tables.change(b"b")
    for feed in feeds:
        assert feed.waits_for_round(reader(feed))
    tables.change(b"c")
    assert told == [1] * 10
    assert tables.soon == []
    [(seconds, call)] = tables.later
    assert seconds == pytest.approx(10 * PAUSE_PER_READER_S)
    tables.now_s += seconds
    call()
    assert told == [1] * 10 + [2] * 10
    tables.now_s += MAX_PAUSE_S
    tables.change(b"d")
    tables.turn()
    tables.now_s += MAX_PAUSE_S
    assert not feeds[0].waits_for_round(reader(feeds[0]))


def test_a_round_tells_nobody_twice_however_long_it_is():
    tables = Clocked()
    feeds = [tables.hub.subscribe(TABLE, 100) for _ in range(100)]
    told: list[Feed] = []

    def wake(feed: Feed) -> None:
        told.append(feed)
        feed.take()
        tables.now_s += ROUND_S / 20
        tables.change(b"b")
        assert feed.waits_for_round(lambda: wake(feed))

    for feed in feeds:
        feed.listen(lambda feed=feed: wake(feed))
    tables.change(b"a")
    while tables.soon:
        tables.turn()
    assert told == feeds
    [(seconds, _)] = tables.later
    assert seconds == pytest.approx(MAX_PAUSE_S)


def test_a_pause_is_short_however_many_readers_there_are():
    tables = Clocked()
    feed = tables.hub.subscribe(TABLE, 100)
    for other in [tables.hub.subscribe(TABLE, 100) for _ in range(1000)]:
        other.listen(lambda: None)
    tables.change(b"a")
    tables.turn()
    feed.listen(lambda: None)
    tables.change(b"a")
    assert [seconds for seconds, _ in tables.later] == [pytest.approx(MAX_PAUSE_S)]


def test_others_get_a_turn_while_many_readers_are_woken():
    tables = Clocked()
    told: list[int] = []

    def wake() -> None:
        told.append(1)
        tables.now_s += ROUND_S / 20

    for feed in [tables.hub.subscribe(TABLE, 100) for _ in range(100)]:
        feed.listen(wake)
    tables.change(b"a")
    tables.turn()
    assert 16 <= len(told) <= 48
    while tables.soon:
        tables.turn()
    assert len(told) == 100
    assert tables.later == []
