"""Drivers over TLS: the server shows its certificate, and asks for theirs where it is told to."""

import socket
import ssl

import pytest
from rethinkdb import errors, r

from tests import pem


@pytest.fixture
def files(tmp_path):
    return pem.make(tmp_path)


def settings(tmp_path, certificate_file, key_file, ca_file=""):
    path = tmp_path / "tls.yaml"
    path.write_text(
        f"driver: {{tls: {{certificate_file: {certificate_file}, key_file: {key_file}, ca_file: '{ca_file}'}}}}\n"
    )
    return str(path)


def test_a_driver_over_tls(start, tmp_path, files):
    server = start("--config", settings(tmp_path, *files))
    conn = server.connect(ssl={"ca_certs": str(files[0])})
    rows = [{"id": n, "text": "x" * 1000} for n in range(3000)]
    r.table_create("t").run(conn)
    assert r.table("t").insert(rows).run(conn)["inserted"] == 3000
    assert sorted(row["id"] for row in r.table("t").run(conn)) == list(range(3000))
    conn.close()
    assert server.stop() == 0, server.output


def test_a_driver_without_tls_gets_nowhere(start, tmp_path, files):
    server = start("--config", settings(tmp_path, *files))
    with pytest.raises(errors.ReqlDriverError):
        server.connect(timeout=5)


def test_with_a_ca_drivers_have_to_show_a_certificate(start, tmp_path, files):
    drivers_certificate, drivers_key = pem.make(tmp_path, "driver")
    server = start("--config", settings(tmp_path, *files, drivers_certificate))
    context = ssl.create_default_context(cafile=str(files[0]))
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"\xc3\xbd\xc2\x34")
        if not tls.recv(1):
            raise ConnectionError("closed")
    context.load_cert_chain(drivers_certificate, drivers_key)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"\xc3\xbd\xc2\x34")
        assert tls.recv(1) == b"{"
