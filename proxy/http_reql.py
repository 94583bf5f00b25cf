"""ReQL over HTTP: connections that live in the server and are named by a secret, and requests that each ask once.

One rule: a response frame goes to the request that it answers. What a frame is answered with at once is its own;
what comes later goes to the requests of its token in the order in which they came.
"""

from __future__ import annotations

import base64
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from model.errors import ReqlClientError, ReqlError
from proxy.answers import Answer, Interrupted
from proxy.clients import Clients
from proxy.fibers import DelayedCall
from proxy.frames import error_frame, unpack_header
from proxy.performer import Performer
from proxy.session import Query

TIMEOUT_S: Final = 300
MAX_CONNECTIONS: Final = 1000
_KEY_BYTES: Final = 16
_TERMINATED: Final = "This ReQL connection has been terminated."
_TIMED_OUT: Final = f"HTTP ReQL query timed out after {TIMEOUT_S} seconds."

Reply = Callable[[bytes], None]
"""Sends one response frame to whoever made the request."""


def not_open(token: int) -> bytes:
    """What a request with an unknown connection id is answered."""
    return error_frame(token, ReqlClientError("This HTTP connection is not open."))


class HttpConnection(Performer):
    """A session without a socket. It expires when it is not used."""

    def __init__(self, clients: Clients, user: str, address: tuple[str, int], left: Callable[[], None]) -> None:
        """left: called when it has ended."""
        super().__init__(clients)
        self.address = address
        self._left = left
        self._waiting: dict[int, deque[tuple[Reply, float]]] = {}  # by token: who asked, and when
        self._is_over = False
        self._last_used_s = clients.seconds()
        self._timer: DelayedCall = clients.timers.callLater(TIMEOUT_S, self._look_at_the_clock)
        self._open_session(user, one_at_a_time=False, returns_empty_batches=True)
        clients.enter(self)

    @property
    def is_full(self) -> bool:
        """Whether as many queries are open as one connection may have."""
        assert self.session is not None
        return len(self.session.queries) >= self.clients.limits.max_running - 1

    def ask(self, token: int, body: bytes, reply: Reply) -> None:
        """Runs one query; `reply` is called once, now or later. Not for noreply queries, nor where `is_full`."""
        session = self.session
        assert session is not None
        self._last_used_s = self.clients.seconds()
        if self._is_finishing:
            reply(not_open(token))
            return
        self._waiting.setdefault(token, deque()).append((reply, self._last_used_s))
        actions = session.receive(struct.pack("<qI", token, len(body)) + body)
        for action in actions or ():
            if isinstance(action, bytes):
                self._take(token, -1)(action)
            else:
                self._perform([action])

    def forget(self, token: int, reply: Reply) -> None:
        """Whoever made this request is gone: what it asked for ends."""
        waiting = self._waiting.get(token, deque())
        if not any(asker is reply for asker, _ in waiting):
            return
        self._waiting[token] = deque(entry for entry in waiting if entry[0] is not reply)
        session = self.session
        query = session.queries.get(token) if session is not None else None
        if query is not None:
            self.kill(query, _TERMINATED)

    def close(self) -> None:
        """Ends everything of this connection."""
        self.finish(_TERMINATED)

    def cut(self) -> None:
        """Closes without waiting for anything."""
        self._disconnect()

    def _look_at_the_clock(self) -> None:
        idle_s = self.clients.seconds() - self._last_used_s
        if idle_s < TIMEOUT_S:
            self._timer = self.clients.timers.callLater(TIMEOUT_S - idle_s, self._look_at_the_clock)
        else:
            self.finish(_TIMED_OUT)

    def _disconnect(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._is_finishing = True
        if self._timer.active():
            self._timer.cancel()
        assert self.session is not None
        self._perform(self.session.closed())
        self.clients.leave(self)
        self._left()

    def _done(self, query: Query, answer: Answer | None, error: ReqlError | Interrupted | None) -> None:
        waiting = self._waiting.get(query.token)
        if answer is not None and answer.profile is None and waiting:
            spent_ms = (self.clients.seconds() - waiting[0][1]) * 1000
            answer.profile = b'[{"duration(ms)":%.3f}]' % spent_ms
        super()._done(query, answer, error)

    def _send(self, data: bytes) -> None:
        token, _ = unpack_header(data)
        if self._waiting.get(token):
            self._take(token, 0)(data)

    def _take(self, token: int, place: int) -> Reply:
        """The request at a place (0: the first, -1: the newest) of the token's line, out of it."""
        waiting = self._waiting[token]
        reply, _ = waiting.popleft() if place == 0 else waiting.pop()
        if not waiting:
            del self._waiting[token]
        return reply


class HttpConnections:
    """The HTTP connections of a server by their ids, which nobody can guess."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._by_key: dict[str, HttpConnection] = {}

    def refusal(self) -> str | None:
        """Why no new connection is made, or None."""
        if len(self._by_key) >= MAX_CONNECTIONS:
            return "Too many connections."
        return self._clients.refusal()

    def create(self, user: str, address: tuple[str, int]) -> str:
        """A new connection's id."""
        key = base64.urlsafe_b64encode(self._clients.random_bytes(_KEY_BYTES)).decode().rstrip("=")
        self._by_key[key] = HttpConnection(self._clients, user, address, lambda: self._drop(key))
        return key

    def find(self, key: str, user: str) -> HttpConnection | None:
        """The connection of this id, if it is this user's."""
        connection = self._by_key.get(key)
        return connection if connection is not None and connection.user == user else None

    def _drop(self, key: str) -> None:
        self._by_key.pop(key, None)


def split_request(body: bytes) -> tuple[int, bytes]:
    """(token, query) of a request's body. Raises ValueError where it is too short."""
    if len(body) < 8:
        raise ValueError("Client is buggy (request too small).")
    token: int = struct.unpack_from("<q", body)[0]
    return token, body[8:]
