"""Child processes that work for the server on backups (backup/child.py), seen from the server's loop.

One rule: none outlives the server. A child ends when its standard input does; at a stop it is killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred

from model.errors import RewindError
from server.spawning import spawn

log = logging.getLogger("rewinddb.backup")

ROOT: Final = Path(__file__).parents[1]
COMMAND: Final = (sys.executable, "-m", "backup.child")
MAX_LINE_BYTES: Final = 64 << 20
KEPT_ERROR_BYTES: Final = 4096
MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""For the C library: blocks of some MB come and go all the time; to fetch each of them from the system anew costs a
child a tenth of its time."""

OnEvent = Callable[[dict[str, Any]], None]


class ChildFailed(RewindError):
    """A job of a child process was not done; the message is the child's."""

    def __init__(self, message: str, hint: str = "", kind: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind


class Child(asyncio.SubprocessProtocol):
    """One child. `done` fires with the job's result, or fails with ChildFailed."""

    def __init__(self, children: Children, job: Mapping[str, Any], on_event: OnEvent) -> None:
        self.done: Deferred[dict[str, Any]] = Deferred()
        self.heard_s = children.seconds()  # when it last said something
        self._children = children
        self._job = job
        self._on_event = on_event
        self._transport: Any = None
        self._unsent: list[bytes] = []  # said to it before it was there
        self._buffer = bytearray()
        self._errors = b""
        self._outcome: dict[str, Any] | None = None
        self._failure: ChildFailed | None = None
        self._is_over = False

    # -- for the server

    def send(self, order: Mapping[str, Any]) -> None:
        """Sends a line to a child, once it runs; a child that is gone hears nothing."""
        if self._transport is None:
            self._unsent.append(_line(order))
            return
        pipe = self._transport.get_pipe_transport(0)
        if pipe is not None and not pipe.is_closing():
            pipe.write(_line(order))

    def kill(self, why: str) -> None:
        """Ends it at once; `done` fails with `why`."""
        self._failure = self._failure or ChildFailed(why)
        if self._transport is not None and not self._is_over:
            self._transport.kill()

    # -- of asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_pipe_transport(0).write(b"".join((_line(self._job), *self._unsent)))
        self._unsent.clear()
        if self._failure is not None:
            transport.kill()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.heard_s = self._children.seconds()
        if fd == 2:
            self._errors = (self._errors + data)[-KEPT_ERROR_BYTES:]
            return
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            text = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._heard(text)
        if len(self._buffer) > MAX_LINE_BYTES:
            self.kill("The child process sent a line without an end.")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The process's end is what counts."""

    def process_exited(self) -> None:
        """Its last lines may still be in the pipe: see `connection_lost`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and all that it said was heard."""
        self._end()

    # -- inside

    def _heard(self, text: bytes) -> None:
        try:
            event = json.loads(text)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            log.warning("a child process said something that is no event: %r", text[:200])
            return
        if kind == "done":
            self._outcome = event["result"]
        elif kind == "failed":
            self._failure = self._failure or ChildFailed(event["message"], event["hint"], event["kind"])
        else:
            self._on_event(event)

    def fail(self, error: Exception) -> None:
        """It could not be started."""
        self._failure = self._failure or ChildFailed(f"The child process could not be started: {error}.")
        self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._children.forget(self)
        if self._errors:
            log.warning("a child process said: %s", self._errors.decode("utf-8", "replace").strip())
        code = None if self._transport is None else self._transport.get_returncode()
        if self._failure is not None:
            self.done.errback(self._failure)
        elif self._outcome is None or code != 0:
            self.done.errback(ChildFailed(_how_it_ended(code)))
        else:
            self.done.callback(self._outcome)


class Children:
    """All children of this server. seconds: a monotonic clock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: Callable[[], float],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.seconds = seconds
        self._loop = loop
        self._command = command
        self._running: set[Child] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def start(self, job: Mapping[str, Any], on_event: OnEvent) -> Child:
        """Starts a child on a job; `on_event` gets what it says beside the result."""
        child = Child(self, job, on_event)
        if self._is_stopped:
            child.fail(RewindError("the server is being stopped"))
            return child
        self._running.add(child)
        task = self._loop.create_task(self._spawn(child))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return child

    async def _spawn(self, child: Child) -> None:
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        try:
            environment = {**MEMORY, **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
            await spawn(self._loop, child, self._command, environment)
        except OSError as error:
            child.fail(error)

    def forget(self, child: Child) -> None:
        self._running.discard(child)

    def stop(self) -> None:
        """Kills all; none is started any more."""
        self._is_stopped = True
        for child in list(self._running):
            child.kill("The server was stopped.")


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"The child process was killed by signal {-code}."
    return f"The child process ended with exit code {code} and no result."
