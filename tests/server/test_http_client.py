"""The web client against a real web server: methods, logins, redirects, limits, addresses out of reach."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from proxy.reql.web import Login, WebFailure, WebRequest
from server.http_client import HttpClient, _Exchange, is_public


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    failures = 0  # answers of 503 that are still to be given

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name, _, argument = self.path.strip("/").partition("/")
        if name == "redirect":
            self.send(302, b"not shown", Location=argument if "://" in argument else "/" + argument)
        elif name == "shaky" and Handler.failures:
            Handler.failures -= 1
            self.send(503, b"later")
        elif name == "big":
            self.send(200, bytes(int(argument)))
        elif name == "slow":
            self.server.release.wait(30)
            self.send(200, b"")
        elif name == "secret" and "Authorization" not in self.headers:
            self.send(401, b"who?", **{"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})
        else:
            kept = {name: self.headers[name] for name in ("Content-Type", "Cookie", "X") if name in self.headers}
            login = self.headers.get("Authorization", "").partition(" ")[0]
            echo = {"method": self.command, "body": body.decode(), "login": login, **kept}
            self.send(200, json.dumps(echo).encode(), **{"Set-Cookie": "a=b"})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    def send(self, status, body, **header):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **header}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.release = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def clients():
    made = []

    def make(private=True, max_bytes=1 << 20):
        made.append(HttpClient(reactor.callFromThread, private, max_bytes, "test"))
        return made[-1]

    yield make
    for client in made:
        client.close()


def fetch(client, method, url, **more):
    """The Deferred behind `HttpClient.fetch`."""
    request = WebRequest(method, url, **more)
    return client._submit(_Exchange(request, client._private_addresses, client._max_bytes, client._agent))


@pytest.mark.parametrize(
    ("method", "body", "echo"),
    [
        ("GET", None, {"method": "GET", "body": "", "login": ""}),
        (
            "POST",
            b"a=1",
            {"method": "POST", "body": "a=1", "login": "", "Content-Type": "application/x-www-form-urlencoded"},
        ),
        ("PUT", b"x", {"method": "PUT", "body": "x", "login": ""}),
        ("PATCH", b"x", {"method": "PATCH", "body": "x", "login": ""}),
        ("DELETE", None, {"method": "DELETE", "body": "", "login": ""}),
    ],
)
async def test_methods(clients, site, method, body, echo):
    response = await fetch(clients(), method, f"{site}/echo", body=body)
    assert (response.status, json.loads(response.body)) == (200, echo)


async def test_headers_logins_and_cookies(clients, site):
    client = clients()
    first = await fetch(client, "PUT", f"{site}/secret", body=b"data", header=["X: 1"], login=Login("digest", "u", "p"))
    echo = json.loads(first.body)
    assert (echo["login"], echo["X"], echo["body"]) == ("Digest", "1", "data")
    assert ("Set-Cookie", "a=b") in first.header
    assert "WWW-Authenticate" not in dict(first.header)
    second = await fetch(client, "GET", f"{site}/echo", cookies=first.cookies, login=Login("basic", "u", "p"))
    assert json.loads(second.body) | {"body": ""} == {"method": "GET", "body": "", "login": "Basic", "Cookie": "a=b"}
    assert (await fetch(client, "HEAD", f"{site}/echo")).body == b""


async def test_redirects(clients, site):
    client = clients()
    assert json.loads((await fetch(client, "GET", f"{site}/redirect/echo")).body)["method"] == "GET"
    assert (await fetch(client, "GET", f"{site}/redirect/echo", redirects=0)).status == 302
    with pytest.raises(WebFailure, match="Number of redirects hit maximum amount"):
        await fetch(client, "GET", f"{site}/redirect/redirect/redirect/echo", redirects=2)
    with pytest.raises(WebFailure, match="Unsupported protocol"):
        await fetch(client, "GET", f"{site}/redirect/file:///etc/passwd")


async def test_what_may_pass_is_tried_again(clients, site):
    Handler.failures = 2
    assert (await fetch(clients(), "GET", f"{site}/shaky", attempts=3)).status == 200
    Handler.failures = 2
    response = await fetch(clients(), "GET", f"{site}/shaky", attempts=2)
    assert (response.status, response.body) == (503, b"later")
    with pytest.raises(WebFailure, match="no attempts allowed"):
        await fetch(clients(), "GET", f"{site}/shaky", attempts=0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/", "could not connect to server"),
        ("nosuchscheme://x", "Unsupported protocol"),
        ("file:///etc/passwd", "Unsupported protocol"),
        ("", "URL using bad/illegal format or missing URL"),
        ("http://nowhere.invalid/", "Couldn't resolve host name"),
    ],
)
async def test_failures(clients, url, message):
    with pytest.raises(WebFailure) as caught:
        await fetch(clients(), "GET", url, attempts=2)
    assert caught.value.message == message


async def test_a_long_response_is_refused(clients, site):
    client = clients(max_bytes=1000)
    assert len((await fetch(client, "GET", f"{site}/big/1000")).body) == 1000
    with pytest.raises(WebFailure, match="longer than 1000 bytes"):
        await fetch(client, "GET", f"{site}/big/1001")


async def test_it_ends_in_time_and_when_its_query_is_gone(clients, site):
    client = clients()
    with pytest.raises(WebFailure, match=r"timed out after 0\.050 seconds") as caught:
        await fetch(client, "GET", f"{site}/slow", timeout_ms=50)
    assert not caught.value.in_time
    running = fetch(client, "GET", f"{site}/slow")
    running.cancel()
    with pytest.raises(CancelledError):
        await running


async def test_addresses_that_are_not_public_are_not_reached(clients, site):
    client = clients(private=False)
    for url in (site, site.replace("127.0.0.1", "localhost"), site.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
        with pytest.raises(WebFailure, match="is not a public address"):
            await fetch(client, "GET", url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::8.8.8.8", True),
        ("2002:a00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("not an address", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public
