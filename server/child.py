"""A server in a process of its own, for the demo, benchmarks and integration tests.

One rule: it is used only once its ready line has been read, and it is never left behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from model.errors import RewindError

DRIVER_PORT = re.compile(r"Listening for client driver connections on port (\d+)$")
READY = re.compile(r'Server ready, ".*" [0-9a-f-]{36}$')  # the last line of a start
ROOT = Path(__file__).parents[1]


class DidNotStart(RewindError):
    """The server ended, or said nothing for too long; the message holds what it printed."""


class ServerProcess:
    """`rewinddb serve` on free ports and the given folder. As a context manager it is killed at the end.

    limit: called in the child before it starts, to set resource limits.
    """

    def __init__(
        self,
        data_dir: Path,
        *flags: str,
        deadline_s: float = 60,
        limit: Callable[[], None] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "server"),
    ) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        self.port = 0
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [*command, "serve", "--data-dir", str(data_dir), *FREE_PORTS, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=limit,
        )
        self._reader = threading.Thread(target=self._read, name="server output", daemon=True)
        self._reader.start()
        self._wait_until_ready(deadline_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """All that the server has printed so far."""
        return "\n".join(self.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def connect(self, **options: Any) -> Any:
        """A connection of the official driver."""
        from rethinkdb import r

        return r.connect(host="127.0.0.1", port=self.port, **options)

    def kill(self) -> None:
        """`kill -9`; returns when the process is gone."""
        if self.is_running:
            self._process.kill()
        self._process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM, deadline_s: float = 60) -> int:
        """Tells the server to stop and gives its exit code."""
        if self.is_running:
            self._process.send_signal(how)
        return self.wait(deadline_s)

    def wait(self, deadline_s: float = 60) -> int:
        """The exit code, once the process has ended by itself."""
        code = self._process.wait(deadline_s)
        self._reader.join(deadline_s)
        return code

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        port = 0
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                if found := DRIVER_PORT.match(self.lines[-1]):
                    port = int(found[1])
                elif READY.match(self.lines[-1]):
                    self.port = port
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _wait_until_ready(self, deadline_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.port or not self._reader.is_alive() or not self.is_running, deadline_s)
        if not self.port:
            self.kill()
            self._reader.join(5)
            raise DidNotStart(f"The server did not start; it printed:\n{self.output}")


FREE_PORTS = ("--driver-port", "0", "--cluster-port", "0", "--http-port", "0")
