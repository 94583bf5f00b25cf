"""One simulated server: the real node, log, state machine, head and query fibers over a fake disk and clock.

What survives a crash is on the `Disk`, in what the engine last flushed, and in `installed`; all else is
made anew by `start`. The one liberty taken: the log writer's thread is a series of events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec
from greenlet import GreenletExit
from twisted.internet.defer import Deferred

import consensus.logstore as logstore_module
from consensus.core import Config
from consensus.flushing import FlushPolicy
from consensus.logstore import LogStore
from consensus.messages import ConfState, Message, Snapshot
from consensus.node import Node
from model.errors import Corrupt, DiskFull, RewindError, SyncFailed
from proxy.fibers import Fiber, FiberPool
from server.replica import Replica
from storage.engine import MemoryEngine, WriteSet
from storage.head import Head
from storage.machine import Machine
from tests.sim.disk import Disk, PowerCut
from tests.sim.world import ServerClock, Violation, World
from wal.record import FIRST_ENTRY_KIND, Kind, Record
from wal.writer import LogWriter, _Close, _Item

if TYPE_CHECKING:
    from tests.sim.plan import Plan

FOLDER = Path("log")
NO_ROOM = 0.01
"""The chance that the kernel takes no sync."""


class SteppedWriter(LogWriter):
    """The log writer with its thread's work done by events of the simulation."""

    owner: SimServer

    def start(self) -> None:
        """There is no thread to start."""

    def _give(self, item: _Item) -> None:
        """Queue a command, and plan its execution."""
        super()._give(item)
        if not isinstance(item, _Close):
            self.owner.wake_writer()

    def close(self, wait: bool = True) -> None:
        """Write what is queued, now."""
        self._hand_over()
        super().close(wait=False)
        self.step()

    def step(self) -> None:
        """Do what is queued, as the thread does."""
        try:
            while not self._queue.empty() and self.failed is None and self._write_next():
                pass
        except OSError as error:
            self._stop(error)

    def _write(self, records: Sequence[Record]) -> tuple[int, list[tuple[int, int]]]:
        self._written = records
        return super()._write(records)

    def _settle(self, end: int, notes: list[tuple[int, int]]) -> None:
        super()._settle(end, notes)
        self.owner.note_durable(self._written)


class SimKernel:
    """Syncs beside the server's thread; implements `wal.syncs.Syncs`."""

    def __init__(self, owner: SimServer, clock: ServerClock) -> None:
        self._owner = owner
        self._clock = clock
        self._under_way: tuple[int, Callable[[OSError | None], None]] | None = None

    def begin(self, handle: int, ended: Callable[[OSError | None], None]) -> bool:
        """Plan a sync; now and then there is no room for it."""
        if self._owner.world.chance(NO_ROOM):
            return False
        self._under_way = handle, ended
        self._clock.callLater(self._owner.disk_delay(), self._end)
        return True

    def wait(self) -> None:
        """Make what is under way now."""
        if self._under_way is not None:
            (handle, ended), self._under_way = self._under_way, None
            ended(self._sync(handle))

    @property
    def is_here(self) -> bool:
        """There is one thread."""
        return True

    def soon(self, call: Callable[[], None]) -> object:
        """Plan a call."""
        return self._clock.callLater(0, call)

    def _end(self) -> None:
        if self._under_way is not None:
            self._owner.at_risk(self.wait)

    def _sync(self, handle: int) -> OSError | None:
        try:
            self._owner.disk.datasync(handle)
        except OSError as error:
            return error
        return None


class EndingPool(FiberPool):
    """Fibers that can be ended all at once: one that waits for ever is no garbage that Python would find."""

    def __init__(self, clock: ServerClock) -> None:
        super().__init__(clock, clock.seconds)
        self._waiting: list[Any] = []

    def run(self, work: Any, item: Any, done: Any, deadline_s: float | None = None) -> None:
        """Run an item, and remember it if it waits."""
        super().run(work, item, done, deadline_s)
        if item.fiber is not None:
            self._waiting.append(item)

    def end(self) -> None:
        """End all fibers where they stand."""
        for fiber in [*self._idle, *(item.fiber for item in self._waiting)]:
            if isinstance(fiber, Fiber):  # else it is over, or a promise
                fiber.switch.__self__.throw(GreenletExit)  # type: ignore[attr-defined]


class SimServer:
    """A server with its disk. `core`, `node` and what else belongs to a run exist while `is_running`."""

    def __init__(self, world: World, plan: Plan, member_id: int, initial: ConfState) -> None:
        self.world = world
        self.plan = plan
        self.id = member_id
        self.initial = initial
        self.disk = Disk(world.dice)
        self.engine = MemoryEngine()
        self.installed: Snapshot | None = None
        self.send: Callable[[Sequence[Message]], None] = lambda _messages: None
        self.on_stopped: Callable[[SimServer], None] = lambda _server: None
        self.on_membership: Callable[[SimServer], None] = lambda _server: None
        self.is_running = False
        self.is_rotten = False
        self.is_broken = False
        self.is_retired = False
        self.sync_delay = 0.001
        self.wall_offset = 0.0
        self.durable_terms: dict[int, int] = {}
        """The term of every entry that is on the disk."""
        self.durable_floor = 0
        """Everything up to here is covered by the durable state."""
        self.durable_vote = (0, 0)
        self.node: Any = None
        self._pools: list[EndingPool] = []
        """Of all runs."""

    # -- life

    def start(self) -> None:
        """Begin a run from what is on the disk. A damaged disk breaks the server for good."""
        world, plan = self.world, self.plan
        self.clock = ServerClock(world, world.dice.uniform(1 - plan.drift, 1 + plan.drift), self)
        self._writer_due = False
        self.kernel = SimKernel(self, self.clock)
        writer = type("Writer", (SteppedWriter,), {"owner": self})
        try:
            self._build_state()
            with patch.object(logstore_module, "LogWriter", writer):
                self.store = LogStore(
                    FOLDER,
                    self.machine.applied_index,
                    installed=self.installed,
                    files=self.disk,
                    segment_bytes=plan.segment_bytes,
                    cache_bytes=plan.cache_bytes,
                    syncs=self.kernel if plan.kernel_syncs else None,
                )
        except Corrupt as error:
            if not self.is_rotten:
                raise Violation(f"server {self.id} finds its log damaged: {error}") from error
            self.is_broken = True
            self.world.log(f"server {self.id} finds the damage of its disk")
            return
        except PowerCut:
            self.disk.cut_power()
            world.log(f"server {self.id} loses its power while it starts")
            self.on_stopped(self)
            return
        if self.is_rotten:
            raise Violation(f"server {self.id} starts with a damaged log")
        self._note_durable_at_start()
        if self.store.last_index() == 0 and self.store.initial_state()[1] == ConfState():
            self.store.bootstrap(self.initial)
        self.node = Node(
            self._config(),
            self.store,
            self,
            self,
            snapshots=self,
            reactor=self.clock,
            soon=lambda call: self.clock.callLater(plan.turn_s, call),
            in_thread=self._in_thread,
            tick_s=plan.tick_s,
            flush_policy=FlushPolicy(plan.flush_bytes, plan.flush_s, plan.keep_entries),
        )
        self.node.on_applied = self._applied
        self.node.on_leadership = self._leadership
        self.node.on_fatal = self._fatal
        self.node.on_conf_change = lambda _change, _state: self.on_membership(self)
        self.membership = self.node.core.tracker.membership
        self._build_queries()
        self.is_running = True
        self.seen: tuple[int, ...] = ()
        self.checked_commit = 0
        self.checked_applied = -1
        world.log(f"server {self.id} starts: log to {self.store.last_index()}, applied {self.machine.applied_index}")
        self.node.start()

    def _config(self) -> Config:
        plan, clock = self.plan, self.clock
        return Config(
            self.id,
            election_ticks=10,
            heartbeat_ticks=plan.heartbeat_ticks,
            max_message_bytes=plan.max_message_bytes,
            max_committed_bytes=plan.max_committed_bytes,
            max_uncommitted_bytes=plan.max_uncommitted_bytes,
            max_inflight_messages=plan.max_inflight_messages,
            check_quorum=plan.check_quorum,
            pre_vote=plan.pre_vote,
            lease_reads=plan.lease_reads,
            group_sends=plan.group_sends,
            dice=self.world.dice.randrange,
            clock=lambda: int(clock.seconds() * 1000),
            lease=int(plan.tick_s * 7000),
        )

    def _build_state(self) -> None:
        self.machine = Machine(self.engine, clock=lambda: 0.0)

    def _build_queries(self) -> None:
        self.head = Head(self.machine.store)
        self.fibers = EndingPool(self.clock)
        self._pools.append(self.fibers)
        self.replica = Replica(
            self.node,
            self.machine.store,
            self.head,
            self.fibers,
            lambda: int((self.world.now + self.wall_offset) * 1000),
            self.clock.seconds,
            self.machine.foresee,
        )

    def crash(self, power: bool) -> None:
        """End the run at once: the process is killed, or the whole machine loses its power."""
        if not self.is_running:
            return
        self.world.log(f"server {self.id} {'loses its power' if power else 'is killed'}")
        self._end_run()
        if power:
            self.disk.cut_power()
        else:
            self.disk.stop()
        self.engine.crash()

    def end(self) -> None:
        """The history is over: leave nothing behind."""
        self.clock.is_dead = True
        self.is_running = False
        for pool in self._pools:
            pool.end()

    def _end_run(self) -> None:
        self.is_running = False
        self.clock.is_dead = True
        self.on_stopped(self)

    def stop(self) -> None:
        """End the run in good order, as on SIGTERM."""
        self.world.log(f"server {self.id} is stopped")

        def stopped(_result: object) -> None:
            self._end_run()
            self.disk.stop()
            self.engine.crash()

        self.node.stop(drain_s=0.5).addBoth(stopped)

    def _fatal(self, error: RewindError) -> None:
        allowed = isinstance(error, DiskFull | SyncFailed) or (isinstance(error, Corrupt) and self.is_rotten)
        if not allowed:
            self.world.fail(f"server {self.id} stops itself: {error!r}", error)
        self.world.log(f"server {self.id} stops itself: {type(error).__name__}")
        self.world.after(0, self.crash, False)

    # -- the log writer

    def wake_writer(self) -> None:
        """Something is queued for the log."""
        if not self._writer_due:
            self._writer_due = True
            self.clock.callLater(self.disk_delay(), self._write)

    def disk_delay(self) -> float:
        """How long the disk takes this time, in seconds."""
        return self.world.dice.uniform(0.5, 1.5) * self.sync_delay

    def _write(self) -> None:
        self._writer_due = False
        writer = self.store._writer
        assert isinstance(writer, SteppedWriter)
        self.at_risk(writer.step)

    def at_risk(self, call: Callable[[], None]) -> None:
        """Do what the disk takes part in; the power may fail in the middle."""
        if self.world.chance(self.plan.cut_in_write):
            self.disk.cut_after = self.world.dice.randrange(3)
        try:
            call()
        except PowerCut:
            self.crash(power=True)
        self.disk.cut_after = None

    def note_durable(self, records: Sequence[Record]) -> None:
        """These records are on the disk."""
        for record in records:
            if record.kind >= FIRST_ENTRY_KIND:
                self.durable_terms[record.log_index] = record.raft_term
            elif record.kind == Kind.HARD_STATE:
                self.durable_vote = (record.raft_term, int.from_bytes(record.payload, "little"))
            elif record.kind in (Kind.TRUNCATE, Kind.RESTART):
                if record.kind == Kind.RESTART:
                    self.durable_floor = record.log_index
                for index in [index for index in self.durable_terms if index > record.log_index]:
                    del self.durable_terms[index]

    def _note_durable_at_start(self) -> None:
        store = self.store
        self.durable_floor = store.first_index() - 1
        self.durable_terms = {index: store.term(index) for index in range(store.first_index(), store.last_index() + 1)}
        state, _ = store.initial_state()
        self.durable_vote = (state.raft_term, state.vote)

    def has_durable(self, index: int, raft_term: int) -> bool:
        """Whether the disk holds that entry, or a state that covers it."""
        return index <= self.durable_floor or self.durable_terms.get(index) == raft_term

    def has_durable_index(self, index: int) -> bool:
        """Whether the disk holds an entry there, of any term."""
        return index <= self.durable_floor or index in self.durable_terms

    # -- the node's ports: state machine, snapshots, threads

    @property
    def applied_index(self) -> int:
        """See `consensus.ports.StateMachine`."""
        return self.machine.applied_index

    def apply(self, entries: Sequence[tuple[int, bytes]]) -> None:
        """See `consensus.ports.StateMachine`."""
        self.machine.apply(entries)

    def flush(self) -> int:
        """See `consensus.ports.StateMachine`."""
        return self.machine.flush()

    def newest(self) -> Snapshot:
        """See `consensus.ports.Snapshots`: the applied state, all of it in the snapshot's data."""
        core, index = self.node.core, self.machine.applied_index
        rows = list(self.engine._table.items())
        conf = core.tracker.membership.conf_state()
        return Snapshot(index, core.log.term(index), conf, msgspec.msgpack.encode(rows))

    def install(self, snapshot: Snapshot, done: Callable[[Exception | None], None]) -> None:
        """See `consensus.ports.Snapshots`."""
        self.clock.callLater(self.world.dice.uniform(0.001, 0.2), self._install, snapshot, done)

    def _install(self, snapshot: Snapshot, done: Callable[[Exception | None], None]) -> None:
        changes = WriteSet()
        for key, value in msgspec.msgpack.decode(snapshot.data, type=list[tuple[bytes, bytes]]):
            changes.put(key, value)
        self.engine = MemoryEngine()
        self.engine.write(changes, snapshot.index)
        self.engine.flush()
        self.installed = snapshot
        self._build_state()
        self._build_queries()
        self.world.log(f"server {self.id} takes a snapshot to {snapshot.index}")
        done(None)

    def _in_thread(self, call: Callable[[], int]) -> Deferred[int]:
        result: Deferred[int] = Deferred()

        def run() -> None:
            try:
                value = call()
            except Exception as error:
                result.errback(error)
            else:
                result.callback(value)

        self.clock.callLater(self.world.dice.uniform(0.001, 0.05), run)
        return result

    # -- what the server does about the node's news

    def _applied(self, applied_index: int) -> None:
        self.replica.settle(applied_index)

    def _leadership(self, _state: object) -> None:
        if not self.node.is_leader:
            self.replica.drop()
