"""Memory and start-up with many rows: python -m benchmarks.start_and_memory [--rows N] [--cache-mb MB].

One server with rows of 1 KB: its resident size while they are loaded, while all are read, once many were read and
updated one by one, beside a client that reads slowly and one that sends and asks for much at once; then the time until
it serves again, after a clean stop and after `kill -9` under load. One rule: resident sizes are the kernel's, and a
start lasts until the first get is answered.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import orjson
from rethinkdb import r

from benchmarks.closed_loop import cpu_seconds, run
from integration.raw_driver import CONTINUE, Crowd, RawDriver, encode, resident_bytes
from server.child import ServerProcess

BATCH = 200
CONNECTIONS = 4
ONE_BY_ONE = 200_000  # rows of 1 KB: more than the cache has room for as they are
MB = 1 << 20
TABLE = r.db("test").table("docs")
INSERT = b'[1,[56,[[15,[[14,["test"]],"docs"]],[2,%b]],{"durability":"soft"}]]'


def batches(first: int, last: int) -> Iterator[bytes]:
    """Inserts of rows of 1 KB, the same in each run."""
    dice = random.Random(first)
    for begin in range(first, last, BATCH):
        rows = [
            {"id": number, "age": number % 60, "city": f"city {number % 50}", "text": dice.randbytes(460).hex()}
            for number in range(begin, min(begin + BATCH, last))
        ]
        yield INSERT % orjson.dumps(rows)


class Watch:
    """The server's resident size: what it is, and the most that it was since one looked."""

    def __init__(self, server: ServerProcess, cache_mb: int) -> None:
        self._server = server
        self._limit = cache_mb * MB + 300 * MB

    def tell(self, what: str) -> None:
        status = Path(f"/proc/{self._server.pid}/status").read_text()
        highest = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{self._server.pid}/clear_refs").write_text("5")
        now = resident_bytes(self._server.pid)
        verdict = "" if highest <= self._limit else f", {(highest - self._limit) // MB} MB over cache + 300 MB"
        click.echo(f"{what:44} {now // MB:6d} MB resident, {highest // MB:6d} MB at most{verdict}")


def load(server: ServerProcess, first: int, last: int, until_s: float = 3600.0) -> int:
    """Loads rows as fast as the server takes them; how many it took."""
    crowd, bodies, done = Crowd(server.port, CONNECTIONS), batches(first, last), 0
    open_count = 0

    def send(driver: RawDriver) -> None:
        nonlocal open_count
        body = next(bodies, None)
        if body is not None:
            open_count += 1
            driver.say(1, body)

    def heed(driver: RawDriver, token: int, body: bytes) -> None:
        nonlocal done, open_count
        assert b'"errors":0' in body, body
        done += BATCH
        open_count -= 1
        if time.monotonic() < ends_s:
            send(driver)

    ends_s = time.monotonic() + until_s
    for driver in crowd.drivers:
        send(driver)
    crowd.listen(heed, lambda: open_count == 0, 36_000)
    crowd.close()
    return done


def read_all(server: ServerProcess) -> None:
    """Every row, over one cursor."""
    driver, is_over = RawDriver(server.port), False
    driver.say(1, encode(TABLE))
    while not is_over:
        for _, body in driver.heard():
            is_over = body.startswith(b'{"t":2')
            if not is_over:
                driver.say(1, CONTINUE)
    driver.close()


def one_by_one(server: ServerProcess, rows: int) -> None:
    """Gets and updates of rows from all over."""
    dice = random.Random(rows)
    for ask in (
        TABLE.get,
        lambda key: TABLE.get_all(key, key + 1),
        lambda key: TABLE.get(key).update({"age": key % 50}),
    ):
        bodies = [encode(ask(dice.randrange(rows))) for _ in range(ONE_BY_ONE)]
        run(server.port, server.pid, bodies, 16, 0, count=len(bodies))


def start(folder: Path, cache_mb: int, after: str) -> ServerProcess:
    """A server that has answered its first get."""
    begun = time.monotonic()
    server = ServerProcess(folder, "--no-http", "--cache-bytes", str(cache_mb * MB))
    driver = RawDriver(server.port)
    driver.ask(encode(TABLE.get(1)))
    took, cpu_s = time.monotonic() - begun, cpu_seconds(server.pid)
    driver.close()
    recovered = "".join(line for line in server.lines if "Recovered" in line)
    click.echo(f"serving {took:.2f} s after {after}, of which {cpu_s:.2f} s of CPU ({recovered})")
    return server


def much_at_once(server: ServerProcess, watch: Watch, rows: int) -> None:
    """Clients that take more than they should."""
    lazy = [RawDriver(server.port) for _ in range(20)]
    for driver in lazy:
        for token in range(20):
            driver.say(token, encode(TABLE))
        for token in range(20):
            driver.say(token, CONTINUE)
    with server.connect() as conn:
        TABLE.count().run(conn)
    watch.tell("20 clients that read nothing of 400 results")
    for driver in lazy:
        driver.close()
    greedy = RawDriver(server.port)
    greedy.ask(encode(TABLE.limit(100_000).coerce_to("array")))
    watch.tell("an array of 100,000 rows")
    rows_of = [{"id": rows + number, "text": "x" * 1000} for number in range(60_000)]
    greedy.ask(INSERT % orjson.dumps(rows_of))
    watch.tell("an insert of 60,000 rows at once")
    greedy.ask(encode(TABLE.between(rows, r.maxval).delete()))
    greedy.close()


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of 1 KB.")
@click.option("--cache-mb", default=512, show_default=True, help="storage.cache_bytes of the server.")
def main(rows: int, cache_mb: int) -> None:
    """Measures memory and start-up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with ServerProcess(folder, "--no-http", "--cache-bytes", str(cache_mb * MB)) as server:
            watch = Watch(server, cache_mb)
            with server.connect() as conn:
                r.table_create("docs").run(conn)
            watch.tell("empty")
            begun = time.monotonic()
            load(server, 0, rows)
            click.echo(f"loaded {rows} rows in {time.monotonic() - begun:.0f} s")
            watch.tell("loaded")
            with server.connect() as conn:
                assert TABLE.count().run(conn) == rows
                TABLE.filter(r.row["age"] == 7).count().run(conn)
                watch.tell("after a scan")
            read_all(server)
            watch.tell("after all rows were read over a cursor")
            one_by_one(server, rows)
            watch.tell("after gets and updates from all over")
            much_at_once(server, watch, rows)
            begun = time.monotonic()
            server.stop(signal.SIGTERM)
            click.echo(f"clean stop: {time.monotonic() - begun:.2f} s")
        with start(folder, cache_mb, "a clean stop") as server:
            Watch(server, cache_mb).tell("started")
            more = load(server, rows, rows + 10_000_000, until_s=10.0)
            server.kill()
        with start(folder, cache_mb, "kill -9 under load") as server, server.connect() as conn:
            click.echo(f"{TABLE.count().run(conn) - rows} of {more} soft rows are there")


if __name__ == "__main__":
    main()
