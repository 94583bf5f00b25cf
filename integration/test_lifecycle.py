"""Starting and stopping: what a server says, whom it refuses, and that a stop loses nothing."""

import json
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from rethinkdb import errors, r

from server.child import DRIVER_PORT, FREE_PORTS, ROOT, DidNotStart


def rewinddb(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_fresh_server_has_the_database_test_and_an_admin_without_password(start):
    server = start()
    conn = server.connect()
    assert r.db_list().run(conn) == ["rethinkdb", "test"]
    assert conn.server()["proxy"] is False
    with pytest.raises(errors.ReqlAuthError):
        server.connect(password="guess")


def test_the_banner_says_version_port_folder_and_position(start):
    server = start()
    assert "Running rewinddb 0.1.0..." in server.lines
    assert f"Initializing directory {server.data_dir}" in server.lines
    assert f"Loading data from directory {server.data_dir}" in server.lines
    assert "Recovered to log position 2 (0 entries applied from the log)" in server.lines
    assert server.lines.count(f"Listening for client driver connections on port {server.port}") == 1
    status = r.db("rethinkdb").table("server_status").nth(0).run(server.connect())
    assert server.lines[-1] == f'Server ready, "{status["name"]}" {status["id"]}'  # what programs wait for
    cache_mb = int(status["process"]["cache_size_mb"])
    assert f"Automatically using cache size of {cache_mb} MB" in server.lines
    assert 100 <= cache_mb <= psutil.virtual_memory().total >> 21
    r.table_create("t").run(server.connect())
    server.kill()
    again = start()
    assert f"Initializing directory {server.data_dir}" not in again.lines
    assert "Recovered to log position 5 (4 entries applied from the log)" in again.lines


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_with_0_and_keeps_everything(start, how):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    r.table("t").insert([{"id": n} for n in range(100)], durability="soft").run(conn)
    assert server.stop(how) == 0, server.output
    again = start()
    conn = again.connect()
    assert r.table("t").count().run(conn) == 100


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_although_nobody_reads_what_it_prints(tmp_path, how):
    """It began to stop, could not say so, and neither served nor ended from then on."""
    command = [sys.executable, "-m", "server", "serve", "--data-dir", str(tmp_path / "data"), *FREE_PORTS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            port = next(int(found[1]) for line in server.stdout if (found := DRIVER_PORT.match(line.rstrip())))
            server.stdout.close()
            with r.connect(port=port) as conn:
                r.table_create("t").run(conn)
                assert r.table("t").insert({"id": 1}).run(conn)["inserted"] == 1
            server.send_signal(how)
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_a_stop_waits_for_running_queries(start):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    r.table("t").insert([{"id": n} for n in range(20_000)]).run(conn, noreply=True)
    conn.noreply_wait()
    assert server.stop() == 0, server.output
    assert r.table("t").count().run(start().connect()) == 20_000


def test_a_second_server_on_the_same_folder_is_refused(start):
    first = start()
    with pytest.raises(DidNotStart) as caught:
        start()
    assert f"is in use by process {first.pid}" in str(caught.value)
    assert r.db_list().run(first.connect()) == ["rethinkdb", "test"]


def test_a_port_in_use_is_named(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DidNotStart, match=f"driver.*{port}.*in use"):
            start("--driver-port", str(port))


def test_wrong_settings_end_with_2_and_all_mistakes(tmp_path):
    config = tmp_path / "wrong.yaml"
    config.write_text("driver: {prot: 1}\nlimits: {connections: none}\n")
    done = rewinddb("serve", "--config", str(config))
    assert done.returncode == 2
    assert "driver.prot: no such setting; known here: address, port, tls" in done.stderr
    assert "limits.connections: found the text 'none'; allowed: a whole number from 1 to 1000000" in done.stderr
    assert not (tmp_path / "rewinddb_data").exists()


def test_the_initial_password_is_for_a_new_folder_only(start, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    server = start("--initial-password-file", str(secret))
    assert r.db_list().run(server.connect(password="correct horse")) == ["rethinkdb", "test"]
    with pytest.raises(errors.ReqlAuthError):
        server.connect()
    assert server.stop() == 0, server.output
    secret.write_text("something else\n")
    again = start("--initial-password-file", str(secret))
    again.connect(password="correct horse").close()
    assert "correct horse" not in server.output + again.output


def test_listening_to_every_network_without_a_password_is_warned_about(start, tmp_path):
    assert "has no password" in start("--bind", "all").output
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    safe = start("--bind", "all", "--initial-password-file", str(secret), data_dir=tmp_path / "other")
    assert "has no password" not in safe.output


def test_json_logs_are_one_object_on_a_line(start):
    server = start("--log-format", "json", "--log-level", "debug", "--bind", "all")
    logged = [json.loads(line) for line in server.lines if line.startswith("{")]
    assert any("has no password" in entry["message"] and entry["level"] == "warning" for entry in logged)


def test_the_log_can_be_shown_and_verified(start):
    server = start()
    conn = server.connect()
    r.table_create("people").run(conn)
    r.table("people").insert({"id": "jane"}).run(conn)
    assert server.stop() == 0, server.output
    shown = rewinddb("log", "show", "--data-dir", str(server.data_dir))
    assert shown.returncode == 0
    assert "people" in shown.stdout
    assert "jane" in shown.stdout
    as_json = rewinddb("log", "show", "--data-dir", str(server.data_dir), "--json")
    assert as_json.returncode == 0
    json.loads(as_json.stdout)
    verified = rewinddb("log", "verify", "--data-dir", str(server.data_dir))
    assert (verified.returncode, verified.stderr) == (0, "")


def test_a_hard_write_behind_soft_ones_is_seen_as_soon_as_it_is_answered(conn):
    r.table_create("t").run(conn)
    for n in range(50):
        r.table("t").insert({"id": n}, durability="soft").run(conn)
        assert r.table("t").get(n).update({"n": n}).run(conn)["replaced"] == 1
        assert r.table("t").get(n)["n"].run(conn) == n
