"""The web port: ReQL over HTTP, pages for people, and metrics for Prometheus.

    POST /ajax/reql/open-new-connection                id of a new connection
    POST /ajax/reql/?conn_id=ID                        token (8 bytes) + query's JSON -> response frame
    POST /ajax/reql/close-connection?conn_id=ID
    GET  /            what the server says of itself, as a page
    GET  /explorer    a page to ask queries on, through the addresses above
    GET  /metrics     what the server says of itself, as figures

RethinkDB lets every request run as `admin`. Here a request has to name this server as its host (against DNS that is
rebound to it), must not come from another site's page, and has to log in (HTTP Basic, the drivers' users and
passwords) as soon as `admin` has a password or the port is open to other machines.

One rule: nothing of a request is acted on before it has passed the gate.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import socket
from collections.abc import Iterable
from functools import partial
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet import defer, endpoints, ssl, threads
from twisted.protocols import policies
from twisted.web import resource, server

from proxy.clients import Clients
from proxy.frames import is_noreply
from proxy.http_reql import HttpConnections, not_open, split_request
from proxy.pages import Pages, files, status_page

log = logging.getLogger("rewinddb.proxy")

_REQUEST_TIMEOUT_S: Final = 60  # for a request to come in whole
_MAX_SOCKETS: Final = 2000
_STRANGERS_BODY_BYTES: Final = 65536  # of a request that shows no credentials where they are needed


class _Refused(Exception):
    """The gate stays shut: an HTTP status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Gate:
    """Lets in who may come in. hosts: names of this server besides `localhost` and IP numbers, in lower case."""

    def __init__(self, clients: Clients, hosts: frozenset[str], is_public: bool) -> None:
        self._login = clients.login
        self._hosts = hosts | {"localhost"}
        self._is_public = is_public

    @property
    def needs_login(self) -> bool:
        return self._is_public or self._login.needs_password()

    def check_place(self, host: str | None, origin: str | None) -> None:
        """Raises _Refused where the request was meant for another host, or a page of another site made it."""
        if not host:
            raise _Refused(400, "The request names no host.")
        name = urlsplit(f"//{host}").hostname or ""
        if name not in self._hosts and not _is_ip_number(name):
            raise _Refused(421, "This server is not known by that name.")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise _Refused(403, "Pages of other sites may not ask this server.")

    def user(self, address: str, authorization: str | None) -> Any:
        """The user whom the request may act as, or a Deferred of it. Raises _Refused."""
        if not self.needs_login:
            return "admin"
        user, password = _basic(authorization)
        refusal = self._login.refusal(address, user)
        if refusal is not None:
            raise _Refused(429, refusal)
        if self._login.key_is_cheap(user):
            return self._judged(self._login.key_fits(user, password), address, user)
        checking = threads.deferToThread(self._login.key_fits, user, password)
        return checking.addCallback(self._judged, address, user)

    def _judged(self, fits: bool, address: str, user: str) -> str:
        self._login.note(address, user, fits)
        if not fits:
            raise _Refused(401, "Wrong user or password.")
        return user


def _is_ip_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _basic(authorization: str | None) -> tuple[str, bytes]:
    """(user, password) of an Authorization header."""
    scheme, _, encoded = (authorization or "").partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, ValueError):
        raise _Refused(401, "Log in with a user and password.") from None
    if scheme.lower() != "basic" or not colon or not name:
        raise _Refused(401, "Log in with a user and password.")
    return name, password


class _Request(server.Request):
    """A request whose body is bounded before it is kept."""

    is_cut = False
    is_gone = False
    received_bytes = 0
    content: Any
    channel: Any

    def __init__(self, root: Root, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._root = root

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > self._max_bytes():
            self._cut()

    def handleContentChunk(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self.received_bytes > self._max_bytes():
            self._cut()
        elif not self.is_cut:
            self.content.write(data)

    def connectionLost(self, reason: Any) -> None:
        self.is_gone = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _max_bytes(self) -> int:
        if self._root.gate.needs_login and not self.requestHeaders.hasHeader(b"authorization"):
            return _STRANGERS_BODY_BYTES
        return self._root.max_body_bytes

    def _cut(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            self.channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
            self.channel.loseConnection()


class Root(resource.Resource):
    """All addresses of the web port."""

    isLeaf = True

    def __init__(self, clients: Clients, gate: Gate, pages: Pages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gate = gate
        self.max_body_bytes = clients.limits.max_query_bytes + 8
        self._clients = clients
        self._pages = pages
        self._files = files()
        self._connections = HttpConnections(clients)

    def render(self, request: Any) -> Any:
        """Twisted's entry: through the gate, then to its place."""
        request.setHeader("server", "RewindDB")
        request.setHeader("cache-control", "no-store")
        request.setHeader("x-content-type-options", "nosniff")
        try:
            self.gate.check_place(request.getHeader("host"), request.getHeader("origin"))
            peer = request.getClientAddress()
            address = (str(getattr(peer, "host", "")), int(getattr(peer, "port", 0)))
            user = self.gate.user(address[0], request.getHeader("authorization"))
        except _Refused as refused:
            return _refuse(request, refused)
        if not isinstance(user, defer.Deferred):
            return self._serve(user, request, address)
        user.addCallbacks(lambda name: self._serve_later(name, request, address), lambda why: _fail_later(why, request))
        return server.NOT_DONE_YET

    def _serve_later(self, user: str, request: Any, address: tuple[str, int]) -> None:
        body = self._serve(user, request, address)
        if body is not server.NOT_DONE_YET:
            _finish(request, body)

    def _serve(self, user: str, request: Any, address: tuple[str, int]) -> Any:
        path = request.path
        if path.startswith(b"/ajax/reql"):
            if request.method != b"POST":
                return _refuse(request, _Refused(405, "Only POST is allowed here."))
            return self._reql(user, request, address)
        if request.method not in (b"GET", b"HEAD"):
            return _refuse(request, _Refused(405, "Only GET is allowed here."))
        if path == b"/metrics":
            request.setHeader("content-type", CONTENT_TYPE_LATEST)
            return generate_latest(self._pages.registry)
        file = status_page(self._pages) if path == b"/" else self._files.get(path)
        if file is None:
            return _refuse(request, _Refused(404, "There is nothing here."))
        request.setHeader("content-type", file.content_type)
        request.setHeader("content-security-policy", file.policy)
        request.setHeader("x-frame-options", "DENY")
        return file.content

    # -- ReQL -----------------------------------------------------------------------------------------------------

    def _reql(self, user: str, request: Any, address: tuple[str, int]) -> Any:
        connections = self._connections
        if b"open-new-connection" in request.path:
            refusal = connections.refusal()
            if refusal is not None:
                return _refuse(request, _Refused(503, refusal))
            request.setHeader("content-type", "text/plain")
            return connections.create(user, address).encode()
        keys = request.args.get(b"conn_id")
        if not keys:
            return _refuse(request, _Refused(400, 'Required parameter "conn_id" missing'))
        connection = connections.find(keys[0].decode("latin-1"), user)
        if b"close-connection" in request.path:
            if connection is not None:
                connection.close()
            return b""
        try:
            token, query = split_request(request.content.read())
        except ValueError as error:
            return _refuse(request, _Refused(400, str(error)))
        request.setHeader("content-type", "application/octet-stream")
        if connection is None:
            return not_open(token)
        if is_noreply(query):
            return _refuse(request, _Refused(400, "noreply queries are not supported over HTTP"))
        if connection.is_full:
            return _refuse(request, _Refused(503, "Too many queries are open on this connection."))

        def reply(frame: bytes) -> None:
            _finish(request, frame)

        request.notifyFinish().addErrback(lambda _: connection.forget(token, reply))
        connection.ask(token, query, reply)
        return server.NOT_DONE_YET


def _refuse(request: Any, refused: _Refused) -> bytes:
    request.setResponseCode(refused.status)
    request.setHeader("content-type", "text/plain; charset=utf-8")
    if refused.status == 401:
        request.setHeader("www-authenticate", 'Basic realm="RewindDB", charset="UTF-8"')
    return refused.text.encode() + b"\n"


def _fail_later(failure: Any, request: Any) -> None:
    refused = failure.value
    if not isinstance(refused, _Refused):
        log.error("a password could not be checked: %s", failure)
        refused = _Refused(500, "The password could not be checked.")
    _finish(request, _refuse(request, refused))


def _finish(request: Any, body: bytes) -> None:
    """Ends a request that was answered later; its client may be gone by now."""
    if not request.is_gone and not request.finished:
        request.setHeader("content-length", str(len(body)))
        request.write(body)
        request.finish()


class _Site(server.Site):
    """Twisted's site, which logs to the project's log instead of Twisted's own."""

    noisy = False
    root: Root

    def log(self, request: Any) -> None:
        log.debug("%s %s %d", request.method.decode("latin-1"), request.path.decode("latin-1"), request.code)


class _Bounded(policies.WrappingFactory):
    """Drops connections beyond a number."""

    noisy = False
    protocols: dict[Any, Any]  # those that stand

    def buildProtocol(self, addr: Any) -> Any:
        return None if len(self.protocols) >= _MAX_SOCKETS else super().buildProtocol(addr)


class HttpListener:
    """The web port. hosts: the names besides its own host name by which this server may be called."""

    def __init__(
        self,
        clients: Clients,
        pages: Pages,
        reactor: Any,
        address: str,
        port: int,
        tls: ssl.CertificateOptions | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        """address: a name or IP number, "" for all; port: 0 for any free one; tls: the server's certificate."""
        names = frozenset(name.lower() for name in (*hosts, socket.gethostname(), address) if name)
        gate = Gate(clients, names, not _is_loopback(address))
        make_site: Any = _Site
        root = Root(clients, gate, pages)
        site = make_site(root, requestFactory=partial(_Request, root), timeout=_REQUEST_TIMEOUT_S, reactor=reactor)
        site.displayTracebacks = False
        make_factory: Any = _Bounded
        self._factory = make_factory(site)
        place = {"interface": address}
        if tls is None:
            make: Any = endpoints.TCP4ServerEndpoint
            self._endpoint = make(reactor, port, **place)
        else:
            make = endpoints.SSL4ServerEndpoint
            self._endpoint = make(reactor, port, tls, **place)
        self._listening: Any = None
        self.port = 0

    async def start(self) -> None:
        """Begins to listen; `port` is known then. Raises twisted's CannotListenError."""
        self._listening = await self._endpoint.listen(self._factory)
        self.port = self._listening.getHost().port

    async def stop(self) -> None:
        """Takes no more requests; the connections are ended by `Clients.drain`."""
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await defer.maybeDeferred(listening.stopListening)


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")
