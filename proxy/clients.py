"""All driver connections of a server: what they share, who they are, what they run, how they are ended.

One rule: a connection is in here from its first byte to its last, so that the limits count every one and the
system tables show every one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
from twisted.internet import defer

from proxy.answers import Evaluator
from proxy.deadlines import Deadlines
from proxy.fibers import DelayedCall, FiberPool, Timers
from proxy.frames import MAX_QUERY_BYTES
from proxy.handshake import Authenticator
from proxy.session import KILLED, MAX_RUNNING, Query, Session

log = logging.getLogger("rewinddb.proxy")

_CUT_AFTER_S: Final = 1.0  # for a last error to reach a driver when the server stops


@dataclass(frozen=True, slots=True)
class Limits:
    """What one driver may take up, and all together."""

    max_connections: int = 10_000
    max_unauthenticated: int = 500
    handshake_timeout_s: float = 20.0
    max_running: int = MAX_RUNNING  # queries in flight on one connection
    max_query_bytes: int = MAX_QUERY_BYTES
    drain_timeout_s: float = 300.0  # for skipping a query that is too large
    max_receiving_bytes: int = 1 << 30  # of all queries that have come in part
    write_high_bytes: int = 1 << 20  # unsent: above it nothing new of the connection is run or read
    write_abort_bytes: int = 256 << 20  # unsent: above it the connection is cut


RELIEF_BYTES: Final = 16 << 20
_RELIEF_AFTER_S: Final = 1.0  # to give memory back costs milliseconds, and a client's next query may need it again


class LoginDesk(Authenticator, Protocol):
    """`proxy.auth.UserDirectory`, as connections need it."""

    def key_fits(self, user: str, key: bytes) -> bool: ...
    def key_is_cheap(self, user: str) -> bool: ...
    def needs_password(self, user: str = "admin") -> bool: ...


class Member(Protocol):
    """A connection, however it came: over the driver port or over HTTP."""

    connection_id: int
    address: tuple[str, int]
    user: str
    since_s: float
    session: Session | None

    def kill(self, query: Query, message: str) -> None: ...
    def finish(self, message: str | None) -> None:
        """Takes no more queries and closes when what runs is answered; with a message, ends that now."""

    def cut(self) -> None:
        """Closes without waiting for anything."""


@dataclass(frozen=True, slots=True)
class RunningQuery:
    """A row for `rethinkdb.jobs`. body: the JSON text of the query; duration_s: since its START."""

    query_id: str
    connection_id: int
    user: str
    address: tuple[str, int]
    duration_s: float
    body: bytes


class Clients:
    """Every connection of this server. One per process, shared by all listeners."""

    def __init__(
        self,
        evaluator: Evaluator,
        login: LoginDesk,
        fibers: FiberPool,
        timers: Timers,
        server_id: str,
        server_name: str,
        limits: Limits | None = None,
        server_version: str = "2.4.4",
        random_bytes: Callable[[int], bytes] = os.urandom,
        seconds: Callable[[], float] = time.monotonic,
        give_back: Callable[[], object] = lambda: None,
    ) -> None:
        """give_back: gives memory that is free back to the system."""
        self.evaluator = evaluator
        self.login = login
        self.fibers = fibers
        self.timers = timers
        self.limits = limits or Limits()
        self.server_version = server_version
        self.random_bytes = random_bytes
        self.seconds = seconds
        self.members: dict[int, Member] = {}
        self.unauthenticated = 0
        self.receiving_bytes = 0
        self.queries_total = 0
        self.connections_total = 0
        self.is_draining = False
        self.logins = Deadlines(timers, seconds, self.limits.handshake_timeout_s)
        self.set_server(server_id, server_name)
        self._secret = random_bytes(16)
        self._give_back = give_back
        self._relief: DelayedCall | None = None
        self._next_id = 0
        self._when_empty: defer.Deferred[None] | None = None
        self._line: dict[Callable[[], None], None] = {}  # connections that have more to do than fits into a slice

    def relieve_soon(self) -> None:
        """A query of `RELIEF_BYTES` or more, or with such an answer, is over: what it took is given back, once there
        has been no such for a while."""
        if self._relief is not None:
            self._relief.cancel()
        self._relief = self.timers.callLater(_RELIEF_AFTER_S, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        self._give_back()

    def set_server(self, server_id: str, server_name: str) -> None:
        """What SERVER_INFO answers; to be called again when the server is renamed."""
        self.server_info = orjson.dumps({"id": server_id, "name": server_name, "proxy": False})

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def enter(self, member: Member) -> None:
        self.members[member.connection_id] = member
        self.connections_total += 1

    def leave(self, member: Member) -> None:
        self.members.pop(member.connection_id, None)
        if not self.members and self._when_empty is not None:
            when_empty, self._when_empty = self._when_empty, None
            self.logins.stop()
            when_empty.callback(None)

    def refusal(self) -> str | None:
        """Why a new connection is not taken, or None."""
        if self.is_draining:
            return "Server is shutting down."
        if len(self.members) >= self.limits.max_connections or self.unauthenticated >= self.limits.max_unauthenticated:
            return "Too many connections."
        return None

    # -- turns ----------------------------------------------------------------------------------------------------

    @property
    def is_in_line(self) -> bool:
        """Whether connections wait for their turn."""
        return bool(self._line)

    def line_up(self, take_turn: Callable[[], None]) -> None:
        """`take_turn` will be called in its turn: one connection's in each pass of the reactor, however many wait."""
        if not self._line:
            self.timers.callLater(0, self._next_turn)
        self._line[take_turn] = None

    def _next_turn(self) -> None:
        take_turn = next(iter(self._line))
        del self._line[take_turn]
        if self._line:
            self.timers.callLater(0, self._next_turn)
        take_turn()

    # -- for the system tables ------------------------------------------------------------------------------------

    def running(self) -> list[RunningQuery]:
        """What runs or is an open stream, on all connections."""
        now_s = self.fibers.seconds()
        found = [
            RunningQuery(
                self._query_id(member, query.serial),
                member.connection_id,
                member.user,
                member.address,
                max(0.0, now_s - query.started_s),
                query.body,
            )
            for member, query in self._queries()
        ]
        asking = self._asking()
        if asking is not None:
            member, serial, body = asking
            query_id = self._query_id(member, serial)
            spent_s = max(0.0, now_s - self.fibers.slice_began_s)
            found.append(RunningQuery(query_id, member.connection_id, member.user, member.address, spent_s, body))
        return found

    @property
    def active(self) -> int:
        """How many connections have a query that runs right now."""
        ids = {member.connection_id for member, query in self._queries() if query.is_running}
        asking = self._asking()
        if asking is not None:
            ids.add(asking[0].connection_id)
        return len(ids)

    def kill(self, query_id: str) -> bool:
        """Ends a query of `running`; False if there is none of this id (any more)."""
        for member, query in self._queries():
            if self._query_id(member, query.serial) == query_id:
                member.kill(query, KILLED)
                return True
        asking = self._asking()
        if asking is not None and self._query_id(*asking[:2]) == query_id:
            self.fibers.interrupt_current(KILLED)
            return True
        return False

    def _asking(self) -> tuple[Member, int, bytes] | None:
        """(connection, serial, body) of the query that runs this very code, where no session knows it yet."""
        fiber = self.fibers.current
        if fiber is None or type(fiber.item) is not bytes:
            return None
        member = self.members.get(fiber.context.connection_id)
        if member is None or member.session is None:
            return None
        return member, member.session.next_serial, fiber.item

    def _queries(self) -> Iterator[tuple[Member, Query]]:
        for member in list(self.members.values()):
            if member.session is not None:
                for query in list(member.session.queries.values()):
                    if query.killed is None:
                        yield member, query

    def _query_id(self, member: Member, serial: int) -> str:
        """The query's UUID, computed where it is asked for: most queries end before anyone could ask."""
        name = b"%d.%d" % (member.connection_id, serial)
        return str(uuid.UUID(bytes=hashlib.blake2b(name, digest_size=16, key=self._secret).digest(), version=4))

    # -- shutting down --------------------------------------------------------------------------------------------

    def drain(self, grace_s: float) -> defer.Deferred[None]:
        """Takes no new connection or query; what runs may end within grace_s, then it is told that the server stops.

        Fires when all connections are closed.
        """
        self.is_draining = True
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None
        if not self.members:
            self.logins.stop()
            return defer.succeed(None)
        when_empty: defer.Deferred[None] = defer.Deferred()
        self._when_empty = when_empty
        for member in list(self.members.values()):
            member.finish(None)
        late = self.timers.callLater(grace_s, self._end_the_rest)

        def stop_waiting(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        return when_empty.addBoth(stop_waiting)

    def _end_the_rest(self) -> None:
        log.warning("%d connections did not end in time: their queries are ended", len(self.members))
        for member in list(self.members.values()):
            member.finish("Server is shutting down.")
        self.timers.callLater(_CUT_AFTER_S, self._cut_the_rest)

    def _cut_the_rest(self) -> None:
        for member in list(self.members.values()):
            member.cut()
