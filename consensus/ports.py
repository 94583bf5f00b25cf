"""What the node needs of the rest of the server: the state machine, the links, the reactor, snapshots.

One rule: shapes only. `server/assemble` plugs in what fits them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from consensus.messages import Message, Snapshot

Done = Callable[[Exception | None], None]
"""Told None when it worked, else why not."""


class StateMachine(Protocol):
    """What the log is applied to."""

    @property
    def applied_index(self) -> int: ...

    def apply(self, entries: Sequence[tuple[int, bytes]]) -> None:
        """Applies (log_index, payload) in order; payload b"" only moves `applied_index`.

        Raises Overloaded when it can take no more at the moment, Unfinished when others shall have a turn first: it is
        called again with the same entries.
        Any other error is final.
        """

    def flush(self) -> int:
        """Makes what is applied durable, in any thread; the index that is covered."""


class Transport(Protocol):
    """The links to the other members."""

    def send(self, messages: Sequence[Message]) -> None:
        """Sends what it can, at once, without blocking; a message may be lost, but not changed."""


class NoPeers:
    """The transport of a group of one."""

    def send(self, messages: Sequence[Message]) -> None:
        """There is nobody to send to."""


class Snapshots(Protocol):
    """Makes and takes in snapshots: states that replace the log up to an index."""

    def newest(self) -> Snapshot:
        """A snapshot to ship to a member that is far behind. Raises SnapshotUnavailable while there is none."""

    def install(self, snapshot: Snapshot, done: Done) -> None:
        """Replaces the applied state, durably, by a snapshot whose rows are already here; then calls `done`."""


class Reactor(Protocol):
    """The part of a Twisted reactor that the node uses."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...
    def callFromThread(self, call: Callable[..., object], *args: Any) -> None: ...
    def seconds(self) -> float: ...
