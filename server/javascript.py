"""`r.js`: scripts run in a few processes of their own (javascript_worker), never in the server's.

One rule: the reactor only ever waits for a Deferred. A thread per busy worker speaks with it, and kills it when a
script does not stop by itself soon after its time is up, or when its query is gone.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Final

import orjson
from twisted.internet.defer import Deferred

log = logging.getLogger("rewinddb.server")

WORKER: Final = Path(__file__).with_name("javascript_worker.py")
WORKERS: Final = 4  # scripts that run at the same time; others wait for their turn
START_S: Final = 30.0
GRACE_S: Final = 0.5  # for a worker to say itself that a script ran out of time
LONGEST_MS: Final = 86_400_000

Answer = list[Any]
CRASHED: Final[Answer] = ["crash"]
TIMED_OUT: Final[Answer] = ["timeout"]


class WorkerGone(Exception):
    """The process ended, or was ended, before it answered."""


class Worker:
    """One process. Only one thread uses it at a time, but any thread may `kill` it."""

    def __init__(self) -> None:
        self.last_session = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/"
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self._output = self._process.stdout.fileno()
        self._read(time.monotonic() + START_S)

    def ask(self, request: Answer, answers: int, limit_s: float) -> list[Answer]:
        """The answers to a request, each within its time; the last one may tell of a failure."""
        raw = json.dumps(request).encode()
        out: list[Answer] = []
        try:
            self._write(len(raw).to_bytes(4, "big") + raw)
            while len(out) < answers:
                answer = self._read(time.monotonic() + limit_s + GRACE_S)
                out.append(answer)
                if answer[0] not in ("value", "function"):
                    break
        except TimeoutError:
            self.kill()
            out.append(TIMED_OUT)
        except (WorkerGone, OSError):
            self.kill()
            out.append(CRASHED)
        return out

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _write(self, raw: bytes) -> None:
        view = memoryview(raw)
        while view:
            view = view[os.write(self._input, view) :]

    def _read(self, deadline: float) -> Answer:
        size = int.from_bytes(self._read_bytes(4, deadline), "big")
        answer: Answer = orjson.loads(self._read_bytes(size, deadline))
        return answer

    def _read_bytes(self, size: int, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        out = bytearray()
        while len(out) < size:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise TimeoutError
            raw = os.read(self._output, min(size - len(out), 1 << 20))
            if not raw:
                raise WorkerGone
            out += raw
        return bytes(out)


class Session:
    """The scripts of one query, which see each other's global variables as long as their worker lives."""

    def __init__(self, engines: JavascriptEngines, number: int) -> None:
        self._engines = engines
        self._number = number

    def evaluate(self, env: Any, source: str, limit_ms: int, array_limit: int) -> Answer:
        """What a script comes to: ["value", JSON], ["function"], ["array"], ["timeout"], ["crash"], ["error", why]."""
        return self._ask(env, [self._number, source, None, limit_ms, array_limit], 1, limit_ms)[0]

    def call(self, env: Any, source: str, calls: list[list[Any]], limit_ms: int, array_limit: int) -> list[Answer]:
        """The same for each call of the function that a script comes to, up to the first that fails."""
        return self._ask(env, [self._number, source, calls, limit_ms, array_limit], len(calls), limit_ms)

    def _ask(self, env: Any, request: Answer, answers: int, limit_ms: int) -> list[Answer]:
        limit_ms = min(limit_ms, LONGEST_MS)
        request[3] = limit_ms
        deferred = self._engines.submit(lambda worker: worker.ask(request, answers, limit_ms / 1000), self._number)
        found: list[Answer] = env.fibers.wait(deferred)
        return found


class JavascriptEngines:
    """The workers, started when they are first needed. soon: runs a function on the reactor's thread."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="javascript")
        self._lock = Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._numbers = count(1)
        self._closed = False

    def session(self) -> Session:
        return Session(self, next(self._numbers))

    def submit(self, work: Callable[[Worker], list[Answer]], session: int) -> Deferred[list[Answer]]:
        """Runs `work` with a worker in a thread. Cancelling the Deferred kills the worker that is at it."""
        at: list[Worker] = []
        gone = False

        def run() -> list[Answer]:
            if gone:
                return []
            worker = self._take(session)
            at.append(worker)
            if gone:  # while the worker was starting, when there was none yet to kill
                worker.kill()
            try:
                return work(worker)
            finally:
                self._give_back(worker, session)

        def cancel(deferred: Deferred[list[Answer]]) -> None:
            nonlocal gone
            gone = True
            if at and at[0] in self._busy:
                at[0].kill()

        answer: Deferred[list[Answer]] = Deferred(cancel)

        def tell(future: Future[list[Answer]]) -> None:
            error = future.exception()
            if error is not None:
                log.error("a worker for JavaScript could not be used: %s", error)
            found = [CRASHED] if error is not None else future.result()
            self._soon(lambda: None if answer.called else answer.callback(found))

        self._threads.submit(run).add_done_callback(tell)
        return answer

    def close(self) -> None:
        """Ends all workers."""
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, session: int) -> Worker:
        with self._lock:
            for worker in sorted(self._idle, key=lambda worker: worker.last_session != session):
                self._idle.remove(worker)
                if worker.is_alive:
                    self._busy.add(worker)
                    return worker
        worker = Worker()
        with self._lock:
            self._busy.add(worker)
            if self._closed:  # while it was starting, when `close` could not see it
                worker.kill()
        return worker

    def _give_back(self, worker: Worker, session: int) -> None:
        worker.last_session = session
        with self._lock:
            self._busy.discard(worker)
            if worker.is_alive and not self._closed:
                self._idle.append(worker)
                return
        worker.kill()
