"""Vaults on real S3 and SFTP servers, which the tests start: everything that a user does with a vault."""

import asyncio
import json
import threading

import asyncssh
import boto3
import pytest
from moto.server import ThreadedMotoServer
from rethinkdb import r

import rewinddb
from integration.backup_kit import SYSTEM, add_vault, done, shipped, until, vault

pytestmark = pytest.mark.timeout(400)  # each child process imports the client of the store anew

BUCKET = "backups"


@pytest.fixture(scope="module")
def s3():
    """An S3 server; the options to reach it."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "hunter-key", "secret": "hunter-secret", "endpoint_url": f"http://{host}:{port}"}
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    yield options, client
    server.stop()


class SftpServer:
    """An SFTP server on this machine's files, in a thread with a loop of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.acceptor = asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(30)
        self.port = self.acceptor.get_port()

    async def _listen(self):
        class Login(asyncssh.SSHServer):
            def begin_auth(self, username):
                return True

            def password_auth_supported(self):
                return True

            def validate_password(self, username, password):
                return (username, password) == ("keeper", "hunter2")

        key = asyncssh.generate_private_key("ssh-ed25519")
        return await asyncssh.create_server(
            Login, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=True, process_factory=None
        )

    def stop(self):
        self.loop.call_soon_threadsafe(self.acceptor.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture(scope="module")
def sftp():
    server = SftpServer()
    yield server
    server.stop()


def use_a_vault(conn):
    """What users do with a vault, once from beginning to end."""
    r.table_create("t").run(conn)
    table = r.table("t")
    table.insert([{"id": number, "text": "x" * 300} for number in range(2000)]).run(conn)
    r.db("test").backup().run(conn)
    done(conn)
    table.filter(r.row["id"] < 500).delete().run(conn)
    done(conn)
    table.insert({"id": "last"}).run(conn)
    shipped(conn)
    done(conn, "backup_tasks", task="verify", depth="rows")
    [drill] = done(conn, "backup_tasks", task="drill")["result"].values()
    assert drill["rows"] == 1501
    SYSTEM.table("vaults").update({"retention": {"keep_images": 1}}).run(conn)
    done(conn, "backup_tasks", task="expire")
    until(lambda: len(vault(conn)["inventory"]["images"]) == 2)  # of the whole server, and of the database
    r.table_drop("t").run(conn)
    r.db("test").restore().run(conn)
    assert table.count().run(conn) in (1500, 2000)
    assert rewinddb is not None


def test_a_vault_on_s3(start, tmp_path, s3):
    options, client = s3
    file = tmp_path / "options.json"
    file.write_text(json.dumps(options))
    server = start()
    conn = server.connect()
    add_vault(conn, f"s3://{BUCKET}/one", options_file=str(file))
    use_a_vault(conn)
    assert "hunter" not in server.output
    objects = client.list_objects_v2(Bucket=BUCKET, Prefix="one/")["Contents"]
    assert any("/images/" in entry["Key"] for entry in objects) and any("/log/" in entry["Key"] for entry in objects)
    assert not any(b"hunter" in client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in objects)


def test_a_vault_on_s3_by_the_environment(start, tmp_path, s3, monkeypatch):
    options, _ = s3
    monkeypatch.setenv("REWIND_TEST_SECRET", options["secret"])
    server = start()
    conn = server.connect()
    add_vault(
        conn,
        f"s3://{BUCKET}/two",
        environment={"secret": "REWIND_TEST_SECRET", "key": "REWIND_TEST_SECRET"},
        options={"endpoint_url": options["endpoint_url"]},
    )
    done(conn)
    row = vault(conn)
    assert options["secret"] not in json.dumps(row["environment"]) + json.dumps(row["options"])
    SYSTEM.table("vaults").insert(
        {"name": "unset", "url": f"s3://{BUCKET}/x", "environment": {"secret": "REWIND_NOT_SET"}}
    ).run(conn)
    until(lambda: "REWIND_NOT_SET" in (vault(conn, "unset")["error"] or ""))


def test_a_vault_on_sftp(start, tmp_path, sftp):
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"password": "hunter2", "known_hosts": None}))
    server = start()
    conn = server.connect()
    add_vault(conn, f"ssh://keeper@127.0.0.1:{sftp.port}{tmp_path}/far", options_file=str(file))
    use_a_vault(conn)
    assert (tmp_path / "far" / "vault.json").exists()
    assert "hunter2" not in server.output
