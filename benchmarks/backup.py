"""What backups cost and how fast they come back: python -m benchmarks.backup [--rows N] [--no-tools].

One server, one run: rows of about 1 KB are loaded while the log is shipped to a vault; then base images beside
`rethinkdb-dump`, point gets without and during an image, a dropped table brought back, and restores into the running
server and into a new folder beside `rethinkdb-restore`. All share this machine's cores, so only ratios mean anything
elsewhere. One rule: beside the time on the wall stands the processors', of the command, the server and their children
together; it hardly changes when the machine is busy with something else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click
from rethinkdb import r

from backup.child import ASKED_NICENESS, NICENESS
from server.child import ROOT, ServerProcess

BIN = Path(sys.executable).parent
WRITERS = 2
BATCH = 500
SMALL_ROWS = 1000
GETS_ALONE_S = 5.0
TURNS = 2
MB = 1_000_000
SPAWN = multiprocessing.get_context("spawn")

DB = r.db("bench")
SYSTEM = r.db("rethinkdb")


# -- rows


def rows_of(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Rows of about 1 KB, the same in each run: half of it words, half of it what does not pack well."""
    dice = random.Random(first)
    words = ["".join(dice.choices("aeinorstlmdu", k=dice.randrange(3, 10))) for _ in range(2000)]
    for number in range(first, last):
        yield {
            "id": number,
            "city": dice.choice(words),
            "price": round(dice.random() * 1000, 2),
            "tags": dice.sample(words, 5),
            "text": " ".join(dice.choices(words, k=65)),
            "token": dice.randbytes(200).hex(),
        }


def write_rows(port: int, first: int, last: int) -> int:
    """In a process of its own: loads rows in soft batches; the bytes of their JSON."""
    size = 0
    with r.connect(port=port) as conn:
        for begin in range(first, last, BATCH):
            text = json.dumps(list(rows_of(begin, min(begin + BATCH, last))), separators=(",", ":"))
            size += len(text)
            answer = DB.table("rows").insert(r.json(text), durability="soft").run(conn)
            assert not answer["errors"], answer["first_error"]
    return size


def load(server: ServerProcess, rows: int) -> None:
    """Loads all rows as fast as the server takes them, and watches how far the vault is behind."""
    gaps: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        with server.connect() as conn:
            while not ended.wait(0.2):
                gaps.append(vault_row(conn)["gap"])

    watcher = threading.Thread(target=watch)
    begun, begun_cpu = time.monotonic(), cpu_seconds(server)
    with ProcessPoolExecutor(WRITERS, SPAWN) as pool:
        edges = [rows * at // WRITERS // BATCH * BATCH for at in range(WRITERS)] + [rows]
        parts = [pool.submit(write_rows, server.port, *edges[at : at + 2]) for at in range(WRITERS)]
        watcher.start()
        size = sum(part.result() for part in parts)
    took = Took(time.monotonic() - begun, cpu_seconds(server) - begun_cpu)
    ended.set()
    watcher.join()
    gaps.sort()
    say("load", f"{took.per_s(rows, size)}, {size / rows:.0f} bytes a row")
    say("gap under this load", f"{gaps[len(gaps) // 2]:.2f} s half of the time, {gaps[-1]:.2f} s at most")


# -- commands


class Took(NamedTuple):
    """Seconds on the wall, and of processors: the command's, the server's and those of their children."""

    wall_s: float
    cpu_s: float

    def per_s(self, rows: int, size: int) -> str:
        """What that is per second."""
        rates = f"{rows / self.wall_s:,.0f} rows/s, {size / self.wall_s / MB:.1f} MB/s"
        return f"{self.wall_s:.1f} s: {rates} (processors: {self.cpu_s:.1f} s, {self.cpu_s / rows * 1e6:.0f} µs a row)"

    def times(self, other: Took) -> str:
        """How many times as long the other took."""
        return f"{other.wall_s / self.wall_s:.1f} times as fast, by the processors' time {other.cpu_s / self.cpu_s:.1f}"


def timed(server: ServerProcess, *command: str) -> tuple[Took, str]:
    """Runs a command; what it took, and what it printed."""
    begun, begun_cpu = time.monotonic(), cpu_seconds(server)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = Took(time.monotonic() - begun, cpu_seconds(server) - begun_cpu)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took, done.stdout


def cpu_seconds(server: ServerProcess) -> float:
    """Of the server and its children that have ended, and of all commands so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    commands = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + commands.ru_utime + commands.ru_stime


def rewinddb(server: ServerProcess, *arguments: str, remote: bool = True) -> tuple[Took, dict[str, Any]]:
    """Runs a verb; what it took, and its document."""
    where = ("-c", f"127.0.0.1:{server.port}") if remote else ()
    took, text = timed(server, sys.executable, "-m", "server", *arguments, *where, "--json")
    return took, json.loads(text)


def tool(server: ServerProcess, niceness: int, name: str, *arguments: str) -> Took:
    """Runs one of RethinkDB's tools, not before the child process that does the same work for the server."""
    where = ("-c", f"127.0.0.1:{server.port}")
    return timed(server, "nice", "-n", str(niceness), str(BIN / name), *where, *arguments)[0]


def take_image(server: ServerProcess) -> tuple[Took, dict[str, Any]]:
    return rewinddb(server, "backup")


def vault_row(conn: Any) -> dict[str, Any]:
    row: dict[str, Any] = SYSTEM.table("vaults").nth(0).run(conn)
    return row


def wait_shipped(server: ServerProcess) -> None:
    with server.connect() as conn:
        while vault_row(conn)["gap"] != 0:
            time.sleep(0.1)


# -- what is measured


def images(server: ServerProcess, folder: Path, rows: int, tools: bool) -> None:
    """Base images beside `rethinkdb-dump`."""
    took, row = take_image(server)
    size, stored = row["bytes"], row["images"][0]["bytes"]
    say("base image", f"{took.per_s(rows, size)}, {stored / MB:.0f} MB stored")
    if tools:
        archive = folder / "dump.tar.gz"
        dumped = tool(server, NICENESS, "rethinkdb-dump", "-e", "bench", "-f", str(archive))
        say("rethinkdb-dump", f"{dumped.per_s(rows, size)}, {archive.stat().st_size / MB:.0f} MB")
        say("", f"{took.times(dumped)}; {stored / archive.stat().st_size:.2f} of the size")


def ask(port: int, rows: int, over: Any, times: Any) -> None:
    """In a process of its own: point gets, one after the other, until it is over; their milliseconds."""
    found = []
    dice = random.Random(rows)
    with r.connect(port=port) as conn:
        while not over.is_set():
            begun = time.perf_counter()
            DB.table("rows").get(dice.randrange(rows)).run(conn)
            found.append((time.perf_counter() - begun) * 1000)
    times.put(found)


def gets_during(server: ServerProcess, rows: int, work: Callable[[], Any]) -> list[float]:
    """Milliseconds of point gets while something is done."""
    over, times = SPAWN.Event(), SPAWN.Queue()
    client = SPAWN.Process(target=ask, args=(server.port, rows, over, times))
    client.start()
    time.sleep(1)  # the client's own start
    work()
    over.set()
    found: list[float] = times.get()
    client.join()
    return found


def point_gets(server: ServerProcess, rows: int) -> None:
    """Point gets without and during base images, in turns."""
    alone: list[float] = []
    during: list[float] = []
    for _ in range(TURNS):
        alone += gets_during(server, rows, lambda: time.sleep(GETS_ALONE_S))
        during += gets_during(server, rows, lambda: take_image(server))
    parts = []
    for name, times in (("alone", alone), ("during images", during)):
        times.sort()
        parts.append(f"p50 {times[len(times) // 2]:.2f}, p99 {times[len(times) * 99 // 100]:.2f} ms {name}")
    ratio = during[len(during) * 99 // 100] / alone[len(alone) * 99 // 100]
    say("point get", f"{', '.join(parts)}; p99 {ratio:.2f} times")


def dropped_table(server: ServerProcess) -> None:
    """A small table is dropped beside the large one and brought back."""
    with server.connect() as conn:
        DB.table_create("small").run(conn)
        DB.table("small").insert(list(rows_of(0, SMALL_ROWS))).run(conn)
        wait_shipped(server)
        DB.table("small").update({"is_late": True}).run(conn)
        DB.table_drop("small").run(conn)
        took, _ = rewinddb(server, "undrop", "bench.small")
        count = DB.table("small").filter({"is_late": True}).count().run(conn)
        assert count == SMALL_ROWS, count
        DB.table_drop("small").run(conn)
    say("a dropped table", f"{SMALL_ROWS} rows are back in {took.wall_s:.2f} s")


def restores(server: ServerProcess, folder: Path, rows: int, tools: bool) -> None:
    """The large table into a new folder and into the running server, beside `rethinkdb-restore`."""
    wait_shipped(server)
    with server.connect() as conn:
        row = SYSTEM.table("backups").order_by(r.desc("started")).nth(0).run(conn)
    size, moment = row["bytes"], f"image:{row['images'][0]['image']}"
    place = ("--vault", (folder / "vault").as_uri(), "--data-dir", str(folder / "new"))
    new, made = rewinddb(server, "restore", "--to", moment, *place, remote=False)
    begun = time.monotonic()
    with ServerProcess(folder / "new") as other, other.connect() as conn:
        start_s = time.monotonic() - begun
        assert made["rows"] == DB.table("rows").count().run(conn) == rows
    say("restore, new folder", f"{new.per_s(rows, size)}; served {start_s:.1f} s later")
    drop_rows(server)
    running, _ = rewinddb(server, "restore", "--to", moment, "-i", "bench.rows")
    assert count_rows(server) == rows
    say("restore, running", running.per_s(rows, size))
    if tools:
        drop_rows(server)
        restored = tool(server, ASKED_NICENESS, "rethinkdb-restore", str(folder / "dump.tar.gz"), "-i", "bench.rows")
        assert count_rows(server) == rows
        say("rethinkdb-restore", restored.per_s(rows, size))
        say("", f"new folder: {new.times(restored)}; running server: {running.times(restored)}")


def drop_rows(server: ServerProcess) -> None:
    with server.connect() as conn:
        DB.table_drop("rows").run(conn)


def count_rows(server: ServerProcess) -> int:
    with server.connect() as conn:
        count: int = DB.table("rows").count().run(conn)
        return count


def say(what: str, text: str) -> None:
    click.echo(f"{what:20} {text}")


@click.command()
@click.option("--rows", default=1_000_000, help="Rows of about 1 KB.")
@click.option("--tools/--no-tools", default=True, help="Whether RethinkDB's tools are measured, which takes long.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; 6 KB are needed per row. [temporary]")
def main(rows: int, tools: bool, folder: Path | None) -> None:
    """Measures backups and restores."""
    with tempfile.TemporaryDirectory(dir=folder) as name, ServerProcess(Path(name) / "data") as server:
        place = Path(name)
        rewinddb(server, "vault", "add", "main", (place / "vault").as_uri())
        with server.connect() as conn:
            r.db_create("bench").run(conn)
            DB.table_create("rows").run(conn)
        load(server, rows)
        wait_shipped(server)
        images(server, place, rows, tools)
        point_gets(server, rows)
        dropped_table(server)
        restores(server, place, rows, tools)


if __name__ == "__main__":
    main()
