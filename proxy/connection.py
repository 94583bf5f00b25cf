"""One driver connection: the shell around the pure handshake and session. It alone knows a transport.

It has the shape of an asyncio protocol, so that an event loop can call it directly; `proxy/listener` dresses it up
for Twisted's transports, too.

One rule: it decides nothing about queries; it performs the session's actions, and it stops reading whenever there
is something that it could not act on at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from twisted.internet import threads

from model.errors import ReqlResourceLimitError
from proxy.answers import Answer
from proxy.clients import Clients
from proxy.fibers import WAITING, DelayedCall, Failed
from proxy.frames import Pieces, answer_frame, datum_frame, error_frame, frame, frame_header
from proxy.handshake import CheckKey, Event, Handshake, Hold, Ready, Refuse
from proxy.performer import Performer
from proxy.session import CONTINUE_BYTES, Action, Query, Session

log = logging.getLogger("rewinddb.proxy")

_JOINED_BYTES: Final = 128 << 10  # of answers that are kept back to be written with others
_SLICE_S: Final = 0.002  # how long one connection's waiting frames are worked on before others get a turn

_SHARED_BYTES: Final = 16384  # a response of a feed that is not copied for each of its readers


class Wire(Protocol):
    """What is needed of a transport; asyncio's have it."""

    def write(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class Connection(Performer, asyncio.Protocol):
    """From accept to loss. `session` is None until the handshake is done."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self._evaluate = clients.evaluator.start
        self._glance = clients.evaluator.glance
        self._wire: Any = None
        self._handshake: Handshake | None = None
        self._timer: DelayedCall | None = None
        self._is_proceeding = False
        self._has_turn = False
        self._is_paused = False
        self._is_lost = False
        self._outbox: list[bytes] = []  # see _write_out
        self._outbox_bytes = 0
        self._received_bytes = 0  # of a query that has come in part; counted in clients.receiving_bytes

    # -- called by the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self.connected(transport, (str(peer[0]), int(peer[1])) if peer else ("", 0))
        transport.set_write_buffer_limits(self.clients.limits.write_high_bytes)

    def connected(self, wire: Wire, address: tuple[str, int]) -> None:
        """The connection stands."""
        clients = self.clients
        self._wire = wire
        self.address = address
        refusal = clients.refusal()
        if refusal is not None:
            self._is_lost = True
            wire.write(b"ERROR: " + refusal.encode() + b"\n\0")
            wire.close()
            return
        clients.enter(self)
        clients.unauthenticated += 1
        self._handshake = Handshake(clients.login, clients.random_bytes, address[0], clients.server_version)
        clients.logins.begin(self)

    def data_received(self, data: bytes) -> None:
        session = self.session
        if session is None:
            self._shake_hands(data)
            return
        start = session.receive_start(data)
        if start is None or self._pool.current is not None:
            query = session.receive_continue(data) if len(data) == CONTINUE_BYTES else None
            if query is None:
                self._receive(session, data)
            elif query.reader is not None:
                self.clients.queries_total += 1
                query.reader.ask()
            return
        token, body = start
        self.clients.queries_total += 1
        seen = self._glance(body, self.user)
        if seen is not None:
            if isinstance(seen, bytes):
                self._wire.write(datum_frame(token, seen))
            else:
                query = session.adopt(token, body)
                query.started_s = self._pool.seconds()
                self._pool.promise(query, seen, self._kept)
            return
        answer = self._pool.start(self._evaluate, body, self._context)
        if type(answer) is Answer and answer.cursor is None:
            self._wire.write(answer_frame(token, answer))
        else:
            self._take_over(session.adopt(token, body), answer)

    def pause_writing(self) -> None:
        if self.session is not None:
            self.session.set_blocked(True)
            self._settle_reading(self.session)

    def resume_writing(self) -> None:
        if self.session is not None:
            self.session.set_blocked(False)
            self._go_on()

    def connection_lost(self, reason: BaseException | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._stop_timer()
        self._count_received(0)
        if self._handshake is not None:
            self._end_handshake()
        if self.session is not None:
            self._perform(self.session.closed())
        self.clients.leave(self)

    # -- for `Clients` --------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Closes without waiting for anything."""
        self._wire.abort()

    # -- handshake ------------------------------------------------------------------------------------------------

    def _shake_hands(self, data: bytes) -> None:
        if self._handshake is not None:
            self._heed(self._handshake.receive(data))

    def _heed(self, events: list[Event]) -> None:
        """Performs what the handshake says; what is to be sent in a row leaves in one write."""
        words: list[bytes] = []
        for event in events:
            if isinstance(event, bytes):
                words.append(event)
                continue
            if words:
                self._wire.write(b"".join(words))
                words = []
            if isinstance(event, CheckKey):
                self._check_key(event)
            elif isinstance(event, Hold):
                self._pause(True)
                self.clients.timers.callLater(event.seconds, self._held)
            elif isinstance(event, Ready):
                self._begin_session(event)
            elif isinstance(event, Refuse):
                log.info("connection from %s:%d refused: %s", *self.address, event.reason)
                self._wire.close()
        if words:
            self._wire.write(b"".join(words))

    def _held(self) -> None:
        if self._handshake is not None:
            self._pause(False)
            self._heed(self._handshake.held())

    def _check_key(self, event: CheckKey) -> None:
        login = self.clients.login
        if login.key_is_cheap(event.user):
            self._key_checked(login.key_fits(event.user, event.key))
            return
        self._pause(True)
        threads.deferToThread(login.key_fits, event.user, event.key).addCallbacks(self._key_checked, self._key_failed)

    def _key_checked(self, is_right: bool) -> None:
        if self._handshake is not None:
            self._pause(False)
            self._heed(self._handshake.key_checked(is_right))

    def _key_failed(self, failure: Any) -> None:
        log.error("a key could not be checked: %s", failure)
        self._wire.abort()

    def _begin_session(self, event: Ready) -> None:
        self._end_handshake()
        self._open_session(event.user, event.one_at_a_time, returns_empty_batches=event.one_at_a_time)
        if event.rest:
            self.data_received(event.rest)

    def _end_handshake(self) -> None:
        self._handshake = None
        self.clients.unauthenticated -= 1
        self.clients.logins.done(self)

    def give_up(self) -> None:
        """What it was given time for is not done."""
        self._timer = None
        log.info("connection from %s:%d took too long and is cut", *self.address)
        self._wire.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- queries --------------------------------------------------------------------------------------------------

    def _take_over(self, query: Query, answer: Any) -> None:
        """Goes on with a query that took the short way and was not answered at once, or not with a plain answer."""
        query.started_s = self._pool.slice_began_s
        if answer is WAITING:
            self._pool.adopt(query, self._begun)
        elif type(answer) is Failed:
            self._done(query, None, answer.error)
        else:
            self._begun(query, answer, None)

    def _receive(self, session: Session, data: bytes) -> None:
        """The general way for bytes: pieces of frames, many frames, all kinds of queries."""
        actions = session.receive(data)
        if actions is None or self._received_bytes:
            self._receive_in_part(session)
        self._proceed(session, actions)

    def _proceed(self, session: Session, actions: list[Action] | None) -> None:
        """Performs actions and acts on waiting frames for one slice; the rest waits for its turn.

        While other connections wait for theirs, one frame is the slice of whoever comes.
        """
        self._is_proceeding = True
        clients = self.clients
        ends_s = self._pool.seconds() + (_SLICE_S if not clients.is_in_line or self._has_turn else 0.0)
        try:
            while actions is not None:
                self._perform(actions)
                if session.held and self._pool.seconds() >= ends_s:
                    clients.line_up(self._take_turn)
                    break
                actions = session.proceed()
        finally:
            self._is_proceeding = False
            self._write_out()
        self._settle_reading(session)

    def _take_turn(self) -> None:
        self._has_turn = True
        try:
            self._go_on()
        finally:
            self._has_turn = False

    def _go_on(self) -> None:
        """There may be room for waiting frames again."""
        session = self.session
        if session is not None and not self._is_proceeding and not self._is_lost:
            self._proceed(session, session.proceed())

    def _send(self, data: bytes) -> None:
        if not self._is_proceeding:
            self._write(data)
            return
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if self._outbox_bytes >= _JOINED_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        """Writes what is to be sent: the answers to frames that came together leave together, too."""
        outbox = self._outbox
        if outbox:
            self._outbox, self._outbox_bytes = [], 0
            self._write(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    def _write(self, data: bytes) -> None:
        if self._is_lost:
            return
        self._wire.write(data)
        assert self.session is not None
        if self.session.is_blocked and self._wire.get_write_buffer_size() > self.clients.limits.write_abort_bytes:
            log.warning("connection from %s:%d does not read what it asked for and is cut", *self.address)
            self._wire.abort()

    def _send_body(self, token: int, body: bytes) -> None:
        if len(body) < _SHARED_BYTES:
            self._send(frame(token, body))
        else:
            self._send(frame_header(token, body))
            self._write_out()
            self._send(body)  # itself, so that it is in memory once for all who are sent it
            self._write_out()

    def _send_pieces(self, pieces: Pieces) -> None:
        self._write_out()
        for piece in pieces:
            self._write(piece)

    def _disconnect(self) -> None:
        self._write_out()
        self._wire.close()

    # -- reading --------------------------------------------------------------------------------------------------

    def _settle_reading(self, session: Session) -> None:
        self._pause(bool(session.held) or session.is_blocked)

    def _pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused and not self._is_lost:
            self._is_paused = is_paused
            if is_paused:
                self._wire.pause_reading()
            else:
                self._wire.resume_reading()

    def _receive_in_part(self, session: Session) -> None:
        """Bytes came that complete no frame, or that complete one which came in part: counts what is kept."""
        self._count_received(session.received_bytes)
        if session.is_draining and self._timer is None:
            self._timer = self.clients.timers.callLater(self.clients.limits.drain_timeout_s, self.give_up)
        if self._received_bytes and self.clients.receiving_bytes > self.clients.limits.max_receiving_bytes:
            log.warning("connection from %s:%d is cut: too much is being received at once", *self.address)
            text = "The server is receiving too many large queries at once."
            self._send(error_frame(session.received_token, ReqlResourceLimitError(text)))
            self._wire.close()
            self.connection_lost(None)

    def _count_received(self, count: int) -> None:
        self.clients.receiving_bytes += count - self._received_bytes
        self._received_bytes = count
