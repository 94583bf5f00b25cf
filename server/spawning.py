"""Starts programs from the loop, with sockets to them.

One rule: the server's memory is not copied for it. An event loop's own `subprocess_exec` forks, which stops the
reactor for 60 to 130 ms where the server has 1.5 GB; `subprocess` takes vfork, and 1 to 4 ms.

Sockets and not pipes, since uvloop closes a pipe that it was given twice, by its number and then as the file. Between
the two another thread may have opened a file that has this number now, such as the log's, which is closed then.
"""

from __future__ import annotations

import asyncio
import socket
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

    async def connect(self, loop: asyncio.AbstractEventLoop, ours: Sequence[socket.socket]) -> None:
        """Takes the sockets of its input, its output and its errors."""
        self._pipes[0] = (await loop.create_unix_connection(asyncio.Protocol, sock=ours[0]))[0]
        self._protocol.connection_made(self)
        for fd in (1, 2):
            output = partial(_Output, self, fd, loop)
            self._pipes[fd] = (await loop.create_unix_connection(output, sock=ours[fd]))[0]

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
    pairs = [socket.socketpair() for _ in range(3)]
    try:
        fds = [theirs.fileno() for _, theirs in pairs]
        process = subprocess.Popen(command, stdin=fds[0], stdout=fds[1], stderr=fds[2], env=environment)
    except OSError:
        for ours, _ in pairs:
            ours.close()
        raise
    finally:
        for _, theirs in pairs:
            theirs.close()
    program = Program(process, protocol)
    await program.connect(loop, [ours for ours, _ in pairs])
    return program
