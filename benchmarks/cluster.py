"""What a cluster costs and how it fails over: python -m benchmarks.cluster [--members N] [--rounds N].

Three things, with the official driver and real servers on this machine: writes and reads per second with one member
and with several; the time from `kill -9` of the leader to the next acknowledged write; point gets while a member that
was away catches up, once by a snapshot and once from the log. One rule: all servers and clients share this machine's
cores, so only ratios mean anything elsewhere.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rethinkdb import errors, r

from integration.cluster_kit import Cluster, wait_until

THREADS = 16
SECONDS = 4.0
ROW = "x" * 200
BATCH = [{"row": ROW}] * 200


def per_second(port: int, query: Callable[[int], Any]) -> float:
    """Operations per second of some clients that ask one after the other."""
    counts = [0] * THREADS
    ended = threading.Event()

    def work(number: int) -> None:
        with r.connect(port=port) as conn:
            while not ended.is_set():
                query(number * 1_000_000 + counts[number]).run(conn)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    ended.wait(SECONDS)
    ended.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begun)


def throughput(cluster: Cluster) -> None:
    """Writes, reads and batches through the leader and, where there is one, through a follower."""
    leader = cluster.leader()
    table = r.table("load")
    with leader.connect() as conn:
        r.table_create("load").run(conn)
        table.insert([{"id": n, "row": ROW} for n in range(1000)]).run(conn)
    servers = [("leader", leader), *(("follower", member) for member in cluster.followers()[:1])]
    for name, member in servers:
        writes = per_second(member.driver_port, lambda n: table.insert({"id": f"{n}-{time.time_ns()}", "row": ROW}))
        reads = per_second(member.driver_port, lambda n: table.get(n % 1000))
        batches = per_second(member.driver_port, lambda n: table.insert(BATCH)) * len(BATCH)
        click.echo(f"  {name:9} {writes:8.0f} inserts/s {reads:8.0f} gets/s {batches:8.0f} rows/s in batches of 200")


def fail_over(cluster: Cluster, rounds: int) -> list[float]:
    """Seconds from `kill -9` of the leader to the next acknowledged write through another server."""
    found = []
    for turn in range(rounds):
        leader = cluster.leader()
        other = next(member for member in cluster.members if member is not leader)
        with other.connect() as conn:
            leader.kill()
            begun = time.monotonic()
            while True:
                try:
                    r.table("load").insert({"id": f"failover-{turn}-{time.time_ns()}"}).run(conn)
                    break
                except errors.ReqlOpIndeterminateError:
                    continue
            found.append(time.monotonic() - begun)
        leader.start()
        cluster.wait_for_voters(len(cluster.members))
    return found


def catch_up(cluster: Cluster, megabytes: int, by_snapshot: bool) -> None:
    """Point gets on the leader alone, and while a member that was away catches up."""
    late, dice = cluster.followers()[0], random.Random(1)
    late.kill()
    leader = cluster.leader()
    with leader.connect() as conn:
        r.table_create("big").run(conn)
        for batch in range(megabytes):
            rows = [{"id": batch * 1000 + n, "row": dice.randbytes(500).hex()} for n in range(1000)]
            r.table("big").insert(rows, durability="soft").run(conn)
        r.table("big").sync().run(conn)
        target = own_row(leader)["log"]["applied"]
        if by_snapshot:
            wait_until(lambda: len(list((leader.folder / "log").glob("*.wal"))) < 12, "a shorter log")
        before = gets(conn, lambda: False, megabytes * 1000, 5.0)
        late.start()
        begun = time.monotonic()
        over = threading.Event()
        look = threading.Thread(target=tell_when, args=(over, lambda: own_row(late)["log"]["applied"] >= target))
        look.start()
        during = gets(conn, over.is_set, megabytes * 1000, 600.0)
        took = time.monotonic() - begun
        look.join()
    was_snapshot = "those of a snapshot" in late.process.output
    assert was_snapshot == by_snapshot, late.process.output
    click.echo(f"  {megabytes} MB behind, {'by a snapshot' if by_snapshot else 'from the log'}: {took:.1f} s")
    click.echo(f"    point get alone: p50 {before[0]:.2f} ms, p99 {before[1]:.2f} ms")
    click.echo(f"    meanwhile:       p50 {during[0]:.2f} ms, p99 {during[1]:.2f} ms")


def own_row(member: Any) -> Any:
    """What a server says of itself, whoever leads."""
    with member.connect() as conn:
        return r.db("rethinkdb").table("members", read_mode="outdated").get(member.id).run(conn)


def tell_when(over: threading.Event, condition: Callable[[], bool]) -> None:
    """Sets an event once something is so; looks a few times a second."""
    while not condition():
        over.wait(0.3)
    over.set()


def gets(conn: Any, is_over: Callable[[], bool], rows: int, seconds: float) -> tuple[float, float]:
    """(median, 99th percentile) in milliseconds of point gets, until something is over."""
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and not is_over():
        begun = time.perf_counter()
        r.table("big").get(int(begun * 1e6) % rows).run(conn)
        times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


@click.command()
@click.option("--members", default=3, help="Servers of the cluster.")
@click.option("--rounds", default=5, help="How often the leader is killed.")
@click.option("--megabytes", default=300, help="How far behind a member is before it catches up.")
def main(members: int, rounds: int, megabytes: int) -> None:
    """Measures one server and a cluster."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with started(folder / "1", 1) as cluster:
            click.echo(f"1 member, {THREADS} clients:")
            throughput(cluster)
        with started(folder / "several", members) as cluster:
            click.echo(f"{members} members, {THREADS} clients:")
            throughput(cluster)
            took = sorted(fail_over(cluster, rounds))
            click.echo(f"  fail-over in {rounds} rounds: median {took[len(took) // 2]:.2f} s, {took[-1]:.2f} s at most")
        for by_snapshot in (True, False):
            kept = 16 << 20 if by_snapshot else 4 << 30
            with started(folder / f"late {by_snapshot}", members, kept) as cluster:
                catch_up(cluster, megabytes, by_snapshot)


@contextmanager
def started(folder: Path, count: int, kept_bytes: int = 1 << 30) -> Iterator[Cluster]:
    """A cluster of so many servers that keep so much of the log for a member that is away."""
    folder.mkdir()
    settings = folder / "settings.yaml"
    settings.write_text(
        "storage: {cache_bytes: 268_435_456, flush_interval_ms: 2000}\n"
        f"log: {{segment_bytes: 8_388_608, retain_bytes: 0, catch_up_bytes: {kept_bytes}}}\n"
    )
    cluster = Cluster(folder, "--config", str(settings), is_wired=False)
    try:
        yield cluster.grow(count)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
