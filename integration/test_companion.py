"""The commands dump, restore, export, import and index-rebuild, and RethinkDB's tools on their archives."""

import base64
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from rethinkdb import r

from model.function_blob import encode_index_function, field_function
from server.child import ROOT

BIN = Path(sys.executable).parent
RAW = {"time_format": "raw", "binary_format": "raw"}
CITIES = ["Oslo", "Rome", "Bonn"]


def command(server, verb, *arguments, cwd, expect=0, data=None, binary=False):
    """Runs a verb of `rewinddb`; -> standard output, standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "server", verb, "-c", f"127.0.0.1:{server.port}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=data,
        capture_output=True,
        timeout=110,
        check=False,
    )
    said = done.stdout if binary else done.stdout.decode()
    errors = done.stderr.decode()
    assert done.returncode == expect, (done.returncode, said, errors)
    return said, errors


def official(server, tool, *arguments, cwd):
    done = subprocess.run(
        [str(BIN / f"rethinkdb-{tool}"), "-c", f"127.0.0.1:{server.port}", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def orders(conn):
    """Two databases with rows and indexes of every kind, a hook, a table with another primary key, an empty one."""
    r.db_create("shop").run(conn)
    r.db("shop").table_create("orders").run(conn)
    r.db("shop").table_create("empty", primary_key="number").run(conn)
    r.db_create("other").run(conn)
    r.db("other").table_create("keyed", primary_key="key").run(conn)
    orders = r.db("shop").table("orders")
    orders.index_create("city").run(conn)
    orders.index_create("tags", multi=True).run(conn)
    orders.index_create("city_and_id", [r.row["city"], r.row["id"]]).run(conn)
    orders.index_create("upper", lambda row: row["city"].upcase()).run(conn)
    orders.index_wait().run(conn)
    rows = [{"id": n, "city": CITIES[n % 3], "tags": [n % 5, "x"], "name": f"näme \n {n}"} for n in range(3000)]
    orders.insert(rows).run(conn)
    kinds = {"when": r.epoch_time(1.5), "raw": r.binary(b"\0\xff" * 200), "deep": {"a": [None, 1.25, {"b": []}]}}
    orders.insert({"id": "kinds", "city": "Oslo", "tags": [], **kinds}).run(conn)
    r.db("other").table("keyed").insert([{"key": [n, "k"], "v": "x" * 5000} for n in range(300)]).run(conn)
    r.db("shop").table("empty").set_write_hook(lambda context, old, new: new.merge({"hooked": True})).run(conn)
    return orders


def contents(conn, database, table):
    """All that a table is: rows, key, indexes, hook."""
    query = r.db(database).table(table)
    key = query.info()["primary_key"].run(conn)
    hook = query.get_write_hook().run(conn, **RAW)
    return {
        "key": key,
        "rows": sorted(query.run(conn, **RAW), key=lambda row: json.dumps(row[key])),
        "indexes": [
            (index["index"], index["multi"], index["geo"], index["query"], index["function"], index["ready"])
            for index in query.index_status().run(conn, **RAW)
        ],
        "hook": hook and hook["function"],
    }


def everything(conn):
    databases = sorted(r.db_list().filter(r.row != "rethinkdb").run(conn))
    return {
        f"{database}.{table}": contents(conn, database, table)
        for database in databases
        for table in sorted(r.db(database).table_list().run(conn))
    }


def drop_all(conn):
    for database in r.db_list().filter(r.row != "rethinkdb").run(conn):
        r.db_drop(database).run(conn)


SUMMARY = "3301 rows exported from 3 tables, with 4 secondary indexes, and 1 hook function"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".tar"])
def test_dump_and_restore_into_an_empty_server(server, conn, orders, tmp_path, suffix):
    before = everything(conn)
    said, errors = command(server, "dump", "-f", f"all{suffix}", cwd=tmp_path)
    assert SUMMARY in said
    assert f"all{suffix}" in said.splitlines()[-1]
    assert "NOTE" not in errors
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"all{suffix}"]
    drop_all(conn)
    said, errors = command(server, "restore", f"all{suffix}", cwd=tmp_path)
    assert "3301 rows imported to 3 tables in " in said
    assert not errors
    assert everything(conn) == before
    assert orders.get_all("Oslo", index="city").count().run(conn) == 1001
    assert orders.get_all("BONN", index="upper").count().run(conn) == 1000


def test_through_pipes(server, conn, orders, tmp_path):
    before = everything(conn)
    archive, errors = command(server, "dump", "-f", "-", cwd=tmp_path, binary=True)
    assert SUMMARY in errors
    drop_all(conn)
    command(server, "restore", "-", cwd=tmp_path, data=archive)
    assert everything(conn) == before
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_rethinkdb_restores_our_archive(server, conn, orders, tmp_path):
    before = everything(conn)
    command(server, "dump", "-f", "ours.tar.gz", cwd=tmp_path)
    drop_all(conn)
    assert "3301 rows imported to 3 tables" in official(server, "restore", "ours.tar.gz", cwd=tmp_path)
    orders.index_wait().run(conn)
    after = everything(conn)
    before["shop.empty"]["hook"] = None  # it forgets hooks of tables without indexes
    assert after == before


@pytest.mark.parametrize("way", ["file", "pipe"])
@pytest.mark.parametrize("form", ["gz", "bz2", "xz", "plain"])
def test_we_restore_archives_of_rethinkdb(server, conn, orders, tmp_path, form, way):
    before = everything(conn)
    official(server, "dump", "-f", "theirs.tar.gz", cwd=tmp_path)
    drop_all(conn)
    archive = tmp_path / "theirs.tar.gz"
    if form != "gz":
        plain = gzip.decompress(archive.read_bytes())
        archive = tmp_path / "theirs"
        with (
            tarfile.open(fileobj=io.BytesIO(plain)) as old,
            tarfile.open(archive, "w:" + form.removeprefix("plain")) as new,
        ):
            for member in old:
                new.addfile(member, old.extractfile(member))
    if way == "file":
        said, errors = command(server, "restore", archive, cwd=tmp_path)
    else:
        said, errors = command(server, "restore", "-", cwd=tmp_path, data=archive.read_bytes())
    assert "3301 rows imported to 3 tables" in said
    assert "has no sums" in errors
    assert everything(conn) == before


def test_json(server, conn, orders, tmp_path):
    said, _ = command(server, "dump", "-f", "a.tar.gz", "--json", cwd=tmp_path)
    made = json.loads(said)
    assert made["bytes"] == (tmp_path / "a.tar.gz").stat().st_size
    expected = {"rows": 3301, "tables": 3, "indexes": 4, "hooks": 1, "is_one_point": True, "warnings": []}
    assert made | expected == made
    said, _ = command(server, "restore", "a.tar.gz", "--json", cwd=tmp_path, expect=1)
    assert "already exist" in json.loads(said)["error"]
    said, _ = command(server, "restore", "a.tar.gz", "--json", "--force", cwd=tmp_path)
    loaded = json.loads(said)
    assert (loaded["rows"], loaded["tables"], loaded["is_verified"]) == (3301, 3, True)


def test_a_part_under_another_name(server, conn, orders, tmp_path):
    before = everything(conn)
    command(server, "dump", "-f", "a.tar.gz", cwd=tmp_path)
    said, _ = command(
        server, "restore", "a.tar.gz", "-i", "shop", "--as", "shop=copy", "--as", "shop.empty=copy.none", cwd=tmp_path
    )
    assert "3001 rows imported to 2 tables" in said
    after = everything(conn)
    assert after["copy.orders"] == before["shop.orders"]
    assert after["copy.none"] == before["shop.empty"]
    assert after.keys() == before.keys() | {"copy.orders", "copy.none"}
    _, errors = command(server, "restore", "a.tar.gz", "-i", "nosuch", cwd=tmp_path, expect=1)
    assert "does not have nosuch" in errors
    _, errors = command(server, "dump", "-f", "b.tar.gz", "-e", "shop.nosuch", cwd=tmp_path, expect=1)
    assert "Table not found: 'shop.nosuch'" in errors
    assert not (tmp_path / "b.tar.gz").exists()


def test_tables_that_exist_need_force(server, conn, orders, tmp_path):
    before = everything(conn)
    command(server, "dump", "-f", "a.tar.gz", cwd=tmp_path)
    orders.get(7).update({"city": "lost"}).run(conn)
    orders.get(8).delete().run(conn)
    orders.index_drop("city").run(conn)
    changed = everything(conn)
    _, errors = command(server, "restore", "a.tar.gz", cwd=tmp_path, expect=1)
    assert "run with --force" in errors and "shop.orders" in errors
    assert everything(conn) == changed
    command(server, "restore", "a.tar.gz", "--force", cwd=tmp_path)
    assert everything(conn) == before


def test_without_indexes_the_hook_comes_back(server, conn, orders, tmp_path):
    before = everything(conn)
    command(server, "dump", "-f", "a.tar.gz", cwd=tmp_path)
    drop_all(conn)
    command(server, "restore", "a.tar.gz", "--no-secondary-indexes", cwd=tmp_path)
    after = everything(conn)
    assert after["shop.orders"]["indexes"] == []
    assert after["shop.empty"]["hook"] == before["shop.empty"]["hook"] is not None


def test_all_tables_are_of_one_point_in_time(server, conn, tmp_path):
    """Writers move one unit from table to table all the time; every dump must see all of them."""
    r.db_create("bank").run(conn)
    names = [f"t{n}" for n in range(6)]
    for name in names:
        r.db("bank").table_create(name).run(conn)
        r.db("bank").table(name).insert([{"id": n, "pad": "x" * 100} for n in range(500)]).run(conn)
    stop = threading.Event()
    writer = server.connect()

    def move():
        turn = 0
        while not stop.is_set():
            row = {"id": f"moved {turn}"}
            for (
                name
            ) in names:  # the row is in the first table, then in two, … then in all: later tables never have more
                r.db("bank").table(name).insert(row).run(writer)
            turn += 1

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for turn in range(5):
            command(server, "dump", "-f", f"{turn}.tar", "-e", "bank", cwd=tmp_path)
    finally:
        stop.set()
        thread.join()
        writer.close()
    for turn in range(5):
        with tarfile.open(tmp_path / f"{turn}.tar") as tar:
            moved = {
                Path(member.name).stem: {
                    row["id"] for row in json.load(tar.extractfile(member)) if isinstance(row["id"], str)
                }
                for member in tar
                if member.name.endswith(".json")
            }
        for earlier, later in pairwise(names):
            assert moved[later] <= moved[earlier]
            assert len(moved[names[0]] - moved[later]) <= 1


def test_a_damaged_or_cut_archive_is_never_called_restored(server, conn, orders, tmp_path):
    command(server, "dump", "-f", "a.tar", cwd=tmp_path)
    archive = (tmp_path / "a.tar").read_bytes()
    place = archive.index(b'"city":"Rome"')
    (tmp_path / "changed.tar").write_bytes(archive[:place] + b'"city":"Roma"' + archive[place + 13 :])
    (tmp_path / "cut.tar").write_bytes(archive[: len(archive) // 2])
    (tmp_path / "short.tar").write_bytes(archive[: archive.rindex(b"manifest.rewinddb") // 512 * 512] + bytes(1024))
    for name, word in (("changed", "not those that were dumped"), ("cut", "cut off"), ("short", "not whole")):
        drop_all(conn)
        said, errors = command(server, "restore", f"{name}.tar", cwd=tmp_path, expect=1)
        assert word in errors, (name, errors)
        assert "imported" not in said


def hand_made(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


BLOB = {
    "$reql_type$": "BINARY",
    "data": base64.b64encode(encode_index_function(field_function("n"))).decode(),
}
BAD_BLOB = {"$reql_type$": "BINARY", "data": "JHJlcWxfaW5kZXhfZnVuY3Rpb24kCQcHBw=="}


def test_old_archives(server, conn, tmp_path):
    """As RethinkDB 1.7 made them: names of indexes only, no hook, rows before their description."""
    hand_made(
        tmp_path / "old.tar.gz",
        [
            ("top/db/t.json", b'[\n{"k": 1},\n{"k": 2}\n]\n'),
            ("top/db/t.info", b'{"primary_key": "k", "indexes": ["n"], "name": "t"}\n'),
            ("top/db/u.json", b'[{"id":1,"n":5}]'),
            (
                "top/db/u.info",
                json.dumps({"primary_key": "id", "indexes": [{"index": "n", "function": BLOB}]}).encode(),
            ),
        ],
    )
    said, errors = command(server, "restore", "old.tar.gz", cwd=tmp_path, expect=2)
    assert "3 rows imported to 2 tables" in said
    assert "The index db.t:n was not restored" in errors
    assert r.db("db").table("t").get(2).run(conn) == {"k": 2}
    assert r.db("db").table("u").get_all(5, index="n").count().run(conn) == 1


@pytest.mark.parametrize(
    "members",
    [
        [],
        [("README", b"hello")],
        [("top/db/t.json", b"[]")],
        [("top/db/t.info", b"{}")],
        [("top/db/t.info", b"{"), ("top/db/t.json", b"[]")],
        [("top/db/t.info", b"{}"), ("other/db/t.json", b"[]")],
        [("top/../t.info", b"{}"), ("top/../t.json", b"[]")],
        [("top/rethinkdb/users.info", b"{}"), ("top/rethinkdb/users.json", b"[]")],
        [("top/db/t.info", b"{}"), ("top/db/t.json", b'[{"id":1}],[57,["evil"]],[1,{}')],
        [("top/db/t.info", b"{}"), ("top/db/t.json", b"[1, 2]")],
        [("top/db/t.info", b"{}"), ("top/db/t.json", b'[{"id":"\xff"}]')],
        [("top/db/t.info", b"{}"), ("top/db/t.json", b'[{"id":' + b'{"a":' * 5000 + b"1" + b"}" * 5001 + b"]")],
        [("top/db/t.info", b"{}"), ("top/db/t.json", b"[]"), ("top/db/t.csv", b"id\n1\n")],
        [
            ("top/db/t.info", json.dumps({"indexes": [{"index": "n", "function": BAD_BLOB}]}).encode()),
            ("top/db/t.json", b"[]"),
        ],
        [("top/db/t.info", json.dumps({"write_hook": {"function": BLOB}}).encode()), ("top/db/t.json", b"[]")],
    ],
)
def test_hostile_archives_are_refused(server, conn, tmp_path, members):
    hand_made(tmp_path / "bad.tar.gz", members)
    said, errors = command(server, "restore", "bad.tar.gz", cwd=tmp_path, expect=1)
    assert "Error" in errors and "Traceback" not in errors
    assert "imported" not in said
    assert "evil" not in r.db_list().run(conn)


def test_export_and_import(server, conn, orders, tmp_path):
    before = everything(conn)
    said, _ = command(server, "export", "-d", "out", cwd=tmp_path)
    assert SUMMARY in said
    drop_all(conn)
    said, errors = command(server, "import", "-d", "out", cwd=tmp_path)
    assert "3301 rows imported to 3 tables" in said and not errors
    assert everything(conn) == before
    drop_all(conn)
    official(server, "import", "-d", "out", cwd=tmp_path)
    orders.index_wait().run(conn)
    assert everything(conn)["shop.orders"] == before["shop.orders"]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_one_table_in_every_form(server, conn, orders, tmp_path, form):
    fields = ["--fields", "id,city,name", "--delimiter", ";"] if form == "csv" else []
    command(server, "export", "-d", "out", "-e", "shop.orders", "--format", form, *fields, cwd=tmp_path)
    flags = ["--delimiter", ";"] if form == "csv" else []
    path = f"out/shop/orders.{form}"
    said, _ = command(server, "import", "-f", path, "--table", "other.copy", *flags, cwd=tmp_path)
    assert "3001 rows imported to 1 table" in said
    copy = contents(conn, "other", "copy")
    if form == "csv":
        assert r.db("other").table("copy").get("7").run(conn) == {"id": "7", "city": "Rome", "name": "näme \n 7"}
    else:
        assert copy == contents(conn, "shop", "orders")


def test_import_of_one_file_with_its_flags(server, conn, tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    command(
        server, "import", "-f", "a.csv", "--table", "db.a", "--no-header", "--custom-header", "x,y", "--pkey", "x",
        "--fields", "x", cwd=tmp_path,
    )  # fmt: skip
    assert sorted(row["x"] for row in r.db("db").table("a").run(conn)) == ["1", "3"]
    (tmp_path / "b.json").write_text(json.dumps([{"n": n} for n in range(10)], indent=1))
    command(server, "import", "-f", "b.json", "--table", "db.b", cwd=tmp_path)
    assert r.db("db").table("b").sum("n").run(conn) == 45
    _, errors = command(server, "import", "-f", "b.json", "--table", "db.b", cwd=tmp_path, expect=1)
    assert "Table 'db.b' already exists" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["dump", "-e", "rethinkdb"],
        ["dump", "-f", "there"],
        ["dump", "-e", "a.b.c"],
        ["restore", "missing.tar.gz"],
        ["restore", "there", "--as", "a"],
        ["export", "--format", "csv"],
        ["export", "--fields", "a"],
        ["export", "-d", "there"],
        ["import"],
        ["import", "-f", "there"],
        ["import", "-f", "there", "--table", "db"],
        ["import", "-f", "there", "--table", "db.t", "--no-header"],
        ["dump", "--clients", "0"],
        ["dump", "--password-file", "missing"],
    ],
)
def test_wrong_flags(server, tmp_path, arguments):
    (tmp_path / "there").write_text("x")
    _, errors = command(server, *arguments, cwd=tmp_path, expect=2)
    assert "Usage" in errors and "Traceback" not in errors


def test_index_rebuild(server, conn, orders, tmp_path):
    before = everything(conn)
    orders.index_create("$reql_temp_index$_left", lambda row: row["id"]).run(conn)
    said, _ = command(server, "index-rebuild", "-r", "shop", "--force", "-n", "2", cwd=tmp_path)
    assert said.startswith("Rebuilding 4 indexes: `shop.orders:city`")
    assert everything(conn) == before
    said, _ = command(server, "index-rebuild", cwd=tmp_path)
    assert said.startswith("Rebuilding 0 indexes")


def test_a_server_that_is_not_there(server, tmp_path):
    server.kill()
    _, errors = command(server, "dump", "-f", "a.tar.gz", cwd=tmp_path, expect=1)
    assert "Unable to connect" in errors
    assert list(tmp_path.glob("a.tar*")) == []


def test_a_server_that_dies_during_a_dump(server, conn, tmp_path):
    """The archive must not appear, whatever moment it is."""
    r.db_create("big").run(conn)
    r.db("big").table_create("t").run(conn)
    for start in range(0, 30000, 1000):
        rows = [{"id": n, "pad": "x" * 1000} for n in range(start, start + 1000)]
        r.db("big").table("t").insert(rows, durability="soft").run(conn)
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "dump", "-c", f"127.0.0.1:{server.port}", "-f", "a.tar.gz"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "a.tar.gz.part").exists() and time.monotonic() < deadline:
        assert process.poll() is None
    server.kill()
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    made = [path.name for path in tmp_path.glob("a.tar*")]
    assert (process.returncode, made) in [(1, []), (0, ["a.tar.gz"])], errors  # 0: the dump was faster


class Cutter:
    """Stands between a command and a server, and cuts each connection after a while."""

    def __init__(self, port, rng, low_bytes, high_bytes):
        self.server_port, self.rng, self.low_bytes, self.high_bytes = port, rng, low_bytes, high_bytes
        self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            ends = client, socket.create_connection(("127.0.0.1", self.server_port))
            left = [self.rng.randrange(self.low_bytes, self.high_bytes)]
            for source, sink in (ends, ends[::-1]):
                threading.Thread(target=self.pump, args=(source, sink, left), daemon=True).start()

    def pump(self, source, sink, left):
        try:
            while data := source.recv(1 << 16):
                left[0] -= len(data)
                if left[0] < 0:
                    self.cuts += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_lost_connections_neither_lose_nor_double_rows(server, conn, rng, tmp_path):
    r.db_create("big").run(conn)
    r.db("big").table_create("t").run(conn)
    for start in range(0, 10000, 1000):
        rows = [{"id": [n, "key"], "pad": "x" * 600} for n in range(start, start + 1000)]
        r.db("big").table("t").insert(rows, durability="soft").run(conn)
    before = everything(conn)
    cutter = Cutter(server.port, rng, 1_200_000, 3_000_000)
    command(cutter, "dump", "-f", "a.tar.gz", cwd=tmp_path)
    assert cutter.cuts >= 2
    drop_all(conn)
    # More than a batch, and less than an eighth of the rows: each of the eight connections is cut.
    cutter = Cutter(server.port, rng, 100_000, 400_000)
    said, _ = command(cutter, "restore", "a.tar.gz", "--batch-size", "100", cwd=tmp_path)
    assert "10000 rows imported to 1 table" in said
    assert cutter.cuts >= 2
    assert everything(conn) == before


def test_interrupting_a_dump_leaves_nothing(server, conn, orders, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "dump", "-c", f"127.0.0.1:{server.port}", "-f", "-"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.read(1) == b"\x1f"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors


def test_restore_is_one_batch_at_a_time_too(server, conn, orders, tmp_path):
    """The smallest batches and one connection give the same as the defaults."""
    before = everything(conn)
    command(server, "dump", "-f", "a.tar.gz", cwd=tmp_path)
    drop_all(conn)
    flags = ["--clients", "1", "--batch-size", "7", "--hard-durability"]
    command(server, "restore", "a.tar.gz", *flags, cwd=tmp_path)
    assert everything(conn) == before
