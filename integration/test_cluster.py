"""Several real servers: they join, agree whatever fails, and are replaced while they run."""

import json
import random
import subprocess
import sys
import time

import pytest
from rethinkdb import errors, r

from integration.cluster_clients import TABLES, prepare, run_clients
from integration.cluster_kit import Cluster, Faults, wait_until
from integration.small_disk import can_be_made
from server.child import ROOT


@pytest.fixture
def cluster_of(tmp_path):
    """Makes clusters; shows what their servers printed, and leaves none behind."""
    made = []

    def make(count, *flags, **options):
        cluster = Cluster(tmp_path, *flags, **options)
        made.append(cluster)
        return cluster.grow(count)

    yield make
    for cluster in made:
        print(cluster.output())  # noqa: T201
        cluster.close()


OWN_DISKS = """
log: {segment_bytes: 1_048_576, retain_bytes: 0, catch_up_bytes: 4_194_304}
storage: {flush_interval_ms: 500, cache_bytes: 67_108_864}
"""


@pytest.mark.timeout(4000)
def test_histories_are_linearizable_whatever_fails(cluster_of, rng, request, tmp_path):
    seconds = request.config.getoption("--cluster-seconds")
    count = request.config.getoption("--cluster-members")
    cluster = cluster_of(count, *settings(tmp_path, OWN_DISKS), disk_megabytes=100 * can_be_made())
    with cluster.leader().connect() as conn:
        prepare(conn)
    books, end = run_clients(6, cluster.members, rng.random())
    faults = Faults(cluster, rng)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not books.problems:
        faults.one()
        wait_until(
            lambda before=books.done: books.done > before + 20 or books.problems,
            f"work going on after {faults.done[-1]}",
        )
    end()
    cluster.heal()
    with cluster.leader().connect() as conn:
        books.check(conn)
    print(books, faults)  # noqa: T201
    assert books.done > 20 * len(faults.done)
    wait_until(lambda: len({state_of(member) for member in cluster.members}) == 1, "equal states on all members")


def state_of(member):
    """What a server holds itself, whoever leads; of long runs it is more than an array may have."""
    with member.connect() as conn:
        tables = [r.table(name, read_mode="outdated").order_by(index="id") for name in TABLES]
        return str([list(table.run(conn)) for table in tables])


def settings(folder, text):
    """A settings file for all servers of a cluster."""
    path = folder / "settings.yaml"
    path.write_text(text)
    return "--config", str(path)


SHORT_LOG = """
log: {segment_bytes: 1_048_576, retain_bytes: 0, catch_up_bytes: 1_048_576}
storage: {flush_interval_ms: 500, cache_bytes: 67_108_864}
"""


def fill(conn, table, megabytes, first=0):
    """Rows of 10 KB with noise that does not compress; their number."""
    dice = random.Random(first)
    for batch in range(first, first + megabytes):
        rows = [{"id": batch * 100 + n, "kind": n % 7, "noise": dice.randbytes(5000).hex()} for n in range(100)]
        assert table.insert(rows, durability="soft").run(conn)["inserted"] == 100
    return megabytes * 100


@pytest.mark.timeout(600)
def test_a_member_that_lags_too_far_takes_a_snapshot_while_the_leader_serves(cluster_of, tmp_path):
    cluster = cluster_of(3, *settings(tmp_path, SHORT_LOG))
    with cluster.leader().connect() as conn:
        r.table_create("t").run(conn)
        r.table("t").index_create("kind").run(conn)
        r.table("t").index_wait().run(conn)
        late = cluster.followers()[0]
        late.kill()
        rows = fill(conn, r.table("t"), 110)
        r.table("t").sync().run(conn)
        wait_until(lambda: not first_segment(cluster.leader()).endswith("-0000000000000001.wal"), "a shorter log")
        late.start()
        longest = 0.0
        began = time.monotonic()
        while "the rows are now those of a snapshot" not in late.process.output and time.monotonic() - began < 60:
            asked = time.monotonic()
            assert r.table("t").get(int(asked * 1000) % rows).run(conn) is not None
            longest = max(longest, time.monotonic() - asked)
    cluster.wait_for_voters(3)
    assert "the rows are now those of a snapshot" in late.process.output
    with late.connect() as conn:
        outdated = r.table("t", read_mode="outdated")
        wait_until(lambda: outdated.count().run(conn) == rows, "all rows on the member that was late")
        assert outdated.get_all(3, index="kind").count().run(conn) == sum(n % 7 == 3 for n in range(100)) * rows // 100
    late.kill()
    late.start()  # from what the snapshot left, and the log behind it
    cluster.wait_for_voters(3)
    with late.connect() as conn:
        assert r.table("t", read_mode="outdated").count().run(conn) == rows
    print(f"longest point get while a snapshot was sent: {longest * 1000:.0f} ms")  # noqa: T201


def first_segment(member):
    return min(path.name for path in (member.folder / "log").glob("*.wal") if not path.name.startswith("spare"))


def command(member, *arguments, codes=(0,)):
    """What a verb of `rewinddb` says as JSON, or its error."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments, "--json", "-c", f"127.0.0.1:{member.driver_port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.timeout(600)
def test_a_lost_server_is_replaced_by_a_new_one(cluster_of):
    cluster = cluster_of(3)
    first, second, third = cluster.members
    with first.connect() as conn:
        r.table_create("t").run(conn)
        r.table("t").insert([{"id": n} for n in range(500)]).run(conn)
    lost = cluster.followers()[0]
    stays = next(one for one in cluster.members if one is not lost)
    lost.kill()
    told = wait_until(
        lambda: [row for row in command(stays, "status", codes=(0, 1))["members"] if row["health"] == "unreachable"],
        "the lost server in the status",
    )
    assert [row["id"] for row in told] == [lost.id]
    assert command(stays, "member", "remove", str(lost.id)) == {"removed": lost.id}
    assert [row["id"] for row in command(stays, "member", "list")] == [
        one.id for one in cluster.members if one is not lost
    ]
    # With its old folder it is not taken back, and says why.
    lost.start(deadline_s=30)
    wait_until(lambda: f"Member {lost.id} was removed from the cluster" in lost.process.output, "the reason in the log")
    lost.kill()
    cluster.members.remove(lost)
    fourth = cluster.add(name="fourth")
    assert fourth.id == 4, "member ids are never given twice"
    cluster.wait_for_voters(3)
    with fourth.connect() as conn:
        assert r.table("t").count().run(conn) == 500
        assert r.table("t", read_mode="outdated").count().run(conn) == 500
    assert third in cluster.members or second in cluster.members


def test_a_member_that_runs_is_removed_and_ends(cluster_of):
    cluster = cluster_of(2)
    first, second = cluster.members
    assert command(first, "member", "remove", second.name) == {"removed": 2}
    assert second.process.wait() == 1
    assert "This server was removed from its cluster" in second.process.output
    with first.connect() as conn:
        r.table_create("t").run(conn)
        assert r.table("t").insert({"id": 1}).run(conn)["inserted"] == 1
    refused = command(first, "member", "remove", "1", codes=(1,))
    assert "the only member that votes" in refused


@pytest.mark.timeout(600)
def test_a_restart_of_every_server_is_not_felt_by_clients_of_the_others(cluster_of):
    cluster = cluster_of(3)
    with cluster.leader().connect() as conn:
        prepare(conn)
    for _ in range(2):
        leader = cluster.leader()
        others = [member for member in cluster.members if member is not leader]
        books, end = run_clients(4, others, 1)
        wait_until(lambda books=books: books.done > 20, "work")
        assert leader.process.stop() == 0
        wait_until(lambda books=books, done=books.done: books.done > done + 50, "work going on")
        leader.start()
        wait_until(lambda books=books, done=books.done: books.done > done + 50, "work going on")
        end()
        assert (books.failed, books.unknown, books.problems) == (0, 0, [])
        cluster.wait_for_voters(3)


@pytest.mark.timeout(600)
def test_feeds_and_streams_of_a_lost_leader_end_and_can_be_opened_again(cluster_of):
    cluster = cluster_of(3)
    leader = cluster.leader()
    follower = cluster.followers()[0]
    with follower.connect() as conn, follower.connect() as other:
        r.table_create("t").run(conn)
        r.table("t").insert([{"id": n} for n in range(2000)]).run(conn)
        feed = r.table("t").changes().run(conn)
        r.table("t").insert({"id": "first"}).run(other)
        assert next(feed)["new_val"] == {"id": "first"}
        rows = r.table("t").run(other, max_batch_rows=10)
        assert next(rows)["id"] is not None
        leader.kill()
        with pytest.raises(errors.ReqlOpFailedError):
            next(feed)
        with pytest.raises(errors.ReqlOpFailedError):
            list(rows)
        again = r.table("t").changes().run(conn)
        r.table("t").insert({"id": "second"}).run(other)
        assert next(again)["new_val"] == {"id": "second"}
        again.close()


@pytest.mark.timeout(600)
def test_a_feed_ends_when_the_connection_breaks_that_brings_its_changes(cluster_of):
    """Each direction between two servers has a connection of its own; the other one stays."""
    cluster = cluster_of(3)
    leader, follower = cluster.leader(), cluster.followers()[0]
    with follower.connect() as conn, leader.connect() as direct:
        r.table_create("t").run(conn)
        feed = r.table("t").changes().run(conn)
        r.table("t").insert({"id": 1}).run(direct)
        assert next(feed)["new_val"] == {"id": 1}
        cluster.wires.snap(leader.id, follower.id)
        with pytest.raises(errors.ReqlOpFailedError):
            feed.next(wait=40)
        again = r.table("t").changes().run(conn)
        r.table("t").insert({"id": 2}).run(direct)
        assert again.next(wait=40)["new_val"] == {"id": 2}


@pytest.mark.timeout(600)
def test_a_cut_off_leader_neither_serves_stale_reads_nor_takes_writes(cluster_of):
    cluster = cluster_of(3)
    leader = cluster.leader()
    with leader.connect() as old:
        r.table_create("t").run(old)
        r.table("t").insert({"id": 1, "v": "old"}).run(old)
        cluster.isolate(leader)
        rest = [member for member in cluster.members if member is not leader]
        with rest[0].connect() as new:
            wait_until(lambda: r.table("t").get(1).update({"v": "new"}).run(new)["replaced"] == 1, "a write elsewhere")
            with pytest.raises((errors.ReqlOpFailedError, errors.ReqlOpIndeterminateError)):
                r.table("t").get(1)["v"].run(old)
            with pytest.raises((errors.ReqlOpFailedError, errors.ReqlOpIndeterminateError)):
                r.table("t").get(1).update({"v": "lost"}).run(old)
            assert r.table("t", read_mode="outdated").get(1)["v"].run(old) == "old"
            cluster.heal()
            wait_until(lambda: r.table("t").get(1)["v"].run(old) == "new", "the healed server")
            assert r.table("t").get(1)["v"].run(new) == "new"
