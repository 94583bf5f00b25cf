"""What waits for changefeeds: a channel per table or row, on it the chain of what was told, and each feed's place.

One rule: a change is kept once, however many feeds have not taken it yet, and not longer than one of them may still
take it; what it looks like to a reader is worked out when one asks, and kept with it for the others.

    channel ─► link ─► link ─► link       each feed knows the last link that it has taken,
                ▲               ▲         so a link lives as long as somebody is before it
              feed             feed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from model import datum as d
from model.errors import ReqlError

MAX_WAITING_BYTES: Final = 256 << 20  # of rows that wait for one feed; beyond, it is as if too many changes waited
ALL: Final = 1 << 62

Wake = Callable[[], None]


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

    __slots__ = ("_index_keys", "_new", "_old", "_text", "key", "log_index", "new_text", "old_text", "ordinal")

    def __init__(self, log_index: int, change: RowChange, ordinal: int = 0) -> None:
        self.log_index = log_index
        self.ordinal = ordinal
        self.key = change.key
        self.old_text = change.old
        self.new_text = change.new
        self._old: Any = None
        self._new: Any = None
        self._text: bytes | None = None
        self._index_keys: dict[int, tuple[list[bytes], list[bytes]]] | None = None

    def old(self) -> Any:
        if self._old is None and self.old_text is not None:
            self._old = d.loads(self.old_text)
        return self._old

    def new(self) -> Any:
        if self._new is None and self.new_text is not None:
            self._new = d.loads(self.new_text)
        return self._new

    def index_keys(self, index_id: int, keys_of: Callable[[Any], list[bytes]]) -> tuple[list[bytes], list[bytes]]:
        """The keys of the old and the new row in an index."""
        known = self._index_keys
        if known is None:
            known = self._index_keys = {}
        keys = known.get(index_id)
        if keys is None:
            old, new = self.old(), self.new()
            keys = known[index_id] = ([] if old is None else keys_of(old), [] if new is None else keys_of(new))
        return keys

    def text(self) -> bytes:
        """The element of a plain feed: {"new_val": ..., "old_val": ...} as JSON."""
        if self._text is None:
            self._text = pair_text(self.old_text, self.new_text)
        return self._text


def pair_text(old: bytes | None, new: bytes | None) -> bytes:
    """The texts of two versions of a row as a change."""
    return b'{"new_val":%b,"old_val":%b}' % (new or b"null", old or b"null")


class Link:
    """What one log entry changed, and what came after it.

    count, size: the changes and the bytes of their rows on the channel, up to and with this link.
    shown: what lenses show of it, for the next reader with the same lens. shown_up_to: what they show of all that came
    since another link, for the next one who has been there.
    """

    __slots__ = ("changes", "count", "next", "shown", "shown_up_to", "size")

    def __init__(self, changes: list[SharedChange], count: int, size: int) -> None:
        self.changes = changes
        self.count = count
        self.size = size
        self.next: Link | None = None
        self.shown: dict[Any, list[bytes]] | None = None
        self.shown_up_to: dict[Any, Any] | None = None


class Channel:
    """What is told of one table, or of one of its rows, and who listens.

    bodies: responses that begin at a link and end at the tail, for the next reader who has got as far.
    """

    __slots__ = ("_look_at_count", "_look_at_size", "bodies", "feeds", "gathering", "is_telling", "tail", "waiting")

    def __init__(self) -> None:
        self.tail = Link([], 0, 0)
        self.feeds: dict[Feed, None] = {}
        self.waiting: dict[Feed, None] = {}  # whose readers wait
        self.gathering: set[Feed] = set()  # whose readers want to know when half of their room is used up
        self.bodies: dict[Any, bytes] = {}
        self.is_telling = False  # the hub will look at `waiting`
        self._look_at_count = ALL
        self._look_at_size = MAX_WAITING_BYTES

    def enter(self, feed: Feed) -> None:
        self.feeds[feed] = None
        self._look_at_count = min(self._look_at_count, self.tail.count + feed.limit + 1)

    def append(self, changes: list[SharedChange]) -> None:
        size = 0
        for change in changes:
            size += len(change.old_text or b"") + len(change.new_text or b"")
        last = self.tail
        self.tail = last.next = link = Link(changes, last.count + len(changes), last.size + size)
        if self.bodies:
            self.bodies.clear()
        if link.count >= self._look_at_count or link.size >= self._look_at_size:
            self._give_up_what_is_too_much()

    def _give_up_what_is_too_much(self) -> None:
        """Lets go what nobody will be told any more. Looks again long before another feed's room is half used up."""
        smallest = ALL
        for feed in self.feeds:
            feed.give_up_if_too_much()
            smallest = min(smallest, feed.limit)
        self._look_at_count = self.tail.count + max(1, smallest // 2)
        self._look_at_size = self.tail.size + MAX_WAITING_BYTES // 2


class Hub(Protocol):
    """What a feed needs of `feeds.FeedHub`."""

    @property
    def is_pausing(self) -> bool: ...
    def wake_waiting(self, channel: Channel) -> None: ...
    def wake_one(self, feed: Feed) -> None: ...
    def leave(self, feed: Feed) -> None: ...


class Feed:
    """The place of one reader on a channel.

    limit: how many changes may wait; beyond, all of them are given up and the reader is told how many.
    """

    __slots__ = (
        "_given_up",
        "_hub",
        "_last",
        "at",
        "channel",
        "closed",
        "failure",
        "filling",
        "guard",
        "limit",
        "row_key",
        "table_id",
        "wake",
    )

    def __init__(self, hub: Hub, channel: Channel, limit: int, table_id: int = 0, row_key: bytes | None = None) -> None:
        self._hub = hub
        self.channel = channel
        self.table_id = table_id
        self.row_key = row_key  # None: all rows of the table
        self.limit = limit
        self.at = channel.tail  # the last link that was taken
        self._last: Link | None = None  # where the feed ends, once it has failed
        self._given_up = 0
        self.failure: ReqlError | None = None
        self.guard: Callable[[], None] | None = None  # raises when the reader may not read any more
        self.wake: Wake | None = None
        self.filling: Wake | None = None  # called once when half of the room is used up
        self.closed = False

    # -- what waits

    @property
    def tail(self) -> Link:
        """The last link for this feed."""
        return self._last or self.channel.tail

    @property
    def has_news(self) -> bool:
        return self.at is not self.tail or self.failure is not None or self._given_up > 0

    @property
    def waiting_count(self) -> int:
        """How many changes wait."""
        return self.tail.count - self.at.count

    @property
    def is_too_much(self) -> bool:
        """Whether more waits than may."""
        at, tail = self.at, self.tail
        return tail.count - at.count > self.limit or tail.size - at.size > MAX_WAITING_BYTES

    @property
    def has_skipped(self) -> bool:
        """Whether the reader has to be told of changes that were given up."""
        return self._given_up > 0 or self.is_too_much

    def give_up_if_too_much(self) -> None:
        if self.has_skipped:
            self._given_up += self.waiting_count
            self.at = self.tail

    def take_skipped(self) -> int:
        """How many changes were given up since this was last asked, with all that wait now; 0 if none was."""
        self.give_up_if_too_much()
        skipped, self._given_up = self._given_up, 0
        return skipped

    def take_links(self, max_bytes: int = ALL) -> list[Link]:
        """What waits, of all of it at least one link, or up to so many bytes of rows.

        Raises the feed's failure when nothing is left before it.
        """
        link, tail = self.at, self.tail
        if link is tail and self.failure is not None:
            raise self.failure
        links = []
        until = link.size + max_bytes
        while link is not tail and link.size < until:
            assert link.next is not None
            link = link.next
            links.append(link)
        self.at = link
        return links

    def take(self) -> list[SharedChange]:
        """All changes that wait; otherwise as `take_links`."""
        return [change for link in self.take_links() for change in link.changes]

    # -- who reads

    def listen(self, wake: Wake) -> None:
        """`wake` will be called once, when there is news."""
        self.wake = wake
        self.channel.waiting[self] = None

    def waits_for_round(self, wake: Wake) -> bool:
        """Whether the reader has to wait though there is news; then `wake` will be called once, with the others'."""
        if not self._hub.is_pausing:
            return False
        self.listen(wake)
        self._hub.wake_waiting(self.channel)
        return True

    def unlisten(self) -> None:
        """The reader waits no more."""
        if self.wake is not None:
            self.wake = None
            self.channel.waiting.pop(self, None)

    def tell(self) -> None:
        """The hub's: wakes the reader if it still waits."""
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def watch_filling(self, filling: Wake | None) -> None:
        """`filling` will be called once, when half of the room is used up; None takes it back."""
        self.filling = filling
        if filling is None:
            self.channel.gathering.discard(self)
        else:
            self.channel.gathering.add(self)

    # -- its end

    def fail(self, error: ReqlError) -> None:
        """What was told until now can still be read, then the error is raised."""
        if self.failure is None:
            self.failure = error
            self._last = self.channel.tail
            self._hub.wake_one(self)

    def recheck(self) -> None:
        """What users may do has changed: gives up what waits for a reader who may not see it any more."""
        if self.guard is not None:
            try:
                self.guard()
            except ReqlError as error:
                self.at = self.tail
                self._given_up = 0
                self.fail(error)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.filling = None
            self.unlisten()
            self._hub.leave(self)
