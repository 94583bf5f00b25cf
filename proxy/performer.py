"""Performs a session's actions: runs its queries in fibers and sends what it says. Where to, its children know.

One rule: every outcome goes back into the session, which alone decides what is answered.
"""

from __future__ import annotations

import logging
from typing import cast

from model.errors import ReqlError
from proxy.answers import ATOM, NEEDS_FIBER, PARTIAL, Answer, Cursor, Interrupted, OpenFeed, Promised, QueryContext
from proxy.clients import RELIEF_BYTES, Clients
from proxy.frames import Pieces, frame
from proxy.session import SHUTTING_DOWN, Action, Close, Disconnect, Interrupt, Query, Session

log = logging.getLogger("rewinddb.proxy")


def next_batch(query: Query) -> Answer:
    """Runs an open stream on."""
    cursor = query.cursor
    assert cursor is not None
    return cursor.next_batch()


def close_cursor(cursor: Cursor) -> None:
    """Closes a cursor; what goes wrong then is nobody's to hear but the log's."""
    try:
        cursor.close()
    except Exception:
        log.exception("a cursor could not be closed")


class FeedReader:
    """Reads an open changefeed on for its driver: waits without a fiber, and takes one where there is work to do."""

    __slots__ = ("_feed", "_performer", "_query")

    def __init__(self, performer: Performer, query: Query, feed: OpenFeed) -> None:
        self._performer = performer
        self._query = query
        self._feed = feed

    def ask(self) -> None:
        """The driver wants the next batch."""
        self._listen(False)

    def stop(self) -> None:
        """It wants it no more."""
        self._feed.unlisten()

    def _wake(self) -> None:
        self._listen(True)

    def _listen(self, is_woken: bool) -> None:
        session = self._performer.session
        if session is not None and session.is_blocked:  # what is not sent waits in the feed, which has a limit
            self._feed.unlisten()
            session.put_off(self._query)
        else:
            self._heed(self._feed.listen(self._wake, is_woken))

    def _heed(self, news: bytes | object | None) -> None:
        if news is None:
            return
        if news is NEEDS_FIBER:
            self._performer.run_news(self._query)
        else:
            self._performer.tell(self._query, news)  # type: ignore[arg-type]

    def news(self, query: Query) -> Answer | None:
        """The next batch, or None if there was none after all. Runs in a fiber."""
        return self._feed.news()


class Performer:
    """A client of the server with a session, once it has logged in."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.connection_id = clients.new_id()
        self.address: tuple[str, int] = ("", 0)
        self.user = ""
        self.since_s = clients.seconds()
        self.session: Session | None = None
        self._context: QueryContext | None = None
        self._is_finishing = False
        self._pool = clients.fibers

    def _open_session(self, user: str, one_at_a_time: bool, returns_empty_batches: bool) -> Session:
        clients = self.clients
        self.user = user
        self._context = QueryContext(
            user,
            self.address,
            self.connection_id,
            clients.fibers,
            returns_empty_batches=returns_empty_batches,
            takes_promises=True,
        )
        limits = clients.limits
        self.session = Session(
            self._context, clients.server_info, 1 if one_at_a_time else limits.max_running, limits.max_query_bytes
        )
        return self.session

    # -- for children ---------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Sends a response frame."""
        raise AssertionError("a child says where to")

    def _send_body(self, token: int, body: bytes) -> None:
        """Sends a response frame with a body that others are sent, too."""
        self._send(frame(token, body))

    def _send_pieces(self, pieces: Pieces) -> None:
        """Sends a response frame that is large."""
        self._send(b"".join(pieces))

    def _disconnect(self) -> None:
        """Closes once everything sent so far is out."""
        raise AssertionError("a child says how")

    def _go_on(self) -> None:
        """There may be room for waiting frames."""

    # -- for `Clients` --------------------------------------------------------------------------------------------

    def kill(self, query: Query, message: str) -> None:
        """Ends one query."""
        if self.session is not None:
            self._perform(self.session.kill(query, message))

    def finish(self, message: str | None) -> None:
        """Takes no more queries and closes when what runs is answered; with a message, ends that now."""
        self._is_finishing = True
        session = self.session
        if session is not None:
            session.take_no_more()
            for query in list(session.queries.values()):
                if message is not None or query.is_feed or not query.is_running:
                    self._perform(session.kill(query, message or SHUTTING_DOWN))
        self._disconnect_if_finished()

    def _disconnect_if_finished(self) -> None:
        session = self.session
        if session is None or not any(query.is_running for query in session.queries.values()):
            self._disconnect()

    # -- actions --------------------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            kind = type(action)
            if kind is bytes:
                self._send(action)  # type: ignore[arg-type]
            elif kind is Query:
                self._run(action)  # type: ignore[arg-type]
            elif kind is Pieces:
                self._send_pieces(action)  # type: ignore[arg-type]
                if action.size >= RELIEF_BYTES:  # type: ignore[union-attr]
                    self.clients.relieve_soon()
            elif isinstance(action, Interrupt):
                self._interrupt(action.query, action.message)
            elif isinstance(action, Close):
                close_cursor(action.cursor)
            elif isinstance(action, Disconnect):
                log.info("connection from %s:%d closed: %s", *self.address, action.reason)
                self._disconnect()

    def _run(self, query: Query) -> None:
        self.clients.queries_total += 1
        if query.cursor is None:
            is_outside = self._pool.current is None and not query.noreply
            seen = self.clients.evaluator.glance(query.body, self.user) if is_outside else None
            if seen is None:
                self._pool.run(self._start, query, self._begun)
            elif isinstance(seen, Promised):
                query.started_s = self._pool.seconds()
                self._pool.promise(query, seen, self._kept)
            else:
                self._kept(query, Answer(ATOM, [seen]), None)
        elif query.reader is not None:
            query.reader.ask()
        else:
            self._pool.run(next_batch, query, self._done)

    def _interrupt(self, query: Query, message: str) -> None:
        if query.fiber is None and query.reader is not None:
            query.reader.stop()
            self._done(query, None, Interrupted(message))
        else:
            self._pool.interrupt(query, message)

    def tell(self, query: Query, body: bytes) -> None:
        """A waiting feed has news, as a response's body."""
        if query.line is None and not query.noreply:
            query.is_running = False
            self._send_body(query.token, body)
        else:
            self._done(query, Answer(PARTIAL, [], cursor=query.cursor, body=body), None)

    def run_news(self, query: Query) -> None:
        """A waiting feed may have news, for which something has to be evaluated."""
        reader = query.reader
        assert isinstance(reader, FeedReader)
        self._pool.run(reader.news, query, self._news_done)

    def _news_done(self, query: Query, answer: Answer | None, error: ReqlError | Interrupted | None) -> None:
        if answer is None and error is None and query.reader is not None:
            query.reader.ask()
        else:
            self._done(query, answer, error)

    def _start(self, query: Query) -> Answer | Promised:
        query.started_s = self._pool.slice_began_s
        context = self._context
        assert context is not None
        if query.noreply:
            context = context.without_reply()
        return self.clients.evaluator.start(query.body, context)

    def _begun(self, query: Query, answer: Answer | Promised | None, error: ReqlError | Interrupted | None) -> None:
        """A START ended, but for what its answer promises."""
        if isinstance(answer, Promised):
            self._pool.promise(query, answer, self._kept)
        else:
            self._done(query, answer, error)

    def _kept(self, query: Query, answer: Answer | None, error: ReqlError | Interrupted | None) -> None:
        """What an answer promises is done, or an error came of it."""
        session = self.session
        assert session is not None
        response = None
        if answer is not None and not self._is_finishing and len(query.body) < RELIEF_BYTES:
            response = session.answered(query, answer)
        if response is None:
            self._done(query, answer, error)
            return
        self._send(response)
        if session.held:
            self._go_on()

    def _done(self, query: Query, answer: Answer | None, error: ReqlError | Interrupted | None) -> None:
        session = self.session
        assert session is not None
        if len(query.body) >= RELIEF_BYTES:
            self.clients.relieve_soon()
        if error is not None:
            self._perform(session.failed(query, error))
        else:
            assert answer is not None
            if answer.notes and query.reader is None and hasattr(answer.cursor, "listen"):
                query.reader = FeedReader(self, query, cast("OpenFeed", answer.cursor))
            self._perform(session.finished(query, answer))
        if session.held:
            self._go_on()
        if self._is_finishing:
            self._disconnect_if_finished()
