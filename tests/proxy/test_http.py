"""The web port: who is let in, ReQL over HTTP as RethinkDB has it, the page and the metrics."""

import base64
import json
import struct

import pytest
import pytest_twisted
import requests
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import defer, threads
from twisted.internet.task import Clock, deferLater

from proxy.auth import UserDirectory, make_credential, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.fibers import FiberPool
from proxy.http import Gate, HttpListener
from proxy.http_reql import MAX_CONNECTIONS, TIMEOUT_S, HttpConnection, HttpConnections
from proxy.metrics import ClientsCollector
from proxy.pages import Pages, Section

in_thread = threads.deferToThread
WAIT, CHANGES, RANGE = 177, 152, 173
TERMINATED = "This ReQL connection has been terminated."


@pytest.fixture
def web(serving):
    """Gives a function that starts a web port beside a server; all are stopped at the end."""
    ports = []

    async def start(is_public=False, **limits):
        from twisted.internet import reactor

        server = await serving(limits=Limits(**limits))
        registry = CollectorRegistry()
        registry.register(ClientsCollector(server.clients))
        pages = Pages("A <server>", lambda: [Section("Tables", [("a.b", "<1> row"), ("c", "2")])], registry)
        address = "0.0.0.0" if is_public else "127.0.0.1"
        port = HttpListener(server.clients, pages, reactor, address, 0, hosts=["Db.Example"])
        await port.start()
        ports.append(port)
        server.url = f"http://127.0.0.1:{port.port}"
        return server

    yield start

    async def stop():
        for port in ports:
            await port.stop()

    pytest_twisted.blockon(defer.ensureDeferred(stop()))


@pytest_twisted.inlineCallbacks
def until(condition):
    """Lets the reactor turn until the condition holds."""
    from twisted.internet import reactor

    for _ in range(10_000):
        if condition():
            return
        yield deferLater(reactor, 0.001, lambda: None)
    raise AssertionError("it never came true")


def post(url, data=b"", **options):
    return requests.post(url, data=data, timeout=10, **options)


def get(url, **options):
    return requests.get(url, timeout=10, **options)


def opened(server, **options):
    answer = post(f"{server.url}/ajax/reql/open-new-connection", **options)
    assert answer.status_code == 200, answer.text
    return answer.text


def ask(server, key, token, query, **options):
    body = query if isinstance(query, bytes) else json.dumps(query).encode()
    answer = post(f"{server.url}/ajax/reql/", struct.pack("<q", token) + body, params={"conn_id": key}, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    got, size = struct.unpack_from("<qI", answer.content)
    assert got == token
    assert size == len(answer.content) - 12
    return json.loads(answer.content[12:])


@pytest_twisted.ensureDeferred
async def test_queries(web):
    server = await web()

    def session():
        key = opened(server)
        assert len(key) >= 22
        response = ask(server, key, 1, [1, 5])
        assert (response["t"], response["r"]) == (1, [5])
        assert list(response["p"][0]) == ["duration(ms)"]
        assert ask(server, key, -2, [1, [RANGE, [150]]])["t"] == 3
        assert len(ask(server, key, -2, [2])["r"]) == 50
        assert ask(server, key, 3, [5])["r"] == [{"id": "an id", "name": "a_name", "proxy": False}]
        assert ask(server, key, 4, [4])["t"] == 4
        assert ask(server, key, 5, b"junk")["r"] == ["Client is buggy (failed to deserialize query)."]
        assert ask(server, key, 6, [3])["r"] == ["Token 6 not in stream cache."]
        assert post(f"{server.url}/ajax/reql/close-connection", params={"conn_id": key}).status_code == 200
        assert ask(server, key, 7, [1, 5]) == {"t": 16, "r": ["This HTTP connection is not open."], "b": []}

    await in_thread(session)
    assert server.clients.members == {}
    assert server.evaluator.contexts[0].returns_empty_batches
    assert server.evaluator.contexts[0].user == "admin"


@pytest_twisted.ensureDeferred
async def test_queries_of_one_connection_run_side_by_side(web):
    server = await web()
    key = await in_thread(opened, server)
    slow = in_thread(ask, server, key, 1, [1, [WAIT, []]])
    await until(lambda: server.evaluator.waiting)
    duplicate = await in_thread(ask, server, key, 1, [1, 5])
    assert duplicate["r"] == ["ERROR: duplicate token 1"]
    quick = await in_thread(ask, server, key, 2, [1, 5])
    assert quick["r"] == [5]
    server.evaluator.waiting[0].callback(b"6")
    assert (await slow)["r"] == [6]


@pytest_twisted.ensureDeferred
async def test_stopping_answers_both_requests(web):
    server = await web()
    key = await in_thread(opened, server)
    slow = in_thread(ask, server, key, 1, [1, [WAIT, []]])
    await until(lambda: server.evaluator.waiting)
    stopped = await in_thread(ask, server, key, 1, [3])
    assert stopped == {"t": 2, "r": [], "n": []}
    assert await slow == stopped


@pytest_twisted.ensureDeferred
async def test_closing_a_connection_ends_what_runs(web):
    server = await web()
    key = await in_thread(opened, server)
    slow = in_thread(ask, server, key, 1, [1, [WAIT, []]])
    await until(lambda: server.evaluator.waiting)
    await in_thread(post, f"{server.url}/ajax/reql/close-connection", params={"conn_id": key})
    assert await slow == {"t": 18, "e": 4200000, "r": [TERMINATED], "b": []}
    assert server.clients.members == {}


@pytest_twisted.ensureDeferred
async def test_a_request_whose_client_went_away_ends_its_query(web):
    server = await web()
    key = await in_thread(opened, server)

    def impatient():
        with pytest.raises(requests.exceptions.ReadTimeout):
            body = struct.pack("<q", 1) + json.dumps([1, [WAIT, []]]).encode()
            requests.post(f"{server.url}/ajax/reql/", body, params={"conn_id": key}, timeout=0.2)

    await in_thread(impatient)
    await until(lambda: not server.clients.running())
    assert server.evaluator.waiting[0].called


@pytest_twisted.ensureDeferred
async def test_what_rethinkdb_refuses(web):
    server = await web()

    def session():
        key = opened(server)
        url = f"{server.url}/ajax/reql/"
        missing = post(url, b"x" * 8)
        assert (missing.status_code, missing.text) == (400, 'Required parameter "conn_id" missing\n')
        small = post(url, b"x", params={"conn_id": key})
        assert (small.status_code, small.text) == (400, "Client is buggy (request too small).\n")
        body = struct.pack("<q", 1) + b'[1,5,{"noreply":true}]'
        quiet = post(url, body, params={"conn_id": key})
        assert (quiet.status_code, quiet.text) == (400, "noreply queries are not supported over HTTP\n")
        assert get(url).status_code == 405
        assert post(server.url).status_code == 405
        assert get(f"{server.url}/nothing").status_code == 404

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_large_bodies_are_not_read(web):
    server = await web(max_query_bytes=1000)

    def session():
        key = opened(server)
        url = f"{server.url}/ajax/reql/"
        assert ask(server, key, 1, b'[1,"' + b"x" * 900 + b'"]')["t"] == 1
        assert post(url, b"x" * 2000, params={"conn_id": key}).status_code == 413
        assert post(url, iter([b"x" * 600] * 4), params={"conn_id": key}).status_code == 413

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_strangers_log_in_when_admin_has_a_password(web):
    server = await web()
    server.users["admin"] = make_credential("hunter2", 10)

    def session():
        for url in ("/", "/metrics", "/ajax/reql/open-new-connection"):
            answer = (post if "ajax" in url else get)(server.url + url)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic ")
        assert get(server.url, auth=("admin", "wrong")).status_code == 401
        assert get(server.url, auth=("nobody", "")).status_code == 401
        assert get(server.url, headers={"authorization": "Bearer x"}).status_code == 401
        assert get(server.url, headers={"authorization": "Basic ?"}).status_code == 401
        assert get(server.url, auth=("admin", "hunter2")).status_code == 200
        key = opened(server, auth=("bob", "secret"))
        assert ask(server, key, 1, [1, 5], auth=("bob", "secret"))["r"] == [5]
        assert ask(server, key, 1, [1, 5], auth=("admin", "hunter2"))["t"] == 16
        big = post(f"{server.url}/ajax/reql/", b"x" * 100_000)
        assert big.status_code == 413

    await in_thread(session)
    assert server.evaluator.contexts[0].user == "bob"


@pytest_twisted.ensureDeferred
async def test_costly_passwords_are_checked_beside_the_reactor(web):
    server = await web()
    server.users["admin"] = make_credential("hunter2", 20_000)

    def session():
        assert get(server.url, auth=("admin", "hunter2")).status_code == 200
        assert get(server.url, auth=("admin", "wrong")).status_code == 401
        assert opened(server, auth=("admin", "hunter2"))

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_an_open_port_wants_a_login_even_without_a_password(web):
    server = await web(is_public=True)

    def session():
        assert get(server.url).status_code == 401
        assert get(server.url, auth=("admin", "")).status_code == 200

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_guessing_gets_slow(web):
    server = await web()
    server.users["admin"] = make_credential("hunter2", 10)

    def session():
        codes = [get(server.url, auth=("admin", str(number))).status_code for number in range(7)]
        assert codes == [401] * 5 + [429] * 2

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_the_page_and_the_metrics(web):
    server = await web()

    def session():
        page = get(server.url)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<title>A &lt;server&gt;</title>" in page.text
        assert "<td>a.b</td><td>&lt;1&gt; row</td>" in page.text
        key = opened(server)
        ask(server, key, 1, [1, 5])
        metrics = get(f"{server.url}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        return {family.name: family.samples[0].value for family in text_string_to_metric_families(metrics.text)}

    figures = await in_thread(session)
    assert figures["rewinddb_queries"] == 1
    assert figures["rewinddb_client_connections"] == 1


@pytest_twisted.ensureDeferred
async def test_requests_for_other_hosts_and_from_other_sites(web):
    server = await web()
    port = server.url.rpartition(":")[2]

    def session():
        def code(**headers):
            return post(f"{server.url}/ajax/reql/open-new-connection", headers=headers).status_code

        assert code(host="evil.example") == 421
        assert code(host="") == 400
        assert code(host=f"localhost:{port}") == 200
        assert code(host="db.example") == 200
        assert code(host="[::1]:8080") == 200
        assert code(origin="https://evil.example") == 403
        assert code(origin="null") == 403
        assert code(origin=server.url) == 200

    await in_thread(session)


def gate(**users):
    login = UserDirectory(users.get, b"secret", lambda: 0.0)
    clients = Clients(None, login, FiberPool(Clock()), Clock(), "id", "name")
    return Gate(clients, frozenset({"db"}), False)


def test_the_gate_needs_a_login_only_where_it_has_to():
    assert not gate(admin=passwordless_admin()).needs_login
    assert gate(admin=make_credential("x", 1)).needs_login
    assert gate(admin=passwordless_admin()).user("10.0.0.1", None) == "admin"
    password = "Basic " + base64.b64encode(b"admin:a:b").decode()
    assert gate(admin=make_credential("a:b", 1)).user("10.0.0.1", password) == "admin"


class Bench:
    """HTTP connections on a clock that only the test moves."""

    def __init__(self, evaluator):
        self.reactor = Clock()
        login = UserDirectory({}.get, b"secret", self.reactor.seconds)
        fibers = FiberPool(self.reactor, self.reactor.seconds)
        self.clients = Clients(evaluator, login, fibers, self.reactor, "i", "n", seconds=self.reactor.seconds)
        self.connections = HttpConnections(self.clients)
        self.heard = []

    def create(self):
        return self.connections.find(self.connections.create("admin", ("10.0.0.1", 1)), "admin")

    def reply(self, frame):
        self.heard.append(json.loads(frame[12:])["r"])


def test_a_connection_that_is_not_used_expires(evaluator):
    b = Bench(evaluator)
    connection = b.create()
    b.reactor.advance(TIMEOUT_S - 1)
    connection.ask(1, b"[1,5]", b.reply)
    b.reactor.advance(TIMEOUT_S - 1)
    assert len(b.clients.members) == 1
    connection.ask(2, json.dumps([1, [WAIT, []]]).encode(), b.reply)
    b.reactor.advance(TIMEOUT_S + 1)
    assert b.heard == [[5], ["HTTP ReQL query timed out after 300 seconds."]]
    assert b.clients.members == {}
    assert b.connections._by_key == {}
    assert b.reactor.getDelayedCalls() == []


def test_http_connections_are_shown_and_drained_like_all_others(evaluator):
    b = Bench(evaluator)
    connection = b.create()
    connection.ask(1, json.dumps([1, [WAIT, []]]).encode(), b.reply)
    (query,) = b.clients.running()
    assert (query.user, query.address) == ("admin", ("10.0.0.1", 1))
    drained = []
    b.clients.drain(5).addCallback(drained.append)
    connection.ask(2, b"[1,5]", b.reply)
    assert b.heard == [["This HTTP connection is not open."]]
    b.reactor.advance(6)
    assert b.heard[1] == ["Server is shutting down."]
    assert drained == [None]
    assert isinstance(connection, HttpConnection)


def test_connections_and_their_queries_are_limited(evaluator):
    b = Bench(evaluator)
    for _ in range(MAX_CONNECTIONS):
        assert b.connections.refusal() is None
        connection = b.create()
    assert b.connections.refusal() == "Too many connections."
    while not connection.is_full:
        token = len(connection.session.queries)
        connection.ask(token, json.dumps([1, [WAIT, []]]).encode(), b.reply)
    assert token == 1022
    b.connections.find(next(iter(b.connections._by_key)), "admin").close()
    assert b.connections.refusal() is None
