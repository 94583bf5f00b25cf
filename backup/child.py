"""The process that does the heavy work of backups, so that the server's own never waits for it.

One rule: it talks JSON lines and nothing else. The job, secrets' whereabouts included, comes as the first line of
standard input (never as arguments, which anybody can list); progress and the result go to standard output. When
standard input ends, so does the process: a server that died leaves none behind.

    in    {"job": "capture", ...}
    out   {"event": "progress", "what": ..., "rows": ..., "bytes": ...}
          {"event": "done", "result": {...}}   or   {"event": "failed", "kind": ..., "message": ..., "hint": ...}
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, Final

from model.errors import RewindError

NICENESS: Final = 10
ASKED_NICENESS: Final = 4  # somebody waits for the past
SHIPPING_NICENESS: Final = 1  # little work, but others wait for it
TELL_EVERY_S: Final = 0.25
ABANDONED: Final = 3  # exit code when standard input ended

JOBS: Final = {
    "ship": "backup.ship_job",
    "capture": "backup.jobs",
    "look": "backup.jobs",
    "expire": "backup.jobs",
    "delete": "backup.jobs",
    "hold": "backup.jobs",
    "release": "backup.jobs",
    "verify": "backup.jobs",
    "drill": "backup.jobs",
    "synthesise": "backup.jobs",
    "sync": "backup.jobs",
    "bring_back": "backup.restore_jobs",
    "tell_versions": "backup.restore_jobs",
    "compare_moments": "backup.restore_jobs",
}


NICENESS_OF: Final = {
    "ship": SHIPPING_NICENESS,
    "bring_back": ASKED_NICENESS,
    "tell_versions": ASKED_NICENESS,
    "compare_moments": ASKED_NICENESS,
}


class Line:
    """The process's two lines to the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told_s = 0.0
        self._orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.job: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def tell(self, event: str, **fields: Any) -> None:
        """Sends one event at once."""
        text = json.dumps({"event": event, **fields}, separators=(",", ":"))
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def progress(self, what: str, rows: int, size: int) -> None:
        """Tells how far the job is, not more often than a few times per second."""
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self.tell("progress", what=what, rows=rows, bytes=size)

    def step(self, what: str, done: int, total: int) -> None:
        """As `progress`, for work of several steps of which each knows how far it is. what: "rows", "log", ..."""
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            percent = round(100 * done / max(total, 1), 1)
            self.tell("progress", what=what, phase=what, rows=0, bytes=0, percent=percent)

    def newest_order(self, timeout_s: float) -> dict[str, Any] | None:
        """The newest line that came since the last call; waits for one if there is none."""
        newest = None
        with contextlib.suppress(Empty):
            newest = self._orders.get(timeout=timeout_s)
            while True:
                newest = self._orders.get_nowait()
        return newest

    def _listen(self) -> None:
        for text in sys.stdin.buffer:
            self._orders.put(json.loads(text))
        os._exit(ABANDONED)


Progress = Callable[[str, int, int], None]

Job = Callable[[Mapping[str, Any], Line], dict[str, Any]]


def main() -> int:
    """Does the job on standard input; the exit code is 0 if it was done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the server's terminal is the server's to answer
    line = Line()
    kind = str(line.job.get("job"))
    _be_modest(NICENESS_OF.get(kind, NICENESS))
    try:
        if kind not in JOBS:
            raise RewindError(f"There is no job {kind!r}.")
        work: Job = getattr(import_module(JOBS[kind]), kind)
        result = work(line.job, line)
    except RewindError as error:
        line.tell("failed", kind=type(error).__name__, message=error.message, hint=error.hint)
        return 1
    except Exception as error:
        traceback.print_exc()
        line.tell("failed", kind=type(error).__name__, message=f"{type(error).__name__}: {error}", hint="")
        return 1
    line.tell("done", result=result)
    return 0


def _be_modest(niceness: int) -> None:
    """Processor and disk go to the server first."""
    os.nice(niceness)
    if niceness == NICENESS and hasattr(os, "SCHED_BATCH"):  # so that waking up takes no query's turn
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    ionice = shutil.which("ionice")
    if ionice:
        subprocess.run([ionice, "-c", "2", "-n", "7", "-p", str(os.getpid())], check=False, capture_output=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that listens would hold up an orderly end
