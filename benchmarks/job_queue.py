"""What the first row of an order costs, the more rows were taken from there before: python -m benchmarks.job_queue.

One rule: the same query again and again, on one table, between deletions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rethinkdb import r

from benchmarks.closed_loop import encode, run
from benchmarks.operations import key
from server.child import ServerProcess

TABLE = r.table("jobs")
ROWS = 100_000
BATCH = 1000
TAKEN = (0, 1_000, 10_000, 40_000)


@click.command()
@click.option("--seconds", default=2.0, help="How long the first row is asked for.")
def main(seconds: float) -> None:
    """Prints a line per number of rows that were taken: CPU microseconds of asking for the first one."""
    first = [encode(TABLE.order_by(index="due").limit(1))]
    with (
        tempfile.TemporaryDirectory() as name,
        ServerProcess(Path(name) / "data", "--log-level", "error") as server,
        server.connect() as conn,
    ):
        r.table_create("jobs").run(conn)
        TABLE.index_create("due").run(conn)
        TABLE.index_wait("due").run(conn)
        for begin in range(0, ROWS, BATCH):
            rows = [{"id": key(at), "due": at, "text": key(at) * 12} for at in range(begin, begin + BATCH)]
            TABLE.insert(rows, durability="soft").run(conn)
        gone = 0
        for taken in TAKEN:
            TABLE.order_by(index="due").limit(taken - gone).delete(durability="soft").run(conn)
            gone = taken
            cost = run(server.port, server.pid, first, 4, seconds)
            click.echo(f"{taken:7,} taken: the first one {cost.cpu_us:6.0f} µs CPU, p99 {cost.p99_ms:.1f} ms")


if __name__ == "__main__":
    main()
