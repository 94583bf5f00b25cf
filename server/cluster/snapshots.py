"""Snapshots of this server for others, and those of others for this one (the `Snapshots` and `Shelf` ports).

One rule: the applied state is replaced in one step, by a folder that is whole and durable: the file `rows.current`
names the folder that counts, and is itself replaced by a rename. A crash before it leaves the old state, a crash
after it the new one.

    snapshots/made-<index>/      a checkpoint of this server while it is sent: hard links, no copy
    snapshots/in-<shipment>/     what has come of another server's, also over restarts
    rows-<index>-<shipment>/     one that was taken in: the rows from then on
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from consensus.messages import ConfState, Snapshot
from consensus.ports import Done
from consensus.raftlog import SnapshotUnavailable
from consensus.shipping import ship_of
from model.errors import Corrupt, Overloaded, RewindError
from server.cluster.snapshot_files import Incoming, Outgoing, OutgoingSource, list_files
from storage.engine import Engine
from storage.machine import Machine

log = logging.getLogger("rewinddb.server")

KEEP_S: Final = 60.0  # a snapshot that nobody reads is let go after this long
KEEP_PARTS_S: Final = 86_400.0  # what came in part, of a snapshot that nobody sends any more
NICENESS: Final = 10  # of the threads that read, hash and check whole snapshots

T = TypeVar("T")
InThread = Callable[[Callable[[], T]], "Deferred[T]"]


class Reactor(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...
    def callFromThread(self, call: Callable[..., object], *args: Any) -> None: ...


class SnapshotLog(Protocol):
    """The log, as snapshots need it (`consensus.logstore.LogStore`)."""

    def first_index(self) -> int: ...
    def term(self, index: int) -> int: ...


class RowsFolders(Protocol):
    """Where rows are and will be (`server.folder.DataFolder`)."""

    path: Path

    @property
    def rows(self) -> Path: ...

    def use_rows(self, name: str) -> None:
        """From now on, also after a crash, the rows are in the folder of this name."""


def in_quiet_thread(reactor: Reactor) -> InThread[Any]:
    """Runs calls in threads of their own, which let all others go first."""

    def begin(call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            try:
                result = call()
            except Exception as error:
                reactor.callFromThread(done.errback, error)
            else:
                reactor.callFromThread(done.callback, result)

        threading.Thread(target=run, name="snapshot", daemon=True).start()
        return done

    return begin


class _Made:
    """A snapshot of this server that others may read."""

    def __init__(self, snapshot: Snapshot, outgoing: Outgoing) -> None:
        self.snapshot = snapshot
        self.outgoing = outgoing
        self.readers = 0
        self.lapse: Any = None


class Snapshots:
    """Makes, lends, receives and installs snapshots. All on the reactor's thread but the work on files.

    `conf()` is the configuration as applied; `conf_changed` is to be called when it changes. `open_engine` opens a
    folder of rows; `switch` makes an engine the one that counts and gives back the old one.
    """

    def __init__(
        self,
        machine: Machine,
        store: SnapshotLog,
        folders: RowsFolders,
        conf: Callable[[], ConfState],
        open_engine: Callable[[Path], Engine],
        switch: Callable[[Engine], Engine],
        reactor: Reactor,
        in_thread: InThread[Any] | None = None,
    ) -> None:
        self._machine = machine
        self._store = store
        self._folders = folders
        self._conf = conf
        self._open_engine = open_engine
        self._switch = switch
        self._reactor = reactor
        self._in_thread = in_thread or in_quiet_thread(reactor)
        self._folder = folders.path / "snapshots"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._made: _Made | None = None
        self._making_from: int | None = None
        self._conf_changes = 0
        self._checking: set[bytes] = set()
        self._whole: dict[bytes, Path] = {}
        self._tidy()

    # -- for others

    def newest(self) -> Snapshot:
        """A snapshot behind which the log goes on. Raises SnapshotUnavailable while there is none, and makes one."""
        made = self._made
        if made is not None and made.snapshot.index >= self._store.first_index() - 1:
            return made.snapshot
        if self._making_from is None:
            self._make()
        raise SnapshotUnavailable("A snapshot is being made.")

    def keep_from(self) -> int | None:
        """The first entry of the log that whoever takes the newest snapshot will need; None if nobody takes one."""
        if self._made is not None:
            return self._made.snapshot.index + 1
        return None if self._making_from is None else self._making_from + 1

    def conf_changed(self) -> None:
        """Another configuration was applied."""
        self._conf_changes += 1

    def _make(self) -> None:
        self._let_go()
        self._making_from = self._machine.applied_index
        conf, changes = self._conf(), self._conf_changes
        folder = self._folder / f"made-{self._making_from}"

        def checkpoint() -> tuple[int, Outgoing]:
            shutil.rmtree(folder, ignore_errors=True)
            index = self._machine.checkpoint(folder)
            return index, Outgoing(folder, list_files(folder))

        def made(result: tuple[int, Outgoing]) -> None:
            self._making_from = None
            index, outgoing = result
            if changes != self._conf_changes or index < self._store.first_index() - 1:
                shutil.rmtree(folder, ignore_errors=True)  # asked for again, it is made again
                return
            snapshot = Snapshot(index, self._store.term(index), conf, outgoing.data)
            self._made = _Made(snapshot, outgoing)
            self._plan_lapse(self._made)
            log.info("a snapshot of log position %d is ready: %d bytes", index, outgoing.size)

        def failed(failure: Failure) -> None:
            self._making_from = None
            shutil.rmtree(folder, ignore_errors=True)
            level = logging.INFO if isinstance(failure.value, Overloaded) else logging.WARNING
            log.log(level, "a snapshot could not be made: %s", failure.value)

        self._in_thread(checkpoint).addCallbacks(made, failed)

    def _plan_lapse(self, made: _Made) -> None:
        if made.lapse is not None and made.lapse.active():
            made.lapse.cancel()
        made.lapse = self._reactor.callLater(KEEP_S, self._lapse, made)

    def _lapse(self, made: _Made) -> None:
        if made is self._made and not made.readers:
            self._let_go()

    def _let_go(self) -> None:
        """Gives the disk space of the newest snapshot back, unless somebody is reading it."""
        made, self._made = self._made, None
        if made is None:
            return
        if made.lapse is not None and made.lapse.active():
            made.lapse.cancel()
        if not made.readers:
            self._discard(made.outgoing.folder)

    def _discard(self, folder: Path) -> None:
        self._in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))

    # -- the Shelf port of consensus/shipping

    def open(self, snapshot: Snapshot) -> OutgoingSource:
        """The bytes of a snapshot that `newest` gave. Raises SnapshotUnavailable if it is gone."""
        made = self._made
        if made is None or made.snapshot != snapshot:
            raise SnapshotUnavailable(f"The snapshot of log position {snapshot.index} is not kept any more.")
        made.readers += 1
        source = made.outgoing.open()

        def closed() -> None:
            made.readers -= 1
            if made is self._made:
                self._plan_lapse(made)
            elif not made.readers:
                self._discard(made.outgoing.folder)

        source.on_close = closed
        return source

    def receive(self, snapshot: Snapshot, size: int) -> Receipt:
        """A place for the bytes of another server's snapshot. Raises RewindError, OSError."""
        ship = ship_of(snapshot)
        if ship in self._checking:
            raise RewindError("This snapshot has come and is being checked.")
        if ship in self._whole:
            return Receipt(self, ship, None, size)
        for other in self._folder.glob("in-*"):
            if other.name != f"in-{ship.hex()}":
                self._discard(other)
        return Receipt(self, ship, Incoming(self._folder / f"in-{ship.hex()}", snapshot, size), size)

    def check(self, ship: bytes, incoming: Incoming, done: Done) -> None:
        """All of a snapshot has come: checks it, and says whether it may be installed."""
        whole = self._folders.path / f"rows-{incoming.snapshot.index}-{ship.hex()[:8]}"
        self._checking.add(ship)

        def sealed(_: None) -> None:
            self._checking.discard(ship)
            self._whole[ship] = whole
            done(None)

        def failed(failure: Failure) -> None:
            self._checking.discard(ship)
            log.warning("a snapshot that came cannot be used: %s", failure.value)
            done(_as_exception(failure))

        self._in_thread(lambda: incoming.seal(whole)).addCallbacks(sealed, failed)

    # -- installing

    def install(self, snapshot: Snapshot, done: Done) -> None:
        """Replaces the applied state, durably, by a snapshot that has come; then calls `done`."""
        folder = self._whole.pop(ship_of(snapshot), None)
        if folder is None:
            done(RewindError(f"The snapshot of log position {snapshot.index} did not come before its message."))
            return

        def opened(engine: Engine) -> None:
            try:
                if engine.applied_index != snapshot.index:
                    raise Corrupt(f"A snapshot of log position {snapshot.index} holds {engine.applied_index}.")
                before = self._folders.rows
                self._folders.use_rows(folder.name)
                old = self._switch(engine)
            except Exception as error:
                done(error)
                return
            log.info("the rows are now those of a snapshot of log position %d", snapshot.index)
            self._in_thread(lambda: _close_and_remove(old, before))
            self._forget_others(folder)
            done(None)

        self._in_thread(lambda: self._open_engine(folder)).addCallbacks(
            opened, lambda failure: done(_as_exception(failure))
        )

    def _forget_others(self, used: Path) -> None:
        for folder in self._whole.values():
            if folder != used:
                self._discard(folder)
        self._whole.clear()

    def _tidy(self) -> None:
        """Removes what a process before left behind; what came in part stays for a day."""
        oldest_s = time.time() - KEEP_PARTS_S
        for folder in self._folder.iterdir():
            if folder.name.startswith("made-") or folder.stat().st_mtime < oldest_s:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._folders.path.glob("rows*"):
            if folder.is_dir() and folder != self._folders.rows:
                shutil.rmtree(folder, ignore_errors=True)


class Receipt:
    """One attempt to receive a snapshot (the `Sink` port of consensus/shipping)."""

    def __init__(self, snapshots: Snapshots, ship: bytes, incoming: Incoming | None, size: int) -> None:
        self._snapshots = snapshots
        self._ship = ship
        self._incoming = incoming  # None where all of it is here from an earlier attempt
        self.offset = size if incoming is None else incoming.offset

    def write(self, data: bytes) -> None:
        """Adds bytes."""
        assert self._incoming is not None
        self._incoming.write(data)
        self.offset = self._incoming.offset

    def finish(self, done: Done) -> None:
        """All is there: checks it, then calls `done`."""
        if self._incoming is None:
            done(None)
        else:
            self._snapshots.check(self._ship, self._incoming, done)

    def close(self) -> None:
        """The attempt is broken off; what is there stays for the next one."""
        if self._incoming is not None:
            self._incoming.close()


def _close_and_remove(engine: Engine, folder: Path) -> None:
    engine.close()
    shutil.rmtree(folder, ignore_errors=True)


def _as_exception(failure: Failure) -> Exception:
    error = failure.value
    return error if isinstance(error, Exception) else RewindError(str(error))
