"""Changefeeds as streams: what `changes` gives. An empty chunk says that there is nothing yet.

One rule: a feed stream never waits; the cursor waits for all feeds of its query at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from model import order
from model.errors import ReqlError
from proxy.answers import ATOM_FEED, INCLUDES_STATES, SEQUENCE_FEED
from proxy.reql.feeds.chain import Feed
from proxy.reql.feeds.resume import Position, past_changes, position_text
from proxy.reql.streams import Operation, Rows, Stream


def through(env: Any, operations: list[Operation], row: Any) -> Rows:
    """What operations leave of a row. As in an index, a row on which one fails is not there."""
    rows: Rows = [row]
    try:
        for operation in operations:
            rows = operation.apply(env, rows)
    except ReqlError:
        return []
    return rows


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
    def shows(self) -> tuple[bool, bool]:
        """What of the options changes how an element looks."""
        return self.include_types, self.lineage is not None


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

    @property
    def is_flowing(self) -> bool:
        """Whether the next thing to be told is a change."""
        return self._begun and self._initial is None and not self.feed.has_skipped

    def look_again(self) -> None:
        """The hub woke the reader; feeds that compute their news themselves look anew."""

    def source_chunk(self, env: Any) -> Rows | None:
        if not self._begun:
            self._begun = True
            return self._begin(env)
        if self._initial is not None:
            return self._continue_initial(env)
        skipped = self.feed.take_skipped()
        if skipped:
            self._skips()
            return [{"error": f"Changefeed cache over array size limit, skipped {skipped} elements."}]
        return self._news(env)

    def _skips(self) -> None:
        """Changes were given up that nobody had taken."""

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
            elements = self.elements(changes)
            if elements:
                yield elements

    def elements(self, changes: list[Any]) -> Rows:
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
