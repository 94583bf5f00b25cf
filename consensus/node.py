"""The loop around the Raft core: persist, send, apply; on the reactor's thread.

One rule: whatever fails for good (the disk, an entry that cannot be applied, the core itself) ends the
node through `fail`, once; from then on nothing is promised to anybody.

    propose / receive / tick ──► core ──► Ready ──► messages        at once
                                            │──► log store ──► writer thread ──► synced ──► core, messages that promise
                                            └──► committed entries ──► state machine ──► waiters

Several `Ready` may be on their way to the disk: they are acknowledged to the core in their order. The
proposals of one turn of the reactor make one `Ready`, those that come while the disk works make the next write.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from consensus.core import Config, RaftCore, Ready, Role, SoftState, Status
from consensus.flushing import FlushPolicy
from consensus.logstore import LogStore
from consensus.messages import ConfChange, ConfState, Entry, EntryKind, Message, Snapshot, decode_conf_change
from consensus.ports import Done, NoPeers, Reactor, Snapshots, StateMachine, Transport
from consensus.waiters import EntryWaiters, ReadWaiters, unknown_fate
from model.errors import LeadershipLost, NotLeader, Overloaded, RewindError, Unfinished

__all__ = ["NoPeers", "Node", "Reactor", "Snapshots", "StateMachine", "Transport"]

_log = logging.getLogger("rewinddb.consensus")

DEFAULT_TICK_S: Final = 0.1
DEFAULT_QUEUE_BYTES: Final = 64 << 20
DEFAULT_DRAIN_S: Final = 5.0
DRAIN_STEP_S: Final = 0.01
APPLY_BYTES: Final = 1 << 20  # entries applied in one call; a backlog is applied in several, with turns in between
TURN_S: Final = 0.005  # after this long the loop lets the reactor do something else
STALL_RETRY_S: Final = 0.005
_NORMAL: Final = EntryKind.NORMAL
_LEADER: Final = Role.LEADER


class Node:
    """One member of the group. All methods on the reactor's thread.

    `soon(call)` runs a call later in this or in the next turn of the reactor, `soon_from_thread(call)` does for any
    thread; `loop.call_soon` and `loop.call_soon_threadsafe` are the fastest, by 50 µs for a commit that is alone.
    `on_applied(applied_index)` is called before the waiters of the entries are; `on_leadership` whenever the
    leader or this member's role changed; `on_fatal(error)` once, when the node has ended by itself.
    """

    def __init__(
        self,
        config: Config,
        store: LogStore,
        machine: StateMachine,
        transport: Transport | None = None,
        *,
        reactor: Reactor,
        snapshots: Snapshots | None = None,
        soon: Callable[[Callable[[], None]], object] | None = None,
        soon_from_thread: Callable[[Callable[[], None]], object] | None = None,
        in_thread: Callable[[Callable[[], int]], Deferred[int]] = deferToThread,
        tick_s: float = DEFAULT_TICK_S,
        queue_bytes: int = DEFAULT_QUEUE_BYTES,
        flush_policy: FlushPolicy | None = None,
    ) -> None:
        self._reactor = reactor
        self._soon = soon or partial(reactor.callLater, 0)
        self._soon_from_thread = soon_from_thread or reactor.callFromThread
        self._in_thread = in_thread
        self._store = store
        self._machine = machine
        self._transport: Transport = transport or NoPeers()
        self._snapshots = snapshots
        self._tick_s = tick_s
        self._queue_bytes = queue_bytes
        self._flush_policy = flush_policy or FlushPolicy()
        slices = min(config.max_committed_bytes, APPLY_BYTES)
        self.core = RaftCore(replace(config, applied=machine.applied_index, max_committed_bytes=slices), store)
        self.applied_index = machine.applied_index
        self.failed: RewindError | None = None
        self.on_applied: Callable[[int], None] | None = None
        self.on_leadership: Callable[[SoftState], None] | None = None
        self.on_conf_change: Callable[[ConfChange, ConfState], None] | None = None
        self.on_fatal: Callable[[RewindError], None] | None = None
        self._waiters = EntryWaiters()
        self._reads = ReadWaiters(self.core.read_index, config.election_ticks)
        self._turn_begins: Callable[[], object] | None = None  # see before_turn
        self._is_turn_due = False
        self._is_running = self._is_open = False  # open to proposals
        self._pending: deque[tuple[Ready, bool]] = deque()  # not acknowledged to the core yet; whether it was written
        self._thread = get_ident()
        self._syncs_done = 0  # counted by who writes the log
        self._syncs_seen = 0
        self._is_wake_posted = False
        self._unapplied: deque[Ready] = deque()  # their committed entries wait for a stalled state machine
        self._is_retry_due = False
        self._is_installing = False
        self._led_s = reactor.seconds()  # when a leader was last heard of
        self._ticker: Any = None
        self._flushing: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        store.on_failure = lambda error: reactor.callFromThread(self.fail, error)
        if snapshots is not None:
            store.snapshot_source = snapshots.newest

    # -- questions

    @property
    def last_index(self) -> int:
        """The last entry of the log, committed or not."""
        return self.core.last_index

    @property
    def leader_id(self) -> int | None:
        """The member that leads, as far as is known."""
        return self.core.leader_id or None

    @property
    def is_leader(self) -> bool:
        """Whether this member believes to lead."""
        return self.core.is_leader

    @property
    def can_serve(self) -> bool:
        """Whether this member leads and has applied all that earlier leaders committed."""
        core = self.core
        return self.failed is None and core.role is _LEADER and self.applied_index >= core.term_start

    @property
    def takes_proposals(self) -> bool:
        """Whether it can serve, and would refuse a proposal only for want of room."""
        return self.can_serve and not self.core.transferee and self.core.id in self.core.tracker.progress

    @property
    def has_lease(self) -> bool:
        """Whether no other member can have become leader by now."""
        return self.failed is None and self.core.has_lease

    @property
    def silent_ms(self) -> int:
        """How long ago a leader was last heard of, in milliseconds; 0 for the leader itself."""
        return 0 if self.core.is_leader else round((self._reactor.seconds() - self._led_s) * 1000)

    def status(self) -> Status:
        """This member's view of the group."""
        return self.core.status()

    # -- what others ask for

    def propose(self, payload: bytes) -> tuple[int, int]:
        """Puts an entry at the end of the leader's log; (log_index, raft_term), at once.

        Raises NotLeader, Overloaded, or what ended the node: surely not done.
        """
        if not self._is_open:
            raise self._refusal()
        if self._store.queued_bytes > self._queue_bytes:
            raise Overloaded(f"{self._store.queued_bytes} bytes wait for the disk; the limit is {self._queue_bytes}.")
        core = self.core
        log_index = core.propose(payload)
        if not self._is_turn_due:
            self._turn_soon()
        return log_index, core.raft_term

    def before_turn(self, call: Callable[[], object]) -> None:
        """Calls it once, when the next turn begins or the lead is handed over, even where the node has ended."""
        self._turn_begins = call
        self._turn_soon()

    def propose_conf_change(self, change: ConfChange) -> tuple[int, int]:
        """Proposes a change of the membership; like `propose`."""
        if not self._is_open:
            raise self._refusal()
        log_index = self.core.propose_conf_change(change)
        self._turn_soon()
        return log_index, self.core.raft_term

    def when_applied(self, log_index: int, raft_term: int, done: Done) -> None:
        """Calls `done(None)` once that entry is applied, or `done(LeadershipLost)` if it may not ever be."""
        if not self._is_running:
            error = unknown_fate(self._refusal())
            self._soon(lambda: done(error))
        elif log_index > self.applied_index:
            self._waiters.add(log_index, raft_term, done)
        else:
            is_same = self.core.log.term_or_zero(log_index) == raft_term
            answer = None if is_same else LeadershipLost("Another leader's entry has this index, or it is long past.")
            self._soon(lambda: done(answer))

    def give_up_waiting(self, raft_term: int) -> None:
        """Whoever waits for an entry of that term or an earlier one is told that its fate is unknown.

        For a member that lost the lead and hears of no other leader: nobody should wait for the end of that.
        """
        self._waiters.give_up(raft_term, LeadershipLost("Leadership was lost before this was known to be committed."))

    def read_index(self, done: Done) -> None:
        """Calls `done(None)` once what is applied here holds all that was committed before this call."""
        if not self._is_running:
            error = self._refusal()
            self._soon(lambda: done(error))
            return
        self._reads.add(done)
        self._turn_soon()

    def receive(self, message: Message) -> None:
        """Takes in a message of another member."""
        self._guard(self.core.step, message)
        if message.sender == self.core.leader_id:
            self._led_s = self._reactor.seconds()

    def report_unreachable(self, member: int) -> None:
        """What was last sent to `member` may be lost."""
        self._guard(self.core.report_unreachable, member)

    def report_snapshot(self, member: int, delivered: bool) -> None:
        """A snapshot has reached `member`, or will not."""
        self._guard(self.core.report_snapshot, member, delivered)

    def transfer_leadership(self, member: int) -> None:
        """Asks `member` to lead; nothing comes of it if its log does not catch up in time."""
        self._begin_turn()  # no proposal is taken any more
        self._guard(self.core.transfer_leadership, member)

    # -- life

    def start(self) -> None:
        """Begins to take part; a group of one is led at once."""
        self._is_running = self._is_open = True
        membership = self.core.tracker.membership
        if self.core.is_promotable and set(membership.voters) == {self.core.id} and not membership.is_joint:
            self.core.campaign()
        self._ticker = self._reactor.callLater(self._tick_s, self._tick)
        self._flush_policy.begin(self.applied_index, self._reactor.seconds())
        self._turn_soon()

    def stop(self, drain_s: float = DEFAULT_DRAIN_S) -> Deferred[None]:
        """Ends in good order; fires when all is on disk and the log is closed.

        Nothing new is taken; what was proposed has `drain_s` to be applied; what is applied is made durable.
        """
        if self._stopping is None:
            self._stopping = Deferred()
            self._is_open = False
            self._drain(self._stopping, self._reactor.seconds() + drain_s)
        return self._stopping

    def _drain(self, stopped: Deferred[None], until: float) -> None:
        is_idle = not self._waiters.is_waiting and not self._pending
        if self._is_running and not is_idle and self._reactor.seconds() < until:
            self._reactor.callLater(DRAIN_STEP_S, self._drain, stopped, until)
            return
        self._end(LeadershipLost("This server is being stopped."))
        flushed = succeed(None) if self.failed is not None else self.flush()
        closed = flushed.addCallback(lambda _: self._in_thread(self._close_store))
        closed.addCallbacks(lambda _: stopped.callback(None), stopped.errback)

    def _close_store(self) -> int:
        self._store.close()
        return self.applied_index

    def fail(self, error: Exception) -> None:
        """Ends the node because of `error`; what was acknowledged stays, what was not is unknown."""
        if self.failed is not None:
            return
        fatal = error if isinstance(error, RewindError) else RewindError(f"The log could not go on: {error!r}.")
        self.failed = fatal
        _log.error("this member stops taking part: %s", fatal, exc_info=error)
        self._end(unknown_fate(fatal))
        if self.on_fatal is not None:
            self.on_fatal(fatal)

    def _end(self, error: RewindError) -> None:
        self._is_running = self._is_open = False
        if self._ticker is not None and self._ticker.active():
            self._ticker.cancel()
        self._waiters.fail(error)
        self._reads.fail(NotLeader(error.message, error.hint))

    def _refusal(self) -> RewindError:
        return self.failed or NotLeader("This member is not running.")

    # -- the loop

    def _turn_soon(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            self._soon(self._turn)

    def _tick(self) -> None:
        self._ticker = self._reactor.callLater(self._tick_s, self._tick)
        self._reads.tick()
        if self.core.is_leader:
            self._led_s = self._reactor.seconds()
        self._guard(self.core.tick)

    def _guard(self, call: Callable[..., object], *args: Any) -> None:
        """Lets something happen to the core, and sees to what comes of it."""
        if not self._is_running:
            return
        try:
            call(*args)
        except Exception as error:
            self.fail(error)
        self._turn_soon()

    def _begin_turn(self) -> None:
        if self._turn_begins is not None:
            begin, self._turn_begins = self._turn_begins, None
            begin()

    def _turn(self) -> None:
        """Does all that the core wants done now."""
        self._begin_turn()
        self._is_turn_due = False  # not before: what has just begun is seen to now
        if self._turn_begins is not None:  # who was told has something for the next turn
            self._turn_soon()
        if not self._is_running:
            return
        try:
            self._work()
        except Exception as error:
            self.fail(error)

    def _work(self) -> None:
        core, seconds = self.core, self._reactor.seconds
        if self._reads.new:
            self._reads.flush()
        now = seconds()
        until = now + TURN_S
        while core.has_ready() and self._is_running and not self._is_installing:
            self._handle(core.ready())
            now = seconds()
            if now >= until:
                self._turn_soon()
                return
        if self._flushing is None and self._flush_policy.is_due(self.applied_index, now):
            self._start_flush()

    def _handle(self, ready: Ready) -> None:
        if ready.soft_state is not None and self.on_leadership is not None:
            self.on_leadership(ready.soft_state)
        if ready.messages:
            self._transport.send(ready.messages)
        if ready.hard_state is not None and ready.is_only_commit:
            self._store.keep_commit(ready.hard_state)
        elif ready.needs_write:
            if ready.snapshot is not None:
                self._install(ready, ready.snapshot)
                return
            is_written = self._store.append(ready.entries, ready.hard_state, self._synced)
            self._pending.append((ready, is_written))
            if not is_written and len(self._pending) == 1:
                self._acknowledge()
        if ready.committed_entries:
            self._unapplied.append(ready)
            self._apply_waiting()
        if ready.read_states:
            self._reads.confirmed(ready.read_states, self.applied_index)

    def _synced(self) -> None:
        """On any thread: one more append is on disk. The reactor is woken once for all of a group."""
        self._syncs_done += 1
        if not self._is_wake_posted:
            self._is_wake_posted = True
            soon = self._soon if get_ident() == self._thread else self._soon_from_thread
            soon(self._wake)

    def _wake(self) -> None:
        self._is_wake_posted = False  # before the count is read: a later sync posts again
        if not self._is_running:
            return
        try:
            self._acknowledge()
            self._work()
        except Exception as error:
            self.fail(error)

    def _acknowledge(self) -> None:
        """Tells the core, in order, what is on disk; sends the messages that promise it."""
        pending, core = self._pending, self.core
        messages: list[Message] = []
        while pending:
            ready, is_written = pending[0]
            if is_written:
                if self._syncs_seen >= self._syncs_done:
                    break
                self._syncs_seen += 1
                self._store.mark_synced()
            pending.popleft()
            core.synced(ready)
            messages += ready.messages_after_sync
        if messages:
            self._transport.send(messages)

    # -- applying

    def _apply_waiting(self) -> None:
        """Applies the entries that were committed; a stalled state machine gets them again a little later."""
        unapplied = self._unapplied
        while unapplied and self._is_running:
            ready = unapplied[0]
            entries = ready.committed_entries
            try:
                self._machine.apply([(entry.index, entry.data if entry.kind is _NORMAL else b"") for entry in entries])
            except Overloaded as stall:
                if not self._is_retry_due:
                    self._is_retry_due = True
                    self._reactor.callLater(0 if isinstance(stall, Unfinished) else STALL_RETRY_S, self._retry)
                return
            unapplied.popleft()
            self._applied(ready, entries)

    def _applied(self, ready: Ready, entries: list[Entry]) -> None:
        last = self.applied_index = entries[-1].index
        for entry in entries:
            if entry.kind is not _NORMAL:
                self._change_membership(entry)
        self.core.applied(ready)
        if self.on_applied is not None:
            self.on_applied(last)
        self._flush_policy.add(ready.committed_bytes)
        self._waiters.applied(entries)
        self._reads.applied(last)
        if not self.core.others:
            self._store.let_go(last)

    def _retry(self) -> None:
        self._is_retry_due = False
        self._guard(self._apply_waiting)

    def _change_membership(self, entry: Entry) -> None:
        change = decode_conf_change(entry.data)
        conf_state = self.core.apply_conf_change(change)
        self._store.save_conf_state(entry.index, conf_state)
        if self.on_conf_change is not None:
            self.on_conf_change(change, conf_state)

    def _install(self, ready: Ready, snapshot: Snapshot) -> None:
        """Replaces state and log by a snapshot; until that is done, nothing else is handled."""
        if self._snapshots is None:
            raise RewindError(f"A leader sent a snapshot (of index {snapshot.index}), but this member takes none.")
        self._is_installing = True

        def installed(error: Exception | None) -> None:
            self._is_installing = False
            self._guard(self._installed, ready, snapshot, error)

        self._snapshots.install(snapshot, installed)

    def _installed(self, ready: Ready, snapshot: Snapshot, error: Exception | None) -> None:
        if error is not None:
            raise error
        self._store.restart_after(snapshot)
        self.applied_index = snapshot.index
        self._pending.append((ready, self._store.append(ready.entries, ready.hard_state, self._synced)))
        self._waiters.replaced_to(snapshot.index)
        self._reads.applied(snapshot.index)

    # -- making the applied state durable, letting go of the log

    def flush(self) -> Deferred[None]:
        """Makes what is applied durable now, and releases what the log then holds in vain."""
        return self._flushing or self._start_flush()

    def _start_flush(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._flushing = done
        self._flush_policy.started()

        def flushed(covered_index: int) -> None:
            self._flushing = None
            self._flush_policy.flushed(covered_index, self._reactor.seconds())
            self._store.release_before(self._flush_policy.release_point(covered_index, self.slowest_match))
            done.callback(None)

        def failed(failure: object) -> None:
            self._flushing = None
            self.fail(getattr(failure, "value", None) or RewindError(f"A flush failed: {failure}."))
            done.callback(None)

        self._in_thread(self._machine.flush).addCallbacks(flushed, failed)
        return done

    @property
    def slowest_match(self) -> int | None:
        """The last entry that every member is known to have; None where this member does not lead or is alone."""
        core = self.core
        if not core.is_leader:
            return None
        return min((core.tracker.progress[member].match for member in core.others), default=None)
