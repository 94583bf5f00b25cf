"""Feeds of the first rows in an order: what each change moves into them and out of them.

One rule: as RethinkDB's, such a feed tells step by step what led from the rows that were the first to those that are: a
row that comes pushes one out, one that goes lets the next one in. A step is about one place of a row: a multi index may
have several of it (limit_manager_t and limit_sub_t of changefeed.cc). With `squash` only the outcome counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from model import order
from model.errors import ReqlError
from model.keys import key_range, primary_key_bytes
from proxy.answers import ORDER_BY_LIMIT_FEED
from proxy.reql.feeds.chain import Feed
from proxy.reql.feeds.streams import FeedOptions, FeedStream
from proxy.reql.index_functions import index_function
from proxy.reql.streams import Operation, Rows, slice_stream
from proxy.reql.tables import IndexScan, TableScan
from proxy.reql.values import TableSlice

MAX_STEPS: Final = 1000  # of more changes at once, only the outcome is told

Identity = tuple[bytes, int]
"""Which place of a row it is: the row's primary key bytes, and the position in what a multi index has of it."""


Shown = tuple[int, Any]
"""A row among the first ones, and where: (offset, row)."""


class Place(NamedTuple):
    """A row in the order. `key` sorts as the order does; no other place has the same."""

    key: bytes
    identity: Identity
    row: Any


class Order:
    """The order of a slice, which places rows have in it, and which rows are the first."""

    def __init__(self, scan: TableScan | IndexScan, operations: list[Operation], count: int) -> None:
        part: TableSlice = scan.part
        self.count = count
        self.is_reversed = part.sorting < 0
        self._part = part
        self._operations = operations
        self._primary_key = scan.source.primary_key
        self._keys_of: Callable[[Any], list[bytes]] | None = None
        is_primary = isinstance(scan, TableScan)
        self._low, self._high = key_range(part.low, part.high, part.low_open, part.high_open, is_primary)
        if isinstance(scan, IndexScan):
            function = index_function(scan.source.table, scan.index)
            self._keys_of = lambda row: function.keys_of([row])[0]

    def first(self, env: Any, more: int = 0) -> list[Place]:
        """The first places, in the order, and as many more."""
        found: list[Place] = []
        if not self.count:
            return found
        met: dict[bytes, list[tuple[bytes, Identity]]] = {}  # the places of a row that are still to come
        for rows in slice_stream(env, self._part).chunks(env):
            for row in rows:
                primary_key = primary_key_bytes(row[self._primary_key])
                places = met.get(primary_key)
                if places is None:
                    places = met[primary_key] = self._places(primary_key, row)
                if not places:
                    continue  # the index is another one by now
                key, identity = places.pop(0)
                shown = self._shown(env, row)
                if shown:
                    found.append(Place(key, identity, shown[0]))
                    if len(found) == self.count + more:
                        return found
        return found

    def places(self, env: Any, primary_key: bytes, row: Any) -> list[Place]:
        """All places that a row has, if it is shown; None is no row."""
        if row is None:
            return []
        found = self._places(primary_key, row)
        shown = self._shown(env, row) if found else []
        return [Place(key, identity, shown[0]) for key, identity in found] if shown else []

    def _places(self, primary_key: bytes, row: Any) -> list[tuple[bytes, Identity]]:
        if self._keys_of is None:
            return [(primary_key, (primary_key, 0))] if self._low <= primary_key < self._high else []
        found = [
            (key + primary_key + at.to_bytes(4, "big"), (primary_key, at))
            for at, key in enumerate(self._keys_of(row))
            if self._low <= key < self._high
        ]
        return sorted(found, reverse=self.is_reversed) if len(found) > 1 else found

    def _shown(self, env: Any, row: Any) -> list[Any]:
        rows = [row]
        try:
            for operation in self._operations:
                rows = operation.apply(env, rows)
        except ReqlError:
            return []
        return rows


class LimitFeed(FeedStream):
    """Changes of the first rows in an order."""

    note = ORDER_BY_LIMIT_FEED

    def __init__(self, env: Any, feed: Feed, options: FeedOptions, order: Order) -> None:
        super().__init__(env, feed, options)
        self._order = order
        self._first = order.first(env)

    def initial_chunks(self, env: Any) -> Any:
        elements = []
        for offset, place in enumerate(self._first):
            element = {"new_val": place.row}
            if self.options.include_offsets:
                element["new_offset"] = offset
            elements.append(element)
        return iter([elements])

    def _news(self, env: Any) -> Rows:
        changes = self.feed.take()
        if not changes:
            return []
        if self.options.squash_s is not None or len(changes) > MAX_STEPS:
            was, self._first = self._first, self._order.first(env)
            return self._outcome(was, self._first)
        moves = [
            (self._order.places(env, change.key, change.old()), self._order.places(env, change.key, change.new()))
            for change in changes
        ]
        before: dict[bytes, list[Place]] = {}
        for change, (old, _) in zip(changes, moves, strict=True):
            before.setdefault(change.key, old)
        # Whoever is among the first on the way, and does not change, is so few places behind them in the end.
        places = self._order.first(env, sum(len(new) for _, new in moves))
        ranking = self._ranking(before, places)
        self._first = places[: self._order.count]
        steps = [step for old, new in moves for step in self._steps(ranking, old, new)]
        # Where more has happened than the changes tell, as after some were given up, the outcome counts.
        return steps + self._outcome(ranking.first(), self._first)

    def _ranking(self, before: dict[bytes, list[Place]], after: list[Place]) -> Ranking:
        """The places before the changes, as far as they may be among the first on the way. `before` has all that the
        rows had which changed, by primary key, `after` the first ones now, and some more."""
        places = {place.key: place for place in self._first}
        has = {place.identity for place in self._first}
        changed = [place for old in before.values() for place in old]
        for place in [*changed, *(place for place in after if place.identity[0] not in before)]:
            if place.identity not in has:  # else it has changed before that
                has.add(place.identity)
                places[place.key] = place
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

    def __init__(self, places: dict[bytes, Place], order: Order) -> None:
        self._places = places
        self._keys = sorted(places)
        self._count = order.count
        self._is_reversed = order.is_reversed

    def first(self) -> list[Place]:
        return [self._at(rank) for rank in range(min(self._count, len(self._keys)))]

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
            del keys[position]
            if rank < count:
                went = rank, row
        if new is not None and new.key not in self._places:
            position = bisect_left(keys, new.key)
            keys.insert(position, new.key)
            self._places[new.key] = new
            rank = self._rank(position)
            if rank < count:
                came = rank, new.row
        if came is not None and went is None and len(keys) > count:
            went = count - 1, self._at(count).row
        elif went is not None and came is None and len(keys) >= count:
            came = count - 1, self._at(count - 1).row
        return went, came
