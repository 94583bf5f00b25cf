"""Real sockets: the official driver and hand-made frames against a listener with a stand-in evaluator."""

import datetime
import socket
import ssl
import struct

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rethinkdb import r
from rethinkdb.errors import ReqlAuthError, ReqlDriverError, ReqlOpIndeterminateError, ReqlUserError
from twisted.internet import defer, threads
from twisted.internet import ssl as twisted_ssl
from twisted.internet.task import deferLater

from proxy.clients import Limits
from proxy.handshake import MAGIC_V0_3, MAGIC_V0_4, MAGIC_V1_0, WIRE_JSON

in_thread = threads.deferToThread
WAIT, CHANGES, RANGE = 177, 152, 173


def connect(port, **options):
    return r.connect("127.0.0.1", port, **options)


def dial(port, data=b""):
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(data)
    return sock


def receive(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def receive_frame(sock):
    token, size = struct.unpack("<qI", receive(sock, 12))
    return token, receive(sock, size)


def receive_all(sock):
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def log_in(port, magic=MAGIC_V0_4):
    sock = dial(port, struct.pack("<III", magic, 0, WIRE_JSON))
    assert receive(sock, 8) == b"SUCCESS\0"
    return sock


@pytest_twisted.inlineCallbacks
def until(condition):
    """Lets the reactor turn until the condition holds."""
    from twisted.internet import reactor

    for _ in range(10_000):
        if condition():
            return
        yield deferLater(reactor, 0.001, lambda: None)
    raise AssertionError("it never came true")


@pytest_twisted.ensureDeferred
async def test_the_official_driver(serving):
    server = await serving()

    def session():
        with connect(server.port) as conn:
            assert r.expr({"a": [1, 2]}).run(conn)
            assert r.expr(5).run(conn) == 5
            assert list(r.range(1000).run(conn)) == list(range(1000))
            assert conn.server() == {"id": "an id", "name": "a_name", "proxy": False}
            with pytest.raises(ReqlUserError, match="told so"):
                r.error("told so").run(conn)
            r.expr(6).run(conn, noreply=True)
            conn.noreply_wait()
            cursor = r.range(1000).run(conn)
            assert next(cursor) == 0
            cursor.close()
            assert r.expr(7).run(conn) == 7

    await in_thread(session)
    await until(lambda: not server.clients.members)
    assert server.clients.unauthenticated == 0
    assert all(cursor.closed for cursor in server.evaluator.cursors)


@pytest_twisted.ensureDeferred
async def test_a_changefeed_and_its_end(serving):
    server = await serving()
    conn = await in_thread(connect, server.port)
    feed = await in_thread(r.table("t").changes().run, conn)
    await until(lambda: server.evaluator.waiting)
    server.evaluator.waiting[0].callback(b'{"new_val":1}')
    assert await in_thread(next, feed) == {"new_val": 1}
    await in_thread(feed.close)
    assert await in_thread(r.expr(5).run, conn) == 5
    assert server.evaluator.cursors[0].closed == 1
    await in_thread(conn.close)


@pytest_twisted.ensureDeferred
async def test_passwords(serving):
    server = await serving()

    def attempt(user, password):
        with connect(server.port, user=user, password=password) as conn:
            return r.expr(1).run(conn)

    assert await in_thread(attempt, "bob", "secret") == 1
    for user, password in (("bob", "wrong"), ("admin", "wrong"), ("nobody", "")):
        with pytest.raises(ReqlAuthError, match="Wrong password"):
            await in_thread(attempt, user, password)
    assert await in_thread(attempt, "admin", "") == 1


@pytest_twisted.ensureDeferred
async def test_killing_a_query_of_the_official_driver(serving):
    server = await serving()
    conn = await in_thread(connect, server.port)
    query = in_thread(r.table("t").wait().run, conn)
    await until(lambda: server.evaluator.waiting)
    (running,) = server.clients.running()
    assert server.clients.kill(running.query_id)
    with pytest.raises(ReqlOpIndeterminateError, match=r"terminated by the `rethinkdb\.jobs` table"):
        await query
    await in_thread(conn.close)


@pytest.mark.parametrize("magic", [MAGIC_V0_3, MAGIC_V0_4])
@pytest_twisted.ensureDeferred
async def test_drivers_of_older_protocols(serving, frame, magic):
    server = await serving()

    def session():
        with log_in(server.port, magic) as sock:
            sock.sendall(frame(-3, b"[1,5]") + frame(4, [1, [RANGE, [200]]]) + frame(4, b"[2]") + frame(4, b"[2]"))
            assert receive_frame(sock) == (-3, b'{"t":1,"r":[5]}')
            assert receive_frame(sock)[1].startswith(b'{"t":3,"r":[0,1,2')
            assert receive_frame(sock)[1].endswith(b'199],"n":[]}')
            assert receive_frame(sock)[1] == b'{"t":2,"r":[],"n":[]}'

    await in_thread(session)


@pytest_twisted.ensureDeferred
async def test_answers_come_out_of_order(serving, frame):
    server = await serving()
    sock = await in_thread(log_in, server.port)
    sock.sendall(frame(1, [1, [WAIT, []]]) + frame(2, b"[1,5]"))
    assert await in_thread(receive_frame, sock) == (2, b'{"t":1,"r":[5]}')
    server.evaluator.waiting[0].callback(b"6")
    assert await in_thread(receive_frame, sock) == (1, b'{"t":1,"r":[6]}')
    sock.close()


@pytest_twisted.ensureDeferred
async def test_a_web_browser_is_told_that_it_is_wrong(serving):
    server = await serving()
    sock = await in_thread(dial, server.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await in_thread(receive_all, sock)
    assert answer.startswith(b"ERROR: Received an unsupported protocol version.")
    sock.close()


@pytest_twisted.ensureDeferred
async def test_strangers_are_cut_after_a_while(serving):
    server = await serving(limits=Limits(handshake_timeout_s=0.2))
    sock = await in_thread(dial, server.port, struct.pack("<I", MAGIC_V1_0))
    answer = await in_thread(receive_all, sock)
    assert answer.endswith(b"}\0")
    sock.close()
    await until(lambda: not server.clients.members)


@pytest_twisted.ensureDeferred
async def test_garbage_closes_one_connection_and_no_other(serving, frame):
    server = await serving()
    good = await in_thread(log_in, server.port)
    for garbage in (b"\0" * 100, b"\xff" * 5000, struct.pack("<I", MAGIC_V1_0) + b"{" * 3000, b"x"):
        sock = await in_thread(dial, server.port, garbage)
        sock.shutdown(socket.SHUT_WR)
        await in_thread(receive_all, sock)
        sock.close()
    sock = await in_thread(log_in, server.port)
    sock.sendall(struct.pack("<qI", 1, 0xFFFFFFFF) + b"x" * 100)
    assert b"greater than maximum" in await in_thread(receive_all, sock)
    sock.close()
    good.sendall(frame(1, b"[1,5]"))
    assert await in_thread(receive_frame, good) == (1, b'{"t":1,"r":[5]}')
    good.close()


@pytest_twisted.ensureDeferred
async def test_a_client_that_only_stops_sending_is_gone(serving, frame):
    server = await serving()
    sock = await in_thread(log_in, server.port)
    sock.sendall(frame(1, [1, [WAIT, []]]))
    await until(lambda: server.evaluator.waiting)
    sock.shutdown(socket.SHUT_WR)
    assert await in_thread(receive_all, sock) == b""
    await until(lambda: not server.clients.members)
    assert server.evaluator.waiting[0].called
    sock.close()


@pytest_twisted.ensureDeferred
async def test_memory_is_bounded_by_a_client_that_does_not_read(serving, frame):
    server = await serving(limits=Limits(write_high_bytes=200_000))
    text = "x" * 100_000
    sock = await in_thread(log_in, server.port)
    sock.setblocking(False)
    data = b"".join(frame(token, [1, text]) for token in range(3))
    sent = 0
    (member,) = server.clients.members.values()

    def has_stalled():
        nonlocal sent
        try:
            for _ in range(20):
                sent += sock.send(data[sent % len(data) :])
        except BlockingIOError:
            return member.session is not None and member.session.is_blocked
        return False

    await until(has_stalled)
    assert member._wire.get_write_buffer_size() < 200_000 + 2 * 100_000
    assert sum(len(body) for _, body in member.session.held) < 1 << 20
    other = await in_thread(log_in, server.port)
    other.sendall(frame(1, b"[1,5]"))
    assert await in_thread(receive_frame, other) == (1, b'{"t":1,"r":[5]}')
    other.close()
    answered = len(server.evaluator.contexts)
    sock.setblocking(True)

    def drain():
        sock.shutdown(socket.SHUT_WR)
        return len(receive_all(sock))

    assert await in_thread(drain) > 0
    assert len(server.evaluator.contexts) >= answered
    sock.close()
    await until(lambda: not server.clients.members)


@pytest_twisted.ensureDeferred
async def test_many_connections_at_once(serving, frame):
    server = await serving()

    def flood():
        socks = [log_in(server.port) for _ in range(100)]
        for _ in range(3):
            for number, sock in enumerate(socks):
                sock.sendall(frame(number, [1, number]))
            for number, sock in enumerate(socks):
                assert receive_frame(sock)[0] == number
        for sock in socks:
            sock.close()

    await in_thread(flood)
    await until(lambda: not server.clients.members)
    assert server.clients.queries_total == 300


@pytest_twisted.ensureDeferred
async def test_stopping(serving):
    server = await serving()
    sock = await in_thread(log_in, server.port)
    await server.stop()
    assert await in_thread(receive_all, sock) == b""
    sock.close()
    with pytest.raises(ReqlDriverError):
        await in_thread(connect, server.port)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1, signed by itself: (options for the server, file for clients)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now.replace(year=2120))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = builder.add_extension(names, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(pem)
    return twisted_ssl.PrivateCertificate.loadPEM(secret + pem).options(), path


@pytest_twisted.ensureDeferred
async def test_tls(serving, certificate, frame):
    options, path = certificate
    server = await serving(tls=options)

    def session():
        with r.connect("localhost", server.port, ssl={"ca_certs": str(path)}, user="bob", password="secret") as conn:
            assert r.expr(5).run(conn) == 5
            assert list(r.range(1000).run(conn)) == list(range(1000))

    await in_thread(session)
    await until(lambda: not server.clients.members)

    def without_tls():
        return receive_all(dial(server.port, struct.pack("<III", MAGIC_V0_4, 0, WIRE_JSON)))

    assert b"SUCCESS" not in await in_thread(without_tls)


@pytest_twisted.ensureDeferred
async def test_back_pressure_over_tls(serving, certificate, frame):
    options, path = certificate
    server = await serving(tls=options)

    def dial_tls():
        context = ssl.create_default_context(cafile=str(path))
        sock = context.wrap_socket(dial(server.port), server_hostname="localhost")
        sock.sendall(struct.pack("<III", MAGIC_V0_4, 0, WIRE_JSON))
        assert receive(sock, 8) == b"SUCCESS\0"
        return sock

    sock = await in_thread(dial_tls)
    (member,) = server.clients.members.values()
    await in_thread(sock.sendall, b"".join(frame(token, [1, [WAIT, []]]) for token in range(300)))
    await until(lambda: len(server.evaluator.waiting) == 300)
    for deferred in server.evaluator.waiting:
        deferred.callback(b'"' + b"x" * 100_000 + b'"')
    assert member.session.is_blocked

    def read():
        return [receive_frame(sock)[0] for _ in range(300)]

    assert await in_thread(read) == list(range(300))
    await until(lambda: not member.session.is_blocked)
    sock.close()


@pytest_twisted.ensureDeferred
async def test_an_address_in_use_is_an_error(serving):
    server = await serving()
    from twisted.internet import reactor

    from proxy.listener import DriverListener

    second = DriverListener(server.clients, reactor, "127.0.0.1", server.port)
    with pytest.raises(OSError):
        await second.start()
    assert isinstance(second.stop(), defer.Deferred)
