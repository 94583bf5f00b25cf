"""How long the reactor kept others waiting: a timer that looks how late it comes.

One rule: what is told is the longest stall of the last minute, since that is what a client or a heartbeat felt, and
how many there have been that were too long. A stall may have been longer than is told by as much as the timer waits.

While the thread has little to do the timer comes seldom: each time costs a tenth of a millisecond then, as a processor
has to be woken, and it was most of what a server without queries did. A stall out of such a rest is taken to be as
long as the thread has worked since the last look.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

EVERY_S: Final = 0.01
RESTING_EVERY_S: Final = 0.1
BUSY_SHARE: Final = 0.1  # of a processor; from then on the timer comes often
TOO_LONG_S: Final = 0.05
SECONDS_KEPT: Final = 60


class Timers(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...
    def seconds(self) -> float: ...


class StallMeter:
    """Measures from `start` to `stop`."""

    def __init__(self, reactor: Timers, worked_s: Callable[[], float] = time.thread_time) -> None:
        """`worked_s`: seconds of processor time that the reactor's thread has used so far."""
        self._reactor = reactor
        self._worked_s = worked_s
        self._worst: deque[tuple[int, float]] = deque()  # (second, longest stall that ended in it)
        self.too_long = 0  # stalls longer than TOO_LONG_S so far
        self._due = 0.0
        self._every_s = EVERY_S
        self._worked_before_s = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Begins to measure."""
        self._worked_before_s = self._worked_s()
        self._wait()

    def stop(self) -> None:
        """Measures no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def longest_ms(self) -> float:
        """The longest stall of the last minute, in milliseconds."""
        self._forget(int(self._reactor.seconds()))
        return max((stall for _, stall in self._worst), default=0.0) * 1000

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + self._every_s
        self._call = self._reactor.callLater(self._every_s, self._look)

    def _look(self) -> None:
        now = self._reactor.seconds()
        second, late = int(now), max(0.0, now - self._due)
        worked_s, self._worked_before_s = self._worked_s() - self._worked_before_s, self._worked_s()
        if self._every_s == RESTING_EVERY_S and late > EVERY_S:
            late = max(late, min(worked_s, late + RESTING_EVERY_S))
        if late > TOO_LONG_S:
            self.too_long += 1
        if self._worst and self._worst[-1][0] == second:
            self._worst[-1] = (second, max(late, self._worst[-1][1]))
        else:
            self._worst.append((second, late))
            self._forget(second)
        is_busy = worked_s > BUSY_SHARE * (self._every_s + late)
        self._every_s = EVERY_S if is_busy else RESTING_EVERY_S
        self._wait()

    def _forget(self, second: int) -> None:
        while self._worst and self._worst[0][0] <= second - SECONDS_KEPT:
            self._worst.popleft()
