"""Feeds of the first rows in an order: what each change moves into them and out of them.

One rule: as RethinkDB's, such a feed tells step by step what led from the rows that were the first to those that are: a
row that comes pushes one out, one that goes lets the next one in. A step is about one place of a row: a multi index may
have several of it (limit_manager_t and limit_sub_t of changefeed.cc). With `squash` only the outcome counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple

from model import datum as d
from model import order
from model.keys import key_range, primary_key_bytes
from proxy.answers import ORDER_BY_LIMIT_FEED
from proxy.frames import partial_body
from proxy.reql.feeds.chain import Feed, Link, SharedChange
from proxy.reql.feeds.streams import FeedOptions, FeedStream, through
from proxy.reql.index_functions import index_function
from proxy.reql.streams import Operation, Rows, slice_stream
from proxy.reql.tables import IndexScan, TableScan
from proxy.reql.values import TableSlice

MARGIN: Final = 16  # so many rows that leave need not be replaced by reading
MAX_STEPS: Final = 1000  # of more changes at once, only the outcome is told

Identity = tuple[bytes, int]
"""Which place of a row it is: the row's primary key bytes, and the position in what a multi index has of it."""

Shown = tuple[int, Any]
"""A row among the first ones, and where: (offset, row)."""

Spot = tuple[bytes, Identity]
"""A place without its row: (key, identity)."""


class Place(NamedTuple):
    """A row in the order. `key` sorts as the order does; no other place has the same."""

    key: bytes
    identity: Identity
    row: Any


class Beginning(NamedTuple):
    """All places up to the one with the key `bound`, in the order; None: all that there are."""

    places: list[Place]
    bound: bytes | None


class Order:
    """The order of a slice, which places rows have in it, and which rows are the first."""

    def __init__(self, scan: TableScan | IndexScan, operations: list[Operation], count: int) -> None:
        part: TableSlice = scan.part
        self.count = count
        self.is_reversed = part.sorting < 0
        self._part = part
        self._operations = operations
        self._primary_key = scan.source.primary_key
        self.index_id = 0  # no index: the order of the primary keys
        self._keys_of: Callable[[Any], list[bytes]] | None = None
        is_primary = isinstance(scan, TableScan)
        self._low, self._high = key_range(part.low, part.high, part.low_open, part.high_open, is_primary)
        if isinstance(scan, IndexScan):
            function = index_function(scan.source.table, scan.index)
            self._keys_of = lambda row: function.keys_of([row])[0]
            self.index_id = scan.index.index_id

    def beginning(self, env: Any, more: int = 0) -> Beginning:
        """The first places, some more that may follow them, and as many more. It takes reading them all."""
        if not self.count:
            return Beginning([], b"")
        wanted = self.count + max(MARGIN, self.count // 4) + more
        places = self._first(env, wanted)
        return Beginning(places, places[-1].key if len(places) == wanted else None)

    def _first(self, env: Any, wanted: int) -> list[Place]:
        found: list[Place] = []
        met: dict[bytes, list[tuple[bytes, Identity]]] = {}  # the places of a row that are still to come
        for rows in slice_stream(env, self._part).chunks(env):
            for row in rows:
                primary_key = primary_key_bytes(row[self._primary_key])
                places = met.get(primary_key)
                if places is None:
                    keys = [primary_key] if self._keys_of is None else self._keys_of(row)
                    places = met[primary_key] = self._within(primary_key, keys)
                if not places:
                    continue  # the index is another one by now
                key, identity = places.pop(0)
                shown = through(env, self._operations, row)
                if shown:
                    found.append(Place(key, identity, shown[0]))
                    if len(found) == wanted:
                        return found
        return found

    def where(self, change: SharedChange) -> tuple[list[Spot], list[Spot]]:
        """Where a row's two versions are, whether they are shown or not."""
        if self._keys_of is None:
            spots = self._within(change.key, [change.key])
            return spots if change.old_text is not None else [], spots if change.new_text is not None else []
        old, new = change.index_keys(self.index_id, self._keys_of)
        return self._within(change.key, old), self._within(change.key, new)

    def _within(self, primary_key: bytes, keys: list[bytes]) -> list[Spot]:
        if self._keys_of is None:
            return [(primary_key, (primary_key, 0))] if self._low <= primary_key < self._high else []
        found = [
            (key + primary_key + at.to_bytes(4, "big"), (primary_key, at))
            for at, key in enumerate(keys)
            if self._low <= key < self._high
        ]
        return sorted(found, reverse=self.is_reversed) if len(found) > 1 else found

    def is_within(self, key: bytes, bound: bytes | None) -> bool:
        """Whether a place is not behind the bound of a beginning."""
        return bound is None or (key >= bound if self.is_reversed else key <= bound)

    def places(self, env: Any, spots: list[Spot], row: Any) -> list[Place]:
        """What is at the spots of a row, if it is shown."""
        shown = through(env, self._operations, row) if spots else []
        return [Place(key, identity, shown[0]) for key, identity in spots] if shown else []


def _shown_up_to(link: Link) -> dict[Any, Any]:
    if link.shown_up_to is None:
        link.shown_up_to = {}
    return link.shown_up_to


class News:
    """What some changes mean for who knows `before`: what is known after them, and the elements that tell it."""

    __slots__ = ("_texts", "after", "before", "elements")

    def __init__(self, before: Beginning, after: Beginning, elements: Rows) -> None:
        self.before = before
        self.after = after
        self.elements = elements
        self._texts: list[bytes] | None = None

    def texts(self) -> list[bytes]:
        if self._texts is None:
            self._texts = list(map(d.dumps, self.elements))
        return self._texts


class LimitFeed(FeedStream):
    """Changes of the first rows in an order. lens: who has the same one shows the same; None: nobody else does."""

    note = ORDER_BY_LIMIT_FEED

    def __init__(self, env: Any, feed: Feed, options: FeedOptions, order: Order, lens: Hashable) -> None:
        super().__init__(env, feed, options)
        self._order = order
        self._lacks_changes = False  # some were given up
        self._lens: Hashable = None
        if lens is not None:
            squashes = options.squash_s is not None
            self._lens = lens, order.index_id, options.include_offsets, squashes, *options.shows
        self._known = self._begins_with(env)

    def _begins_with(self, env: Any) -> Beginning:
        """What there is; others that begin at the same change have the very same object."""
        if self._lens is None:
            return self._order.beginning(env)
        shown = _shown_up_to(self.feed.at)
        known: Beginning | None = shown.get(self._lens)
        if known is None:
            known = shown[self._lens] = self._order.beginning(env)
        return known

    @property
    def _first(self) -> list[Place]:
        return self._known.places[: self._order.count]

    @property
    def has_texts(self) -> bool:  # type: ignore[override]
        return self.is_flowing and not self.operations

    def source_texts(self, env: Any) -> list[bytes] | None:
        return self._told(env).texts()

    def _news(self, env: Any) -> Rows:
        return self._told(env).elements

    def _told(self, env: Any) -> News:
        """What has happened since this was last asked. Feeds with the same lens leave it to the first of them."""
        begin = self.feed.at
        changes = self.feed.take()
        shown = None if self._lens is None or self._lacks_changes else _shown_up_to(self.feed.at)
        news: News | None = None if shown is None else shown.get((self._lens, begin))
        if news is None or news.before is not self._known:
            before = self._known
            elements = self._elements(env, changes)
            news = News(before, self._known, elements)
            if shown is not None:
                shown[self._lens, begin] = news
        self._known = news.after
        return news

    def initial_chunks(self, env: Any) -> Any:
        elements = []
        for offset, place in enumerate(self._first):
            element = {"new_val": place.row}
            if self.options.include_offsets:
                element["new_offset"] = offset
            elements.append(element)
        return iter([elements])

    def _skips(self) -> None:
        self._lacks_changes = True

    def body(self, max_rows: int, max_bytes: int) -> bytes | None:
        """As `ChangeFeed.body`: what another feed with this lens has found out already; else None."""
        feed = self.feed
        at, tail = feed.at, feed.tail
        if (
            self._lens is None
            or tail.shown_up_to is None
            or tail.count - at.count > feed.limit
            or self._lacks_changes
            or self.options.squash_s is not None
            or self.operations
            or not self.is_flowing
            or feed.failure is not None
        ):
            return None
        news: News | None = tail.shown_up_to.get((self._lens, at))
        if news is None or news.before is not self._known:
            return None
        bodies, key = feed.channel.bodies, (at, self._lens, self.options.include_states)
        body = bodies.get(key)
        if body is None:
            texts = news.texts()
            if len(texts) > max_rows or sum(map(len, texts)) > max_bytes:
                return None
            body = bodies[key] = partial_body(texts, self.notes()) if texts else b""
        feed.at = tail
        self._known = news.after
        return body

    def _elements(self, env: Any, changes: list[SharedChange]) -> Rows:
        if self.options.squash_s is not None or len(changes) > MAX_STEPS or self._lacks_changes:
            was, self._known = self._first, self._order.beginning(env)
            self._lacks_changes = False
            return self._outcome(was, self._first)
        spots = [self._order.where(change) for change in changes]
        if not self._is_about_what_is_known(spots):
            return []
        moves = [
            (self._order.places(env, old, change.old()), self._order.places(env, new, change.new()))
            for change, (old, new) in zip(changes, spots, strict=True)
        ]
        steps = self._steps_within(moves)
        return self._steps_and_more(env, changes, moves) if steps is None else steps

    def _is_about_what_is_known(self, spots: list[tuple[list[Spot], list[Spot]]]) -> bool:
        """Most of what happens in a large table is behind it."""
        bound = self._known.bound
        if not self._order.count:
            return False
        return any(self._order.is_within(key, bound) for old, new in spots for key, _ in (*old, *new))

    def _steps_within(self, moves: list[tuple[list[Place], list[Place]]]) -> Rows | None:
        """The steps, worked out from what is known; None if that is not enough, as too many rows have left."""
        ranks, bound = self._order, self._known.bound
        ranking = Ranking(self._known.places, ranks)
        steps: Rows = []
        for old, new in moves:
            steps += self._steps(ranking, old, [place for place in new if ranks.is_within(place.key, bound)])
            if bound is not None and ranking.has_been_short:
                return None
        places = ranking.all()
        most = ranks.count + 2 * max(MARGIN, ranks.count // 4)
        if len(places) > most:
            del places[most:]
            bound = places[-1].key
        self._known = Beginning(places, bound)
        return steps

    def _steps_and_more(
        self, env: Any, changes: list[SharedChange], moves: list[tuple[list[Place], list[Place]]]
    ) -> Rows:
        """The steps, for which what follows now has to be read."""
        before: dict[bytes, list[Place]] = {}
        for change, (old, _) in zip(changes, moves, strict=True):
            before.setdefault(change.key, old)
        # Whoever is among the first on the way, and does not change, is so few places behind them in the end.
        after = self._order.beginning(env, sum(len(new) for _, new in moves))
        ranking = self._ranking(before, after.places)
        self._known = after
        steps = [step for old, new in moves for step in self._steps(ranking, old, new)]
        return steps + self._outcome(ranking.first(), self._first)  # if more has happened than the changes tell

    def _ranking(self, before: dict[bytes, list[Place]], after: list[Place]) -> Ranking:
        """The places before the changes, as far as they may be among the first on the way. `before` has all that the
        rows had which changed, by primary key, `after` the first ones now, and some more."""
        places = list(self._known.places)
        has = {place.identity for place in places}
        changed = [place for old in before.values() for place in old]
        for place in [*changed, *(place for place in after if place.identity[0] not in before)]:
            if place.identity not in has:  # else it has changed before that
                has.add(place.identity)
                places.append(place)
        return Ranking(places, self._order)

    def _steps(self, ranking: Ranking, before: list[Place], after: list[Place]) -> Rows:
        """What a row's change says: a place that it had and has again, then those it has no more, then new ones."""
        old, new = ({place.identity: place for place in places} for places in (before, after))
        kept = sorted(old.keys() & new.keys())
        gone = [old[identity] for identity in sorted(old.keys() - new.keys())]
        come = sorted((new[identity] for identity in new.keys() - old.keys()), reverse=not self._order.is_reversed)
        pairs: list[tuple[Place | None, Place | None]] = [(old[identity], new[identity]) for identity in kept]
        pairs += [(gone[at] if at < len(gone) else None, come[at] if at < len(come) else None)
                  for at in range(max(len(gone), len(come)))]  # fmt: skip
        moves = [ranking.move(*pair) for pair in pairs]
        return [self._element(*move) for move in moves if self._is_news(*move)]

    def _is_news(self, went: Shown | None, came: Shown | None) -> bool:
        if went is None or came is None:
            return went is not came
        return not order.equal(went[1], came[1]) or (self.options.include_offsets and went[0] != came[0])

    def _outcome(self, before: list[Place], after: list[Place]) -> Rows:
        """What leads from one list to the other: rows that went paired with rows that came."""
        old = {place.identity: (offset, place.row) for offset, place in enumerate(before)}
        new = {place.identity: (offset, place.row) for offset, place in enumerate(after)}
        out = [
            self._element(old[identity], there)
            for identity, there in new.items()
            if identity in old and not order.equal(old[identity][1], there[1])
        ]
        gone = [there for identity, there in old.items() if identity not in new]
        come = [there for identity, there in new.items() if identity not in old]
        for at in range(max(len(gone), len(come))):
            out.append(self._element(gone[at] if at < len(gone) else None, come[at] if at < len(come) else None))
        return out

    def _element(self, old: Shown | None, new: Shown | None) -> dict[str, Any]:
        element = self.pair(None if old is None else old[1], None if new is None else new[1])
        if self.options.include_offsets:
            element["old_offset"] = None if old is None else old[0]
            element["new_offset"] = None if new is None else new[0]
        return element


class Ranking:
    """Places in the order, of which the first are told about."""

    def __init__(self, places: list[Place], order: Order) -> None:
        self._places = {place.key: place for place in places}
        self._identities = {place.identity for place in places}
        self._keys = sorted(self._places)
        self._count = order.count
        self._is_reversed = order.is_reversed
        self.has_been_short = False  # there were fewer places than are told about

    def first(self) -> list[Place]:
        return [self._at(rank) for rank in range(min(self._count, len(self._keys)))]

    def all(self) -> list[Place]:
        return [self._places[key] for key in (reversed(self._keys) if self._is_reversed else self._keys)]

    def _at(self, rank: int) -> Place:
        return self._places[self._keys[-1 - rank if self._is_reversed else rank]]

    def _rank(self, position: int) -> int:
        return len(self._keys) - 1 - position if self._is_reversed else position

    def move(self, old: Place | None, new: Place | None) -> tuple[Shown | None, Shown | None]:
        """Takes one place out and another in: (offset, row) that was among the first and is no more, and that is now
        (limit_sub_t::note_change_impl)."""
        count, keys = self._count, self._keys
        went = came = None
        if old is not None and old.key in self._places:
            position = bisect_left(keys, old.key)
            rank, row = self._rank(position), self._places.pop(old.key).row
            self._identities.discard(old.identity)
            del keys[position]
            if rank < count:
                went = rank, row
        if new is not None and new.identity not in self._identities:  # else it has changed again since
            position = bisect_left(keys, new.key)
            keys.insert(position, new.key)
            self._places[new.key] = new
            self._identities.add(new.identity)
            rank = self._rank(position)
            if rank < count:
                came = rank, new.row
        if came is not None and went is None and len(keys) > count:
            went = count - 1, self._at(count).row
        elif went is not None and came is None and len(keys) >= count:
            came = count - 1, self._at(count - 1).row
        if len(keys) < count:
            self.has_been_short = True
        return went, came
