"""Changefeeds: the hub that every applied change passes through, and the feeds that queries read from.

One rule: a change is told to feeds in the order of the log and after it can be read, and costs the apply path
one list append per feed; decoding, transformations and JSON happen when a reader asks, once for all readers.

A feed over a range starts at one moment: it subscribes, then reads its initial rows from a view of that very
moment, then goes on with the queue. So no change is missed or told twice at the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from model import datum as d
from model.errors import ReqlError, ReqlOpFailedError

UNAVAILABLE: Final = "Changefeed aborted (unavailable)."


class RowChange(Protocol):
    """One row's change as the state machine tells it; None is no row."""

    @property
    def table_id(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def old(self) -> bytes | None: ...
    @property
    def new(self) -> bytes | None: ...


class SharedChange:
    """A change as all feeds of a table share it: decoded and printed at most once.

    ordinal: which change of its table it is in its log entry.
    """

    __slots__ = ("_new", "_old", "_text", "key", "log_index", "new_text", "old_text", "ordinal")

    def __init__(self, log_index: int, change: RowChange, ordinal: int = 0) -> None:
        self.log_index = log_index
        self.ordinal = ordinal
        self.key = change.key
        self.old_text = change.old
        self.new_text = change.new
        self._old: Any = None
        self._new: Any = None
        self._text: bytes | None = None

    def old(self) -> Any:
        if self._old is None and self.old_text is not None:
            self._old = d.loads(self.old_text)
        return self._old

    def new(self) -> Any:
        if self._new is None and self.new_text is not None:
            self._new = d.loads(self.new_text)
        return self._new

    def text(self) -> bytes:
        """The element of a plain feed: {"new_val": ..., "old_val": ...} as JSON."""
        if self._text is None:
            self._text = b'{"new_val":%b,"old_val":%b}' % (self.new_text or b"null", self.old_text or b"null")
        return self._text


class Feed:
    """The queue of one reader. `push` is called by the hub; `take` by the reader.

    limit: how many changes may wait; beyond, all of them are given up and the reader is told how many.
    """

    def __init__(self, hub: FeedHub, table_id: int, limit: int) -> None:
        self._hub = hub
        self.table_id = table_id
        self.limit = limit
        self.queue: list[SharedChange] = []
        self.skipped = 0
        self.failure: ReqlError | None = None
        self.guard: Callable[[], None] | None = None  # raises when the reader may not read any more
        self.wake: Callable[[], None] | None = None
        self.filling: Callable[[], None] | None = None  # called once when half of the room is used up
        self.closed = False

    def push(self, change: SharedChange) -> None:
        queue = self.queue
        if len(queue) >= self.limit:
            self.skipped += len(queue) + 1
            queue.clear()
        elif self.skipped:
            self.skipped += 1
        else:
            queue.append(change)
        if self.filling is not None and len(queue) * 2 > self.limit:
            filling, self.filling = self.filling, None
            self._hub.soon(filling)
        self._hub.tell(self)

    @property
    def has_news(self) -> bool:
        return bool(self.queue) or self.skipped > 0 or self.failure is not None

    def take(self) -> list[SharedChange]:
        """All that waits. Raises the feed's failure when nothing is left before it."""
        if not self.queue and self.failure is not None:
            raise self.failure
        taken, self.queue = self.queue, []
        return taken

    def fail(self, error: ReqlError) -> None:
        if self.failure is None:
            self.failure = error
            self._hub.tell(self)

    def recheck(self) -> None:
        """What users may do has changed: gives up what waits for a reader who may not see it any more."""
        if self.guard is not None:
            try:
                self.guard()
            except ReqlError as error:
                self.queue.clear()
                self.skipped = 0
                self.fail(error)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._hub.leave(self)


class FeedHub:
    """All open feeds. `watch(table_id)` and `unwatch(table_id)` tell the state machine whose old rows are wanted;
    `soon(function)` runs a function after the current entries are applied; `poll_s` paces feeds that must look."""

    def __init__(
        self, watch: Callable[[int], None], unwatch: Callable[[int], None], soon: Callable[[Callable[[], None]], Any]
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self.soon = soon
        self._feeds: dict[int, list[Feed]] = {}
        self._polled: list[Feed] = []
        self._woken: list[Feed] = []

    def subscribe(self, table_id: int, limit: int) -> Feed:
        feed = Feed(self, table_id, limit)
        feeds = self._feeds.get(table_id)
        if feeds is None:
            self._feeds[table_id] = feeds = []
            self._watch(table_id)
        feeds.append(feed)
        return feed

    def subscribe_polled(self, limit: int) -> Feed:
        """A feed that is told to look again by `poll`, for tables that are functions of the server's state."""
        feed = Feed(self, 0, limit)
        self._polled.append(feed)
        return feed

    def leave(self, feed: Feed) -> None:
        if feed in self._polled:
            self._polled.remove(feed)
            return
        feeds = self._feeds.get(feed.table_id)
        if feeds is not None and feed in feeds:
            feeds.remove(feed)
            if not feeds:
                del self._feeds[feed.table_id]
                self._unwatch(feed.table_id)

    @property
    def open_count(self) -> int:
        return sum(map(len, self._feeds.values())) + len(self._polled)

    def on_changes(self, log_index: int, time_ms: int, changes: Iterable[RowChange]) -> None:
        """The state machine's port: what one log entry changed in watched tables."""
        ordinals: dict[int, int] = {}
        for change in changes:
            table_id = change.table_id
            ordinal = ordinals.get(table_id, 0)
            ordinals[table_id] = ordinal + 1
            feeds = self._feeds.get(table_id)
            if feeds is not None:
                shared = SharedChange(log_index, change, ordinal)
                for feed in feeds:
                    feed.push(shared)

    def on_table_gone(self, table_id: int) -> None:
        """A table was dropped: its feeds end with an error once they are read."""
        for feed in list(self._feeds.get(table_id, ())):
            feed.fail(ReqlOpFailedError(UNAVAILABLE))

    def fail_all(self) -> None:
        """This server can no longer tell changes (it lost the lead or stops)."""
        for feeds in list(self._feeds.values()):
            for feed in list(feeds):
                feed.fail(ReqlOpFailedError(UNAVAILABLE))

    def recheck(self) -> None:
        """What users may do has changed."""
        for feeds in list(self._feeds.values()):
            for feed in list(feeds):
                feed.recheck()

    def poll(self) -> None:
        """Wakes the feeds that look for themselves."""
        for feed in list(self._polled):
            self.tell(feed)

    def tell(self, feed: Feed) -> None:
        if feed.wake is not None:
            if not self._woken:
                self.soon(self._wake)
            self._woken.append(feed)

    def _wake(self) -> None:
        woken, self._woken = self._woken, []
        for feed in woken:
            wake, feed.wake = feed.wake, None
            if wake is not None:
                wake()
