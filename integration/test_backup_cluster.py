"""Backups of a cluster: the leader works, and whoever leads next goes on without a hole and without a lie."""

import os

import pytest
from rethinkdb import errors, r

from integration.backup_kit import SYSTEM, add_vault, done, shipped, until, vault
from integration.cluster_kit import Cluster

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path).grow(3)
    yield cluster
    cluster.close()


def rows(number):
    return [{"text": os.urandom(300).hex()} for _ in range(number)]


def patiently(ask):
    """What `ask` gives once there is a leader that answers."""

    def attempt():
        try:
            return ask()
        except (errors.ReqlError, OSError):
            return None

    return until(attempt)


def test_a_new_leader_goes_on(cluster, tmp_path):
    conn = cluster.followers()[0].connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    r.table("t").insert(rows(3000)).run(conn)
    assert done(conn)["rows"] == 3000
    for round_number in range(2):
        conn = cluster.followers()[0].connect()
        SYSTEM.table("backups").insert({"id": f"slow{round_number}", "max_bytes_per_s": 50_000}).run(conn)
        until(lambda conn=conn, n=round_number: SYSTEM.table("backups").get(f"slow{n}")["state"].run(conn) == "running")
        r.table("t").insert(rows(200)).run(conn)
        leader = cluster.leader()
        leader.kill()
        successor = cluster.leader()
        conn = successor.connect()
        row = patiently(
            lambda conn=conn, n=round_number: (
                SYSTEM.table("backups").filter({"id": f"slow{n}", "state": "failed"}).nth(0).default(None).run(conn)
            )
        )
        assert "stopped before it was done" in row["error"]
        r.table("t").insert(rows(100)).run(conn)
        patiently(lambda conn=conn: vault(conn)["state"] == "ok")
        shipped(conn)
        assert done(conn)["rows"] == 3000 + 300 * (round_number + 1)
        leader.start()
        cluster.wait_for_voters(3)
    report = done(conn, "backup_tasks", task="verify", depth="rows")["result"]["main"]
    assert (report["problems"], report["images"]) == ([], 3)
    assert done(conn, "backup_tasks", task="drill")["result"]["main"]["rows"] == 3600
