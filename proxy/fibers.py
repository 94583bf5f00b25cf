"""Runs queries as fibers (greenlets) on the reactor's thread, and turns whatever goes wrong in one into a ReQL error.

A fiber runs straight through until it waits for something (`wait`, `wait_for`) or has run for a time slice and
breathes (`breathe`); then the reactor goes on, and the fiber is continued when what it waits for has happened, or
when its turn comes. Fibers that used up their slice take turns, one slice per pass of the reactor, so that sockets
and timers are served in between.

One rule: a fiber is only ever switched to from outside all fibers. What would continue one fiber from inside
another is put in line for the next pass.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from greenlet import getcurrent, greenlet
from twisted.internet import defer
from twisted.python.failure import Failure

from model.errors import (
    NotLeader,
    Overloaded,
    ReqlError,
    ReqlInternalError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlResourceLimitError,
    RewindError,
)
from proxy.answers import Answer, Done, Interrupted, Promised, WaitTimeout

log = logging.getLogger("rewinddb.proxy")

T = TypeVar("T")

SLICE_S: Final = 0.001  # a get beside a scan waits 0.5 ms longer with twice as much; a scan costs the same
_MAX_IDLE: Final = 64  # fibers kept for reuse
_SURELY_NOT_DONE: Final = (NotLeader, Overloaded)

_UNTOLD: Final = "the end of a query could not be told"

Outcome = Callable[[Any, Any, ReqlError | Interrupted | None], None]
"""Called with (item, result, error) at a run's end."""


class Item(Protocol):
    """What a fiber works on. The pool keeps the fiber in it while it runs."""

    fiber: Any


class DelayedCall(Protocol):
    def active(self) -> bool: ...
    def cancel(self) -> object: ...


class Timers(Protocol):
    """What a fiber pool needs of the reactor: Twisted's IReactorTime does."""

    def callLater(self, delay: float, callable: Callable[..., Any], /, *args: Any) -> DelayedCall: ...


class Failed:
    """What `start` gives where the work raised."""

    __slots__ = ("error",)

    def __init__(self, error: ReqlError | Interrupted) -> None:
        self.error = error


WAITING: Final = object()
"""What `start` gives where the work is not done yet."""


class Fiber:
    """One run of a function. `interruption` is raised in it at its next wait or breath."""

    __slots__ = ("args", "context", "deadline", "done", "interruption", "item", "switch", "wait")

    def __init__(self, pool: FiberPool) -> None:
        self.switch = greenlet(pool._loop).switch
        self.args: tuple[Any, ...] = ()  # what it is to be switched to with
        self.item: Any = None
        self.context: Any = None  # of `start`
        self.done: Any = None
        self.interruption: Interrupted | None = None
        self.wait: _Wait | None = None  # what it waits for
        self.deadline: DelayedCall | None = None

    def interrupt(self, interruption: Interrupted) -> None:
        """Raises it where the fiber waits, or at its next wait or breath."""
        self.interruption = interruption
        if self.wait is not None:
            self.wait.done(interruption)


class _Promise:
    """An answer that waits for one thing, as a fiber would. Only the first word about it counts."""

    __slots__ = ("answer", "item", "outcome", "pool")

    def __init__(self, pool: FiberPool, item: Item, answer: Answer, outcome: Outcome) -> None:
        self.pool = pool
        self.item: Item | None = item
        self.answer = answer
        self.outcome = outcome

    def done(self, error: BaseException | None = None, value: Any = None) -> None:
        pool, item = self.pool, self.item
        if item is None:
            return
        if pool.current is not None:  # what an outcome leads to is nothing for inside a fiber
            pool._timers.callLater(0, self.done, error)
            return
        self.item = item.fiber = None
        if error is None:
            try:  # as `_tell`, without a call for each
                self.outcome(item, self.answer, None)
            except Exception:
                log.exception(_UNTOLD)
        elif isinstance(error, Interrupted):
            _tell(self.outcome, item, None, error)
        else:
            assert isinstance(error, Exception)
            _tell(self.outcome, item, None, as_reql_error(error))

    def interrupt(self, interruption: Interrupted) -> None:
        self.done(interruption)


class _Wait:
    """One thing that one fiber waits for. Only the first word about it counts."""

    __slots__ = ("error", "fiber", "is_over", "pool", "timer", "value")

    def __init__(self, pool: FiberPool, fiber: Fiber) -> None:
        self.pool = pool
        self.fiber = fiber
        self.is_over = False
        self.error: BaseException | None = None
        self.value: Any = None
        self.timer: DelayedCall | None = None

    def done(self, error: BaseException | None = None, value: Any = None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.error = error
        self.value = value
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.fiber.wait is self:
            self.fiber.wait = None
            self.pool._continue(self.fiber)

    def expire(self) -> None:
        self.timer = None
        self.done(WaitTimeout("no result in time"))


class FiberPool:
    """The fibers of a process. timers: the reactor. seconds: a monotonic clock, cheap to ask."""

    def __init__(self, timers: Timers, seconds: Callable[[], float] = time.monotonic, slice_s: float = SLICE_S) -> None:
        self.seconds = seconds
        self.current: Fiber | None = None
        self.slice_began_s = 0.0  # when the current fiber was last switched to
        self._timers = timers
        self._slice_s = slice_s
        self._hub: Any = None  # the greenlet that switched to the current fiber
        self._result: Any = None  # of the fiber that has just ended
        self._parked: Fiber | None = None  # by `start`, for `adopt`
        self._idle: list[Fiber] = []
        self._ready: deque[Fiber] = deque()  # to be continued, one per pass
        self._turn: DelayedCall | None = None

    # -- for the shell --------------------------------------------------------------------------------------------

    def start(self, work: Callable[[Any, Any], Any], item: Any, context: Any) -> Any:
        """The short way for what nearly always runs through: the result of `work(item, context)`, or Failed.

        If it is WAITING, `adopt` has to be called at once. Only from outside all fibers.
        """
        fiber = self._idle.pop() if self._idle else Fiber(self)
        fiber.item = item
        fiber.context = context
        self._hub = getcurrent()
        self.current = fiber
        self.slice_began_s = self.seconds()
        try:
            is_over = fiber.switch(work, item, context)
        finally:
            self.current = None
        fiber.item = None
        if not is_over:
            self._parked = fiber
            return WAITING
        if fiber.interruption is not None:
            fiber.interruption = None
        self._idle.append(fiber)
        result = self._result
        self._result = None
        return result

    def adopt(self, item: Item, done: Outcome) -> None:
        """Takes over what `start` found waiting, as if `run` had begun it."""
        fiber, self._parked = self._parked, None
        assert fiber is not None
        item.fiber = fiber
        fiber.item = item
        fiber.done = done

    def promise(self, item: Item, answer: Promised, done: Outcome) -> None:
        """What a run gave is not told before it is true: `done(item, its Answer, None)` then, or with an error."""
        item.fiber = promise = _Promise(self, item, answer.answer, done)
        answer.begin(promise.done)

    def run(self, work: Callable[[Any], Any], item: Item, done: Outcome, deadline_s: float | None = None) -> None:
        """Runs `work(item)` in a fiber, as far as it goes without waiting; then, or later, `done(item, result, error)`.

        The error is a ReqlError, or Interrupted where `interrupt` or the deadline (on the clock `seconds`) ended it.
        """
        fiber = self._idle.pop() if self._idle else Fiber(self)
        item.fiber = fiber
        fiber.item = item
        fiber.done = done
        fiber.args = (_alone, work, item)
        if deadline_s is not None:
            left_s = max(0.0, deadline_s - self.seconds())
            fiber.deadline = self._timers.callLater(left_s, self.interrupt, item, "Query ran into its deadline.")
        self._continue(fiber)

    def errand(self, work: Callable[[], T]) -> defer.Deferred[T]:
        """Runs the server's own `work` in a fiber, so that it may wait; the Deferred fires with its result."""
        answer: defer.Deferred[T] = defer.Deferred()

        def done(item: _Errand, result: Any, error: Exception | Interrupted | None) -> None:
            error = error or item.error
            if error is None:
                answer.callback(result)
            else:
                answer.errback(error)

        self.run(_Errand.call, _Errand(work), done)
        return answer

    def interrupt(self, item: Item, message: str) -> None:
        """Raises Interrupted in the item's fiber where it waits, or at its next wait or breath; nothing if it ended."""
        if item.fiber is not None:
            item.fiber.interrupt(Interrupted(message))

    def interrupt_current(self, message: str) -> None:
        """As `interrupt`, for the fiber that asks."""
        if self.current is not None:
            self.current.interruption = Interrupted(message)

    @property
    def waiting_for_a_turn(self) -> int:
        """How many fibers have used up their slice."""
        return len(self._ready)

    # -- for what runs in a fiber (proxy.answers.Fibers) ----------------------------------------------------------

    def wait(self, deferred: Any, timeout_s: float | None = None) -> Any:
        """The Deferred's result, or its failure's exception; others run meanwhile. After timeout_s: WaitTimeout."""

        def begin(done: Done) -> None:
            def succeed(value: Any) -> None:
                done(None, value)

            def fail(failure: Failure) -> None:
                done(failure.value)

            deferred.addCallbacks(succeed, fail)

        try:
            return self.wait_for(begin, timeout_s)
        except (Interrupted, WaitTimeout):
            if isinstance(deferred, defer.Deferred):
                deferred.cancel()
            raise

    def wait_for(self, begin: Callable[[Done], object], timeout_s: float | None = None) -> Any:
        """As `wait`, without a Deferred: `begin(done)` starts the thing, which calls `done(error, value)` once."""
        fiber = self.current
        if fiber is None:
            raise RuntimeError("a wait outside every fiber")
        if fiber.interruption is not None:
            self._raise_interruption(fiber)
        wait = _Wait(self, fiber)
        begin(wait.done)
        if not wait.is_over:
            if timeout_s is not None:
                wait.timer = self._timers.callLater(max(0.0, timeout_s), wait.expire)
            fiber.wait = wait
            self._hub.switch()
            if fiber.interruption is not None:
                self._raise_interruption(fiber)
        if wait.error is not None:
            raise wait.error
        return wait.value

    def breathe(self) -> None:
        """Call it often in a long run (say, every 50 rows): after a time slice the reactor and others get a turn."""
        fiber = self.current
        if fiber is None:
            return
        if fiber.interruption is not None:
            self._raise_interruption(fiber)
        if self.seconds() - self.slice_began_s >= self._slice_s:
            self._line_up(fiber)
            self._hub.switch()
            if fiber.interruption is not None:
                self._raise_interruption(fiber)

    def run_s(self) -> float:
        """For how many seconds the fiber has run since others had a turn."""
        return self.seconds() - self.slice_began_s

    # -- inside ---------------------------------------------------------------------------------------------------

    def _raise_interruption(self, fiber: Fiber) -> None:
        interruption, fiber.interruption = fiber.interruption, None
        assert interruption is not None
        raise interruption

    def _loop(self, work: Any, item: Any, context: Any) -> None:
        """What every fiber's greenlet does: one run after the other. It switches out with True at a run's end."""
        while True:
            try:
                self._result = work(item, context)
            except (ReqlError, Interrupted) as error:
                self._result = Failed(error)
            except Exception as error:
                self._result = Failed(as_reql_error(error))
            work = item = context = None  # an idle fiber is to keep nothing alive
            work, item, context = self._hub.switch(True)

    def _switch_to(self, fiber: Fiber) -> None:
        """Lets a fiber run until it waits, breathes or ends. Only from outside all fibers."""
        self._hub = getcurrent()
        self.current = fiber
        self.slice_began_s = self.seconds()
        args, fiber.args = fiber.args, ()
        try:
            is_over = fiber.switch(*args)
        finally:
            self.current = None
        if is_over:
            self._finish(fiber)

    def _finish(self, fiber: Fiber) -> None:
        item, done, result = fiber.item, fiber.done, self._result
        fiber.item = fiber.done = fiber.interruption = item.fiber = self._result = None
        if fiber.deadline is not None:
            if fiber.deadline.active():
                fiber.deadline.cancel()
            fiber.deadline = None
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(fiber)
        if type(result) is Failed:
            _tell(done, item, None, result.error)
        else:
            _tell(done, item, result, None)

    def _continue(self, fiber: Fiber) -> None:
        if self.current is None:
            self._switch_to(fiber)
        else:
            self._line_up(fiber)

    def _line_up(self, fiber: Fiber) -> None:
        self._ready.append(fiber)
        if self._turn is None:
            self._turn = self._timers.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        fiber = self._ready.popleft()
        if self._ready:
            self._turn = self._timers.callLater(0, self._take_turn)
        self._switch_to(fiber)


def _tell(done: Outcome, item: Item, result: Any, error: ReqlError | Interrupted | None) -> None:
    try:
        done(item, result, error)
    except Exception:
        log.exception(_UNTOLD)


def _alone(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


class _Errand:
    """The server's own work as an item. Its exceptions are kept as they are: no driver is told."""

    __slots__ = ("error", "fiber", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.fiber: Any = None
        self.error: Exception | None = None

    def call(self) -> Any:
        try:
            return self.work()
        except Exception as error:
            self.error = error
            return None


def as_reql_error(error: Exception) -> ReqlError:
    """What a driver is told of anything that a query ran into: the only place that decides it.

    Inner errors become "surely not done" where that is certain, else "may have been done". Anything unforeseen is
    logged with its traceback and becomes an internal error.
    """
    if isinstance(error, ReqlError):
        return error
    if isinstance(error, RewindError):
        kind = ReqlOpFailedError if isinstance(error, _SURELY_NOT_DONE) else ReqlOpIndeterminateError
        return kind(str(error))
    if isinstance(error, RecursionError):
        return ReqlResourceLimitError("The query is nested too deeply to be run.")
    if isinstance(error, MemoryError):
        return ReqlResourceLimitError("The server has no memory left for this query.")
    log.error("a query failed unexpectedly", exc_info=error)
    return ReqlInternalError(f"Unexpected exception: {type(error).__name__}: {error}")
