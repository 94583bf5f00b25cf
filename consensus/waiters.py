"""Who waits for an entry to be applied, and for a read to be allowed.

One rule: each waiter is told exactly once, and never that its entry was applied when another one took
its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from consensus.messages import Entry
from consensus.ports import Done
from consensus.reads import ReadState
from model.errors import LeadershipLost, NotLeader, RewindError

_log = logging.getLogger("rewinddb.consensus")

GIVE_UP_TIMEOUTS: Final = 5  # after so many election timeouts nobody confirms a read any more

_LOST: Final = "Another leader's entries took the place of this one."
_TOLD_IN_VAIN: Final = "what waited for the log failed when it was told"


def unknown_fate(error: RewindError) -> LeadershipLost:
    """What those are told whose entry may or may not be in the log, because of `error`."""
    return error if isinstance(error, LeadershipLost) else LeadershipLost(error.message, error.hint)


class EntryWaiters:
    """Waiters by log index, each with the raft_term that its entry has."""

    def __init__(self) -> None:
        self._waiters: dict[int, list[tuple[int, Done]]] = {}
        self._applied_term = 0

    def add(self, log_index: int, raft_term: int, done: Done) -> None:
        """`done` is called once the entry is applied or cannot be any more."""
        self._waiters.setdefault(log_index, []).append((raft_term, done))

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    def applied(self, entries: Sequence[Entry]) -> None:
        """These entries were applied."""
        if not self._waiters:
            self._applied_term = entries[-1].raft_term
            return
        take = self._waiters.pop
        for entry in entries:
            waiting = take(entry.index, None)
            if waiting is not None:
                for raft_term, done in waiting:
                    error = None if raft_term == entry.raft_term else LeadershipLost(_LOST)
                    try:  # as `_tell`, without a call for each
                        done(error)
                    except Exception:
                        _log.exception(_TOLD_IN_VAIN)
        if entries[-1].raft_term != self._applied_term:
            self._applied_term = entries[-1].raft_term
            self._fail_where(lambda _, raft_term: raft_term < self._applied_term, LeadershipLost(_LOST))

    def replaced_to(self, log_index: int) -> None:
        """A snapshot stands for all entries up to there: which ones those were is not known here."""
        error = LeadershipLost("A snapshot of another leader took the place of this entry, or holds it.")
        self._fail_where(lambda index, _: index <= log_index, error)

    def give_up(self, raft_term: int, error: Exception) -> None:
        """Nobody is to wait any longer for entries of that term or earlier ones."""
        self._fail_where(lambda _, entry_term: entry_term <= raft_term, error)

    def fail(self, error: Exception) -> None:
        """Nothing more will be applied."""
        self._fail_where(lambda *_: True, error)

    def _fail_where(self, is_lost: Callable[[int, int], bool], error: Exception) -> None:
        for index in sorted(self._waiters):
            waiting = self._waiters[index]
            lost = [done for raft_term, done in waiting if is_lost(index, raft_term)]
            if len(lost) == len(waiting):
                del self._waiters[index]
            elif lost:
                self._waiters[index] = [
                    (raft_term, done) for raft_term, done in waiting if not is_lost(index, raft_term)
                ]
            for done in lost:
                _tell(done, error)


@dataclass(slots=True)
class _Read:
    dones: list[Done]
    begun_tick: int
    asked_tick: int


@dataclass(slots=True)
class ReadWaiters:
    """Reads that wait for a read index, and then for the applied index to reach it.

    `ask` puts a question to the core; it raises NotLeader while no leader is known. Reads that come while
    one turn of the reactor lasts share one question.
    """

    ask: Callable[[bytes], None]
    retry_ticks: int  # an election timeout
    _asked: dict[bytes, _Read] = field(default_factory=dict)
    _to_apply: list[tuple[int, list[Done]]] = field(default_factory=list)
    new: list[Done] = field(default_factory=list)
    """Those that came since the last `flush`."""
    _count: int = 0
    _tick: int = 0

    def add(self, done: Done) -> None:
        self.new.append(done)

    def flush(self) -> None:
        """Asks for the reads that came since the last call; there have to be some."""
        dones, self.new = self.new, []
        self._ask_for(_Read(dones, self._tick, self._tick))

    def tick(self) -> None:
        """Asks again for what got no answer, and gives up what got none for long."""
        self._tick += 1
        if not self._asked:
            return
        for context, read in list(self._asked.items()):
            if self._tick - read.begun_tick >= GIVE_UP_TIMEOUTS * self.retry_ticks:
                del self._asked[context]
                _tell_all(read.dones, NotLeader("No leader confirmed the read in time."))
            elif self._tick - read.asked_tick >= self.retry_ticks:
                del self._asked[context]
                self._ask_for(read)

    def confirmed(self, states: Sequence[ReadState], applied_index: int) -> None:
        """A quorum confirmed these reads."""
        for state in states:
            read = self._asked.pop(state.context, None)
            if read is None:
                continue
            if state.index <= applied_index:
                _tell_all(read.dones, None)
            else:
                self._to_apply.append((state.index, read.dones))

    def applied(self, applied_index: int) -> None:
        """The state is as of `applied_index` now."""
        if not self._to_apply:
            return
        ready = [dones for index, dones in self._to_apply if index <= applied_index]
        self._to_apply = [(index, dones) for index, dones in self._to_apply if index > applied_index]
        for dones in ready:
            _tell_all(dones, None)

    def fail(self, error: Exception) -> None:
        """No read will be answered any more."""
        lost = [self.new, *(read.dones for read in self._asked.values()), *(dones for _, dones in self._to_apply)]
        self.new, self._asked, self._to_apply = [], {}, []
        for dones in lost:
            _tell_all(dones, error)

    def _ask_for(self, read: _Read) -> None:
        self._count += 1
        context = self._count.to_bytes(8, "big")
        read.asked_tick = self._tick
        self._asked[context] = read
        try:
            self.ask(context)
        except NotLeader:
            if read.begun_tick == self._tick:  # new: its caller may look for the leader itself
                del self._asked[context]
                _tell_all(read.dones, NotLeader("No leader is known at the moment."))


def _tell_all(dones: list[Done], error: Exception | None) -> None:
    for done in dones:
        _tell(done, error)


def _tell(done: Done, error: Exception | None) -> None:
    """A waiter's own mistake must not keep the others waiting, nor end the node."""
    try:
        done(error)
    except Exception:
        _log.exception(_TOLD_IN_VAIN)
