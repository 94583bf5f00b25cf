"""The data as queries see it: reads from the applied state, writes through the log.

One rule: a write is evaluated against the head (applied state plus what is proposed) and proposed in the same
breath, or gathered with others for the entry that is proposed next, so every write sees all writes before it in the
log. Runs on the reactor's thread, inside fibers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

from model.catalog import Catalog
from model.effect import DELETE_ROW, PUT_ROW, Effect, encode
from model.errors import LeadershipLost, NotLeader, ReqlOpFailedError
from proxy.answers import Done
from proxy.reql.env import CatalogChange
from server.gathering import Gathering

SOFT_WAITING_BYTES: Final = 32 << 20  # with more than this not yet applied, a soft write waits like a hard one

ROW_EFFECTS: Final = (PUT_ROW, DELETE_ROW)

NOTHING_PROPOSED: Final = (0, 0)

LEASE_KEPT_S: Final = 0.02  # so long a lease that was found valid need not be looked at again


boot_clock: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds that go on while the process or the whole machine sleeps."""


NORMAL_ENTRY: Final = 0  # consensus.messages.EntryKind.NORMAL


class Log(Protocol):
    """The consensus room, as far as queries need it (`consensus.node.Node`)."""

    applied_index: int

    @property
    def can_serve(self) -> bool: ...
    @property
    def takes_proposals(self) -> bool: ...
    @property
    def has_lease(self) -> bool: ...
    def propose(self, payload: bytes) -> tuple[int, int]: ...
    def before_turn(self, call: Callable[[], object]) -> None: ...
    def when_applied(self, log_index: int, raft_term: int, done: Callable[[Exception | None], None]) -> None: ...
    def read_index(self, done: Callable[[Exception | None], None]) -> None: ...


class Rows(Protocol):
    """The applied state (`storage.rows.Store`)."""

    @property
    def catalog(self) -> Catalog: ...
    def get(self, table_id: int, key: bytes) -> bytes | None: ...
    def get_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan_rows(
        self, table_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], bytes]: ...
    def scan_index_chunk(
        self, index_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]: ...
    def scan_index_rows(
        self, index_id: int, table_id: int, low: bytes, high: bytes, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], int, bytes]: ...
    def count(self, table_id: int) -> int: ...
    def index_ready(self, index_id: int) -> bool: ...
    def index_progress(self, index_id: int) -> float: ...


class FixedRows(Rows, Protocol):
    """A point-in-time read (`storage.rows.StoreView`)."""

    @property
    def applied_index(self) -> int: ...
    def close(self) -> None: ...


class LiveRows(Rows, Protocol):
    """The applied state as it moves (`storage.rows.LiveStore`)."""

    def view(self) -> FixedRows: ...


class PastEntry(Protocol):
    """One entry of the log."""

    @property
    def index(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def data(self) -> bytes: ...


class PastLog(Protocol):
    """The entries that are kept (`consensus.logstore.LogStore`)."""

    def first_index(self) -> int: ...
    def entries(self, low: int, high: int, max_bytes: int) -> Sequence[PastEntry]:
        """Entries low to high - 1, at least one."""


class Newest(Protocol):
    """Rows as the proposed writes leave them (`storage.head.Head`)."""

    gathered: dict[tuple[int, bytes], bytes | None]

    def get(self, table_id: int, key: bytes) -> bytes | None: ...
    def get_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def staged_at(self, table_id: int, key: bytes) -> int: ...
    def stage(self, log_index: int, effects: Sequence[Effect]) -> None: ...
    def settle(self, applied_index: int) -> None: ...
    def drop(self) -> None: ...


class Waits(Protocol):
    """What of the fibers is needed here. `current` is the one that runs."""

    current: Any

    def wait_for(self, begin: Callable[[Done], object], timeout_s: float | None = None) -> Any: ...


class Settled:
    """How a commit ended, for one who asks later; it may have ended before that, or end after it."""

    __slots__ = ("_answer", "_told")

    def __init__(self) -> None:
        self._answer: tuple[Exception | None] | None = None
        self._told: Done | None = None

    def done(self, error: Exception | None = None) -> None:
        """It has ended."""
        self._answer = (error,)
        if self._told is not None:
            self._told(error)

    def tell(self, told: Done) -> None:
        """Calls `told` when it has ended, at once if it has."""
        self._told = told
        if self._answer is not None:
            told(*self._answer)


class Replica:
    """The `Data` port of the evaluator, over the log and the applied state of this server."""

    def __init__(
        self,
        log: Log,
        rows: LiveRows,
        head: Newest,
        fibers: Waits,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = boot_clock,
        foresee: Callable[[int, bytes, tuple[int, list[Effect]]], None] | None = None,
    ) -> None:
        """foresee: hears what is proposed, so that it need not decode it: (log_index, payload, (time_ms, effects))."""
        self._log = log
        self._clock = clock
        self._lease_until = float("-inf")
        self.writers: set[Any] = set()  # the fibers that have written in their present query
        self._rows = rows
        self._head = head
        self._fibers = fibers
        self._now_ms = now_ms
        self._foresee = foresee
        self.past: PastLog | None = None  # where feeds that are resumed read what they missed
        self._soft = NOTHING_PROPOSED  # the newest soft write that was acknowledged: (log_index, raft_term)
        self._newest = NOTHING_PROPOSED
        self._waiting: deque[tuple[int, int]] = deque()  # (log_index, bytes) proposed here and not yet applied
        self._waiting_bytes = 0
        self._gathering: Gathering | None = None  # open: see _gather
        self._turns: deque[Done] = deque()  # who waits to change the catalog
        self._turn_taken = False
        self.refusal = ""  # why nothing may be written, if so
        # The hot path: one call fewer for each row that is read.
        self.get = rows.get
        self.get_many = rows.get_many
        self.scan_rows = rows.scan_rows
        self.scan_index_chunk = rows.scan_index_chunk
        self.scan_index_rows = rows.scan_index_rows
        self.count = rows.count
        self.index_ready = rows.index_ready
        self.index_progress = rows.index_progress
        self.get_head = head.get
        self.get_head_many = head.get_many

    @property
    def catalog(self) -> Catalog:
        return self._rows.catalog

    @property
    def applied_index(self) -> int:
        return self._log.applied_index

    def log_first_index(self) -> int:
        """The oldest entry of the log that is kept; without a log the one after the applied state."""
        return self._log.applied_index + 1 if self.past is None else self.past.first_index()

    def read_log(self, low: int, high: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """(log index, payload) of the entries low to high, at least one; Raft's own entries have no payload."""
        assert self.past is not None
        found = self.past.entries(low, high + 1, max_bytes)
        return [(entry.index, entry.data if entry.kind == NORMAL_ENTRY else b"") for entry in found]

    def prepare_read(self, read_mode: str) -> None:
        """Waits until a read may look at the applied state. Raises NotLeader where it may not."""
        if read_mode == "outdated":
            return
        self._await_leadership(read_mode)
        if self._soft[0] > self._log.applied_index:
            self._wait_for_soft_writes()

    def prepare_get(self, read_mode: str, table_id: int, key: bytes) -> bool:
        """As `prepare_read` for one row: soft writes of others need not be waited for. Whether all may be read now."""
        if read_mode == "outdated":
            return True
        self._await_leadership(read_mode)
        if self._soft[0] <= self._log.applied_index:
            return True
        staged_at = self._head.staged_at(table_id, key)
        if not staged_at:
            return False
        if staged_at >= self._soft[0]:
            self._wait_for_soft_writes()
            return True
        self._wait_for_soft_writes(staged_at)
        return self._soft[0] <= self._log.applied_index

    def can_get(self) -> bool:
        """Whether any row may be read now in mode "single": `prepare_get` would not wait. False if in doubt."""
        log = self._log
        return self._soft[0] <= log.applied_index and self._clock() < self._lease_until and log.can_serve

    def can_write(self) -> bool:
        """Whether a write would be taken; a refusal in between is still possible."""
        return not self.refusal and self._log.can_serve

    def _await_leadership(self, read_mode: str) -> None:
        """Returns when what is applied here holds all that was acknowledged as hard."""
        if not self._log.can_serve:
            raise _not_leading()
        if read_mode == "majority" or not self._leads_alone():
            self._fibers.wait_for(self._log.read_index)

    def _leads_alone(self) -> bool:
        """Whether nobody else can have become leader, so that what is applied here is what is acknowledged."""
        now = self._clock()
        if now < self._lease_until:
            return True
        if self._log.has_lease:
            self._lease_until = now + LEASE_KEPT_S
            return True
        return False

    def commit(self, effects: list[Effect], durability: str) -> None:
        """At once, in one entry of the log. Hard: returns when it is on disk and applied; soft: when it has its place.

        Hard writes of one row share an entry with others' that come in the same turn of the reactor.
        """
        begin = self.promise(effects, durability)
        if begin is not None:
            self._fibers.wait_for(begin)

    def promise(self, effects: list[Effect], durability: str) -> Callable[[Done], object] | None:
        """As `commit`, but what it would wait for is given: `begin(done)`; None if it would not wait."""
        may_share = len(effects) == 1 and durability == "hard" and effects[0][0] in ROW_EFFECTS
        if may_share and not self.refusal and self._log.takes_proposals:  # what would be refused now is refused now
            return self._gather(effects[0])
        place = self._propose(effects)
        if durability == "soft" and self._waiting_bytes < SOFT_WAITING_BYTES:
            self._soft = place
            return None
        return partial(self._log.when_applied, *place)

    def commit_later(self, effects: list[Effect], made: list[Effect] | None = None) -> Callable[[], None]:
        """As a hard commit whose end is not waited for; what is returned waits for it, and raises what went wrong.

        made: the same effects with what it is good to have at hand when they are applied (model/effect.with_rows).
        """
        settled = Settled()
        self._log.when_applied(*self._propose(effects, made=made), settled.done)
        return lambda: self._fibers.wait_for(settled.tell)

    def confirm(self) -> None:
        """Returns when what was read of the head is sure to stay. Raises NotLeader if it may not."""
        self._close_gathering()
        if self._newest[0] > self._log.applied_index:
            try:
                self._wait_until_applied(self._newest)
            except LeadershipLost as error:
                if self._fibers.current in self.writers:
                    raise
                raise NotLeader(error.message, error.hint) from None
        self.prepare_read("single")

    def change_catalog(self, change: CatalogChange) -> Any:
        """Runs `change` when it is its turn, commits its effects, waits until they are applied, gives its result."""
        self._take_turn()
        try:
            unused = count(self.catalog.next_id)
            effects, result = change(self.catalog, unused.__next__)
            place = self._propose(effects, are_rows=False) if effects else None
        except BaseException:
            self._give_turn()
            raise
        if place is None:
            self._give_turn()
            return result
        # The turn ends with the change, even if the query that asked for it ends before.
        self._log.when_applied(*place, lambda error: self._give_turn())
        self._wait_until_applied(place)
        return result

    def view(self) -> FixedRows:
        """The applied state as it is at this moment, for reads alone; to be closed."""
        return self._rows.view()

    def sync(self, table_id: int) -> None:
        """Returns when all that was proposed is on disk and applied. `table_id` is of no matter: there is one log."""
        self._close_gathering()
        if self._newest[0] > self._log.applied_index:
            self._wait_until_applied(self._newest)

    def settle(self, applied_index: int) -> None:
        """The log is applied up to there: to be called before anybody who waits for that is told."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= applied_index:
            self._waiting_bytes -= waiting.popleft()[1]
        self._head.settle(applied_index)

    def drop(self) -> None:
        """Leadership is lost: what was proposed may never be applied."""
        self._lease_until = float("-inf")
        self._waiting.clear()
        self._waiting_bytes = 0
        self._head.drop()
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            self._refuse(gathering, _not_leading())

    def _propose(
        self, effects: list[Effect], are_rows: bool = True, made: list[Effect] | None = None
    ) -> tuple[int, int]:
        if self.refusal or not self._log.can_serve:
            raise self._refusal()
        self._close_gathering()
        place = self._put_into_log(effects, are_rows, made)
        if self._fibers.current is not None:
            self.writers.add(self._fibers.current)
        return place

    def _refusal(self) -> Exception:
        """Why nothing may be written."""
        # A query may outlive its leader's term and see the next one begin, before the head is all there.
        return ReqlOpFailedError(self.refusal) if self.refusal else _not_leading()

    def _gather(self, effect: Effect) -> Callable[[Done], object]:
        """A hard write of one row, proposed when the next turn begins, or before whatever else is proposed."""
        gathering = self._gathering
        is_first = gathering is None
        if gathering is None:
            self._gathering = gathering = Gathering()
        writer = self._fibers.current
        if writer is not None and writer not in self.writers:
            self.writers.add(writer)
            gathering.writers.append(writer)
        row = effect[3] if effect[0] == PUT_ROW else None
        is_full = gathering.add(effect, row)
        self._head.gathered[effect[1], effect[2]] = row
        if is_first:
            self._log.before_turn(self._end_gathering)
        if is_full:
            self._end_gathering()
        return gathering.wait

    def _close_gathering(self) -> None:
        """Proposes what is gathered, if anything is; raises what kept it out of the log, as who asks has seen it."""
        if self._gathering is not None:
            error = self._end_gathering()
            if error is not None:
                raise error

    def _end_gathering(self) -> Exception | None:
        """Proposes what is gathered; if that may not be, tells those who wait for it why, and gives the reason."""
        gathering, self._gathering = self._gathering, None
        if gathering is None:
            return None
        self._head.gathered.clear()
        try:
            if self.refusal or not self._log.can_serve:
                raise self._refusal()
            place = self._put_into_log(gathering.effects)
        except Exception as error:  # whatever it is, nobody waits for ever
            self._refuse(gathering, error)
            return error
        gathering.close(partial(self._log.when_applied, *place))
        return None

    def _refuse(self, gathering: Gathering, error: Exception) -> None:
        self.writers.difference_update(gathering.writers)
        gathering.close(lambda done: done(error))

    def _put_into_log(
        self, effects: list[Effect], are_rows: bool = True, made: list[Effect] | None = None
    ) -> tuple[int, int]:
        time_ms = self._now_ms()
        payload = encode(effects, time_ms)
        self._newest = place = self._log.propose(payload)
        log_index, size = place[0], len(payload)
        self._head.stage(log_index, effects)
        if are_rows and self._foresee is not None:  # a catalog's documents could be changed by whoever made them
            self._foresee(log_index, payload, (time_ms, effects if made is None else made))
        self._waiting.append((log_index, size))
        self._waiting_bytes += size
        return place

    def _wait_until_applied(self, place: tuple[int, int]) -> None:
        self._fibers.wait_for(lambda done: self._log.when_applied(*place, done))

    def _wait_for_soft_writes(self, up_to: int | None = None) -> None:
        """Returns when those that were acknowledged so far are applied, up to a log index if it is given."""
        soft = self._soft
        try:
            self._wait_until_applied(soft if up_to is None else (up_to, soft[1]))
        except LeadershipLost:
            if self._soft == soft:  # they are gone with the old leader, as soft writes may be
                self._soft = NOTHING_PROPOSED

    def _take_turn(self) -> None:
        if not self._turn_taken:
            self._turn_taken = True
            return
        mine: list[Done] = []

        def begin(done: Done) -> None:
            mine.append(done)
            self._turns.append(done)

        try:
            self._fibers.wait_for(begin)
        except BaseException:
            if mine and mine[0] in self._turns:
                self._turns.remove(mine[0])
            elif mine:
                self._give_turn()
            raise

    def _give_turn(self) -> None:
        if self._turns:
            self._turns.popleft()(None)
        else:
            self._turn_taken = False


def _not_leading() -> NotLeader:
    return NotLeader("this server does not lead, or has not caught up yet", "Try again in a moment.")
