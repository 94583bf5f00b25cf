"""The simulated world: one clock, one queue of events, one pair of dice. One seed is one history.

The rule: nothing here or in what runs here asks the real clock, the real dice, a thread or the operating
system. Two events at one moment happen in the order in which they were planned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

MOST_EVENTS = 1_000_000
"""More than any history needs."""


class Violation(AssertionError):
    """Something happened that must never happen."""


class Planned:
    """A planned call, as Twisted's delayed calls are: it can be cancelled until it happens."""

    __slots__ = ("arguments", "call", "is_active")

    owner: object = None
    """Whose event it is: nobody else is changed by it. None where anybody may be."""

    def __init__(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.call = call
        self.arguments = arguments
        self.is_active = True

    def active(self) -> bool:
        """Whether it is still to happen."""
        return self.is_active

    def cancel(self) -> None:
        """Let it not happen."""
        self.is_active = False

    def happen(self) -> None:
        """Call, unless cancelled."""
        if self.is_active:
            self.is_active = False
            self.call(*self.arguments)


class World:
    """Time is in seconds and only moves from event to event."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = Random(seed)
        self.now = 0.0
        self.after_event: Callable[[object], None] = lambda _owner: None
        self.lines: list[str] = []
        self._queue: list[tuple[float, int, Planned]] = []
        self._numbers = count()
        self._digest = hashlib.blake2b(digest_size=8)
        self.events = 0
        self._violation: Violation | None = None

    def fail(self, text: str, cause: Exception | None = None) -> None:
        """Something happened that must never happen: the run ends after this event, whoever catches errors."""
        if self._violation is None:
            self._violation = Violation(text)
            self._violation.__cause__ = cause

    def after(self, delay: float, call: Callable[..., object], *arguments: Any) -> Planned:
        """Plan a call."""
        planned = Planned(call, arguments)
        self.plan(delay, planned)
        return planned

    def plan(self, delay: float, planned: Planned) -> None:
        """Let it happen after a while."""
        heappush(self._queue, (self.now + delay if delay > 0 else self.now, next(self._numbers), planned))

    def run(self, until: float) -> None:
        """Let everything happen up to a moment."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, planned = heappop(queue)
            if planned.is_active:
                planned.happen()
                self.events += 1
                self.after_event(planned.owner)
                if self.events > MOST_EVENTS:
                    raise Violation(f"more than {MOST_EVENTS} events: the servers talk without end")
                if self._violation is not None:
                    raise self._violation
        self.now = until

    def run_until(self, condition: Callable[[], bool], within: float) -> bool:
        """Let things happen until a condition holds; False if it did not hold in time."""
        end = self.now + within
        while not condition():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return condition()
            self.run(self._queue[0][0])
        return True

    def log(self, text: str) -> None:
        """Note what happened, for people and for the digest of the history."""
        line = f"{self.now:9.4f} {text}"
        self._digest.update(line.encode())
        self.lines.append(line)

    @property
    def digest(self) -> str:
        """The same for two runs of one seed."""
        return self._digest.hexdigest()

    def chance(self, probability: float) -> bool:
        """Whether something of that probability happens now."""
        return self.dice.random() < probability


class _OnServer(Planned):
    """A planned call of one server: it does not happen to a dead one, and waits for a paused one."""

    __slots__ = ("clock", "source")

    def __init__(
        self, clock: ServerClock, source: str, call: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__(call, arguments)
        self.clock = clock
        self.source = source

    @property
    def owner(self) -> object:  # type: ignore[override]
        """The server."""
        return self.clock.owner

    def happen(self) -> None:
        """Call, unless cancelled; a paused server keeps it for later."""
        clock = self.clock
        if self.is_active and not clock.is_dead:
            if clock.missed is not None:
                clock.missed.append(self)
            else:
                self.is_active = False
                self.call(*self.arguments)


class ServerClock:
    """The clock and reactor of one running server: it may run fast or slow, stand still, and die.

    A server that is paused gets none of its events until it goes on; its clock shows the time that has passed.
    """

    def __init__(self, world: World, rate: float, owner: object = None) -> None:
        self._world = world
        self._rate = rate
        self._started = world.now
        self.owner = owner
        self.missed: list[_OnServer] | None = None
        """What was to happen while the server is paused; None while it runs."""
        self.is_dead = False

    def seconds(self) -> float:
        """The server's own monotonic clock."""
        return 1000.0 + (self._world.now - self._started) * self._rate

    def callLater(self, delay: float, call: Callable[..., object], *arguments: Any) -> Planned:
        """Plan a call of this server, in its own seconds."""
        planned = _OnServer(self, "timer", call, arguments)
        self._world.plan(delay / self._rate, planned)
        return planned

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        """Plan a call of this server as soon as possible."""
        self._world.plan(0, _OnServer(self, "timer", call, arguments))

    def arrive(self, source: str, call: Callable[..., object], *arguments: Any) -> None:
        """Something comes in from outside, over a socket of its own."""
        self._world.plan(0, _OnServer(self, source, call, arguments))

    def pause(self) -> None:
        """Stop the process where it stands."""
        if self.missed is None:
            self.missed = []

    def go_on(self) -> None:
        """Let the process go on: all that it missed happens now, each source's in order, the sources in any."""
        missed, self.missed = self.missed or [], None
        delays: dict[str, float] = {}
        for planned in missed:
            if planned.source not in delays:
                delays[planned.source] = self._world.dice.uniform(0, 0.01)
            self._world.plan(delays[planned.source], planned)
