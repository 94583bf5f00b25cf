"""What one row costs in storage: python -m benchmarks.storage_engine [--rows N] [--row-bytes N].

One rule: CPU time of the calling thread, the best of three rounds, so that a busy machine spoils little; the
ratio to the engine in memory shows what is RocksDB's part.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import click

from model.effect import Effect, Kind, encode
from storage.bulk import BulkLoad
from storage.engine import Engine, MemoryEngine, WriteSet
from storage.head import Head
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine

ROUNDS = 3
SAMPLE = 10_000
TABLE = 1


def measure(work: Callable[[], int]) -> float:
    """Microseconds of CPU per item; `work` says how many items it did."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time()
        items = work()
        best = min(best, (time.thread_time() - begun) / items * 1e6)
    return best


class Bench:
    """One engine, filled with rows in random key order."""

    def __init__(self, engine: Engine, rows: int, row_bytes: int) -> None:
        dice = Random(7)
        self.engine = engine
        self.machine = Machine(engine)
        self.store = self.machine.store
        self.rows = rows
        self.keys = [b"\1" + dice.randbytes(18).hex().encode() + b"\0" for _ in range(rows)]
        self.row = b'{"id":"%s","text":"%s"}' % (self.keys[0][1:-1], b"x" * max(0, row_bytes - 60))
        self.sample = [dice.choice(self.keys) for _ in range(SAMPLE)]
        self.absent = [key + b"x" for key in self.sample]
        self.writes = 0
        made: list[Effect] = [(Kind.CREATE_DATABASE, "d", "bench")]
        made.append((Kind.CREATE_TABLE, TABLE, "u", "d", "t", "id", {}))
        self.machine.apply([(1, encode(made, 0))])

    def changed(self) -> bytes:
        self.writes += 1
        return self.row[:-2] + b'%d"}' % self.writes

    def apply(self, effects: list[Effect], per_entry: int, per_call: int) -> int:
        """Applies put effects, so many per entry and so many entries per call."""
        first = self.machine.applied_index + 1
        payloads = [encode(effects[at : at + per_entry], 0) for at in range(0, len(effects), per_entry)]
        entries = list(enumerate(payloads, first))
        for at in range(0, len(entries), per_call):
            self.machine.apply(entries[at : at + per_call])
        return len(effects)

    def puts(self) -> list[Effect]:
        return [(Kind.PUT_ROW, TABLE, key, self.changed()) for key in self.sample]

    def fill(self) -> int:
        return self.apply([(Kind.PUT_ROW, TABLE, key, self.row) for key in self.keys], 1, 64)

    def get(self) -> int:
        get = self.store.get
        for key in self.sample:
            get(TABLE, key)
        return SAMPLE

    def miss(self) -> int:
        get = self.store.get
        for key in self.absent:
            get(TABLE, key)
        return SAMPLE

    def get_many(self) -> int:
        for at in range(0, SAMPLE, 100):
            self.store.get_many(TABLE, self.sample[at : at + 100])
        return SAMPLE

    def head_get(self) -> int:
        head = Head(self.store)
        head.stage(self.machine.applied_index + 1, [(Kind.PUT_ROW, TABLE, self.keys[0], self.row)])
        for key in self.sample:
            head.get(TABLE, key)
        return SAMPLE

    def scan(self, limit: int, reverse: bool = False) -> int:
        low: bytes | None = None
        high: bytes | None = None
        seen = 0
        while True:
            keys, _ = self.store.scan_chunk(TABLE, low, high, limit, reverse)
            seen += len(keys)
            if len(keys) < limit:
                return seen
            if reverse:
                high = keys[-1]
            else:
                low = keys[-1] + b"\0"

    def short_scan(self) -> int:
        for key in self.sample:
            self.store.scan_chunk(TABLE, key, key + b"\0", 10)
        return SAMPLE

    def view_scan(self) -> int:
        view = self.store.view()
        seen = len(view.scan_chunk(TABLE, None, None, self.rows)[0])
        view.close()
        return seen

    def raw_write(self) -> int:
        changes = WriteSet()
        for key in self.keys[:900]:
            changes.put(b"z" + key, self.row)
        self.engine.write(changes, self.machine.applied_index)
        return len(changes.rows)

    def cases(self) -> Iterator[tuple[str, Callable[[], int]]]:
        yield "apply: 1 row an entry, 64 entries a call", lambda: self.apply(self.puts(), 1, 64)
        yield "apply: 1 row an entry, 1 entry a call", lambda: self.apply(self.puts(), 1, 1)
        yield "apply: 200 rows an entry", lambda: self.apply(self.puts(), 200, 1)
        yield "write of 900 rows", self.raw_write
        yield "get", self.get
        yield "get, no such row", self.miss
        yield "get 100 at once", self.get_many
        yield "get through the head", self.head_get
        yield "range of one row", self.short_scan
        yield "scan, 1000 a chunk", lambda: self.scan(1000)
        yield "scan, 50 a chunk", lambda: self.scan(50)
        yield "scan in reverse, 1000 a chunk", lambda: self.scan(1000, reverse=True)
        yield "scan of a view", self.view_scan


def images(bench: Bench, folder: Path) -> Iterator[tuple[str, float]]:
    """Checkpoint, image and bulk load of the engine on disk."""
    begun = time.perf_counter()
    bench.machine.checkpoint(folder / "copy")
    yield "checkpoint with its flush, ms", (time.perf_counter() - begun) * 1e3
    begun = time.perf_counter()
    image = Image(folder / "copy")
    yield "opening an image, ms", (time.perf_counter() - begun) * 1e3
    yield "image, µs a row", measure(lambda: sum(len(block.rows) for block in image.all_blocks()))
    loads = iter(range(ROUNDS))

    def load() -> int:
        loading = BulkLoad(folder / f"load{next(loads)}")
        for block in image.all_blocks():
            loading.add(*block)
        loading.finish(image.catalog, image.applied_index)
        return bench.rows

    yield "image and bulk load, µs a row", measure(load)
    image.close()


@click.command()
@click.option("--rows", default=100_000)
@click.option("--row-bytes", default=300)
def main(rows: int, row_bytes: int) -> None:
    """Prints µs of CPU per row, on disk and in memory, and their ratio."""
    folder = Path(tempfile.mkdtemp(prefix="bench-storage-"))
    disk = Bench(RocksEngine(folder / "db"), rows, row_bytes)
    memory = Bench(MemoryEngine(), rows, row_bytes)
    click.echo(f"{rows} rows of {row_bytes} bytes; µs of CPU a row     on disk  in memory   ratio")
    filled = measure(disk.fill), measure(memory.fill)
    click.echo(f"{'apply: filling, then over it':46}{filled[0]:10.2f}{filled[1]:10.2f}{filled[0] / filled[1]:8.1f}")
    disk.machine.flush()
    for (name, on_disk), (_, in_memory) in zip(disk.cases(), memory.cases(), strict=True):
        one, other = measure(on_disk), measure(in_memory)
        click.echo(f"{name:46}{one:10.2f}{other:10.2f}{one / other:8.1f}")
    for name, figure in images(disk, folder):
        click.echo(f"{name:46}{figure:10.2f}")
    disk.engine.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
