"""The responses of a query with changefeeds.

One rule: the first response comes at once, the others when there is news; a feed never waits, the cursor waits for all
feeds of its query at once.

There are two ways to wait. `listen` needs no fiber: the hub calls when there is news, and the body of the response may
be there already, made for another reader. `next_batch` waits in its fiber; queries that come over another server or by
HTTP use it, and feeds that want to be told at certain times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.answers import NEEDS_FIBER, PARTIAL, SEQUENCE, Answer, WaitTimeout
from proxy.reql.batches import batch_limits
from proxy.reql.env import Env
from proxy.reql.feeds.changes import ChangeFeed
from proxy.reql.feeds.limit import LimitFeed
from proxy.reql.feeds.streams import FeedStream
from proxy.reql.streams import Stream


class FeedCursor:
    """The responses of a query with changefeeds: the first comes at once, the others when there is news."""

    __slots__ = ("_direct", "_empty_after_s", "_env", "_left", "_limits", "_squash_s", "_stream", "_was_full")

    def __init__(self, env: Env, stream: Stream, returns_empty_batches: bool) -> None:
        self._env = env
        self._stream = stream
        self._limits = batch_limits(env)
        self._left: list[bytes] = []
        self._was_full = False  # the last batch: then there may be more at once, or it was the end
        self._empty_after_s = self._limits.max_seconds if returns_empty_batches else None
        self._squash_s = max((feed.options.squash_s or 0.0 for feed in env.feeds), default=0.0)
        self._direct = stream if isinstance(stream, (ChangeFeed, LimitFeed)) and len(env.feeds) == 1 else None

    def first_batch(self) -> Answer:
        return self._collect(*self._limits.first()[:2])

    def next_batch(self) -> Answer:
        max_rows, max_bytes, _ = self._limits.later()
        if self._was_full:
            answer = self._collect(max_rows, max_bytes)
            if answer.items or answer.kind is not PARTIAL:
                return answer
        began_s = self._env.world.now_s()
        while True:
            if not self._wait(began_s):
                return Answer(PARTIAL, [], self._notes(), cursor=self)
            answer = self._collect(max_rows, max_bytes)
            if answer.items or answer.kind is not PARTIAL:
                return answer

    def listen(self, wake: Callable[[], None], is_woken: bool = False) -> bytes | object | None:
        """See `proxy.answers.OpenFeed`."""
        if self._was_full or self._squash_s > 0 or self._empty_after_s is not None:
            return NEEDS_FIBER
        direct = self._direct
        if direct is not None:
            if direct.is_ready:
                if not is_woken and direct.is_flowing and direct.feed.waits_for_round(wake):
                    return None
                body = direct.body(self._limits.max_rows, self._limits.max_bytes)
                if body != b"":
                    return NEEDS_FIBER if body is None else body
            direct.feed.listen(wake)
            return None
        feeds = self._env.feeds
        if is_woken:
            self.unlisten()
            for feed in feeds:
                feed.look_again()
        if any(feed.is_ready for feed in feeds):
            return NEEDS_FIBER
        for feed in feeds:
            feed.feed.listen(wake)
        return None

    def unlisten(self) -> None:
        """See `proxy.answers.OpenFeed`."""
        for feed in self._env.feeds:
            feed.feed.unlisten()

    def news(self) -> Answer | None:
        """See `proxy.answers.OpenFeed`."""
        if self._squash_s > 0 or self._empty_after_s is not None:
            return self.next_batch()
        answer = self._collect(*self._limits.later()[:2])
        return answer if answer.items or answer.kind is not PARTIAL else None

    def close(self) -> None:
        self._stream.close()
        for feed in self._env.feeds:
            feed.close()

    def _notes(self) -> list[int]:
        """Whether there are states is only noted of a feed that is the whole answer (datum_stream_t::set_notes)."""
        feed: FeedStream = self._env.feeds[0]
        return feed.notes() if feed is self._stream else [feed.note]

    def _collect(self, max_rows: int, max_bytes: int) -> Answer:
        env = self._env
        items, self._left = self._left, []
        size = sum(map(len, items))
        while len(items) < max_rows and size < max_bytes:
            texts = self._stream.texts(env)
            if texts is None:
                self.close()
                return Answer(SEQUENCE, items, self._notes())
            items += texts
            size += sum(map(len, texts))
            env.fibers.breathe()
            if not texts and not any(feed.is_ready for feed in env.feeds):
                break
        self._left = items[max_rows:]
        self._was_full = len(items) >= max_rows or size >= max_bytes
        now_s = env.world.now_s()
        for feed in env.feeds:
            feed.last_sent_s = now_s
        return Answer(PARTIAL, items[:max_rows], self._notes(), cursor=self)

    def _wait(self, began_s: float) -> bool:
        """Waits until a feed has news and its squash time is over. False: give an empty batch instead."""
        env = self._env
        if self._squash_s > 0:
            rest_s = max(feed.last_sent_s for feed in env.feeds) + self._squash_s - env.world.now_s()
            if rest_s > 0:
                self._let_changes_gather(rest_s)
        if any(feed.is_ready for feed in env.feeds):
            return True
        timeout_s = None
        if self._empty_after_s is not None:
            timeout_s = self._empty_after_s - (env.world.now_s() - began_s)
            if timeout_s <= 0:
                return False
        try:
            wait_for_news(env, timeout_s)
        except WaitTimeout:
            return False
        return True

    def _let_changes_gather(self, rest_s: float) -> None:
        """Waits for the squash time to be over, but not longer than there is room for changes."""
        feeds = [feed.feed for feed in self._env.feeds]

        def listen(done: Any) -> None:
            for feed in feeds:
                feed.watch_filling(lambda: done(None))

        try:
            if not any(feed.waiting_count * 2 > feed.limit for feed in feeds):
                self._env.fibers.wait_for(listen, rest_s)
        except WaitTimeout:
            return
        finally:
            for feed in feeds:
                feed.watch_filling(None)


def wait_for_news(env: Env, timeout_s: float | None = None) -> None:
    """Waits in its fiber until a feed of the query has news, or raises WaitTimeout."""
    feeds = env.feeds

    def listen(done: Any) -> None:
        for feed in feeds:
            feed.feed.listen(lambda: done(None))

    if any(feed.is_ready for feed in feeds):
        return
    try:
        env.fibers.wait_for(listen, timeout_s)
    finally:
        for feed in feeds:
            feed.feed.unlisten()
    for feed in feeds:
        feed.look_again()
