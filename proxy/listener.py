"""Where drivers connect: sockets on the reactor's own event loop, or Twisted endpoints (TLS, other reactors).

On an asyncio reactor (uvloop below it) a connection is called by the event loop directly, which halves the cost of a
small query; TLS and other reactors go through a Twisted protocol that dresses its transport up as asyncio's.

One rule: what is behind the accept is the same Connection either way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from twisted.internet import defer, endpoints, protocol, ssl

from proxy.clients import Clients
from proxy.connection import Connection

log = logging.getLogger("rewinddb.proxy")

_BACKLOG = 1024


class DriverListener:
    """One address that drivers connect to."""

    def __init__(
        self, clients: Clients, reactor: Any, address: str, port: int, tls: ssl.CertificateOptions | None = None
    ) -> None:
        """address: a name or IP number, "" for all; port: 0 for any free one; tls: the server's certificate."""
        self._clients = clients
        self._reactor = reactor
        self._address = address
        self._wanted_port = port
        self._tls = tls
        self._server: asyncio.AbstractServer | None = None
        self._twisted_port: Any = None
        self.port = 0

    def start(self) -> defer.Deferred[None]:
        """Begins to listen; `port` is known when it fires. Fails with OSError where the address is not to be had."""
        loop = getattr(self._reactor, "_asyncioEventloop", None)
        if loop is not None and self._tls is None:
            return defer.Deferred.fromFuture(asyncio.ensure_future(self._start_native(loop), loop=loop))
        return self._start_twisted()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Takes no more connections; those that stand are `Clients.drain`'s."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._twisted_port is not None:
            twisted_port, self._twisted_port = self._twisted_port, None
            yield defer.maybeDeferred(twisted_port.stopListening)

    async def _start_native(self, loop: asyncio.AbstractEventLoop) -> None:
        clients = self._clients
        host = self._address or None
        server = await loop.create_server(lambda: Connection(clients), host, self._wanted_port, backlog=_BACKLOG)
        for listening in server.sockets:
            _keep_alive(listening)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    @defer.inlineCallbacks
    def _start_twisted(self) -> Any:
        place = {"interface": self._address, "backlog": _BACKLOG}
        if self._tls is None:
            make: Any = endpoints.TCP4ServerEndpoint
            endpoint = make(self._reactor, self._wanted_port, **place)
        else:
            make = endpoints.SSL4ServerEndpoint
            endpoint = make(self._reactor, self._wanted_port, self._tls, **place)
        factory = protocol.Factory.forProtocol(lambda: TwistedDriver(self._clients))
        self._twisted_port = yield endpoint.listen(factory)
        self.port = self._twisted_port.getHost().port


def _keep_alive(listening: Any) -> None:
    """So that a peer that vanished without a word is noticed; accepted sockets inherit it."""
    with socket.socket(fileno=socket.dup(listening.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class TwistedDriver(protocol.Protocol):
    """A Twisted protocol around a Connection, and the Connection's wire around its transport.

    It is also the transport's push producer, since that is how Twisted says that a buffer is full.
    """

    def __init__(self, clients: Clients) -> None:
        self._connection = Connection(clients)
        self._unsent_bytes = 0  # written since the transport said that its buffer is full
        self._is_full = False

    # -- Twisted's side -------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpKeepAlive"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        peer = transport.getPeer()
        self._connection.connected(self, (str(getattr(peer, "host", "")), int(getattr(peer, "port", 0))))

    def dataReceived(self, data: bytes) -> None:
        self._connection.data_received(data)

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self._connection.connection_lost(None)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._is_full = True
        self._connection.pause_writing()

    def resumeProducing(self) -> None:
        self._is_full = False
        self._unsent_bytes = 0
        self._connection.resume_writing()

    def stopProducing(self) -> None:
        """The transport is closed; `connectionLost` follows."""

    # -- the Connection's side: asyncio's names -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        transport: Any = self.transport
        if self._is_full:
            self._unsent_bytes += len(data)
        transport.write(data)

    def close(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def pause_reading(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def resume_reading(self) -> None:
        transport: Any = self.transport
        transport.resumeProducing()

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes
