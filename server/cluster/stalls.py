"""How long the reactor kept others waiting: a timer that looks how late it comes.

One rule: what is told is the longest stall of the last minute, since that is what a client or a heartbeat felt, and
how many there have been that were too long. A stall may have been longer than is told by as much as the timer waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

EVERY_S: Final = 0.01
TOO_LONG_S: Final = 0.05
SECONDS_KEPT: Final = 60


class Timers(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...
    def seconds(self) -> float: ...


class StallMeter:
    """Measures from `start` to `stop`."""

    def __init__(self, reactor: Timers) -> None:
        self._reactor = reactor
        self._worst: deque[tuple[int, float]] = deque()  # (second, longest stall that ended in it)
        self.too_long = 0  # stalls longer than TOO_LONG_S so far
        self._due = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Begins to measure."""
        self._due = self._reactor.seconds() + EVERY_S
        self._call = self._reactor.callLater(EVERY_S, self._look)

    def stop(self) -> None:
        """Measures no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def longest_ms(self) -> float:
        """The longest stall of the last minute, in milliseconds."""
        self._forget(int(self._reactor.seconds()))
        return max((stall for _, stall in self._worst), default=0.0) * 1000

    def _look(self) -> None:
        now = self._reactor.seconds()
        second, late = int(now), max(0.0, now - self._due)
        if late > TOO_LONG_S:
            self.too_long += 1
        if self._worst and self._worst[-1][0] == second:
            self._worst[-1] = (second, max(late, self._worst[-1][1]))
        else:
            self._worst.append((second, late))
            self._forget(second)
        self.start()

    def _forget(self, second: int) -> None:
        while self._worst and self._worst[0][0] <= second - SECONDS_KEPT:
            self._worst.popleft()
