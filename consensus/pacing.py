"""How fast one member that is behind is brought up while others are served: in bursts, with pauses between them.

One rule: pacing never decides whether a member catches up, only when. Where its distance to the end of the log does not
shrink, because the log grows, the bursts become larger until it does.

Bursts, not an even stream: whatever is sent costs the turns of this server that send it, and, where servers share a
machine, the processor that the other one takes; work that comes at a stretch gets in the way of fewer queries.
"""

from __future__ import annotations

from typing import Final

BURST_BYTES: Final = 8 << 20
PERIOD_S: Final = 0.64
"""With BURST_BYTES it makes 25 MiB/s; docs/decisions/043-pace-of-catching-up.md has what was measured."""
LOOK_S: Final = 1.0
MOST: Final = 128
"""Times BURST_BYTES: more than any link carries in a period."""


class Pace:
    """The bursts to one member. Times in seconds, of any clock that goes on."""

    __slots__ = ("_first", "_first_commit", "_left", "_looked_s", "_next_s", "times")

    def __init__(self) -> None:
        self.times = 1
        """How many times BURST_BYTES a burst may have."""
        self._left = 0
        self._next_s = 0.0
        self._looked_s = float("-inf")
        self._first = self._first_commit = 0

    def wait_s(self, now_s: float) -> float:
        """How long to wait before something is sent; 0.0 if it may be sent now."""
        return 0.0 if self._left > 0 else max(0.0, self._next_s - now_s)

    def sent(self, size: int, now_s: float) -> None:
        """So many bytes are sent now. The last ones of a burst may go beyond it."""
        if now_s >= self._next_s:
            self._left = BURST_BYTES * self.times
            self._next_s = now_s + PERIOD_S
        self._left -= size

    def reached(self, index: int, commit: int, now_s: float) -> None:
        """Entries up to `index` go to the member, while those up to `commit` are committed.

        The member must come on twice as fast as the log: half of the time that it was behind brings it up.
        """
        elapsed_s = now_s - self._looked_s
        if elapsed_s < LOOK_S:
            return
        if elapsed_s < 2 * LOOK_S + PERIOD_S and index >= self._first:
            came, grew = index - self._first, commit - self._first_commit
            if came < 2 * grew:
                self.times = min(2 * self.times, MOST)
            elif came > 4 * grew:
                self.times = max(1, self.times // 2)
        self._first, self._first_commit, self._looked_s = index, commit, now_s
