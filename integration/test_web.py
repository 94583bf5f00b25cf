"""The web port of a real server: a status page, figures, and ReQL for those who may."""

import base64
import json
import re
import struct
import urllib.error
import urllib.request

import pytest
from rethinkdb import r


@pytest.fixture
def ask(server):
    return asker(server)


def asker(server):
    port = re.search(r"administrative HTTP connections on port (\d+)", server.output)[1]

    def ask(path, data=None, password=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
        if password is not None:
            token = base64.b64encode(f"admin:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    return ask


def test_the_status_page_and_the_figures_tell_of_the_tables(server, ask):
    conn = server.connect()
    r.table_create("people").run(conn)
    r.table("people").insert([{"id": n} for n in range(7)]).run(conn)
    assert b"test.people" in ask("/")
    figures = ask("/metrics").decode()
    assert 'rewinddb_table_rows{db="test",table="people"} 7.0' in figures
    assert "rewinddb_client_connections 1.0" in figures


def test_reql_over_http(ask):
    conn_id = ask("/ajax/reql/open-new-connection", b"").decode()
    body = json.dumps([1, [24, [1, 2]], {}]).encode()
    frame = ask(f"/ajax/reql/?conn_id={urllib.request.quote(conn_id)}", struct.pack("<Q", 1) + body)
    assert json.loads(frame[12:])["r"] == [3]


def test_with_a_password_one_has_to_log_in(start, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    ask = asker(start("--initial-password-file", str(secret)))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask("/")
    assert b"RewindDB" in ask("/", password="correct horse")


def test_without_http_there_is_no_port(start):
    assert "HTTP" not in start("--no-http").output
