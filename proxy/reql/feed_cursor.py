"""The responses of a query with changefeeds.

One rule: the first response comes at once, the others when there is news; a feed never waits, the cursor waits for all
feeds of its query at once.
"""

from __future__ import annotations

from typing import Any

from proxy.answers import PARTIAL, SEQUENCE, Answer, WaitTimeout
from proxy.reql.batches import BatchLimits
from proxy.reql.env import Env
from proxy.reql.streams import Stream


class FeedCursor:
    """The responses of a query with changefeeds: the first comes at once, the others when there is news."""

    __slots__ = ("_empty_after_s", "_env", "_left", "_limits", "_stream", "_was_full")

    def __init__(self, env: Env, stream: Stream, returns_empty_batches: bool) -> None:
        self._env = env
        self._stream = stream
        self._limits = BatchLimits(env)
        self._left: list[bytes] = []
        self._was_full = False  # the last batch: then there may be more at once, or it was the end
        self._empty_after_s = self._limits.max_seconds if returns_empty_batches else None

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

    def close(self) -> None:
        self._stream.close()
        for feed in self._env.feeds:
            feed.close()

    def _notes(self) -> list[int]:
        notes: list[int] = self._env.feeds[0].notes()
        return notes

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
        squash_s = max((feed.options.squash_s or 0.0 for feed in env.feeds), default=0.0)
        if squash_s > 0:
            rest_s = max(feed.last_sent_s for feed in env.feeds) + squash_s - env.world.now_s()
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
            env.fibers.wait_for(self._listen, timeout_s)
        except WaitTimeout:
            return False
        finally:
            for feed in env.feeds:
                feed.feed.wake = None
        for feed in env.feeds:
            feed.look_again()
        return True

    def _let_changes_gather(self, rest_s: float) -> None:
        """Waits for the squash time to be over, but not longer than there is room for changes."""
        feeds = [feed.feed for feed in self._env.feeds]

        def listen(done: Any) -> None:
            for feed in feeds:
                feed.filling = lambda: done(None)

        try:
            if not any(len(feed.queue) * 2 > feed.limit for feed in feeds):
                self._env.fibers.wait_for(listen, rest_s)
        except WaitTimeout:
            return
        finally:
            for feed in feeds:
                feed.filling = None

    def _listen(self, done: Any) -> None:
        def wake() -> None:
            done(None)

        for feed in self._env.feeds:
            feed.feed.wake = wake
