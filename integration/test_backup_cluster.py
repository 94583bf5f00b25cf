"""Backups of a cluster: followers take the images, whoever leads goes on, without a hole and without a lie."""

import os
import subprocess
import sys

import pytest
from rethinkdb import errors, r

from integration.backup_kit import SYSTEM, add_vault, done, shipped, stuck, until, vault
from integration.cluster_kit import Cluster
from server.child import ROOT, ServerProcess

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path).grow(3)
    yield cluster
    cluster.close()


def restored(vault_folder, folder):
    """All rows of the table `test.t` in the newest moment that a vault holds, out of a new server's mouth."""
    command = ("restore", "--to", "latest", "--vault", f"file://{vault_folder}", "--data-dir", str(folder))
    done = subprocess.run([sys.executable, "-m", "server", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "restore successful" in done.stdout, done.stdout + done.stderr
    server = ServerProcess(folder, "--no-http")
    try:
        with server.connect() as conn:
            return list(r.table("t").order_by(index="id").run(conn))
    finally:
        server.kill()


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


def test_a_follower_takes_the_image(cluster, tmp_path):
    leader = cluster.leader()
    conn = leader.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    r.table("t").insert(rows(3000)).run(conn)
    written = list(r.table("t").order_by(index="id").run(conn))
    row = done(conn, name="first")
    assert row["server"] in [follower.name for follower in cluster.followers()]
    assert (row["rows"], row["warnings"], row["state"]) == (3000, [], "successful")
    logged = SYSTEM.table("backup_log").filter({"event": "backup successful"}).nth(0).run(conn)
    assert logged["server"] == row["server"] and f"by server {row['server']}" in logged["message"]
    for member in cluster.members:  # whoever is asked
        with member.connect() as other:
            assert SYSTEM.table("backups").get(row["id"]).run(other) == row
    assert not list(tmp_path.glob("s*/backup/checkpoint-*"))
    shipped(conn)
    assert restored(tmp_path / "vault", tmp_path / "new") == written
    [image] = done(conn, "backup_tasks", task="look")["result"]["main"]["images"]
    assert (image["log_index"], image["rows"]) == (row["log_index"], 3000)


def test_followers_without_a_vaults_secret_leave_the_image_to_the_leader(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path)
    try:
        monkeypatch.setenv("OPTION_OF_THE_STORE", "yes")
        leader = cluster.add()
        monkeypatch.delenv("OPTION_OF_THE_STORE")
        cluster.grow(3)
        conn = leader.connect()
        add_vault(conn, f"file://{tmp_path}/vault", environment={"auto_mkdir": "OPTION_OF_THE_STORE"})
        r.table_create("t").run(conn)
        r.table("t").insert(rows(100)).run(conn)
        row = done(conn)
        assert (row["server"], row["rows"]) == (leader.name, 100)
        assert sorted(warning[:16] for warning in row["warnings"]) == ["not taken by s2:", "not taken by s3:"]
        assert all("OPTION_OF_THE_STORE, which is not set" in warning for warning in row["warnings"])
        report = done(conn, "backup_tasks", task="verify", depth="files")["result"]["main"]
        assert (report["problems"], report["images"]) == ([], 1)
    finally:
        cluster.close()


def test_a_follower_killed_in_the_middle_is_followed_by_another_server(cluster, tmp_path):
    leader = cluster.leader()
    conn = leader.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    r.table("t").insert(rows(1000)).run(conn)
    SYSTEM.table("backups").insert({"id": "slow", "max_bytes_per_s": 60_000}).run(conn)
    taking = until(lambda: SYSTEM.table("backups").filter({"id": "slow"})[0].run(conn))
    name = until(lambda: SYSTEM.table("backups").get("slow")["server"].run(conn))
    victim = next(member for member in cluster.members if member.name == name)
    assert victim is not leader and taking["state"] in ("queued", "running")
    until(lambda: SYSTEM.table("backups").get("slow")["rows"].run(conn) > 0)
    victim.kill()
    row = until(
        lambda: SYSTEM.table("backups").filter({"id": "slow", "state": "successful"}).nth(0).default(None).run(conn),
        120,
    )
    assert row["server"] not in (name, leader.name) and row["rows"] == 1000
    [warning] = row["warnings"]
    assert warning.startswith(f"not taken by {name}: ")
    victim.start()
    cluster.wait_for_voters(3)
    r.table("t").insert(rows(10)).run(conn)
    assert done(conn)["rows"] == 1010
    assert not list(tmp_path.glob("s*/backup/checkpoint-*"))
    report = done(conn, "backup_tasks", task="verify", depth="rows")["result"]["main"]
    assert (report["problems"], report["images"]) == ([], 2)


def test_a_restore_reaches_all_members_and_a_new_leader_drops_what_is_half_done(cluster, tmp_path):
    leader = cluster.leader()
    conn = leader.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    for _ in range(15):
        r.table("t").insert(rows(1000), durability="soft").run(conn)
    whole = list(r.table("t").order_by(index="id").run(conn))
    done(conn)
    behind = cluster.followers()[0]
    behind.kill()
    assert done(conn, "restores", to="latest", **{"as": {"test.t": "test.copy"}})["rows"] == 15_000
    behind.start()
    cluster.wait_for_voters(3)
    copied = r.table("copy", read_mode="outdated").order_by(index="id")
    for member in cluster.members:
        with member.connect() as own:
            patiently(lambda own=own: r.table("copy", read_mode="outdated").count().run(own) == 15_000)
            assert list(copied.run(own)) == whole

    def half_done(asked):
        return [name for name in r.db_list().run(asked) if name.startswith("restoring_")]

    with stuck(tmp_path / "vault"):
        SYSTEM.table("restores").insert(
            {"id": "two", "to": "latest", "table": "test.t", "as": {"test.t": "test.other"}}
        ).run(conn)
        until(lambda: (SYSTEM.table("restores").get("two")["rows"] > 0).default(False).run(conn))
        assert half_done(conn)
        leader.kill()
    conn = cluster.leader().connect()
    patiently(lambda: not half_done(conn))
    row = patiently(lambda: SYSTEM.table("restores").filter({"id": "two", "state": "failed"}).nth(0).run(conn))
    assert "stopped before it was done" in row["error"]
    assert sorted(r.table_list().run(conn)) == ["copy", "t"]
    patiently(lambda: vault(conn)["state"] == "ok")
    assert done(conn, "restores", to="latest", tables=["test.t"], **{"as": {"test.t": "test.other"}})["rows"] == 15_000
    assert list(r.table("other").order_by(index="id").run(conn)) == whole
    leader.start()
    cluster.wait_for_voters(3)
    with leader.connect() as own:
        patiently(lambda: r.table("other", read_mode="outdated").count().run(own) == 15_000)
        assert list(r.table("other", read_mode="outdated").order_by(index="id").run(own)) == whole


def slow_backup(conn, cluster):
    """Begins a backup that takes a while; the follower that takes it, once it has begun to."""
    SYSTEM.table("backups").insert({"id": "slow", "max_bytes_per_s": 60_000}).run(conn)
    until(lambda: SYSTEM.table("backups").get("slow")["rows"].run(conn) > 0)
    name = SYSTEM.table("backups").get("slow")["server"].run(conn)
    return next(member for member in cluster.members if member.name == name)


def ended(conn):
    """The slow backup's row, once it has ended."""
    query = SYSTEM.table("backups").filter(lambda row: (row["id"] == "slow") & row["finished"]).nth(0).default(None)
    return until(lambda: patiently(lambda: query.run(conn)), 120)


def image_count(vault_folder):
    return len(list((vault_folder / "images").glob("*/manifest")))


def test_a_follower_that_is_cut_off_gives_up_and_another_one_takes_the_image(cluster, tmp_path):
    conn = cluster.leader().connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    r.table("t").insert(rows(1000)).run(conn)
    victim = slow_backup(conn, cluster)
    cluster.isolate(victim)
    row = ended(conn)
    assert (row["state"], row["rows"]) == ("successful", 1000) and row["server"] != victim.name
    assert not list((victim.folder / "backup").glob("checkpoint-*"))  # before the other one had its image
    cluster.heal()
    cluster.wait_for_voters(3)
    assert image_count(tmp_path / "vault") == 1
    assert done(conn, "backup_tasks", task="verify", depth="files")["result"]["main"]["problems"] == []


def test_a_leader_that_hands_over_ends_its_backup_which_is_no_success(cluster, tmp_path):
    leader = cluster.leader()
    conn = leader.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    r.table("t").insert(rows(1000)).run(conn)
    taking = slow_backup(conn, cluster)
    heir = next(member for member in cluster.followers() if member is not taking)
    SYSTEM.table("members").get(heir.id).update({"is_leader": True}).run(conn)
    conn = heir.connect()
    row = ended(conn)
    assert row["state"] == "failed" and "lost the lead" in row["error"]
    until(lambda: not list(tmp_path.glob("s*/backup/checkpoint-*")))
    assert image_count(tmp_path / "vault") == 0
    patiently(lambda: vault(conn)["state"] == "ok")
    assert done(conn)["rows"] == 1000 and image_count(tmp_path / "vault") == 1
