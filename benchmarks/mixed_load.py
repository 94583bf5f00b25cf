"""Point gets beside other work: python -m benchmarks.mixed_load [--rows N] [--seconds S] [--only LOAD,...].

One server with rows of about 1 KB; gets at a fixed rate, first alone, then beside full scans, an index build, a dump, a
base image, loads, a thousand changefeeds, and processes that only compute and ask the server nothing: what a get takes
beside these is the machine's share of what it takes beside a client that is as busy. A get's time counts from when it
was due, so a stall is charged to every get that it held up. One rule: all of it shares this machine's cores, so a phase
is compared with the quiet one of the same run; beside the client's times stand the server's own stalls.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import click
from rethinkdb import r

from integration.raw_driver import CONTINUE, Crowd, RawDriver, encode
from server.child import ServerProcess

BIN = Path(sys.executable).parent
BATCH = 200
CONNECTIONS = 8
SPAWN = multiprocessing.get_context("spawn")
TABLE = r.db("test").table("docs")


def row(number: int, dice: random.Random) -> dict[str, Any]:
    return {
        "id": number,
        "age": 18 + number % 60,
        "city": f"city {number % 50}",
        **{f"field{at}": dice.randbytes(50).hex() for at in range(9)},
    }


def load(server: ServerProcess, rows: int) -> None:
    dice = random.Random(1)
    with server.connect() as conn:
        r.table_create("docs").run(conn)
        for first in range(0, rows, BATCH):
            batch = [row(number, dice) for number in range(first, min(first + BATCH, rows))]
            TABLE.insert(batch).run(conn, durability="soft")
        TABLE.sync().run(conn)


# -- gets


class Gets:
    """Point gets at a fixed rate, each on one of a few connections, one after the other."""

    def __init__(self, port: int, rows: int, per_second: int) -> None:
        self._drivers = [RawDriver(port) for _ in range(CONNECTIONS)]
        dice = random.Random(2)
        self._bodies = [encode(TABLE.get(dice.randrange(rows))) for _ in range(5000)]
        self._every_s = 1 / per_second

    def run(self, is_over: Callable[[float], bool]) -> list[float]:
        """Asks until `is_over(seconds so far)`; the milliseconds that each get took from when it was due."""
        times: list[float] = []
        idle, due = list(self._drivers), deque[float]()
        asked: dict[RawDriver, float] = {}
        begun = next_due = time.perf_counter()
        number = 0
        with DefaultSelector() as selector:
            for driver in self._drivers:
                selector.register(driver.socket, EVENT_READ, driver)
            while not is_over(time.perf_counter() - begun) or asked or due:
                now = time.perf_counter()
                while next_due <= now and not is_over(now - begun):
                    due.append(next_due)
                    next_due += self._every_s
                while due and idle:
                    driver = idle.pop()
                    asked[driver] = due.popleft()
                    driver.say(1, self._bodies[number % len(self._bodies)])
                    number += 1
                for key, _ in selector.select(max(0.0, min(next_due - time.perf_counter(), 0.1))):
                    for _, body in key.data.heard():
                        assert body.startswith(b'{"t":1,"r":[{'), body[:200]
                        times.append((time.perf_counter() - asked.pop(key.data)) * 1000)
                        idle.append(key.data)
        return times


# -- what else goes on, each in a process of its own: with the gets in one, it would be Python's lock that is measured


def scans(port: int, over: Any) -> None:
    with r.connect(port=port) as conn:
        while not over.is_set():
            TABLE.filter((r.row["age"] > 30) & (r.row["city"] == "city 7")).count().run(conn)
            TABLE.group("city").sum("age").run(conn)


def sorts(port: int, over: Any) -> None:
    with r.connect(port=port) as conn:
        while not over.is_set():
            TABLE.order_by("city").limit(10).run(conn, array_limit=10_000_000)
            TABLE.pluck("city", "age").distinct().count().run(conn, array_limit=10_000_000)


def index_build(port: int, over: Any) -> None:
    with r.connect(port=port) as conn:
        for field in ("city", "age"):
            TABLE.index_create(field).run(conn)
        TABLE.index_wait().run(conn)
        for field in ("city", "age"):
            TABLE.index_drop(field).run(conn)


def loads(port: int, over: Any) -> None:
    dice = random.Random(3)
    with r.connect(port=port) as conn:
        r.table_create("more").run(conn)
        number = 0
        while not over.is_set():
            batch = [row(number + at, dice) for at in range(1000)]
            r.table("more").insert(batch).run(conn, durability="soft")
            number += len(batch)
        r.table_drop("more").run(conn)


def feeds(port: int, over: Any) -> None:
    """A thousand feeds, and a writer that waits for its own."""
    crowd = Crowd(port, 10)
    for driver in crowd.drivers:
        for token in range(100):
            driver.say(token, encode(TABLE.changes()))
    update = encode(TABLE.get(7).update({"age": r.row["age"] + 1}))

    def heed(driver: RawDriver, token: int, body: bytes) -> None:
        driver.say(token, CONTINUE if token < 100 else update)

    crowd.drivers[0].say(100, update)
    crowd.listen(heed, over.is_set, 1e6)
    crowd.close()


def computing(port: int, over: Any) -> None:
    """Does nothing, without rest."""
    while not over.is_set():
        sum(range(20_000))


def work_when_ready(work: Callable[[int, Any], None], port: int, ready: Any, over: Any) -> None:
    ready.set()
    work(port, over)


@contextmanager
def process(server: ServerProcess, work: Callable[[int, Any], None]) -> Iterator[Any]:
    """Runs `work(port, over)` beside the block; the event says that it is done."""
    ready, over = SPAWN.Event(), SPAWN.Event()
    worker = SPAWN.Process(target=work_when_ready, args=(work, server.port, ready, over))
    worker.start()
    ready.wait()
    ended = threading.Event()
    threading.Thread(target=lambda: (worker.join(), ended.set())).start()
    try:
        yield ended
    finally:
        over.set()
        ended.wait()
    if worker.exitcode:
        raise click.ClickException(f"{work.__name__} failed")


@contextmanager
def busy_cores(server: ServerProcess) -> Iterator[Any]:
    """Each core has a process that computes."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            ended = stack.enter_context(process(server, computing))
        yield ended


@contextmanager
def command(*words: str) -> Iterator[threading.Event]:
    """A program beside the block; the event says that it has ended."""
    ended = threading.Event()
    program = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait() -> None:
        program.wait()
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield ended
    finally:
        waiting.join()
    if program.returncode and program.stderr is not None:
        raise click.ClickException(program.stderr.read().decode())


def dump(server: ServerProcess, folder: Path) -> AbstractContextManager[Any]:
    place = ("-c", f"127.0.0.1:{server.port}", "-f", str(folder / "dump.tar.gz"), "--overwrite-file", "-q")
    return command(str(BIN / "rethinkdb-dump"), *place)


def base_image(server: ServerProcess, folder: Path) -> AbstractContextManager[Any]:
    at = ("-c", f"127.0.0.1:{server.port}", "-q")
    rewinddb = (sys.executable, "-m", "server")
    subprocess.run([*rewinddb, "vault", "add", "main", (folder / "vault").as_uri(), *at], check=True)
    return command(*rewinddb, "backup", "--vault", "main", *at)


LOADS: dict[str, Callable[[ServerProcess, Path], AbstractContextManager[Any]]] = {
    "quiet": lambda server, folder: nullcontext(None),
    "full scans": lambda server, folder: process(server, scans),
    "sorts": lambda server, folder: process(server, sorts),
    "index build": lambda server, folder: process(server, index_build),
    "loads": lambda server, folder: process(server, loads),
    "1000 feeds": lambda server, folder: process(server, feeds),
    "busy cores": lambda server, folder: busy_cores(server),
    "dump": dump,
    "base image": base_image,
}
OPEN = frozenset(
    {"quiet", "full scans", "sorts", "loads", "1000 feeds", "busy cores"}
)  # go on for as long as is wanted


def measure(name: str, server: ServerProcess, gets: Gets, folder: Path, seconds: float, quiet: float) -> float:
    """Runs one phase and prints its line; the p99."""
    with server.connect() as conn:
        stalls = r.db("rethinkdb").table("stats").get(["reactor", conn.server()["id"]])
        before = stalls.run(conn)["stalls_over_50_ms"]
        with LOADS[name](server, folder) as ended:
            begun = time.perf_counter()
            times = sorted(
                gets.run(lambda spent: spent >= seconds and (ended is None or ended.is_set() or name in OPEN))
            )
            took = time.perf_counter() - begun
        after = stalls.run(conn)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    click.echo(
        f"{name:16} {took:6.1f} s {len(times):7d} gets  p50 {p50:7.2f}  p99 {p99:7.2f}  max {times[-1]:7.1f} ms"
        f"  {p99 / (quiet or p99):5.1f} x quiet  longest stall in a minute {after['longest_stall_ms']:6.1f} ms"
        f"  {after['stalls_over_50_ms'] - before} over 50 ms"
    )
    return p99


@click.command()
@click.option("--rows", default=100_000, show_default=True, help="Rows of 1 KB in the table.")
@click.option("--seconds", default=5.0, show_default=True, help="How long a phase takes at least.")
@click.option("--rate", default=200, show_default=True, help="Gets per second.")
@click.option("--only", default=",".join(LOADS), help="Which loads, by name.")
def main(rows: int, seconds: float, rate: int, only: str) -> None:
    """Measures point gets alone and beside other work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ServerProcess(folder / "data", "--no-http") as server:
            load(server, rows)
            gets = Gets(server.port, rows, rate)
            gets.run(lambda spent: spent >= 2.0)
            quiet = 0.0
            for one in only.split(","):
                p99 = measure(one, server, gets, folder, seconds, quiet)
                quiet = quiet or p99


if __name__ == "__main__":
    main()
