"""The links to the other servers: Twisted connections around `links` and `shipping`.

Every server calls every other one; what it has to say goes over the connection that it made, and only
the answers about snapshots and pings come back on it. So there is nothing to agree on about who calls whom.
The rule: Raft lives with lost messages, so a link never waits. What does not fit into its buffer is
dropped, the core is told, and a link that stays full or silent is closed and made again.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, cast

from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from consensus.connections import Incoming, Outgoing
from consensus.links import Channel, Identity, LinkLimits
from consensus.messages import Kind, Message, encode_message, entries_bytes
from consensus.pacing import Pace
from consensus.raftlog import SnapshotUnavailable
from consensus.shipping import Shelf, Shipper, Sink, Source
from model.errors import BadSetting

_log = logging.getLogger("rewinddb.consensus")

MOST_REFUSALS: Final = 1000
"""Reasons for refused connections that are counted."""


class Reactor(Protocol):
    """What links need of a Twisted reactor."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...
    def seconds(self) -> float: ...
    def connectTCP(self, host: str, port: int, factory: Any, timeout: float) -> Any: ...
    def connectSSL(self, host: str, port: int, factory: Any, contextFactory: Any, timeout: float) -> Any: ...
    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any: ...
    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any: ...


class Member(Protocol):
    """The node that the links serve (`consensus.node.Node`)."""

    def receive(self, message: Message) -> None: ...
    def report_unreachable(self, member: int) -> None: ...
    def report_snapshot(self, member: int, delivered: bool) -> None: ...
    def can_wait_for(self, member: int) -> bool:
        """Whether a member that is behind may be brought up at a pace that leaves time for others."""


class NoShelf:
    """A server that neither sends nor takes snapshots."""

    def open(self, snapshot: object) -> Source:
        """There is none."""
        raise SnapshotUnavailable("This server makes no snapshots.")

    def receive(self, snapshot: object, size: int) -> Sink:
        """There is no place for one."""
        raise SnapshotUnavailable("This server takes no snapshots.")


@dataclass(slots=True)
class LinkStatus:
    """How a link is, for people."""

    member_id: int
    address: str
    is_up: bool = False
    problem: str = ""
    round_trip_s: float | None = None
    dropped: int = 0
    sent_bytes: int = 0
    features: frozenset[str] = field(default_factory=frozenset)
    snapshot: tuple[int, int] | None = None
    """(bytes that arrived, bytes in all) of a snapshot under way."""


class Link:
    """The way to one member, over as many connections as it takes."""

    def __init__(self, links: PeerLinks, member_id: int, host: str, port: int) -> None:
        self.links = links
        self.member_id = member_id
        self.host, self.port = host, port
        self.status = LinkStatus(member_id, f"{host}:{port}")
        self.connection: Outgoing | None = None
        self.shipper = Shipper(
            links.shelf,
            self._write_word,
            self._report_snapshot,
            piece_bytes=links.limits.piece_bytes,
            give_up_s=links.limits.ship_give_up_s,
            wait_s=self._wait_s,
            sent=self._sent,
            later=links.reactor.callLater,
        )
        self._pace = Pace()
        self._held: deque[Message] = deque()
        """Entries for later, for a member that is behind, and what has to stay behind them."""
        self._release_call: Any = None
        self._retry_s = links.limits.retry_first_s
        self._connector: Any = None
        self._retry: Any = None
        self._is_open = True

    def call(self) -> None:
        """Connect."""
        self._retry = None
        self._connector = self.links.connect(self)

    def up(self, connection: Outgoing) -> None:
        """The member is there."""
        peer = connection.peer
        assert peer is not None
        self.connection = connection
        self._retry_s = self.links.limits.retry_first_s
        self.status.is_up, self.status.problem, self.status.features = True, "", peer.features
        _log.info("the link to member %d stands", self.member_id)
        self.shipper.link_up()

    def down(self, problem: str) -> None:
        """The connection ended, or none came about: try again, less and less often."""
        if self.connection is not None:
            self.status.sent_bytes += self.connection.sent_bytes
            self.connection = None
            self._forget_held()
            self.shipper.link_down()
            self.links.member.report_unreachable(self.member_id)
        if problem != self.status.problem:
            _log.warning("no link to member %d at %s: %s", self.member_id, self.status.address, problem)
        self.status.is_up, self.status.problem, self.status.round_trip_s = False, problem, None
        if self._is_open:
            self.shipper.tick(self.links.reactor.seconds())
            delay = self._retry_s * random.uniform(0.5, 1.0)
            self._retry_s = min(self._retry_s * 2, self.links.limits.retry_most_s)
            self._retry = self.links.reactor.callLater(delay, self.call)

    def call_now(self) -> None:
        """The member is there, as it calls itself: do not wait for the next try."""
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
            self.call()

    def close(self) -> None:
        """End the link for good."""
        self._is_open = False
        self._forget_held()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self.connection is not None:
            self.connection.end("the link was closed")
        elif self._connector is not None:
            self._connector.disconnect()

    def send(self, messages: Sequence[Message]) -> None:
        """Send what can be sent now."""
        connection = self.connection
        for message in messages:
            if message.kind is Kind.SNAPSHOT:
                self.shipper.ship(message, self.links.reactor.seconds())
            elif message.kind is Kind.APPEND and connection is not None and (self._held or is_of_the_past(message)):
                self._held.append(message)
                self._release()
            else:
                self._send(message)

    def _send(self, message: Message) -> None:
        connection = self.connection
        if connection is None or not connection.send(Channel.RAFT, encode_message(message)):
            self.status.dropped += 1
            if message.kind is Kind.APPEND and message.entries:
                self.links.unreachable(self.member_id)

    def _release(self) -> None:
        """Sends what is held as far as the pace allows now, the rest in a while."""
        if self._release_call is not None:
            return
        held, pace, seconds = self._held, self._pace, self.links.reactor.seconds
        while held:
            wait_s = self._wait_s()
            if wait_s > 0:
                self._release_call = self.links.reactor.callLater(wait_s, self._release_again)
                return
            message = held.popleft()
            if message.entries:
                now_s = seconds()
                pace.reached(message.entries[-1].index, message.commit, now_s)
                pace.sent(entries_bytes(message.entries), now_s)
            self._send(message)

    def _release_again(self) -> None:
        self._release_call = None
        self._release()

    def _forget_held(self) -> None:
        self._held.clear()
        if self._release_call is not None:
            self._release_call.cancel()
            self._release_call = None

    def _wait_s(self) -> float:
        wait_s = self._pace.wait_s(self.links.reactor.seconds())
        return wait_s if wait_s > 0 and self.links.member.can_wait_for(self.member_id) else 0.0

    def _sent(self, size: int) -> None:
        self._pace.sent(size, self.links.reactor.seconds())

    def tick(self) -> None:
        """Some time has passed."""
        self.shipper.tick(self.links.reactor.seconds())

    def _write_word(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.send(Channel.SHIPPING, data)

    def _report_snapshot(self, delivered: bool) -> None:
        # Not from inside `send`, which the core's own work calls.
        self.links.reactor.callLater(0, self.links.member.report_snapshot, self.member_id, delivered)


def is_of_the_past(message: Message) -> bool:
    """Whether a leader's message brings up a member that is behind: its entries are committed, so others have them."""
    return bool(message.entries) and message.entries[-1].index <= message.commit


class _Caller(Factory):
    """Makes the connections of one link, and hears of those that did not come about."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> Outgoing:
        """The connection stands."""
        return Outgoing(self._link)

    def startedConnecting(self, connector: object) -> None:
        """Part of Twisted's interface."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """No connection came about."""
        self._link.down(reason.getErrorMessage())

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        """The protocol has heard of it."""


class _Called(Factory):
    """Takes the connections of other servers."""

    noisy = False

    def __init__(self, links: PeerLinks) -> None:
        self._links = links

    def buildProtocol(self, addr: object) -> Incoming:
        """Somebody calls."""
        return Incoming(self._links, 0)


class PeerLinks:
    """All links of one server; the node's `Transport`.

    `tls`: a `CertificateOptions` with the server's certificate and the cluster's CA as `trustRoot`, for both
    sides of every link; without it the identity must have a secret. `admit(member_id, server_id)` says why a
    server is not let in, or "". `on_query(member_id, payload)` gets what `send_query` of another server sent,
    `on_unheard(member_id)` hears that the connection that a member made is gone, and so may be what it sent last.
    `soon(call)` runs a call in the next turn of the reactor; `loop.call_soon` costs the least.
    """

    def __init__(
        self,
        identity: Identity,
        member: Member | None = None,
        *,
        reactor: Any,
        shelf: Shelf | None = None,
        tls: Any = None,
        admit: Callable[[int, str], str] | None = None,
        on_query: Callable[[int, bytes], None] | None = None,
        on_unheard: Callable[[int], None] | None = None,
        soon: Callable[[Callable[[], None]], object] | None = None,
        limits: LinkLimits | None = None,
    ) -> None:
        if tls is None and not identity.secret:
            raise BadSetting("Links between servers need the cluster's secret, or TLS with certificates on both sides.")
        self.identity = identity
        self.member = cast(Member, member)
        """Set before `start`, where the node is made after its links."""
        self.reactor: Reactor = reactor
        self.soon = soon or partial(self.reactor.callLater, 0)
        self.shelf: Shelf = shelf or NoShelf()
        self.limits = limits or LinkLimits()
        self.admit = admit or self._admit_known
        self.on_query = on_query or (lambda _member, _payload: None)
        self.on_unheard = on_unheard or (lambda _member: None)
        self.strangers: set[Incoming] = set()
        self.incoming: dict[int, Incoming] = {}
        self._tls = tls
        self._links: dict[int, Link] = {}
        self._port: Any = None
        self._is_running = False
        self._unreachable: set[int] = set()
        self._refused: dict[tuple[str, str], int] = {}

    def _admit_known(self, member_id: int, _server_id: str) -> str:
        return "" if member_id in self._links else f"This server knows no member {member_id}."

    def note_refusal(self, address: str, problem: str) -> None:
        """Log that a connection was refused: the first time for each reason, then ever more seldom."""
        if len(self._refused) >= MOST_REFUSALS:
            self._refused.clear()
        count = self._refused[address, problem] = self._refused.get((address, problem), 0) + 1
        if not count & (count - 1):
            _log.warning("a connection from %s was refused (%d times): %s", address, count, problem)

    # -- life

    def listen(self, address: str, port: int) -> int:
        """Take connections; the port, where 0 was asked for. Raises `CannotListenError`."""
        factory = _Called(self)
        if self._tls is None:
            self._port = self.reactor.listenTCP(port, factory, interface=address)
        else:
            self._port = self.reactor.listenSSL(port, factory, self._tls, interface=address)
        return int(self._port.getHost().port)

    def start(self) -> None:
        """Call the other members."""
        if not self._is_running:
            self._is_running = True
            for link in self._links.values():
                link.call()

    def stop(self) -> Any:
        """Close all; a Deferred where a port has to be closed, or None."""
        self._is_running = False
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        for connection in [*self.strangers, *self.incoming.values()]:
            connection.end("this server stops")
        return self._port.stopListening() if self._port is not None else None

    def set_members(self, addresses: Mapping[int, tuple[str, int]]) -> None:
        """Whom to call: member id → (host, port). Links to others end, and so do their links to this server."""
        wanted = {member: place for member, place in addresses.items() if member != self.identity.member_id}
        for member, link in list(self._links.items()):
            if wanted.get(member) != (link.host, link.port):
                del self._links[member]
                link.close()
                caller = self.incoming.get(member)
                if member not in wanted and caller is not None:
                    caller.end("it is no member any more")
        for member, (host, port) in wanted.items():
            if member not in self._links:
                self._links[member] = Link(self, member, host, port)
                if self._is_running:
                    self._links[member].call()

    def connect(self, link: Link) -> Any:
        """Begin a connection for a link."""
        caller, timeout = _Caller(link), self.limits.greeting_s
        if self._tls is None:
            return self.reactor.connectTCP(link.host, link.port, caller, timeout)
        return self.reactor.connectSSL(link.host, link.port, caller, self._tls, timeout)

    # -- sending

    def send(self, messages: Sequence[Message]) -> None:
        """See `consensus.ports.Transport`."""
        links = self._links
        for message in messages:
            link = links.get(message.to)
            if link is not None:
                link.send((message,))
            elif message.kind is Kind.SNAPSHOT:
                self.reactor.callLater(0, self.member.report_snapshot, message.to, False)

    def called_by(self, member_id: int) -> None:
        """A member has called this server."""
        link = self._links.get(member_id)
        if link is not None:
            link.call_now()

    def send_query(self, member_id: int, payload: bytes) -> bool:
        """Send something for the clients' sake; False if the member cannot be reached now."""
        link = self._links.get(member_id)
        return link is not None and link.connection is not None and link.connection.send(Channel.QUERIES, payload)

    def hears(self, member_id: int) -> bool:
        """Whether a member's own connection to this server stands, so that it can answer."""
        return member_id in self.incoming

    def unreachable(self, member_id: int) -> None:
        """Tell the node once a turn that entries for a member were dropped; not from inside its own work."""
        if member_id not in self._unreachable:
            self._unreachable.add(member_id)
            self.reactor.callLater(0, self._tell_unreachable, member_id)

    def _tell_unreachable(self, member_id: int) -> None:
        self._unreachable.discard(member_id)
        self.member.report_unreachable(member_id)

    def status(self) -> list[LinkStatus]:
        """How all links are."""
        found = []
        for link in self._links.values():
            link.status.snapshot = link.shipper.progress
            found.append(link.status)
        return found

    def has_feature(self, feature: str) -> bool:
        """Whether every member that is linked now has a feature; what not all have must not be used."""
        return all(link.status.is_up and feature in link.status.features for link in self._links.values())
