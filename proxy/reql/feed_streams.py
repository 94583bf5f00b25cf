"""Changefeeds as streams: what `changes` gives. An empty chunk says that there is nothing yet.

One rule: a feed stream never waits; the cursor waits for all feeds of its query at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from model import datum as d
from model import order
from model.errors import ReqlError
from proxy.answers import ATOM_FEED, INCLUDES_STATES, ORDER_BY_LIMIT_FEED, SEQUENCE_FEED
from proxy.reql.feed_resume import Position, past_changes, position_text
from proxy.reql.feeds import Feed, SharedChange
from proxy.reql.streams import Operation, Rows, Stream

ABSENT: Final = object()


class FeedOptions:
    """The optargs of `changes`. squash_s: None not to squash, else the shortest time between batches.

    lineage: of the positions that go with the changes, None for no positions. resume_after: where to go on.
    """

    __slots__ = (
        "include_initial",
        "include_offsets",
        "include_states",
        "include_types",
        "lineage",
        "queue_size",
        "resume_after",
        "squash_s",
    )

    def __init__(
        self,
        squash_s: float | None,
        queue_size: int,
        include_initial: bool,
        include_states: bool,
        include_offsets: bool,
        include_types: bool,
        lineage: str | None = None,
        resume_after: Position | None = None,
    ) -> None:
        self.lineage = lineage
        self.resume_after = resume_after
        self.squash_s = squash_s
        self.queue_size = queue_size
        self.include_initial = include_initial
        self.include_states = include_states
        self.include_offsets = include_offsets
        self.include_types = include_types

    @property
    def is_plain(self) -> bool:
        return self.squash_s is None and not self.include_types and self.lineage is None


class FeedStream(Stream):
    """Base of feeds: states, initial values, then news. `note` is the number in the response's notes."""

    note = SEQUENCE_FEED

    def __init__(self, env: Any, feed: Feed, options: FeedOptions) -> None:
        super().__init__(is_infinite=True)
        self.feed = feed
        self.options = options
        self._begun = False
        self._initial: Any = None
        self._opened_at: int = env.data.applied_index if options.resume_after is not None else 0
        self.last_sent_s = 0.0
        env.feeds.append(self)

    def notes(self) -> list[int]:
        return [self.note, INCLUDES_STATES] if self.options.include_states else [self.note]

    def close(self) -> None:
        self.feed.close()

    @property
    def is_ready(self) -> bool:
        """Whether the next chunk has something in it."""
        return not self._begun or self._initial is not None or self.feed.has_news

    def look_again(self) -> None:
        """The hub woke the reader; feeds that compute their news themselves look anew."""

    def source_chunk(self, env: Any) -> Rows | None:
        if not self._begun:
            self._begun = True
            return self._begin(env)
        if self._initial is not None:
            return self._continue_initial(env)
        if self.feed.skipped:
            skipped, self.feed.skipped = self.feed.skipped, 0
            return [{"error": f"Changefeed cache over array size limit, skipped {skipped} elements."}]
        return self._news(env)

    def _begin(self, env: Any) -> Rows:
        """Starts with the states and the initial values, if they are wanted."""
        out: Rows = []
        options = self.options
        if options.resume_after is not None:
            self._initial = self._past(env, options.resume_after)
            return out
        if options.include_initial:
            if options.include_states:
                out.append(self._typed({"state": "initializing"}, "state"))
            self._initial = self.initial_chunks(env)
            if self._initial is None:
                out += self._end_initial()
            return out
        if options.include_states:
            out.append(self._typed({"state": "ready"}, "state"))
        return out

    def _continue_initial(self, env: Any) -> Rows:
        rows = next(self._initial, None)
        if rows is None:
            self._initial = None
            return self._end_initial()
        if self.options.resume_after is not None:
            return rows  # type: ignore[no-any-return]
        return [self._typed(row, "initial") for row in rows]

    def _past(self, env: Any, after: Position) -> Iterator[Rows]:
        """The elements for what happened between a position and the moment the feed was opened."""
        for changes in past_changes(env, self.feed.table_id, after, self._opened_at):
            elements = self._elements(changes)
            if elements:
                yield elements

    def _elements(self, changes: list[Any]) -> Rows:
        """What the feed says of changes."""
        raise AssertionError("a feed without elements cannot be resumed")

    def _end_initial(self) -> Rows:
        return [self._typed({"state": "ready"}, "state")] if self.options.include_states else []

    def initial_chunks(self, env: Any) -> Any:
        """An iterator of lists of initial elements, or None if there are none."""
        raise AssertionError("a feed must say what it begins with")

    def _news(self, env: Any) -> Rows:
        raise AssertionError("a feed must say what is new")

    def _typed(self, element: dict[str, Any], type_name: str) -> dict[str, Any]:
        return {**element, "type": type_name} if self.options.include_types else element

    def pair(self, old: Any, new: Any, change: Any = None) -> dict[str, Any]:
        """One change as an element."""
        element = {"old_val": old, "new_val": new}
        if self.options.lineage is not None and change is not None:
            element["position"] = position_text(self.options.lineage, change.log_index, change.ordinal)
        if self.options.include_types:
            element["type"] = "add" if old is None else "remove" if new is None else "change"
        return element


class RangeFeed(FeedStream):
    """Changes of the rows of a range: `covers(key, row text or None)` says whether a side of a change is in it."""

    def __init__(
        self,
        env: Any,
        feed: Feed,
        options: FeedOptions,
        covers: Callable[[bytes, bytes | None], bool] | None,
        transformations: list[Operation],
        initial: Stream | None,
        at: Any,
    ) -> None:
        super().__init__(env, feed, options)
        self._covers = covers
        self._transformations = transformations
        self._initial_rows = initial
        self._at = at  # the view that the initial rows are read from
        self._env = env

    @property
    def has_texts(self) -> bool:  # type: ignore[override]
        return self._begun and self._initial is None and self._is_plain and not self.feed.skipped

    @property
    def _is_plain(self) -> bool:
        return self._covers is None and not self._transformations and self.options.is_plain

    def source_texts(self, env: Any) -> list[bytes] | None:
        return [change.text() for change in self.feed.take()]

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
                yield [{"new_val": row} for row in rows]
        finally:
            self._release_view()

    def _side(self, key: bytes, text: bytes | None, row: Any) -> Any:
        """One side of a change as the range and the transformations show it; ABSENT if they do not."""
        if text is None or (self._covers is not None and not self._covers(key, text)):
            return ABSENT
        rows = [row]
        try:
            for operation in self._transformations:
                rows = operation.apply(self._env, rows)
                if not rows:
                    return ABSENT
        except ReqlError:
            return ABSENT  # as in an index: a row on which the function fails is not in it
        return rows[0]

    def _news(self, env: Any) -> Rows:
        return self._elements(self.feed.take())

    def _elements(self, changes: list[Any]) -> Rows:
        if self.options.squash_s is not None:
            changes = squashed(changes)
        if self._is_plain:
            return [self.pair(change.old(), change.new()) for change in changes]
        out = []
        for change in changes:
            old = self._side(change.key, change.old_text, change.old() if change.old_text is not None else None)
            new = self._side(change.key, change.new_text, change.new() if change.new_text is not None else None)
            if old is ABSENT and new is ABSENT:
                continue
            if old is not ABSENT and new is not ABSENT and order.equal(old, new):
                continue
            out.append(self.pair(None if old is ABSENT else old, None if new is ABSENT else new, change))
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


def squashed(changes: list[SharedChange]) -> list[Any]:
    """One change per row: from its first old value to its last new one; none if they are equal."""
    by_key: dict[bytes, Any] = {}
    for change in changes:
        found = by_key.get(change.key)
        by_key[change.key] = change if found is None else _Squashed(getattr(found, "first", found), change)
    return [change for change in by_key.values() if change.old_text != change.new_text]


class PointFeed(FeedStream):
    """Changes of one row."""

    note = ATOM_FEED

    def __init__(self, env: Any, feed: Feed, options: FeedOptions, key: bytes, row: bytes | None) -> None:
        super().__init__(env, feed, options)
        self._key = key
        self._row = row

    def initial_chunks(self, env: Any) -> Any:
        return iter([[{"new_val": None if self._row is None else d.loads(self._row)}]])

    def _news(self, env: Any) -> Rows:
        return self._elements(self.feed.take())

    def _elements(self, changes: list[Any]) -> Rows:
        changes = [change for change in changes if change.key == self._key]
        if self.options.squash_s is not None:
            changes = squashed(changes)
        return [self.pair(change.old(), change.new(), change) for change in changes]


class LimitFeed(FeedStream):
    """Changes of the first `count` rows in an index's order. `read(env)` gives them: [(sort key, row), ...]."""

    note = ORDER_BY_LIMIT_FEED

    def __init__(
        self, env: Any, feed: Feed, options: FeedOptions, read: Callable[[Any], list[tuple[Any, Any]]]
    ) -> None:
        super().__init__(env, feed, options)
        self._read = read
        self._top = read(env)

    def initial_chunks(self, env: Any) -> Any:
        elements = []
        for offset, (_, row) in enumerate(self._top):
            element = {"new_val": row}
            if self.options.include_offsets:
                element["new_offset"] = offset
            elements.append(element)
        return iter([elements])

    def _news(self, env: Any) -> Rows:
        if not self.feed.take():
            return []
        before, after = self._top, self._read(env)
        self._top = after
        return self._difference(before, after)

    def _difference(self, before: list[tuple[Any, Any]], after: list[tuple[Any, Any]]) -> Rows:
        """What leads from one list to the other: rows that left paired with rows that came."""
        old_rows = {key[-1]: (offset, row) for offset, (key, row) in enumerate(before)}
        new_rows = {key[-1]: (offset, row) for offset, (key, row) in enumerate(after)}
        out = []
        for identity, (offset, row) in new_rows.items():
            if identity in old_rows and not order.equal(old_rows[identity][1], row):
                out.append(self._moved(old_rows[identity], (offset, row)))
        left = [place for identity, place in old_rows.items() if identity not in new_rows]
        came = [place for identity, place in new_rows.items() if identity not in old_rows]
        for at in range(max(len(left), len(came))):
            out.append(self._moved(left[at] if at < len(left) else None, came[at] if at < len(came) else None))
        return out

    def _moved(self, old: tuple[int, Any] | None, new: tuple[int, Any] | None) -> dict[str, Any]:
        element = self.pair(None if old is None else old[1], None if new is None else new[1])
        if self.options.include_offsets:
            element["old_offset"] = None if old is None else old[0]
            element["new_offset"] = None if new is None else new[0]
        return element


class PolledFeed(FeedStream):
    """Changes of a system table: the rows are computed anew and compared. `read(env)` gives identity -> row.

    only_grows: a row that is gone is of no interest.
    """

    def __init__(
        self,
        env: Any,
        feed: Feed,
        options: FeedOptions,
        read: Callable[[Any], dict[Any, Any]],
        note: int,
        only_grows: bool = False,
    ) -> None:
        super().__init__(env, feed, options)
        self.note = note
        self._read = read
        self._rows = read(env)
        self._looked = True
        self._only_grows = only_grows

    @property
    def is_ready(self) -> bool:
        return not self._begun or self._initial is not None or not self._looked or self.feed.has_news

    def look_again(self) -> None:
        self._looked = False

    def initial_chunks(self, env: Any) -> Any:
        if self.note == ATOM_FEED:
            return iter([[{"new_val": row} for row in self._rows.values()] or [{"new_val": None}]])
        return iter([[{"new_val": row} for row in self._rows.values()]])

    def _news(self, env: Any) -> Rows:
        self._looked = True
        before, after = self._rows, self._read(env)
        self._rows = after
        out = []
        for identity in after if self._only_grows else {**before, **after}:
            old, new = before.get(identity), after.get(identity)
            if old is None or new is None or not order.equal(old, new):
                out.append(self.pair(old, new))
        return out
