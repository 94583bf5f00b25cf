"""One server process from its start to its exit code: reactor, signals, and what ends it.

One rule: the reactor is chosen here, before anything imports it. The process ends in one of three ways: told to
(it drains, exit code 0), refused to start (1), or stopped by a failure that must not be survived, such as a failed
fsync (1); the last two say why.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf.settings import Settings
from model.errors import RewindError
from server import VERSION, logs
from server.folder import DataFolder
from server.heap import share_one_heap

if TYPE_CHECKING:
    from server.assemble import Assembly

log = logging.getLogger("rewinddb.server")

GC_THRESHOLDS = (50_000, 20, 50)
RECURSION_LIMIT = 8_000  # frames; a term of a query takes about three
SWITCH_S = 0.001
"""After how long another thread may have the interpreter. Each of the reactor's own system calls begins the wait of the
others anew, so that at Python's 5 ms a busy reactor kept the log writer out for 190 ms at a time."""
GRACE_S = 2.0  # after a failure: how long drivers may take to be told


def run(settings: Settings) -> int:
    """Runs a server until it ends; its exit code. Raises RewindError if it cannot start."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.setswitchinterval(SWITCH_S)
    share_one_heap()
    told = settings.logging
    logs.set_up(told.level, told.format, told.file, told.config_file)
    _say(f"Running rewinddb {VERSION}...")
    folder = DataFolder(Path(settings.server.data_dir))
    if folder.is_new:
        _say(f"Initializing directory {folder.path}")
    if settings.cluster.join:
        from server.cluster.join import join

        settings = join(settings, folder, _say)
    _say(f"Loading data from directory {folder.path}")
    loop = install_reactor()
    try:
        return Daemon(settings, folder, loop).run()
    finally:
        folder.close()


def install_reactor() -> asyncio.AbstractEventLoop:
    """Twisted's asyncio reactor on uvloop; the loop, for what runs on it natively."""
    import uvloop
    from twisted.internet import asyncioreactor

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    install: Any = asyncioreactor.install
    install(loop)
    logs.follow_twisted()
    return loop


def _say(line: str) -> None:
    """Tells whoever started the server. If they no longer read, or cannot take it, the server goes on without them."""
    try:
        click.echo(line)
    except BrokenPipeError:
        # What is left in the buffer, and what is said from now on, goes nowhere; else Python would end with a failure.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except OSError as error:
        log.warning("standard output takes nothing: %s", error)


class Daemon:
    """The process around an assembly."""

    def __init__(self, settings: Settings, folder: DataFolder, loop: asyncio.AbstractEventLoop) -> None:
        from twisted.internet import reactor

        from server.assemble import Assembly

        self._settings = settings
        self._loop = loop
        self._reactor: Any = reactor
        self._exit_code = 0
        self._is_ending = False
        self._assembly: Assembly = Assembly(settings, folder, reactor, loop, self.fail)

    def refuse_writes(self, why: str) -> None:
        """Drivers can only read; `why` is what they are told when they write."""
        self._assembly.refuse_writes(why)

    def run(self) -> int:
        """Starts, serves, stops; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop, number.name)
        self._reactor.callWhenRunning(self._start)
        self._reactor.run(installSignalHandlers=False)
        self._assembly.close()
        log.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

    def stop(self, why: str) -> None:
        """Drains and ends; a second signal does not wait for queries."""
        if self._is_ending:
            self._reactor.callLater(0, self._end)
            return
        self._is_ending = True
        _say(f"Server got {why}; shutting down...")
        timeout_s = self._settings.server.shutdown_timeout_ms / 1000
        drained = self._assembly.drain(timeout_s)
        drained.addCallbacks(lambda _: self._end(), lambda failure: self._fail(failure.value))

    def fail(self, error: Exception) -> None:
        """Ends the process with exit code 1: what happened must not be survived. May come from any thread."""
        self._reactor.callFromThread(self._fail, error)

    def _start(self) -> None:
        # What is loaded by now stays: the collector need not look at it again, nor as often as for a script.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._assembly.start().addCallbacks(lambda _: self._announce(), lambda failure: self._fail(failure.value))

    def _announce(self) -> None:
        if self._is_ending:
            return
        for line in self._assembly.announcements():
            self._assembly.note(line)
            _say(line)

    def _fail(self, error: BaseException) -> None:
        if self._exit_code:
            return
        self._exit_code = 1
        is_known = isinstance(error, RewindError)
        log.critical("the server stops: %s", error, exc_info=None if is_known else error)
        if self._is_ending:
            self._end()
            return
        self._is_ending = True
        self._assembly.abandon(error, GRACE_S).addBoth(lambda _: self._end())

    def _end(self) -> None:
        if self._reactor.running:
            self._reactor.stop()
