"""One connection between two servers: made by this one to speak, or by another one to be heard.

The shell around `links.Greeting`: the only place of this room that touches a socket. The rule: nothing
waits. What the socket does not take is kept up to a limit and dropped beyond it.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from consensus.links import NONCE_BYTES, Channel, Greeting, LinkBroken, LinkRefused, Peer, SlicedFrame
from consensus.messages import LOCAL_KINDS, STORAGE, BadMessage, Kind, Message, decode_message
from consensus.shipping import Receiver, decode_word

if TYPE_CHECKING:
    from consensus.peers import Link, PeerLinks

_log = logging.getLogger("rewinddb.consensus")

SLICE_BYTES: Final = 128 << 10
"""A larger frame is proved, then written, in slices of this size: 0.05 ms each, with a turn for others between them."""

_PASSED_ON: Final = frozenset({Kind.PROPOSE, Kind.READ_INDEX, Kind.TRANSFER})
"""Kinds that a follower passes on for another: their sender need not be who sends them here."""


class Connection(Protocol):
    """One connection, from its greeting on. Closes itself when it is silent, or speaks nonsense."""

    def __init__(self, links: PeerLinks, dials: int) -> None:
        self._links = links
        self._limits = links.limits
        self._reactor = links.reactor
        self._greeting = Greeting(
            links.identity,
            os.urandom(NONCE_BYTES),
            dials=dials,
            admit=links.admit,
            max_bytes=links.limits.frame_bytes,
        )
        self._socket: Any = None
        self._heard_s = links.reactor.seconds()
        """When something came, or the socket took something."""
        self._timer: Any = None
        self._waiting: deque[tuple[Channel, bytes]] = deque()
        self.waiting_bytes = 0
        self._sliced: SlicedFrame | None = None
        """The large frame that is being sent, before those that wait."""
        self._is_step_due = False
        self._is_paused = False
        self.problem = ""
        self.sent_bytes = 0

    @property
    def peer(self) -> Peer | None:
        """Who is there, once that is proved."""
        return self._greeting.peer

    def connectionMade(self) -> None:
        """The connection stands: begin the greeting, and the timer that ends it."""
        self._socket = self.transport
        self._socket.setTcpNoDelay(True)
        self._socket.registerProducer(self, True)
        self._timer = self._reactor.callLater(self._limits.greeting_s, self._greeting_is_late)
        self._write(self._greeting.begin())

    def _greeting_is_late(self) -> None:
        self.end("it did not greet in time")

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        self._heard_s = self._reactor.seconds()
        was_stranger = self.peer is None
        try:
            for channel, payload in self._greeting.receive(data, self._write):
                if was_stranger:
                    was_stranger = False
                    self._greeted()
                self._take(channel, payload)
            if was_stranger and self.peer is not None:
                self._greeted()
        except LinkRefused as refusal:
            self.problem = refusal.message
            self._socket.loseConnection()
        except (LinkBroken, BadMessage) as error:
            self.end(error.message)

    def _greeted(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(self._limits.ping_s, self._ping)
        self.greeted()

    def _ping(self) -> None:
        self._timer = self._reactor.callLater(self._limits.ping_s, self._ping)
        if self._reactor.seconds() - self._heard_s > self._limits.silence_s:
            self.end("it was silent for too long")
        else:
            self.ping()

    def end(self, problem: str) -> None:
        """Close the connection at once, because of a problem."""
        self.problem = self.problem or problem
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._waiting.clear()
        self._sliced = None
        self.waiting_bytes = 0
        self.gone(self.problem or reason.getErrorMessage())

    # -- writing: never waits

    def send(self, channel: Channel, payload: bytes) -> bool:
        """Send a frame; False if it was dropped: too large, or too much waits already."""
        size = len(payload)
        if size > self._limits.frame_bytes:
            _log.error("a frame of %d bytes is above the limit of %d", size, self._limits.frame_bytes)
            return False
        if size <= SLICE_BYTES and self._sliced is None and not self._waiting and not self._is_paused:
            self._write(self._greeting.outgoing.pack(channel, payload))
            return True
        if self.waiting_bytes and self.waiting_bytes + size > self._limits.buffer_bytes:
            return False
        self._waiting.append((channel, payload))
        self.waiting_bytes += size
        self._step_soon()
        return True

    def _write(self, data: bytes) -> None:
        if data:
            self.sent_bytes += len(data)
            self._socket.write(data)

    def _step_soon(self) -> None:
        if not self._is_step_due:
            self._is_step_due = True
            self._links.soon(self._step)

    def _step(self) -> None:
        """Sends what waits, up to the next slice of a large frame."""
        self._is_step_due = False
        while self._sliced is None and self._waiting and not self._is_paused:
            channel, payload = self._waiting.popleft()
            if len(payload) > SLICE_BYTES:
                self._sliced = self._greeting.outgoing.begin(channel, payload)
            else:
                self.waiting_bytes -= len(payload)
                self._write(self._greeting.outgoing.pack(channel, payload))
        frame = self._sliced
        if frame is None or self._is_paused:
            return
        part = frame.step(SLICE_BYTES)
        self._write(part)
        if frame.is_given_out:
            self._sliced = None
            self.waiting_bytes -= frame.size
        if self._sliced is not None or self._waiting:
            self._step_soon()

    def pauseProducing(self) -> None:
        """The socket is full."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """The socket takes more."""
        self._is_paused = False
        self._heard_s = self._reactor.seconds()
        if self._sliced is not None or self._waiting:
            self._step_soon()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._is_paused = True

    # -- what the two sides do differently

    def greeted(self) -> None:
        """The other side has proved who it is."""
        raise AssertionError("each side does this in its own way")

    def ping(self) -> None:
        """It is time to say something."""
        raise AssertionError("each side does this in its own way")

    def _take(self, channel: Channel, payload: bytes) -> None:
        raise AssertionError("each side does this in its own way")

    def gone(self, problem: str) -> None:
        """The connection ended."""
        raise AssertionError("each side does this in its own way")


class Outgoing(Connection):
    """A connection that this server made: it sends, and hears pongs and answers about snapshots."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.links, link.member_id)
        self._link = link
        self._pinged_s: float | None = None

    def greeted(self) -> None:
        self._link.up(self)

    def ping(self) -> None:
        self._link.tick()
        if self._pinged_s is None:
            self._pinged_s = self._reactor.seconds()
            self.send(Channel.PING, b"")

    def _take(self, channel: Channel, payload: bytes) -> None:
        if channel is Channel.PONG and self._pinged_s is not None:
            self._link.status.round_trip_s = self._reactor.seconds() - self._pinged_s
            self._pinged_s = None
        elif channel is Channel.SHIPPING:
            self._link.shipper.take(decode_word(payload), self._reactor.seconds())

    def gone(self, problem: str) -> None:
        self._link.down(problem)


class Incoming(Connection):
    """A connection that another server made: it is heard."""

    _receiver: Receiver | None = None

    def connectionMade(self) -> None:
        self._links.strangers.add(self)
        if len(self._links.strangers) > self._limits.strangers:
            self.end("too many connections wait to be greeted")
            return
        super().connectionMade()

    def greeted(self) -> None:
        links = self._links
        links.strangers.discard(self)
        peer = self._peer()
        self._receiver = Receiver(links.shelf, self._answer, links.member.receive, links.limits.snapshot_bytes)
        before = links.incoming.get(peer.member_id)
        links.incoming[peer.member_id] = self
        if before is not None:
            before.end("the member called again")
            links.on_unheard(peer.member_id)
        links.called_by(peer.member_id)

    def _peer(self) -> Peer:
        assert self.peer is not None
        return self.peer

    def _answer(self, data: bytes) -> None:
        if self.connected:
            self.send(Channel.SHIPPING, data)

    def ping(self) -> None:
        """The caller pings."""

    def _take(self, channel: Channel, payload: bytes) -> None:
        if channel is Channel.RAFT:
            self._links.member.receive(self._checked(decode_message(payload)))
        elif channel is Channel.PING:
            self.send(Channel.PONG, payload)
        elif channel is Channel.QUERIES:
            self._links.on_query(self._peer().member_id, payload)
        elif channel is Channel.SHIPPING:
            word = decode_word(payload)
            message = getattr(word, "message", None)
            if message is not None:
                self._checked(message)
            assert self._receiver is not None
            self._receiver.take(word)

    def _checked(self, message: Message) -> Message:
        """A message that this peer may send to this server. Raises `LinkBroken`."""
        own, peer = self._links.identity.member_id, self._peer().member_id
        is_own = message.sender == peer or (message.kind in _PASSED_ON and message.sender != STORAGE)
        if message.to != own or not is_own or message.kind in LOCAL_KINDS:
            raise LinkBroken(f"Member {peer} sends a {message.kind.name} from {message.sender} to {message.to}.")
        return message

    def gone(self, problem: str) -> None:
        links = self._links
        links.strangers.discard(self)
        if self._receiver is not None:
            self._receiver.close()
        peer = self.peer
        if peer is not None and links.incoming.get(peer.member_id) is self:
            del links.incoming[peer.member_id]
            _log.info("the link from member %d ended: %s", peer.member_id, problem)
            links.on_unheard(peer.member_id)
        elif peer is None and self.problem:
            transport: Any = self.transport
            links.note_refusal(getattr(transport.getPeer(), "host", "?"), problem)
