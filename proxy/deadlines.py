"""One timer for many things that are nearly always done in time: to set one for each costs more than most of them do.

One rule: the timer stays as it is set; when it fires, it is set anew for whatever is next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.fibers import DelayedCall, Timers


class Late(Protocol):
    """What may take too long."""

    def give_up(self) -> None: ...


class Deadlines:
    """Tells those that are not done `limit_s` seconds after they began. seconds: a monotonic clock, cheap to ask."""

    def __init__(self, timers: Timers, seconds: Callable[[], float], limit_s: float) -> None:
        self._timers = timers
        self._seconds = seconds
        self._limit_s = limit_s
        self._due: dict[Late, float] = {}  # the next first
        self._timer: DelayedCall | None = None
        self._set_for = 0.0

    def begin(self, who: Late) -> None:
        """It begins now."""
        due = self._due[who] = self._seconds() + self._limit_s
        if self._timer is None:
            self._set(due)

    def done(self, who: Late) -> None:
        """It is over, in whatever way; nothing if it was over already."""
        self._due.pop(who, None)

    def stop(self) -> None:
        """Forgets all; nobody is told any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        self._set_for = due
        self._timer = self._timers.callLater(max(0.0, due - self._seconds()), self._look)

    def _look(self) -> None:
        now = max(self._seconds(), self._set_for)  # the timer's clock is another one
        late = [who for who, due in self._due.items() if due <= now]
        for who in late:
            self._due.pop(who, None)
        self._timer = None
        for due in self._due.values():
            self._set(due)
            break
        for who in late:
            who.give_up()
