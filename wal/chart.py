"""What a log's records come to: which entries count, their raft_terms, and where in the files they are.

One rule: entries are contiguous. An index is only taken again after a record that makes the old entry
void (`TRUNCATE`, `RESTART`); anything else is damage.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from model.errors import Corrupt
from wal.record import FIRST_ENTRY_KIND, Kind, Record

_ANCHOR_EVERY_BYTES: Final = 32 << 10


class Anchor(NamedTuple):
    """The entry `log_index` begins at `offset` of segment number `segment`."""

    log_index: int
    segment: int
    offset: int


class EntryMap:
    """Where entries are: an anchor every so many bytes, in ascending order of index and of place.

    From an anchor on, files hold the entries one after the other up to the next anchor's index: the first
    entry after a truncation is always an anchor, so void entries lie behind that index.
    """

    def __init__(self) -> None:
        self._anchors: list[Anchor] = []
        self._must_note = True

    def note(self, index: int, segment: int, offset: int) -> None:
        """The entry `index` is there; called for all entries in the order of the log."""
        if not self._must_note:
            last = self._anchors[-1]
            if last.segment == segment and offset - last.offset < _ANCHOR_EVERY_BYTES:
                return
        self._anchors.append(Anchor(index, segment, offset))
        self._must_note = False

    def truncate_after(self, index: int) -> None:
        """Forgets the entries after `index`."""
        del self._anchors[bisect_right(self._anchors, index, key=_index_of) :]
        self._must_note = True

    def release_before(self, segment: int) -> None:
        """Forgets what the segments below number `segment` hold."""
        del self._anchors[: bisect_left(self._anchors, segment, key=_segment_of)]
        self._must_note = self._must_note or not self._anchors

    def anchors(self, low: int, limit: int) -> list[Anchor]:
        """The anchor at or before `low` and up to `limit` - 1 after it."""
        at = max(bisect_right(self._anchors, low, key=_index_of) - 1, 0)
        return self._anchors[at : at + limit]


def _index_of(anchor: Anchor) -> int:
    return anchor.log_index


def _segment_of(anchor: Anchor) -> int:
    return anchor.segment


class TermRuns:
    """The raft_term of each entry, kept as the index at which each raft_term begins."""

    def __init__(self, index: int = 0, raft_term: int = 0) -> None:
        """An empty log after the entry `index` of `raft_term`."""
        self._starts = [index]
        self._terms = [raft_term]

    @property
    def last_term(self) -> int:
        """The raft_term of the last entry."""
        return self._terms[-1]

    def restart(self, index: int, raft_term: int) -> None:
        """Forgets all but that the log goes on after the entry `index` of `raft_term`."""
        self._starts = [index]
        self._terms = [raft_term]

    def note(self, index: int, raft_term: int) -> None:
        """The entry `index`, the last one so far, is of `raft_term`."""
        if raft_term != self._terms[-1]:
            self._starts.append(index)
            self._terms.append(raft_term)

    def truncate_after(self, index: int) -> None:
        keep = max(bisect_right(self._starts, index), 1)
        del self._starts[keep:], self._terms[keep:]

    def release_before(self, index: int) -> None:
        """Forgets raft_terms of entries before `index`; that of `index` stays."""
        at = bisect_right(self._starts, index) - 1
        del self._starts[:at], self._terms[:at]
        self._starts[0] = max(self._starts[0], index)

    def term(self, index: int) -> int:
        """The raft_term of entry `index`, which the caller knows to be in the log."""
        return self._terms[bisect_right(self._starts, index) - 1]

    def runs(self, low: int, high: int) -> list[tuple[int, int]]:
        """(first entry, raft_term) that cover the entries low to high; the first may begin before `low`."""
        at, end = max(bisect_right(self._starts, low) - 1, 0), bisect_right(self._starts, high)
        return list(zip(self._starts[at:end], self._terms[at:end], strict=True))


class Chart:
    """The state that records come to, taken one after the other in the order of the files.

    `first_index` to `last_index` are the entries that count; the log is empty if the first is the larger.
    """

    def __init__(self) -> None:
        self.first_index = 1
        self.last_index = 0
        self.last_term = 0
        self.terms = TermRuns()
        self.map = EntryMap()
        self.hard_state: Record | None = None
        self.conf_states: list[Record] = []  # ascending by index
        self.special: list[int] = []  # entries of other kinds than the usual one: what changes configurations
        self._is_begun = False

    def take(self, record: Record, segment: int, offset: int) -> None:
        """Takes the next record; raises Corrupt, without a place, if it does not follow from those before."""
        kind, raft_term, index, _ = record
        if kind >= FIRST_ENTRY_KIND:
            if index != self.last_index + 1 or raft_term < self.last_term:
                raise Corrupt(
                    f"entry {index} of raft term {raft_term} follows entry {self.last_index} of {self.last_term}"
                )
            self.last_index, self.last_term = index, raft_term
            self.terms.note(index, raft_term)
            self.map.note(index, segment, offset)
            if kind > FIRST_ENTRY_KIND:
                self.special.append(index)
        elif kind == Kind.SEGMENT:
            self._begin_segment(raft_term, index)
        elif kind == Kind.HARD_STATE:
            self.hard_state = record
        elif kind == Kind.CONF_STATE:
            self._take_conf_state(record)
        elif kind == Kind.TRUNCATE:
            if index > self.last_index:
                raise Corrupt(f"entries after {index} were made void, but the log ends at {self.last_index}")
            self._continue_after(index, raft_term)
        elif kind == Kind.RESTART:
            self._restart_after(index, raft_term)
        else:
            raise Corrupt(f"a record is of kind {kind}, which this version does not know")

    def _take_conf_state(self, record: Record) -> None:
        """A later one replaces those of the same or a later index; a new segment repeats the newest."""
        while self.conf_states and self.conf_states[-1].log_index >= record.log_index:
            self.conf_states.pop()
        self.conf_states.append(record)

    def _begin_segment(self, raft_term: int, index: int) -> None:
        if not self._is_begun:
            self._restart_after(index, raft_term)
            self._is_begun = True
        elif (index, raft_term) != (self.last_index, self.last_term):
            raise Corrupt(
                f"a segment begins after entry {index} of raft term {raft_term},"
                f" the one before it ends with {self.last_index} of {self.last_term}"
            )

    def _continue_after(self, index: int, raft_term: int) -> None:
        if index < self.first_index - 1:  # the entries in between were in a segment that is released
            self._restart_after(index, raft_term)
            return
        self.map.truncate_after(index)
        self.terms.truncate_after(index)
        while self.special and self.special[-1] > index:
            self.special.pop()
        self.last_index, self.last_term = index, raft_term

    def _restart_after(self, index: int, raft_term: int) -> None:
        self.map.truncate_after(-1)
        self.special = []
        self.terms = TermRuns(index, raft_term)
        self.first_index, self.last_index, self.last_term = index + 1, index, raft_term
