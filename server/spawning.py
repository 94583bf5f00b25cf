"""Starts programs from the loop, with pipes to them.

One rule: the server's memory is not copied for it. An event loop's own `subprocess_exec` forks, which stops the
reactor for 60 to 130 ms where the server has 1.5 GB; `subprocess` takes vfork, and 1 to 4 ms.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any


class Program(asyncio.SubprocessTransport):
    """A program that runs, with the face of asyncio's transports as far as it is needed here."""

    def __init__(self, process: subprocess.Popen[bytes], protocol: asyncio.SubprocessProtocol) -> None:
        super().__init__()
        self._process = process
        self._protocol = protocol
        self._pipes: dict[int, Any] = {}
        self._open = {1, 2}

    def get_pid(self) -> int:
        return self._process.pid

    def get_returncode(self) -> int | None:
        return self._process.returncode

    def get_pipe_transport(self, fd: int) -> Any:
        return self._pipes.get(fd)

    def kill(self) -> None:
        """Ends it at once, if it has not ended."""
        self._process.kill()

    # -- inside

    async def connect(self, loop: asyncio.AbstractEventLoop) -> None:
        process = self._process
        self._pipes[0] = (await loop.connect_write_pipe(asyncio.Protocol, process.stdin))[0]
        self._protocol.connection_made(self)
        for fd, pipe in ((1, process.stdout), (2, process.stderr)):
            self._pipes[fd] = (await loop.connect_read_pipe(partial(_Output, self, fd, loop), pipe))[0]

    def heard(self, fd: int, data: bytes) -> None:
        self._protocol.pipe_data_received(fd, data)

    def closed(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """One of its outputs has come to an end; when both have, it is waited for, which may take a moment."""
        self._open.discard(fd)
        if not self._open:
            waiting = loop.run_in_executor(None, self._process.wait)
            waiting.add_done_callback(lambda _: self._ended())

    def _ended(self) -> None:
        self._pipes[0].close()
        self._protocol.process_exited()
        self._protocol.connection_lost(None)


class _Output(asyncio.Protocol):
    def __init__(self, program: Program, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._program = program
        self._fd = fd
        self._loop = loop

    def data_received(self, data: bytes) -> None:
        self._program.heard(self._fd, data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._program.closed(self._fd, self._loop)


async def spawn(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.SubprocessProtocol,
    command: Sequence[str],
    environment: Mapping[str, str],
) -> Program:
    """Starts a program and tells the protocol. Raises OSError where it cannot be started."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0)
    program = Program(process, protocol)
    await program.connect(loop)
    return program
