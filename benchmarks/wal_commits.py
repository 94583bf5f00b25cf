"""What a durable commit costs: python -m benchmarks.wal_commits [--seconds S] [--row-bytes N] [--folder PATH].

One rule: closed loops. Each of 1, 16 or 64 writers commits again once its last commit is told to be on disk, all
on one event loop, as queries do. Four ways, taken in turns so that a busy machine hits all alike: `inline` (write
and fdatasync on the loop itself, a zero-filled file: the floor of what blocks the loop), `thread` (`wal.writer` behind
the loop), `kernel` (the same with the kernel's syncs, whose CPU time is not the process's), and `node` (a whole Raft
group of one on top of that, applied to a state machine that does nothing).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop
from twisted.internet.defer import Deferred, succeed

from consensus.core import Config
from consensus.logstore import LogStore
from consensus.messages import ConfState
from consensus.node import Node
from wal.reader import open_log
from wal.record import Kind, Record, encode_all
from wal.syncs import Syncs, kernel_syncs
from wal.writer import LogWriter

WRITERS = (1, 16, 64)
ROUNDS = 3
INLINE_BYTES = 256 << 20
RELEASE_ENTRIES = 50_000

Commit = Callable[[bytes, Callable[[], None]], None]


@dataclass
class Run:
    """One measurement: how long each commit took."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def play(self, loop: asyncio.AbstractEventLoop, commit: Commit, writers: int, payload: bytes) -> None:
        """Runs the writers for the time that is set."""
        clock, latencies = time.perf_counter, self.latencies
        running, ended = writers, loop.create_future()
        until = clock() + self.seconds

        def again() -> None:
            nonlocal running
            begun = clock()
            if begun >= until:
                running -= 1
                if not running:
                    ended.set_result(None)
                return

            def done() -> None:
                latencies.append(clock() - begun)
                loop.call_soon(again)

            commit(payload, done)

        cpu, wall = time.process_time(), clock()
        for _ in range(writers):
            loop.call_soon(again)
        loop.run_until_complete(ended)
        self.cpu_s, self.wall_s = time.process_time() - cpu, clock() - wall

    @property
    def per_s(self) -> float:
        return len(self.latencies) / self.wall_s

    def row(self) -> str:
        ordered = sorted(self.latencies)
        p50, p99 = (ordered[len(ordered) * part // 100] * 1e3 for part in (50, 99))
        return f"{self.per_s:>9,.0f} {p50:>7.2f} {p99:>7.2f} {self.cpu_s / len(ordered) * 1e6:>7.1f}"


class InlineLog:
    """The floor: all that a turn of the loop brings is one write and one fdatasync on the loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self._loop = loop
        self._handle = os.open(folder / "inline", os.O_RDWR | os.O_CREAT)
        for at in range(0, INLINE_BYTES, 1 << 20):
            os.pwrite(self._handle, bytes(1 << 20), at)
        os.fsync(self._handle)
        self._end = self._index = 0
        self._waiting: list[tuple[bytes, Callable[[], None]]] = []

    def commit(self, payload: bytes, done: Callable[[], None]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._write)
        self._waiting.append((payload, done))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        records = [Record(Kind.ENTRY, 1, self._index + at, payload) for at, (payload, _) in enumerate(waiting, 1)]
        self._index += len(waiting)
        data = encode_all(records, 1, 0)
        if self._end + len(data) > INLINE_BYTES:
            self._end = 0
        os.pwrite(self._handle, data, self._end)
        os.fdatasync(self._handle)
        self._end += len(data)
        for _, done in waiting:
            done()

    def close(self) -> None:
        os.close(self._handle)


class ThreadLog:
    """`wal.writer`, told once per turn, telling the loop once per group."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self._loop = loop
        self._writer = LogWriter(open_log(folder / "log"), syncs=self._syncs(folder))
        self._writer.start()
        self._index = 0
        self._next_release = 2 * RELEASE_ENTRIES
        self._waiting: list[tuple[bytes, Callable[[], None]]] = []

    def _syncs(self, folder: Path) -> Syncs | None:
        return None

    def commit(self, payload: bytes, done: Callable[[], None]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._append)
        self._waiting.append((payload, done))

    def _append(self) -> None:
        waiting, self._waiting = self._waiting, []
        records = [Record(Kind.ENTRY, 1, self._index + at, payload) for at, (payload, _) in enumerate(waiting, 1)]
        self._index += len(waiting)

        def synced() -> None:
            self._loop.call_soon_threadsafe(self._tell, waiting)

        self._writer.append(records, synced)
        if self._index >= self._next_release:
            self._writer.release_before(self._index - RELEASE_ENTRIES)
            self._next_release = self._index + RELEASE_ENTRIES

    def _tell(self, waiting: Sequence[tuple[bytes, Callable[[], None]]]) -> None:
        for _, done in waiting:
            done()

    def close(self) -> None:
        self._writer.close()


class KernelLog(ThreadLog):
    """The same where the kernel syncs short groups."""

    def _syncs(self, folder: Path) -> Syncs | None:
        return kernel_syncs(folder, self._loop)


class Nothing:
    """A state machine that only counts."""

    applied_index = 0

    def apply(self, entries: Sequence[tuple[int, bytes]]) -> None:
        self.applied_index = entries[-1][0]

    def flush(self) -> int:
        return self.applied_index


class LoopReactor:
    """An asyncio loop with a Twisted reactor's names."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.callLater = loop.call_later
        self.callFromThread = loop.call_soon_threadsafe
        self.seconds = loop.time


class NodeLog:
    """A group of one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self._store = LogStore(folder / "node", syncs=kernel_syncs(folder, loop))
        self._store.bootstrap(ConfState(voters=(1,)))

        def at_once(call: Callable[[], int]) -> Deferred[int]:
            return succeed(call())

        reactor: Any = LoopReactor(loop)
        self._node = Node(Config(1), self._store, Nothing(), reactor=reactor, soon=loop.call_soon, in_thread=at_once)
        self._node.start()
        while not self._node.can_serve:
            loop.run_until_complete(asyncio.sleep(0))

    def commit(self, payload: bytes, done: Callable[[], None]) -> None:
        self._node.when_applied(*self._node.propose(payload), lambda error: done())

    def close(self) -> None:
        self._store.close()


KINDS: dict[str, Callable[[asyncio.AbstractEventLoop, Path], InlineLog | ThreadLog | NodeLog]] = {
    "inline": InlineLog,
    "thread": ThreadLog,
    "kernel": KernelLog,
    "node": NodeLog,
}


def measure(kind: str, folder: Path, writers: int, seconds: float, payload: bytes) -> Run:
    """One run in a new folder."""
    loop = uvloop.new_event_loop()
    here = Path(tempfile.mkdtemp(dir=folder))
    log = KINDS[kind](loop, here)
    run = Run(seconds)
    try:
        run.play(loop, log.commit, writers, payload)
    finally:
        log.close()
        loop.close()
        shutil.rmtree(here)
    return run


@click.command()
@click.option("--seconds", default=1.0, help="Of each run.")
@click.option("--row-bytes", default=1000, help="Of each commit's payload.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=None, help="On the disk to measure.")
def main(seconds: float, row_bytes: int, folder: Path | None) -> None:
    """Durable commits per second, and what the thread costs against syncing inline."""
    folder = folder or Path(tempfile.gettempdir())
    payload = os.urandom(row_bytes)
    click.echo(f"{'':16} {'commits/s':>9} {'p50 ms':>7} {'p99 ms':>7} {'CPU us':>7}   ratio to inline")
    for writers in WRITERS:
        runs: dict[str, list[Run]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                runs[kind].append(measure(kind, folder, writers, seconds, payload))
        floor = statistics.median(run.per_s for run in runs["inline"])
        for kind, of_kind in runs.items():
            middle = sorted(of_kind, key=lambda run: run.per_s)[ROUNDS // 2]
            click.echo(f"{kind:8} {writers:>3} wr. {middle.row()}   {middle.per_s / floor:.2f}")


if __name__ == "__main__":
    main()
