"""`kill -9` at random moments: what was acknowledged is there, what was not is there once or not at all."""

import shutil
import sys
import threading

import pytest
from rethinkdb import errors, r

from integration.power_cut import cut_power
from wal import record

WRITERS = 4
BATCH = 20


class Writer(threading.Thread):
    """Writes with the official driver until the server is gone, and keeps the books.

    Each writer has a table part of its own (ids begin with its name) and one counter. After a crash at most
    one of its writes is in doubt: the one that it was waiting for.
    """

    def __init__(self, number, life):
        super().__init__(name=f"writer {number}")
        self.number = number
        self.life = life
        self.acknowledged = {}
        self.in_doubt = {}
        self.counted = 0
        self.count_in_doubt = False
        self.failure = None

    def write(self, server):
        self.server = server
        self.start()

    def run(self):
        try:
            with self.server.connect() as conn:
                for step in range(1_000_000):
                    self.step(conn, step)
        except (errors.ReqlDriverError, errors.ReqlAuthError, OSError, EOFError):
            return  # the server is gone, as it should be
        except errors.ReqlError as error:
            self.failure = error

    def step(self, conn, step):
        table = r.db("crash").table("rows")
        size = BATCH if step % 5 == 0 else 1
        rows = {f"{self.life}-{self.number}-{step}-{n}": {"step": step, "n": n, "kind": n % 3} for n in range(size)}
        self.in_doubt = rows
        answer = table.insert([{"id": key, **row} for key, row in rows.items()], durability="hard").run(conn)
        assert answer["inserted"] == size, answer
        self.acknowledged |= rows
        self.in_doubt = {}
        self.count_in_doubt = True
        counter = r.db("crash").table("counters").get(self.number)
        answer = counter.update({"n": r.row["n"] + 1}, durability="hard").run(conn)
        assert answer["replaced"] == 1, answer
        self.counted += 1
        self.count_in_doubt = False


def prepare(conn):
    r.db_create("crash").run(conn)
    r.db("crash").table_create("rows").run(conn)
    r.db("crash").table("rows").index_create("kind").run(conn)
    r.db("crash").table_create("counters").run(conn)
    r.db("crash").table("counters").insert([{"id": n, "n": 0} for n in range(WRITERS)]).run(conn)
    r.db("crash").table("rows").index_wait().run(conn)


def check(conn, writers, known, counts):
    """Holds the database against the books of this life's writers and of all lives before."""
    table = r.db("crash").table("rows")
    table.index_wait().run(conn)
    found = {row.pop("id"): row for row in table.run(conn)}
    for writer in writers:
        assert writer.failure is None
        known |= writer.acknowledged
        if writer.in_doubt:
            there = [key for key in writer.in_doubt if key in found]
            assert len(there) in (0, len(writer.in_doubt)), f"half of one insert survived: {there}"
            known |= {key: writer.in_doubt[key] for key in there}
        n = r.db("crash").table("counters").get(writer.number)["n"].run(conn)
        expected = counts[writer.number] + writer.counted
        assert n in ((expected, expected + 1) if writer.count_in_doubt else (expected,))
        counts[writer.number] = n
    assert found == known
    assert table.count().run(conn) == len(known)
    for kind in range(3):
        indexed = set(table.get_all(kind, index="kind")["id"].run(conn))
        assert indexed == {key for key, row in known.items() if row["kind"] == kind}


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_by_kill_9(start, rng, rounds):
    known, counts = {}, dict.fromkeys(range(WRITERS), 0)
    server = start()
    prepare(server.connect())
    flags = ("--config", str(small_flushes(server.data_dir.parent)))
    server.stop()
    moment = threading.Event()
    for life in range(rounds):
        server = start(*flags)
        writers = [Writer(number, life) for number in range(WRITERS)]
        for writer in writers:
            writer.write(server)
        moment.wait(rng.uniform(0.0, 0.7))
        server.kill()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
        server = start(*flags)
        check(server.connect(), writers, known, counts)
        if rng.random() < 0.5:
            server.kill()  # again, while it may still be building on what it recovered
        else:
            assert server.stop() == 0, server.output
    assert len(known) > rounds


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_when_the_power_goes(start, rng, rounds, tmp_path):
    known, counts = {}, dict.fromkeys(range(WRITERS), 0)
    image, log = tmp_path / "image", tmp_path / "data" / "log"
    command = (sys.executable, "-m", "integration.power_cut", str(image))
    flags = ("--config", str(small_flushes(tmp_path)))
    server = start(*flags, command=command)
    prepare(server.connect())
    server.stop()
    moment = threading.Event()
    for life in range(max(1, rounds // 2)):
        server = start(*flags, command=command)
        writers = [Writer(number, life) for number in range(WRITERS)]
        for writer in writers:
            writer.write(server)
        moment.wait(rng.uniform(0.1, 0.7))
        server.kill()
        for writer in writers:
            writer.join(30)
        cut_power(log, image, rng)
        shutil.rmtree(image)
        shutil.copytree(log, image)
        server = start(*flags, command=command)
        check(server.connect(), writers, known, counts)
        assert server.stop() == 0, server.output
    assert len(known) > rounds


def small_flushes(folder):
    """Settings under which flushes and new segments fall into the crashes."""
    path = folder / "busy.yaml"
    path.write_text("storage: {flush_interval_ms: 150}\nlog: {segment_bytes: 1_048_576, retain_bytes: 0}\n")
    return path


def test_soft_writes_may_be_lost_but_never_in_part(start, rng):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    moment = threading.Event()
    for life in range(3):
        for n in range(50):
            rows = [{"id": f"{life}-{n}-{i}", "v": n} for i in range(10)]
            r.table("t").insert(rows, durability="soft").run(conn)
            assert r.table("t").get(f"{life}-{n}-9").run(conn) is not None, "a soft write has to be visible at once"
        moment.wait(rng.uniform(0, 0.05))
        server.kill()
        server = start()
        conn = server.connect()
        found = set(r.table("t").filter(r.row["id"].match(f"^{life}-"))["id"].run(conn))
        whole = [n for n in range(50) if f"{life}-{n}-0" in found]
        assert whole == list(range(len(whole))), "an earlier write was lost and a later one kept"
        assert found == {f"{life}-{n}-{i}" for n in whole for i in range(10)}


@pytest.mark.timeout(3600)
def test_a_log_cut_anywhere_in_its_last_records_gives_a_prefix(start, rng, rounds, tmp_path):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    server.stop()
    server = start()
    conn = server.connect()
    for n in range(6):
        r.table("t").insert({"id": n, "text": "x" * 40}).run(conn)
    server.kill()
    ends = ends_of_entries(server.data_dir)[-6:]
    cuts = range(ends[2], ends[5] + 1) if rounds >= 200 else sorted(rng.sample(range(ends[2], ends[5] + 1), 8))
    for cut in cuts:
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(server.data_dir, folder)
        zero_behind(folder, cut)
        with start(data_dir=folder) as survivor:
            ids = sorted(r.table("t")["id"].run(survivor.connect()))
            assert ids == list(range(sum(end <= cut for end in ends)))
        shutil.rmtree(folder)


def last_segment(data_dir):
    """The segment that is being written."""
    return max(path for path in (data_dir / "log").glob("*.wal") if not path.name.startswith("spare"))


def ends_of_entries(data_dir):
    """The offsets behind the log entries in the open segment."""
    path = last_segment(data_dir)
    found = record.decode(path.read_bytes(), int(path.name.split("-")[0], 16))
    return [
        offset + record.HEAD_BYTES + len(one.payload)
        for one, offset in zip(found.records, found.offsets, strict=True)
        if one.kind == record.Kind.ENTRY
    ]


def zero_behind(data_dir, cut):
    """What a power cut leaves of a zero-filled segment: the bytes before `cut`, then zeros."""
    path = last_segment(data_dir)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(cut)
        file.truncate(size)
