"""One connection after its handshake: tokens, cursors, noreply, and what is to be done next. Pure.

Bytes and results of queries come in; what comes out is a list of actions, which the shell performs in order:

    bytes, Pieces        to be sent
    Query                to be run: `evaluator.start`, or `cursor.next_batch` when it has a cursor; then `finished`
                         or `failed` is called with the outcome, exactly once
    Interrupt            a running query is to be interrupted (its run still ends in `finished` or `failed`)
    Close                a cursor that nobody will ask again
    Disconnect           close once everything sent so far is out

One rule: a frame is looked at only when it may be acted on. Up to `max_running` queries are in flight, answered
as they finish; while that many run, or the shell says that the peer does not read, frames wait their turn, and
the shell stops reading. Changefeeds do not count, since they wait for ever.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from model.errors import ReqlClientError, ReqlError, ReqlOpIndeterminateError
from proxy.answers import Answer, Cursor, Interrupted, QueryContext
from proxy.frames import (
    CONTINUE,
    HEADER_BYTES,
    MAX_QUERY_BYTES,
    NOREPLY_WAIT,
    START,
    STOP,
    FrameReader,
    Pieces,
    answer_frame,
    answer_pieces,
    end_frame,
    error_frame,
    is_noreply,
    query_type,
    server_info_frame,
    too_large_frame,
    unpack_header,
    wait_complete_frame,
)

MAX_RUNNING: Final = 1024
KILLED: Final = "Query terminated by the `rethinkdb.jobs` table."
_START_END: Final = HEADER_BYTES + 3
_CONTINUE: Final = b"[2]"
_QUIET_CONTINUE: Final = b'[2,null,{"noreply":true}]'
CONTINUE_BYTES: Final = HEADER_BYTES + len(_CONTINUE)
SHUTTING_DOWN: Final = "Server is shutting down."


class FeedReader(Protocol):
    """What waits for the news of an open changefeed, without a fiber."""

    def ask(self) -> None: ...
    def stop(self) -> None: ...


class Query:
    """A query from its START to its last answer.

    The attributes with defaults stay in the class until a query needs its own: most queries never do.
    """

    is_running = True  # being run now; otherwise an open stream that waits for CONTINUE
    is_feed = False
    has_slot = True
    stopping = False
    cursor: Cursor | None = None
    reader: FeedReader | None = None  # the shell's: waits for the news of an open feed
    killed: str | None = None  # what its driver is to be told
    line: list[tuple[int, bool]] | None = None  # (CONTINUE | STOP, noreply) that came while it ran
    fiber: Any = None  # the pool's

    def __init__(self, token: int, body: bytes, noreply: bool, serial: int) -> None:
        """serial: its number on this connection."""
        self.token = token
        self.body = body
        self.noreply = noreply
        self.serial = serial
        self.started_s = 0.0  # the shell's: when it began to run


@dataclass(frozen=True, slots=True)
class Interrupt:
    query: Query
    message: str


@dataclass(frozen=True, slots=True)
class Close:
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Disconnect:
    reason: str


Action = bytes | Pieces | Query | Interrupt | Close | Disconnect


class Session:
    """The state of one driver connection. `context` is what its queries run with."""

    def __init__(
        self,
        context: QueryContext,
        server_info: bytes,
        max_running: int = MAX_RUNNING,
        max_query_bytes: int = MAX_QUERY_BYTES,
    ) -> None:
        self.context = context
        self.queries: dict[int, Query] = {}  # by token: running ones and open streams
        self.held: deque[tuple[int, bytes]] = deque()  # frames that wait their turn
        self.is_blocked = False  # see set_blocked
        self.is_closed = False
        self._server_info = server_info
        self._max_running = max_running
        self._max_query_bytes = max_query_bytes
        self._reader = FrameReader(max_query_bytes)
        self._running = 0  # slots taken
        self._is_open = True  # see _look_around
        self._serial = 0
        self._noreply: dict[int, Query] = {}  # unfinished noreply queries by serial, oldest first
        self._waits: deque[tuple[int, int]] = deque()  # NOREPLY_WAITs: (token, serial before which all must be done)

    @property
    def is_draining(self) -> bool:
        """Whether an oversized query is being skipped, which should not last for ever."""
        return self._reader.is_draining

    @property
    def received_bytes(self) -> int:
        """How much there is of a query that has come in part."""
        return self._reader.received_bytes

    @property
    def received_token(self) -> int:
        """The token of the query that has come in part."""
        return self._reader.token

    def receive_start(self, data: bytes) -> tuple[int, bytes] | None:
        """The short way for what nearly all queries are: (token, body) of one whole START that may run now.

        It is not noted here until `adopt`, so the shell has to answer it, or adopt it, before anything else comes.
        None: nothing was taken, use `receive`.
        """
        if not self._is_open or data[HEADER_BYTES:_START_END] != b"[1,":
            return None
        token, size = unpack_header(data)
        if size != len(data) - HEADER_BYTES or size >= self._max_query_bytes or token in self.queries:
            return None
        body = data[HEADER_BYTES:]
        if body.rfind(b'"noreply"') >= 0:  # a third of `find`'s time
            return None
        return token, body

    def receive_continue(self, data: bytes) -> Query | None:
        """The short way for what readers of changefeeds send: a feed that now runs again, for one whole CONTINUE.

        None: nothing was taken, use `receive`.
        """
        if not self._is_open or data[HEADER_BYTES:] != _CONTINUE:
            return None
        token, size = unpack_header(data)
        query = self.queries.get(token)
        if query is None or query.reader is None or query.is_running or query.killed is not None:
            return None
        if size != len(_CONTINUE):
            return None
        query.is_running = True
        query.noreply = False
        return query

    def adopt(self, token: int, body: bytes, noreply: bool = False) -> Query:
        """A new query that runs."""
        self._serial = serial = self._serial + 1
        self.queries[token] = query = Query(token, body, noreply, serial)
        self._running += 1
        if self._running >= self._max_running:
            self._is_open = False
        return query

    @property
    def next_serial(self) -> int:
        """Of a query that has not been adopted yet."""
        return self._serial + 1

    def set_blocked(self, is_blocked: bool) -> None:
        """The peer does not read what it is sent (or does again): nothing new is acted on."""
        self.is_blocked = is_blocked
        self._look_around()

    def _look_around(self) -> None:
        """Whether the next START may take the short way."""
        self._is_open = (
            not self.held and not self.is_blocked and self._running < self._max_running and self._reader.is_clear
        )

    def receive(self, data: bytes) -> list[Action] | None:
        """Takes bytes; gives what `proceed` gives, which is to be called until it gives None."""
        self.held.extend(self._reader.feed(data))
        return self.proceed()

    def proceed(self) -> list[Action] | None:
        """The actions (perhaps none: []) for the next frame that may be acted on now; None if there is no such."""
        actions: list[Action] | None = None
        if self.is_blocked or self._running >= self._max_running:
            pass
        elif self.held:
            token, body = self.held.popleft()
            actions = self._act(token, body)
        elif self._reader.refused is not None:
            token, size = self._reader.refused
            self.is_closed = True
            self.take_no_more()
            actions = [too_large_frame(token, size, self._max_query_bytes), Disconnect("query too large")]
        self._look_around()
        return actions

    def answered(self, query: Query, answer: Answer) -> bytes | None:
        """The short way of `finished` for an atom, if nothing else was asked of or about its query: its frame.

        None: nothing was done, use `finished`.
        """
        if query.line is not None or query.stopping or query.killed is not None or self._noreply or self.is_closed:
            return None
        query.is_running = query.has_slot = False
        self._running -= 1
        del self.queries[query.token]
        if not self._is_open:
            self._look_around()
        return answer_frame(query.token, answer)

    def finished(self, query: Query, answer: Answer) -> list[Action]:
        """A run of `query` ended with `answer`."""
        if answer.cursor is not None:
            query.cursor = answer.cursor
        query.is_feed = query.is_feed or bool(answer.notes)
        started_noreply = query.serial in self._noreply
        self._end_run(query)
        actions: list[Action] = []
        if not query.noreply and not self.is_closed:
            actions.append(answer_pieces(query.token, answer) or answer_frame(query.token, answer))
        is_over = started_noreply or query.stopping or query.killed is not None or self.is_closed
        if answer.cursor is None or is_over:
            self._end(query, actions)
        elif query.line:  # CONTINUEs: a STOP would have set `stopping`
            if self.is_blocked:
                self._put_back(query, [noreply for _, noreply in query.line])
                query.line = None
            else:
                _, noreply = query.line.pop(0)
                actions.append(self._run_again(query, noreply))
        return actions

    def failed(self, query: Query, error: ReqlError | Interrupted) -> list[Action]:
        """A run of `query` ended with an error; Interrupted after an Interrupt action (or the shell's own)."""
        self._end_run(query)
        actions: list[Action] = []
        if not query.noreply and not self.is_closed:
            if isinstance(error, ReqlError):
                actions.append(error_frame(query.token, error))
            elif query.stopping and query.killed is None:
                actions.append(end_frame(query.token))
            else:
                actions.append(error_frame(query.token, ReqlOpIndeterminateError(error.message)))
        self._end(query, actions)
        return actions

    def put_off(self, query: Query) -> None:
        """A feed has news for a peer that does not read: its CONTINUE waits among the frames, the news in its queue."""
        query.is_running = False
        asked = [query.noreply, *(noreply for _, noreply in query.line or ())]
        query.line = None
        self._put_back(query, asked)

    def _put_back(self, query: Query, asked: list[bool]) -> None:
        """CONTINUEs wait their turn again, before all frames that came after them."""
        bodies = [_QUIET_CONTINUE if noreply else _CONTINUE for noreply in asked]
        self.held.extendleft((query.token, body) for body in reversed(bodies))
        self._look_around()

    def kill(self, query: Query, message: str = KILLED) -> list[Action]:
        """Ends a query from outside; its driver is told `message` where it waits for an answer or asks for more."""
        query.killed = message
        if query.is_running:
            return [Interrupt(query, message)]
        actions: list[Action] = []
        self._close_cursor(query, actions)
        return actions

    def take_no_more(self) -> None:
        """No further frame is acted on; what runs is still answered."""
        self._max_running = 0
        self.held.clear()
        self._look_around()

    def closed(self) -> list[Action]:
        """The connection is gone: everything that runs or is open ends, and nothing is sent any more."""
        self.is_closed = True
        self.take_no_more()
        self._waits.clear()
        actions: list[Action] = []
        for query in list(self.queries.values()):
            if query.is_running:
                actions.append(Interrupt(query, "Client closed the connection."))
            else:
                self._close_cursor(query, actions)
                del self.queries[query.token]
        return actions

    # -- frames ---------------------------------------------------------------------------------------------------

    def _act(self, token: int, body: bytes) -> list[Action]:
        if body.startswith(b"[1,"):
            kind = START
        else:
            try:
                kind = query_type(body)
            except ReqlError as error:
                return [error_frame(token, error)]
        if kind == START:
            return self._start(token, body)
        noreply = is_noreply(body)
        if kind == CONTINUE:
            actions = self._continue(token, noreply)
        elif kind == STOP:
            actions = self._stop(token, noreply)
        elif kind == NOREPLY_WAIT:
            actions = self._noreply_wait(token)
        else:
            actions = [server_info_frame(token, self._server_info)]
        if noreply and actions and isinstance(actions[-1], bytes):
            actions.pop()
        return actions

    def _start(self, token: int, body: bytes) -> list[Action]:
        noreply = is_noreply(body)
        if token in self.queries:
            return [] if noreply else [_duplicate(token)]
        query = self.adopt(token, body, noreply)
        if noreply:
            self._noreply[query.serial] = query
        return [query]

    def _continue(self, token: int, noreply: bool) -> list[Action]:
        query = self.queries.get(token)
        if query is None:
            return [_unknown(token)]
        if query.is_running:
            query.line = query.line or []
            query.line.append((CONTINUE, noreply))
            return []
        if query.killed is not None:
            del self.queries[token]
            return [error_frame(token, ReqlOpIndeterminateError(query.killed))]
        return [self._run_again(query, noreply)]

    def _run_again(self, query: Query, noreply: bool) -> Query:
        query.is_running = True
        query.noreply = noreply
        query.has_slot = not query.is_feed
        if query.has_slot:
            self._running += 1
        return query

    def _stop(self, token: int, noreply: bool) -> list[Action]:
        query = self.queries.get(token)
        if query is None:
            return [_unknown(token)]
        query.stopping = True
        if query.is_running:
            query.line = query.line or []
            query.line.append((STOP, noreply))
            return [Interrupt(query, "")]
        actions: list[Action] = []
        self._close_cursor(query, actions)
        del self.queries[token]
        actions.append(end_frame(token))
        return actions

    def _noreply_wait(self, token: int) -> list[Action]:
        if token in self.queries:
            return [_duplicate(token)]
        if not self._noreply:
            return [wait_complete_frame(token)]
        self._running += 1
        self._waits.append((token, self._serial))
        return []

    # -- outcomes -------------------------------------------------------------------------------------------------

    def _end_run(self, query: Query) -> None:
        query.is_running = False
        if query.has_slot:
            self._running -= 1
            query.has_slot = False
            self._look_around()

    def _end(self, query: Query, actions: list[Action]) -> None:
        """The query is over: frees its token, answers what still waits for it."""
        self.queries.pop(query.token, None)
        query.reader = None
        self._close_cursor(query, actions)
        for kind, noreply in query.line or ():
            if not noreply and not self.is_closed:
                actions.append(end_frame(query.token) if kind == STOP else _duplicate(query.token))
        query.line = None
        if self._noreply.pop(query.serial, None) is not None:
            self._end_waits(actions)

    def _end_waits(self, actions: list[Action]) -> None:
        oldest = next(iter(self._noreply), self._serial + 1)
        while self._waits and self._waits[0][1] < oldest:
            token, _ = self._waits.popleft()
            self._running -= 1
            actions.append(wait_complete_frame(token))
        self._look_around()

    def _close_cursor(self, query: Query, actions: list[Action]) -> None:
        if query.cursor is not None:
            actions.append(Close(query.cursor))
            query.cursor = None


def _duplicate(token: int) -> bytes:
    return error_frame(token, ReqlClientError(f"ERROR: duplicate token {token}"))


def _unknown(token: int) -> bytes:
    return error_frame(token, ReqlClientError(f"Token {token} not in stream cache."))
