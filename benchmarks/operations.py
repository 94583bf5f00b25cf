"""What each kind of query costs the server: python -m benchmarks.operations [--rows N] [--only NAME,...].

One server, loaded once, then one kind of query after the other from clients that ask as fast as they are answered.
One rule: what counts is the server's CPU time per unit, since clients and server share the machine's cores; the median
of some rounds is shown. Rows are 1.1 KB. docs/performance.md says how the figures compare.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rethinkdb import r

from benchmarks.closed_loop import Cost, encode, run
from server.child import ServerProcess

BATCH = 200
CITIES = 50
PER_REF = 10
TABLE = r.table("docs")


def key(number: int) -> str:
    """Keys that are spread over the table in no order."""
    return f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}"


def row(number: int, dice: random.Random) -> dict[str, Any]:
    """A row of ten texts and some fields to ask for."""
    return {
        "id": key(number),
        "age": 18 + number % 60,
        "city": f"city {number % CITIES}",
        "ref": number // PER_REF,
        "visits": 0,
        **{f"field{at}": dice.randbytes(50).hex() for at in range(10)},
    }


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of query. units: how many rows one answer stands for; connections: how many ask at the same time."""

    name: str
    bodies: Callable[[int], Sequence[bytes]]
    unit: str = "query"
    units: Callable[[int], int] = lambda rows: 1
    connections: int = 64


def some(rows: int, make: Callable[[int], Any], count: int = 2000) -> list[bytes]:
    dice = random.Random(1)
    return [encode(make(dice.randrange(rows))) for _ in range(count)]


def whole(name: str, term: Any) -> Operation:
    """A query that looks at every row, asked by one client."""
    return Operation(name, lambda rows: [encode(term)], "row", lambda rows: rows, connections=1)


def inserts(rows: int) -> Sequence[bytes]:
    class Fresh(list[bytes]):
        """New rows for as long as somebody asks."""

        def __iter__(self) -> Iterator[bytes]:
            dice = random.Random()
            made = [row(0, dice) for _ in range(200)]
            while True:
                for document in made:
                    document["id"] = dice.randbytes(12).hex()
                    yield encode(r.table("inserts").insert(document))

    return Fresh()


OPERATIONS = [
    Operation("point get, 64 clients", lambda rows: some(rows, lambda n: TABLE.get(key(n))), "get"),
    Operation("point get, one client", lambda rows: some(rows, lambda n: TABLE.get(key(n))), "get", connections=1),
    Operation("single insert, 64 clients", inserts, "insert"),
    Operation("single insert, one client", inserts, "insert", connections=1),
    Operation(
        "update of a field, 64 clients",
        lambda rows: some(rows, lambda n: TABLE.get(key(n)).update({"visits": r.row["visits"] + 1})),
        "update",
    ),
    Operation(
        "64 clients update one row",
        lambda rows: [encode(TABLE.get(key(0)).update({"visits": r.row["visits"] + 1}))],
        "update",
    ),
    Operation(
        "range of 50 rows",
        lambda rows: some(rows, lambda n: TABLE.between(key(n), r.maxval).order_by(index="id").limit(50)),
    ),
    Operation(
        "get_all by an index, 10 rows",
        lambda rows: some(rows, lambda n: TABLE.get_all(n // PER_REF, index="ref")),
    ),
    whole("filter", TABLE.filter((r.row["age"] > 30) & (r.row["city"] == "city 7")).count()),
    whole("map and sum", TABLE.map(lambda each: each["field0"].split("a").count()).sum()),
    whole("group and count", TABLE.group("city").count()),
    whole("group and sum", TABLE.group("city").sum("age")),
    whole("order_by and limit, no index", TABLE.order_by("age").limit(10)),
    whole("the whole table", TABLE),
    Operation("distinct of an index", lambda rows: [encode(TABLE.distinct(index="city"))], connections=1),
]


def load(server: ServerProcess, rows: int) -> Cost:
    """Fills the table in batches, four at a time."""
    dice = random.Random(7)
    bodies = [
        encode(TABLE.insert([row(number, dice) for number in range(first, min(first + BATCH, rows))]))
        for first in range(0, rows, BATCH)
    ]
    return run(server.port, server.pid, bodies, 4, 0, count=len(bodies))


@click.command()
@click.option("--rows", default=50_000, help="Rows of the table.")
@click.option("--seconds", default=2.0, help="How long each kind of query is asked in a round.")
@click.option("--rounds", default=3)
@click.option("--only", default="", help="Names of operations, or parts of them, separated by commas.")
def main(rows: int, seconds: float, rounds: int, only: str) -> None:
    """Prints a line per kind of query: the server's CPU time per unit, and units per second."""
    wanted = [part for part in only.split(",") if part]
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "data", "--log-level", "error") as server,
    ):
        with server.connect() as conn:
            r.table_create("docs").run(conn)
            r.table_create("inserts").run(conn)
            cost = load(server, rows)
            tell("batch of 200 inserts", "row", cost.cpu_us / BATCH, cost.per_second * BATCH, cost)
            for name in ("city", "ref"):
                TABLE.index_create(name).run(conn)
            TABLE.index_wait().run(conn)
        for operation in OPERATIONS:
            if wanted and not any(part in operation.name for part in wanted):
                continue
            bodies, units = operation.bodies(rows), operation.units(rows)
            costs = [run(server.port, server.pid, bodies, operation.connections, seconds) for _ in range(rounds)]
            cost = sorted(costs, key=lambda cost: cost.cpu_us)[rounds // 2]
            per_second = statistics.median(cost.per_second for cost in costs)
            tell(operation.name, operation.unit, cost.cpu_us / units, per_second * units, cost)


def tell(name: str, unit: str, cpu_us: float, per_second: float, cost: Cost) -> None:
    times = f"p50 {cost.p50_ms:.2f} p99 {cost.p99_ms:.2f} ms"
    click.echo(f"{name:32} {cpu_us:9.2f} µs CPU per {unit:7} {per_second:10,.0f}/s   {times}")


if __name__ == "__main__":
    main()
