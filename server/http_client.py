"""What fetches for `r.http`: libcurl, as in RethinkDB, in threads of its own.

One rule: the address of every connection is looked at when its socket is made, after the name was resolved and for
each redirect anew; so neither a name that changes its meaning nor a redirect leads to where it must not.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Final

import certifi
import pycurl
from twisted.internet.defer import Deferred

from proxy.answers import WaitTimeout
from proxy.reql.web import WebFailure, WebRequest, WebResponse

log = logging.getLogger("rewinddb.server")

THREADS: Final = 16  # requests under way at the same time; others wait for their turn
QUICK_ATTEMPTS: Final = 5  # without a rest in between
REST_S: Final = 0.1
TRANSIENT: Final = {
    pycurl.E_SEND_ERROR: "error when sending data",
    pycurl.E_RECV_ERROR: "error when receiving data",
    pycurl.E_COULDNT_CONNECT: "could not connect to server",
}
TRANSIENT_STATUSES: Final = frozenset({408, 500, 502, 503, 504})
WORDING: Final = {  # libcurl's own, which it only tells in C
    pycurl.E_UNSUPPORTED_PROTOCOL: "Unsupported protocol",
    pycurl.E_URL_MALFORMAT: "URL using bad/illegal format or missing URL",
    pycurl.E_COULDNT_RESOLVE_HOST: "Couldn't resolve host name",
    8: "Weird server reply",
    pycurl.E_PARTIAL_FILE: "Transferred a partial file",
    pycurl.E_SSL_CONNECT_ERROR: "SSL connect error",
    pycurl.E_TOO_MANY_REDIRECTS: "Number of redirects hit maximum amount",
    pycurl.E_GOT_NOTHING: "Server returned nothing (no headers, no data)",
    pycurl.E_SSL_CACERT: "SSL peer certificate or SSH remote key was not OK",
    pycurl.E_BAD_CONTENT_ENCODING: "Unrecognized or bad HTTP Content or Transfer-Encoding",
    pycurl.E_LOGIN_DENIED: "Login denied",
}
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the Internet, also by the IPv4 address that an IPv6 address may carry."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour
        if carried is None and ip in NAT64:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if carried is not None:
            return carried.is_global and not carried.is_multicast
        if ip.teredo is not None or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


class HttpClient:
    """The Web port. soon: runs a function on the reactor's thread. max_bytes: of a response's body."""

    def __init__(
        self, soon: Callable[[Callable[[], None]], object], private_addresses: bool, max_bytes: int, agent: str
    ) -> None:
        self._soon = soon
        self._private_addresses = private_addresses
        self._max_bytes = max_bytes
        self._agent = agent
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._under_way: set[_Exchange] = set()

    def fetch(self, env: Any, request: WebRequest) -> WebResponse:
        exchange = _Exchange(request, self._private_addresses, self._max_bytes, self._agent)
        try:
            response: WebResponse = env.fibers.wait(self._submit(exchange), request.timeout_ms / 1000)
        except WaitTimeout:
            raise _timed_out(request) from None
        return response

    def close(self) -> None:
        """Ends all requests."""
        for exchange in list(self._under_way):
            exchange.gone.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, exchange: _Exchange) -> Deferred[WebResponse]:
        answer: Deferred[WebResponse] = Deferred(lambda _: exchange.gone.set())

        def tell(future: Future[WebResponse]) -> None:
            self._under_way.discard(exchange)
            if answer.called:
                return
            error = None if future.cancelled() else future.exception()
            if future.cancelled():
                answer.errback(WebFailure("interrupted"))
            elif isinstance(error, WebFailure):
                answer.errback(error)
            elif error is not None:
                log.error("r.http failed unexpectedly", exc_info=error)
                answer.errback(WebFailure("unknown error"))
            else:
                answer.callback(future.result())

        self._under_way.add(exchange)
        future = self._threads.submit(exchange.run)
        future.add_done_callback(lambda future: self._soon(lambda: tell(future)))
        return answer


def _timed_out(request: WebRequest) -> WebFailure:
    seconds, rest = divmod(request.timeout_ms, 1000)
    return WebFailure(f"timed out after {seconds}.{rest:03} seconds", in_time=False)


class _Exchange:
    """One request with all its attempts, in one thread. `gone` tells it to give up."""

    def __init__(self, request: WebRequest, private_addresses: bool, max_bytes: int, agent: str) -> None:
        self.gone = Event()
        self._request = request
        self._private_addresses = private_addresses
        self._max_bytes = max_bytes
        self._agent = agent
        self._deadline = time.monotonic() + request.timeout_ms / 1000
        self._refused: str | None = None  # the address that a connection was not made to
        self._is_too_long = False
        self._lines: list[str] = []
        self._body = bytearray()

    def run(self) -> WebResponse:
        """Raises WebFailure."""
        if not self._request.attempts:
            raise WebFailure("could not perform, no attempts allowed")
        curl = pycurl.Curl()
        try:
            self._prepare(curl)
            status = self._attempt_all(curl)
            return WebResponse(
                status,
                _header(self._lines),
                bytes(self._body),
                curl.getinfo(pycurl.CONTENT_TYPE) or "",
                [_text(line) for line in curl.getinfo_raw(pycurl.INFO_COOKIELIST)],
            )
        except pycurl.error as error:
            raise self._failure(*error.args) from None
        except UnicodeEncodeError:
            raise WebFailure(WORDING[pycurl.E_URL_MALFORMAT]) from None
        finally:
            curl.close()

    def _attempt_all(self, curl: Any) -> int:
        """The status of the last attempt."""
        attempt = 0
        while True:
            attempt += 1
            self._lines.clear()
            self._body.clear()
            left_ms = int((self._deadline - time.monotonic()) * 1000)
            curl.setopt(pycurl.TIMEOUT_MS, max(1, left_ms))
            try:
                curl.perform()
            except pycurl.error as error:
                if error.args[0] not in TRANSIENT or self._is_final(attempt) or self._refused is not None:
                    raise
            else:
                status: int = curl.getinfo(pycurl.RESPONSE_CODE)
                if status not in TRANSIENT_STATUSES or self._is_final(attempt):
                    return status
            if attempt >= QUICK_ATTEMPTS:
                self.gone.wait(REST_S)

    def _is_final(self, attempt: int) -> bool:
        return attempt >= self._request.attempts or self.gone.is_set() or time.monotonic() >= self._deadline

    def _failure(self, code: int, message: str = "") -> WebFailure:
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return _timed_out(self._request)
        if self._is_too_long:
            return WebFailure(f"the response is longer than {self._max_bytes} bytes (setting `reql.http_max_bytes`)")
        if self._refused is not None:
            return WebFailure(
                f"connections to {self._refused}, which is not a public address, are not allowed "
                "(setting `reql.http_private_addresses`)"
            )
        return WebFailure(TRANSIENT.get(code) or WORDING.get(code) or message)

    # ---- settings ----------------------------------------------------------------------------------------------

    def _prepare(self, curl: Any) -> None:
        request = self._request
        for option, value in (
            (pycurl.URL, request.url.encode()),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.USERAGENT, self._agent),
            (pycurl.ACCEPT_ENCODING, ""),
            (pycurl.PROXY, ""),  # nor what the environment names
            (pycurl.NOSIGNAL, 1),
            (pycurl.COOKIEFILE, ""),
            (pycurl.CAINFO, certifi.where()),
            (pycurl.SSL_VERIFYPEER, int(request.verify)),
            (pycurl.SSL_VERIFYHOST, 2 if request.verify else 0),
            (pycurl.FOLLOWLOCATION, int(request.redirects > 0)),
            (pycurl.MAXREDIRS, request.redirects),
            (pycurl.HTTPHEADER, [line.encode() for line in request.header]),
            (pycurl.WRITEFUNCTION, self._take_body),
            (pycurl.HEADERFUNCTION, self._take_header),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.NOPROGRESS, 0),
            (pycurl.XFERINFOFUNCTION, lambda *_: 1 if self.gone.is_set() else 0),
        ):
            curl.setopt(option, value)
        if request.login is not None:
            kind = pycurl.HTTPAUTH_BASIC if request.login.kind == "basic" else pycurl.HTTPAUTH_DIGEST
            curl.setopt(pycurl.HTTPAUTH, kind)
            curl.setopt(pycurl.USERNAME, request.login.user.encode())
            curl.setopt(pycurl.PASSWORD, request.login.password.encode())
        for cookie in request.cookies:
            curl.setopt(pycurl.COOKIELIST, cookie.encode())
        self._prepare_method(curl)

    def _prepare_method(self, curl: Any) -> None:
        method, body = self._request.method, self._request.body or b""
        if method == "GET":
            curl.setopt(pycurl.HTTPGET, 1)
        elif method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif method == "POST":
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDS, body)
        else:
            source = io.BytesIO(body)

            def seek(offset: int, whence: int) -> int:
                source.seek(offset, whence)
                return pycurl.SEEKFUNC_OK

            curl.setopt(pycurl.UPLOAD, 1)
            curl.setopt(pycurl.READFUNCTION, source.read)
            curl.setopt(pycurl.SEEKFUNCTION, seek)
            curl.setopt(pycurl.INFILESIZE_LARGE, len(body))
            if method != "PUT":
                curl.setopt(pycurl.CUSTOMREQUEST, method)

    # ---- callbacks ---------------------------------------------------------------------------------------------

    def _open_socket(self, purpose: int, place: Any) -> Any:
        family, kind, protocol, address = place
        host = address[0] if isinstance(address, tuple) else ""
        if not self._private_addresses and not is_public(host):
            self._refused = host
            return pycurl.SOCKET_BAD
        return socket.socket(family, kind, protocol)

    def _take_body(self, raw: bytes) -> int | None:
        if len(self._body) + len(raw) > self._max_bytes:
            self._is_too_long = True
            return -1
        self._body += raw
        return None

    def _take_header(self, raw: bytes) -> None:
        line = _text(raw)
        if line.startswith("HTTP/"):
            self._lines.clear()  # of a redirect, of a refused login, or an interim response
            self._body.clear()
        elif line.strip():
            self._lines.append(line)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _header(lines: list[str]) -> list[tuple[str, str]]:
    parts = (line.partition(":") for line in lines)
    return [(name.strip(), value.strip()) for name, _, value in parts]
