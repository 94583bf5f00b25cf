"""Feeds that tell each change of a row by itself: of a range, and of one row.

One rule: what a feed shows of a change is JSON text, which is kept with the change under the feed's lens. Feeds with
the same lens show the same, and only the first of them works it out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from model import datum as d
from model import order
from proxy.answers import ATOM_FEED
from proxy.frames import partial_body
from proxy.reql.feeds.chain import Feed, Link, SharedChange, pair_text
from proxy.reql.feeds.resume import position_text
from proxy.reql.feeds.streams import FeedOptions, FeedStream, through
from proxy.reql.streams import Operation, Rows, Stream

ALL_ROWS: Final = "all rows"  # the lens of feeds that show each change as it is
CHUNK_BYTES: Final = 1 << 20


class ChangeFeed(FeedStream):
    """A feed that says something of each change by itself, whatever came before.

    is_literal: its elements are the texts of rows, for which nothing has to be evaluated. lens: feeds of one channel
    with the same lens show the same; None: nobody else does.
    """

    def __init__(self, env: Any, feed: Feed, options: FeedOptions, is_literal: bool, lens: Hashable) -> None:
        super().__init__(env, feed, options)
        self._is_literal = is_literal
        self._lens = None if lens is None else (lens, *options.shows)
        self._is_bare = not any(options.shows)

    @property
    def has_texts(self) -> bool:  # type: ignore[override]
        return self.is_flowing and (self._is_literal or not self.operations)

    def source_texts(self, env: Any) -> list[bytes] | None:
        if self.options.squash_s is not None:
            return self._show(squashed(self.feed.take()))
        texts: list[bytes] = []
        for link in self.feed.take_links(CHUNK_BYTES):
            texts += self._texts_of(link)
        return texts

    def _news(self, env: Any) -> Rows:
        if self.options.squash_s is not None:
            return self.elements(squashed(self.feed.take()))
        return self.elements([change for link in self.feed.take_links(CHUNK_BYTES) for change in link.changes])

    def _texts_of(self, link: Link) -> list[bytes]:
        lens = self._lens
        if lens is None:
            return self._show(link.changes)
        shown = link.shown
        if shown is None:
            shown = link.shown = {}
        texts = shown.get(lens)
        if texts is None:
            texts = shown[lens] = self._show(link.changes)
        return texts

    def _show(self, changes: list[Any]) -> list[bytes]:
        if not self._is_literal:
            return [d.dumps(element) for element in self.elements(changes)]
        if self._is_bare:
            return [change.text() for change in changes]
        return [self._literal(change) for change in changes]

    def _literal(self, change: Any) -> bytes:
        """`pair` of a change as text."""
        parts = [change.text()[:-1]]
        options = self.options
        if options.lineage is not None:
            parts.append(
                b',"position":"%b"' % position_text(options.lineage, change.log_index, change.ordinal).encode()
            )
        if options.include_types:
            kind = b"add" if change.old_text is None else b"remove" if change.new_text is None else b"change"
            parts.append(b',"type":"%b"' % kind)
        parts.append(b"}")
        return b"".join(parts)

    def body(self, max_rows: int, max_bytes: int) -> bytes | None:
        """The response with all that waits, b"" if nothing of it is shown; None if that has to be worked out first."""
        feed = self.feed
        at, tail = feed.at, feed.tail
        count = tail.count - at.count
        if (
            count > max_rows
            or count > feed.limit
            or tail.size - at.size > max_bytes
            or self.options.squash_s is not None
            or self.operations
            or not self.is_flowing
            or feed.failure is not None
        ):
            return None
        bodies, key = feed.channel.bodies, (at, self._lens, self.options.include_states)
        body = bodies.get(key)
        if body is None:
            texts = self._all_texts(at, tail)
            if texts is None:
                return None
            body = bodies[key] = partial_body(texts, self.notes()) if texts else b""
        feed.at = tail
        return body

    def _all_texts(self, at: Link, tail: Link) -> list[bytes] | None:
        """What the links after one up to another show; None if for some of them that has to be worked out."""
        texts: list[bytes] = []
        link = at
        while link is not tail:
            assert link.next is not None
            link = link.next
            if self._is_literal:
                texts += self._texts_of(link)
            elif self._lens is None or link.shown is None or self._lens not in link.shown:
                return None
            else:
                texts += link.shown[self._lens]
        return texts


class RangeFeed(ChangeFeed):
    """Changes of the rows of a range. `copies(key, row text or None)` says how often a side of a change is in it, None
    that all are once: as RethinkDB's, a feed tells of a row as often as its range has it.
    """

    def __init__(
        self,
        env: Any,
        feed: Feed,
        options: FeedOptions,
        copies: Callable[[bytes, bytes | None], int] | None,
        transformations: list[Operation],
        initial: Stream | None,
        at: Any,
        lens: Hashable,
    ) -> None:
        is_literal = copies is None and not transformations
        super().__init__(env, feed, options, is_literal, ALL_ROWS if is_literal else lens)
        self._copies = copies
        self._transformations = transformations
        self._initial_rows = initial
        self._at = at  # the view that the initial rows are read from
        self._env = env

    def close(self) -> None:
        self._initial = None
        self._release_view()
        super().close()

    def _release_view(self) -> None:
        at, self._at = self._at, None
        if at is not None:
            at.close()

    def initial_chunks(self, env: Any) -> Any:
        if self._initial_rows is None:
            return None
        return self._read_initial(env, self._initial_rows)

    def _read_initial(self, env: Any, stream: Stream) -> Any:
        live = env.data
        try:
            while True:
                env.data = self._at
                try:
                    rows = stream.chunk(env)
                finally:
                    env.data = live
                if rows is None:
                    return
                yield [{"new_val": row} for row in rows if row is not None]
        finally:
            self._release_view()

    def _shown(self, row: Any) -> Any:
        """A row as the transformations show it; None if they do not."""
        rows = through(self._env, self._transformations, row)
        return rows[0] if rows else None  # what is made null of is no more there than what is left out

    def elements(self, changes: list[Any]) -> Rows:
        if self._is_literal:
            return [self.pair(change.old(), change.new(), change) for change in changes]
        out: Rows = []
        copies = self._copies
        for change in changes:
            before = after = 1
            if copies is not None:
                before, after = copies(change.key, change.old_text), copies(change.key, change.new_text)
                if not before and not after:
                    continue
                if self.options.squash_s is not None:
                    before, after = min(before, 1), min(after, 1)
            old = self._shown(change.old()) if before and change.old_text is not None else None
            new = self._shown(change.new()) if after and change.new_text is not None else None
            both = min(before, after)
            if both and not order.equal(old, new):
                out += [self.pair(old, new, change)] * both
            if old is not None and before > both:
                out += [self.pair(old, None, change)] * (before - both)
            if new is not None and after > both:
                out += [self.pair(None, new, change)] * (after - both)
        return out


class _Squashed:
    """Several changes of one row as one."""

    __slots__ = ("first", "last")

    def __init__(self, first: SharedChange, last: SharedChange) -> None:
        self.first = first
        self.last = last

    @property
    def key(self) -> bytes:
        return self.first.key

    @property
    def log_index(self) -> int:
        return self.last.log_index

    @property
    def ordinal(self) -> int:
        return self.last.ordinal

    @property
    def old_text(self) -> bytes | None:
        return self.first.old_text

    @property
    def new_text(self) -> bytes | None:
        return self.last.new_text

    def old(self) -> Any:
        return self.first.old()

    def new(self) -> Any:
        return self.last.new()

    def text(self) -> bytes:
        return pair_text(self.old_text, self.new_text)


def squashed(changes: list[SharedChange]) -> list[Any]:
    """One change per row: from its first old value to its last new one; none if they are equal."""
    by_key: dict[bytes, Any] = {}
    for change in changes:
        found = by_key.get(change.key)
        by_key[change.key] = change if found is None else _Squashed(getattr(found, "first", found), change)
    return [change for change in by_key.values() if change.old_text != change.new_text]


class PointFeed(ChangeFeed):
    """Changes of one row."""

    note = ATOM_FEED

    def __init__(self, env: Any, feed: Feed, options: FeedOptions, key: bytes, row: bytes | None) -> None:
        super().__init__(env, feed, options, True, ALL_ROWS)
        self._key = key
        self._row = row

    def initial_chunks(self, env: Any) -> Any:
        return iter([[{"new_val": None if self._row is None else d.loads(self._row)}]])

    def elements(self, changes: list[Any]) -> Rows:
        return [self.pair(change.old(), change.new(), change) for change in changes if change.key == self._key]
