"""Who is let into a cluster and who is not; a member whose disk is full, lost or another one's."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from rethinkdb import errors, r

from integration.cluster_kit import Cluster, Member, wait_until
from integration.small_disk import SmallDisk
from server.child import ROOT, DidNotStart, ServerProcess
from tests.pem import authority, signed


@pytest.fixture
def cluster_of(tmp_path):
    """Makes clusters; shows what their servers printed, and leaves none behind."""
    made = []

    def make(count, *flags, **options):
        cluster = Cluster(tmp_path / "cluster", *flags)
        made.append(cluster)
        return cluster.grow(count, **options)

    yield make
    for cluster in made:
        print(cluster.output())  # noqa: T201
        cluster.close()


@pytest.mark.timeout(300)
def test_a_token_works_once_and_only_for_an_empty_folder(cluster_of, start, tmp_path):
    cluster = cluster_of(1)
    first = cluster.members[0]
    other = start(data_dir=tmp_path / "other")
    other.stop()
    token = cluster.invite()
    with pytest.raises(DidNotStart, match="belongs to another cluster"):
        start("--join", token, data_dir=tmp_path / "other")
    with pytest.raises(DidNotStart, match="member invite"):
        start("--join", "rdb1.nonsense", data_dir=tmp_path / "new")
    changed = token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb")
    with pytest.raises(DidNotStart, match=r"not the one that was given out|member invite"):
        start("--join", changed, data_dir=tmp_path / "new")
    second = start("--join", token, data_dir=tmp_path / "new")
    with pytest.raises(DidNotStart, match="used by another server"):
        start("--join", token, data_dir=tmp_path / "newer")
    # The token may stay where it is: a member that starts again does not ask again.
    second.stop()
    second = start("--join", token, data_dir=tmp_path / "new")
    wait_until(lambda: [row["role"] for row in cluster.rows()] == ["voter", "voter"], "two voters")
    assert token not in second.output
    with first.connect() as conn:
        assert token not in json.dumps(list(r.db("rethinkdb").table("server_status").run(conn, time_format="raw")))


@pytest.mark.timeout(300)
def test_a_member_that_lost_its_disk_is_no_member_any_more(cluster_of):
    cluster = cluster_of(3)
    lost = cluster.followers()[0]
    lost.kill()
    # Its log and rows are gone, its identity is there: it must not vote as if it had promised nothing.
    for name in ("log", "rows"):
        shutil.rmtree(lost.folder / name)
    with pytest.raises(DidNotStart, match="its disk or its log was lost"):
        lost.start()
    # Everything is gone: it is a server of its own, which the others do not take for their member.
    shutil.rmtree(lost.folder)
    lost.start()
    with lost.connect() as conn:
        wait_until(lambda: len(cluster.rows(conn)) == 1, "a cluster of its own")
    others = [one for one in cluster.members if one is not lost]
    wait_until(lambda: any("another cluster" in one.process.output for one in others), "the reason in the log")
    assert {row["health"] for row in cluster.rows(others[0].connect()) if row["id"] == lost.id} == {"unreachable"}


@pytest.mark.timeout(300)
def test_a_copy_of_a_member_cannot_take_its_place(cluster_of):
    cluster = cluster_of(2)
    first, second = cluster.members
    second.kill()
    identity = second.folder / "identity.json"
    changed = json.loads(identity.read_text()) | {"server_id": "00000000-0000-4000-8000-000000000000"}
    identity.write_text(json.dumps(changed))
    second.start()
    wait_until(lambda: "Member 2 is another server" in first.process.output, "the reason in the log")


@pytest.mark.timeout(300)
def test_servers_prove_themselves_by_certificates(cluster_of, start, tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir()
    ca, ca_key = authority(folder)
    certificate, key = signed(folder, ca, ca_key, "server")
    config = tmp_path / "tls.yaml"
    tls = f"{{certificate_file: {certificate}, key_file: {key}, ca_file: {ca}}}"
    config.write_text(f"cluster: {{tls: {tls}}}\n")
    cluster = cluster_of(2, "--config", str(config))
    with cluster.members[1].connect() as conn:
        r.table_create("t").run(conn)
        assert r.table("t").insert({"id": 1}).run(conn)["inserted"] == 1
    # Who has a token but no certificate of this CA does not get as far as to show it.
    other_folder = tmp_path / "other-tls"
    other_folder.mkdir()
    other_ca, other_ca_key = authority(other_folder)
    certificate, key = signed(other_folder, other_ca, other_ca_key, "stranger")
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"cluster: {{tls: {{certificate_file: {certificate}, key_file: {key}, ca_file: {ca}}}}}\n")
    stranger = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "server",
            "serve",
            "--config",
            str(bad),
            "--data-dir",
            str(tmp_path / "stranger"),
            "--cluster-port",
            "0",
            "--driver-port",
            "0",
            "--no-http",
            "--join",
            cluster.invite(),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = next(line for line in stranger.stdout if "no member answers at" in line)
        assert "alert" in line.lower() or "closed" in line or "reset" in line.lower()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 MB."""
    disk = SmallDisk(tmp_path / "disk", 60)
    yield disk
    disk.close()


@pytest.mark.timeout(300)
def test_a_nearly_full_disk_moves_the_lead_to_another_server(cluster_of, small_disk, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text("log: {segment_bytes: 2_097_152, retain_bytes: 0}\n")
    cluster = cluster_of(2, "--config", str(config))
    on_disk = Member(cluster, "small", small_disk)
    cluster.members.append(on_disk)
    on_disk.start("--join", cluster.invite())
    on_disk.id = wait_until(lambda: cluster.row_of("small"), "its row")["id"]
    cluster.wait_for_voters(3)
    with cluster.members[0].connect() as conn:
        r.table_create("t").run(conn)
        members = r.db("rethinkdb").table("members")
        assert members.get(on_disk.id).update({"is_leader": True}).run(conn)["errors"] == 0
        wait_until(lambda: cluster.leader() is on_disk, "the lead on the small disk")
        small_disk.fill(leave_bytes=4_000_000)
        wait_until(lambda: cluster.leader() is not on_disk, "the lead elsewhere")
        assert r.table("t").insert({"id": 1}).run(conn)["inserted"] == 1
        row = members.get(on_disk.id).run(conn)
        assert row["health"] in ("disk nearly full", "ok")
        wait_until(lambda: members.get(on_disk.id).run(conn)["health"] == "disk nearly full", "its health")
        # Full for good: that server ends, the others go on.
        small_disk.fill()
        until_it_ends(conn, on_disk)
        assert r.table("t").insert({"id": "after"}).run(conn)["inserted"] == 1


def until_it_ends(conn, member):
    """Writes until a server whose disk is full has ended."""
    for n in range(2000):
        r.table("t").insert({"id": f"fill-{n}", "text": "x" * 20_000}).run(conn)
        if not member.process.is_running:
            assert member.process.wait() == 1
            assert "space" in member.process.output
            return
    raise AssertionError("the full disk took everything")


@pytest.mark.timeout(300)
def test_a_minority_says_that_nobody_leads_and_answers_what_may_be_outdated(cluster_of):
    cluster = cluster_of(3)
    with cluster.leader().connect() as conn:
        r.table_create("t").run(conn)
        r.table("t").insert({"id": 1}).run(conn)
    last = cluster.followers()[0]
    with last.connect() as conn:
        wait_until(lambda: r.table("t", read_mode="outdated").get(1).run(conn), "the row on a follower")
        for member in cluster.members:
            if member is not last:
                member.kill()
        assert r.table("t", read_mode="outdated").get(1).run(conn) == {"id": 1}
        with pytest.raises(errors.ReqlOpFailedError, match="No server leads"):
            r.table("t").insert({"id": 2}).run(conn)
        rows = cluster.rows(conn, "outdated")
        assert [row["health"] for row in rows if row["id"] != last.id] == ["unreachable", "unreachable"]
    assert last.process.stop(signal.SIGTERM) == 0


def test_a_server_needs_the_ca_for_tls_between_servers(tmp_path):
    certificate, key = signed(tmp_path, *authority(tmp_path), "server")
    config = tmp_path / "half.yaml"
    config.write_text(f"cluster: {{tls: {{certificate_file: {certificate}, key_file: {key}}}}}\n")
    with pytest.raises(DidNotStart, match=r"cluster\.tls\.ca_file"):
        ServerProcess(tmp_path / "data", "--config", str(config))
