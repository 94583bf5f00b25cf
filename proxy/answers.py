"""What passes between a driver's session and the evaluator: the context of a query, its answers, its cursor.

One rule: plain data and ports only, so that `proxy/reql` and `proxy/session` can share them without
knowing sockets, fibers or each other. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

ATOM: Final = "atom"
ARRAY: Final = "array"
SEQUENCE: Final = "sequence"
PARTIAL: Final = "partial"

# Notes of a response (`n`), by RethinkDB's numbers. The first four mark a changefeed.
SEQUENCE_FEED: Final = 1
ATOM_FEED: Final = 2
ORDER_BY_LIMIT_FEED: Final = 3
UNIONED_FEED: Final = 4
INCLUDES_STATES: Final = 5


class Interrupted(BaseException):
    """Ends a query from outside at its next `wait` or `breathe`; `message` is what the driver is told.

    A BaseException so that no `except Exception` on the way swallows it. Let it pass; clean up with `finally`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class WaitTimeout(Exception):
    """A `wait` or `wait_for` with `timeout_s` got no result in time."""


class Cursor(Protocol):
    """The rest of a stream that has been answered in part. An OpenFeed among them has a `listen`."""

    def next_batch(self) -> Answer:
        """The next batch, as "partial" or (the last one) "sequence"; runs inside a fiber; a feed waits for changes."""

    def close(self) -> None:
        """Gives back what the stream holds. May come at any time between batches, and more than once."""


NEEDS_FIBER: Final = object()
"""What `OpenFeed.listen` gives where something has to be evaluated."""


class OpenFeed(Cursor, Protocol):
    """A cursor that waits for news without a fiber. `next_batch` works as for any cursor, and waits in its fiber."""

    def listen(self, wake: Callable[[], None], is_woken: bool = False) -> bytes | object | None:
        """The body of the next response; NEEDS_FIBER where `news` has to be called for it; or None: there is nothing
        yet, and `wake` will be called once there may be. is_woken: it was."""

    def unlisten(self) -> None:
        """Nobody waits any more."""

    def news(self) -> Answer | None:
        """The next response, or None: nothing after all, `listen` again. Runs inside a fiber."""


class Answer:
    """One response to a driver: `items` are JSON texts, which the response joins without decoding them.

    kind: "atom" (exactly one item), "array" (an atom whose elements the items are), "sequence" (a stream's end) or
    "partial" (a stream with more to come, then `cursor` holds the rest). notes: numbers for `n`, empty for atoms.
    profile: the JSON text for `p`.
    body: the whole response as JSON, where it is known already; then `items` does not matter.
    """

    __slots__ = ("body", "cursor", "items", "kind", "notes", "profile")

    def __init__(
        self,
        kind: str,
        items: list[bytes],
        notes: list[int] | None = None,
        profile: bytes | None = None,
        cursor: Cursor | None = None,
        body: bytes | None = None,
    ) -> None:
        self.kind = kind
        self.items = items
        self.notes = notes or []
        self.profile = profile
        self.cursor = cursor
        self.body = body

    def __repr__(self) -> str:
        return f"Answer({self.kind}, {len(self.items)} items, notes={self.notes}, open={self.cursor is not None})"


Done = Callable[..., None]
"""Called once with `(error | None, value=None)` when the thing waited for has happened, on the reactor thread."""


class Promised:
    """An answer of what will have been done: to be sent once `begin(done)` has called `done(None)`.

    Only a query whose context `takes_promises` is answered so. An error that `done` is called with is the query's.
    It is no Answer, so that nobody can take it for one and send it before it is true.
    """

    __slots__ = ("answer", "begin")

    def __init__(self, answer: Answer, begin: Callable[[Done], object]) -> None:
        self.answer = answer
        self.begin = begin


class Fibers(Protocol):
    """What running evaluator code may ask of the scheduler. Every call may raise `Interrupted`."""

    def wait(self, deferred: Any, timeout_s: float | None = None) -> Any:
        """The Deferred's result, or its failure's exception; others run meanwhile. After timeout_s: WaitTimeout."""

    def wait_for(self, begin: Callable[[Done], object], timeout_s: float | None = None) -> Any:
        """As `wait`, without a Deferred: `begin(done)` starts the thing, which calls `done(error, value)` once."""

    def breathe(self) -> None:
        """Call it often in a long run (say, every 50 rows): after a time slice the reactor and others get a turn."""

    def run_s(self) -> float:
        """For how many seconds the reactor and others have not had a turn."""


class QueryContext:
    """Who asks, and how the query's run is tied to its surroundings. The global optargs are the evaluator's to parse.

    user: the authenticated name. address: (host, port) of the client. connection_id: unique in this process.
    deadline: seconds on the monotonic clock of the fibers, or None. returns_empty_batches: a feed's batch comes
    back empty after `max_batch_seconds` instead of waiting (drivers of V0_3, and HTTP). noreply: nobody will read
    the answer, so a stream is to be run to what its first batch needs and then dropped. takes_promises: a write may
    be answered by a `Promised`, so that no fiber has to wait for the log.
    """

    __slots__ = (
        "address", "connection_id", "deadline", "fibers", "noreply", "returns_empty_batches", "takes_promises", "user",
    )  # fmt: skip

    def __init__(
        self,
        user: str,
        address: tuple[str, int],
        connection_id: int,
        fibers: Fibers,
        deadline: float | None = None,
        returns_empty_batches: bool = False,
        noreply: bool = False,
        takes_promises: bool = False,
    ) -> None:
        self.user = user
        self.address = address
        self.connection_id = connection_id
        self.fibers = fibers
        self.deadline = deadline
        self.returns_empty_batches = returns_empty_batches
        self.noreply = noreply
        self.takes_promises = takes_promises

    def without_reply(self) -> QueryContext:
        """The same for a noreply query."""
        return QueryContext(
            self.user,
            self.address,
            self.connection_id,
            self.fibers,
            self.deadline,
            self.returns_empty_batches,
            noreply=True,
            takes_promises=self.takes_promises,
        )


class Evaluator(Protocol):
    """What the proxy runs queries with; implemented by `proxy/reql`."""

    def start(self, body: bytes, context: QueryContext) -> Answer | Promised:
        """Runs `body`, the JSON text of [1, term, optargs], inside a fiber; raises ReqlError."""

    def glance(self, body: bytes, user: str) -> bytes | Promised | None:
        """The datum that answers a query, as JSON, if it can be had at once: outside all fibers, and never raises.

        Or the answer of a write that is done but for its way to the disk. None: nothing was done; `start` it.
        """
