"""How the cost of an operation grows with the table: python -m benchmarks.growth [--most ROWS] [--plot FILE.svg].

One server and one table with an index, from 10,000 rows on, ten times as many at each step; at each size point gets,
updates, inserts, ranges and index reads of rows all over the table. One rule: the same clients and the same kinds of
query at each size, so that only the table differs. Each is asked once, as its rows come into the cache, and then until
it gets no faster; what the first seconds cost is told beside. A machine is not as fast in one minute as in another, and
a load takes minutes: between its parts a second server loads new tables of the smallest size, so that both had the same
machine. The plot needs matplotlib (`pip install '.[plots]'`).
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from rethinkdb import r

from benchmarks.closed_loop import encode, run
from benchmarks.operations import key
from server.child import ServerProcess

FIRST = 10_000
BATCH = 500
PER_GROUP = 10
LOAD_PARTS = 20
QUERIES = 200_000  # different ones: with ten rows each, two million rows of the largest table
MOST_RUNS = 12
SETTLED = 0.95  # two runs in a row that do not come below so much of the least before
HOLE = "where the rows of a batch go"
TABLE = r.table("rows")


def row(number: int) -> dict[str, Any]:
    """A small row: ten share a group, and are far from each other in the table."""
    return {"id": key(number), "group": number // PER_GROUP, "visits": 0, "text": key(number) * 4}


class Fresh(Sequence[bytes]):
    """Inserts of rows that are not there yet, for as long as somebody asks."""

    def __init__(self, first: int) -> None:
        self._next = first

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, at: Any) -> Any:
        self._next += 1
        return encode(TABLE.insert({**row(self._next), "id": "+" + key(self._next)}))

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self[0]


OPERATIONS: dict[str, Callable[[int], Any]] = {
    "point get": lambda n: TABLE.get(key(n)),
    "update": lambda n: TABLE.get(key(n)).update({"visits": r.row["visits"] + 1}),
    "range of 50": lambda n: TABLE.between(key(n), r.maxval).order_by(index="id").limit(50),
    "index read of 10": lambda n: TABLE.get_all(n // PER_GROUP, index="group"),
}


def create_table(server: ServerProcess) -> None:
    with server.connect() as conn:
        r.table_create("rows").run(conn)
        TABLE.index_create("group").run(conn)
        TABLE.index_wait("group").run(conn)


def fill(server: ServerProcess, first: int, most: int) -> float:
    """Inserts rows [first, most); the server's CPU seconds."""

    class Batches(Sequence[bytes]):
        def __len__(self) -> int:
            return (most - first + BATCH - 1) // BATCH

        def __getitem__(self, at: Any) -> Any:
            if at >= len(self):
                raise IndexError(at)
            begin = first + at * BATCH
            rows = [orjson.dumps(row(number)) for number in range(begin, min(begin + BATCH, most))]
            return before + b",".join(rows) + behind  # rows without arrays are their own ReQL

    before, behind = encode(TABLE.insert([HOLE]), durability="soft").split(b'"%s"' % HOLE.encode())

    bodies = Batches()
    return run(server.port, server.pid, bodies, 2, 0, count=len(bodies)).cpu_s


def load(server: ServerProcess, beside: ServerProcess, first: int, most: int) -> tuple[float, float]:
    """Inserts rows [first, most) in parts, and between them FIRST rows into new tables of `beside`.

    Returns the CPU microseconds of a row in the one and in the others.
    """
    size = max(FIRST, (most - first) // LOAD_PARTS)
    cpu_s, small_us = 0.0, []
    for begin in range(first, most, size):
        create_table(beside)
        small_us.append(fill(beside, 0, FIRST) / FIRST * 1e6)
        with beside.connect() as conn:
            r.table_drop("rows").run(conn)
        cpu_s += fill(server, begin, min(begin + size, most))
    return cpu_s / (most - first) * 1e6, statistics.fmean(small_us)


def measure(server: ServerProcess, rows: int, seconds: float) -> dict[str, tuple[float, float]]:
    """CPU microseconds of each operation on a table of so many rows: of its first seconds, and once they are steady."""
    dice = random.Random(rows)
    asked: dict[str, Sequence[bytes]] = {
        name: [encode(make(dice.randrange(rows))) for _ in range(QUERIES)] for name, make in OPERATIONS.items()
    }
    asked["insert"] = Fresh(rows)
    return {name: settle(server, bodies, seconds) for name, bodies in asked.items()}


def settle(server: ServerProcess, bodies: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """CPU microseconds of a query: in the first run, and the least once two runs have brought no less."""
    first = least = run(server.port, server.pid, bodies, 16, seconds).cpu_us
    if isinstance(bodies, list):
        run(server.port, server.pid, bodies, 16, 0, count=len(bodies))
    in_vain = 0
    for _ in range(MOST_RUNS - 1):
        if isinstance(bodies, list):
            random.shuffle(bodies)  # a run does not come to the last ones
        found = run(server.port, server.pid, bodies, 16, seconds).cpu_us
        in_vain = in_vain + 1 if found > least * SETTLED else 0
        least = min(least, found)
        if in_vain == 2:
            break
    return first, least


def draw(found: dict[int, dict[str, tuple[float, float]]], path: Path) -> None:
    """A plot of cost over rows, both logarithmic; dotted, of the first seconds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    sizes = sorted(found)
    for name in next(iter(found.values())):
        (line,) = axes.plot(sizes, [found[size][name][1] for size in sizes], marker="o", label=name)
        axes.plot(sizes, [found[size][name][0] for size in sizes], linestyle=":", color=line.get_color(), linewidth=1)
    axes.plot([], [], linestyle=":", color="gray", label="in the first seconds")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows in the table")
    axes.set_ylabel("µs of the server's CPU per operation")
    axes.set_ylim(bottom=10)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


@click.command()
@click.option("--most", default=1_000_000, help="Rows of the largest table; 10,000,000 takes half an hour.")
@click.option("--seconds", default=3.0, help="How long each operation is asked.")
@click.option("--cache-bytes", default="auto", help="Memory for cached rows.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the data go; else a temporary folder.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draws the figures into this SVG file.")
def main(most: int, seconds: float, cache_bytes: str, folder: Path | None, plot: Path | None) -> None:
    """Prints a line per size: CPU microseconds of each operation, and in its first seconds."""
    found: dict[int, dict[str, tuple[float, float]]] = {}
    flags = ("--cache-bytes", cache_bytes, "--log-level", "error")
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        server, beside = (stack.enter_context(ServerProcess(data / name, *flags)) for name in ("data", "beside"))
        create_table(server)
        size, there = FIRST, 0
        while size <= most:
            loading, small = load(server, beside, there, size)
            there = size
            found[size] = measure(server, size, seconds)
            costs = "  ".join(f"{name} {steady:.0f} ({first:.0f})" for name, (first, steady) in found[size].items())
            click.echo(f"{size:12,} rows: {costs}  (µs CPU, in the first seconds)")
            click.echo(f"{'':14}     load {loading:.0f}, of new tables in the same minutes {small:.0f}")
            size *= 10
    if plot is not None:
        draw(found, plot)
        click.echo(f"drawn: {plot}")


if __name__ == "__main__":
    main()
