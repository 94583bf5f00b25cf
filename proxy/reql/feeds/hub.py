"""Changefeeds: the hub that every applied change passes through on its way to feeds.

One rule: a change is told to feeds in the order of the log and after it can be read, and costs the apply path the
same however many feeds there are; decoding, transformations and JSON happen when a reader asks, once for all readers.

A feed over a range starts at one moment: it subscribes, then reads its initial rows from a view of that very
moment, then goes on with the chain. So no change is missed or told twice at the seam.

Readers that wait are woken in rounds. The first change after a rest is told at once; while changes keep coming, the
next round waits for a moment that grows with the number of readers, so that they get several changes in one response.
Whoever asks in that moment waits for the round, too, even if there is something for him already: readers that come back
at once would otherwise be told each change in a response of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from model.errors import ReqlOpFailedError
from proxy.reql.feeds.chain import Channel, Feed, RowChange, SharedChange

UNAVAILABLE: Final = "Changefeed aborted (unavailable)."

ROUND_S: Final = 0.002  # how long readers are woken before others get a turn
PAUSE_PER_READER_S: Final = 40e-6
MAX_PAUSE_S: Final = 0.004


class _Table:
    """The channels of one table: of all rows, and of single ones."""

    __slots__ = ("all_rows", "rows")

    def __init__(self) -> None:
        self.all_rows: Channel | None = None
        self.rows: dict[bytes, Channel] = {}

    def channels(self) -> list[Channel]:
        return [*self.rows.values()] if self.all_rows is None else [self.all_rows, *self.rows.values()]


class FeedHub:
    """All open feeds. `watch(table_id)` and `unwatch(table_id)` tell the state machine whose old rows are wanted.

    soon: runs a function after the current entries are applied. later: runs a function after so many seconds, on the
    monotonic clock `seconds`; without them there are no pauses, and rounds are not cut short.
    """

    def __init__(
        self,
        watch: Callable[[int], None],
        unwatch: Callable[[int], None],
        soon: Callable[[Callable[[], None]], Any],
        later: Callable[[float, Callable[[], None]], Any] | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._soon = soon
        self._later = later
        self._seconds = seconds
        self._tables: dict[int, _Table] = {}
        self._polled = Channel()
        self._woken: deque[Feed] = deque()
        self._telling: list[Channel] = []
        self._is_round_due = False
        self._has_begun = False  # the round; who is told in it is decided
        self._round_count = 0  # readers that this round has woken
        self._next_round_s = 0.0

    # -- for queries

    def subscribe(self, table_id: int, limit: int, row_key: bytes | None = None) -> Feed:
        """A feed of a table's changes from now on, or of those of one of its rows."""
        table = self._tables.get(table_id)
        if table is None:
            self._tables[table_id] = table = _Table()
            self._watch(table_id)
        if row_key is None:
            channel = table.all_rows = table.all_rows or Channel()
        else:
            channel = table.rows[row_key] = table.rows.get(row_key) or Channel()
        feed = Feed(self, channel, limit, table_id, row_key)
        channel.enter(feed)
        return feed

    def subscribe_polled(self, limit: int) -> Feed:
        """A feed that is told to look again by `poll`, for tables that are functions of the server's state."""
        feed = Feed(self, self._polled, limit)
        self._polled.enter(feed)
        return feed

    def leave(self, feed: Feed) -> None:
        """A feed was closed."""
        channel = feed.channel
        channel.feeds.pop(feed, None)
        channel.gathering.discard(feed)
        table = self._tables.get(feed.table_id)
        if channel.feeds or table is None or channel is self._polled:
            return
        if channel is table.all_rows:
            table.all_rows = None
        elif feed.row_key is not None and table.rows.get(feed.row_key) is channel:
            del table.rows[feed.row_key]
        if table.all_rows is None and not table.rows:
            del self._tables[feed.table_id]
            self._unwatch(feed.table_id)

    @property
    def is_pausing(self) -> bool:
        """Whether readers with news are to wait for the next round."""
        return self._later is not None and (self._is_round_due or self._seconds() < self._next_round_s)

    def wake_waiting(self, channel: Channel) -> None:
        """Wakes those who wait on a channel, in the next round."""
        if channel.waiting and not channel.is_telling:
            channel.is_telling = True
            self._telling.append(channel)
            self._round_soon()

    @property
    def open_count(self) -> int:
        channels = [channel for table in self._tables.values() for channel in table.channels()]
        return sum(len(channel.feeds) for channel in channels) + len(self._polled.feeds)

    # -- for the server

    def on_changes(self, log_index: int, time_ms: int, changes: Iterable[RowChange]) -> None:
        """The state machine's port: what one log entry changed in watched tables."""
        by_table: dict[int, list[SharedChange]] = {}
        for change in changes:
            told = by_table.setdefault(change.table_id, [])
            told.append(SharedChange(log_index, change, len(told)))
        for table_id, told in by_table.items():
            table = self._tables.get(table_id)
            if table is None:
                continue
            if table.all_rows is not None:
                self._tell(table.all_rows, told)
            if table.rows:
                for shared in told:
                    channel = table.rows.get(shared.key)
                    if channel is not None:
                        self._tell(channel, [shared])

    def on_table_gone(self, table_id: int) -> None:
        """A table was dropped: its feeds end with an error once they are read."""
        self._fail(self._feeds_of(table_id))

    def fail_all(self) -> None:
        """This server can no longer tell changes (it lost the lead or stops)."""
        for table_id in list(self._tables):
            self._fail(self._feeds_of(table_id))

    def recheck(self) -> None:
        """What users may do has changed."""
        for table_id in list(self._tables):
            for feed in self._feeds_of(table_id):
                feed.recheck()

    def poll(self) -> None:
        """Wakes the feeds that look for themselves."""
        self.wake_waiting(self._polled)

    # -- inside

    def _feeds_of(self, table_id: int) -> list[Feed]:
        table = self._tables.get(table_id)
        return [] if table is None else [feed for channel in table.channels() for feed in channel.feeds]

    def _fail(self, feeds: list[Feed]) -> None:
        for feed in feeds:
            feed.fail(ReqlOpFailedError(UNAVAILABLE))

    def _tell(self, channel: Channel, changes: list[SharedChange]) -> None:
        channel.append(changes)
        if channel.gathering:
            for feed in list(channel.gathering):
                if feed.waiting_count * 2 > feed.limit and feed.filling is not None:
                    self._soon(feed.filling)
                    feed.watch_filling(None)
        self.wake_waiting(channel)

    def wake_one(self, feed: Feed) -> None:
        """Something happened to one feed alone."""
        if feed.wake is not None:
            self._woken.append(feed)
            self._round_soon()

    def _round_soon(self) -> None:
        if self._is_round_due:
            return
        self._is_round_due = True
        pause_s = self._next_round_s - self._seconds()
        if pause_s > 0 and self._later is not None:
            self._later(pause_s, self._round)
        else:
            self._soon(self._round)

    def _round(self) -> None:
        """Wakes those whose news is there; when that takes long, others get a turn in between."""
        woken = self._woken
        if not self._has_begun:
            self._has_begun = True
            for channel in self._telling:
                channel.is_telling = False
                woken += channel.waiting
                channel.waiting.clear()
            self._telling.clear()
        until_s = self._seconds() + ROUND_S
        told = 0
        try:
            while woken:
                woken.popleft().tell()
                told += 1
                if not told % 16 and self._seconds() >= until_s:
                    break
        finally:
            self._round_count += told
            self._end_round()

    def _end_round(self) -> None:
        if self._woken:
            self._soon(self._round)
            return
        pause_s = min(MAX_PAUSE_S, self._round_count * PAUSE_PER_READER_S)
        self._round_count = 0
        self._next_round_s = self._seconds() + pause_s
        self._is_round_due = self._has_begun = False
        if self._telling:
            self._round_soon()
