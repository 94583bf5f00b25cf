"""Moments brought back by real processes: into new folders, into running servers, and served as they were."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rethinkdb import r
from rethinkdb.errors import ReqlOpFailedError

from integration.backup_kit import stuck
from server.child import ROOT, ServerProcess

NODES = 20
MONEY = 100


def command(*arguments, expect=0, cwd=None):
    """Runs a verb of `rewinddb`; -> (standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *map(str, arguments)],
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def wait_for(condition, what, deadline_s=30):
    until = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.05)
    return found


def vaults(conn):
    return list(r.db("rethinkdb").table("vaults").run(conn))


def add_vault(conn, folder, **more):
    row = {"id": "main", "name": "main", "url": folder.as_uri(), **more}
    assert r.db("rethinkdb").table("vaults").insert(row).run(conn)["inserted"] == 1
    wait_for(lambda: vaults(conn)[0]["state"] == "ok", "the vault is taken")


def shipped_all(conn):
    """Waits until the vault has all of the log as it is now."""
    views = r.db("rethinkdb").table("views")
    views.insert({"id": "now"}).run(conn)
    index = views.get("now")["log_index"].run(conn)
    views.get("now").delete().run(conn)
    wait_for(lambda: (vaults(conn)[0]["shipped_index"] or 0) >= index, "the log is shipped")


def moment(conn):
    """This moment as text; what is written from here on is surely later than it, by the server's clock."""
    then = r.now().to_iso8601().run(conn)
    wait_for(lambda: (r.now() > r.iso8601(then) + 0.002).run(conn), "the clock goes on")
    return then


def job(conn, table, **fields):
    answer = r.db("rethinkdb").table(table).insert({**fields, "wait": True}, return_changes=True).run(conn)
    assert answer["errors"] == 0, answer["first_error"]
    return answer["changes"][0]["new_val"]


@pytest.fixture
def server(start):
    """A server of the test's own: vaults, and what the log holds, are what these tests are about."""
    return start()


@pytest.fixture
def shop(conn, tmp_path):
    """A database with a ring of rows, an index, a hook and a second table, and a backup of it."""
    add_vault(conn, tmp_path / "vault")
    r.db_create("shop").run(conn)
    shop = r.db("shop")
    shop.table_create("ring").run(conn)
    rows = [{"id": at, "next": (at + 1) % NODES, "money": MONEY} for at in range(NODES)]
    shop.table("ring").insert(rows).run(conn)
    shop.table("ring").index_create("money").run(conn)
    shop.table_create("notes", primary_key="name").run(conn)
    shop.table("notes").insert([{"name": f"n{at}", "at": at} for at in range(300)]).run(conn)
    shop.table("notes").set_write_hook(
        lambda context, old, new: r.branch(new.eq(None), new, new.merge({"hooked": True}))
    ).run(conn)
    shop.table("ring").index_wait().run(conn)
    job(conn, "backups")
    return shop


def transfer(shop, conn, dice):
    """One entry of the log: the links of three nodes turn, and money goes from one to another."""
    first = dice.randrange(NODES)
    rows = {row["id"]: row for row in shop.table("ring").run(conn)}
    second = rows[first]["next"]
    third = rows[second]["next"]
    rows[first]["next"], rows[second]["next"], rows[third]["next"] = third, rows[third]["next"], second
    amount = dice.randrange(50)
    rows[first]["money"] -= amount
    rows[third]["money"] += amount
    changed = [rows[first], rows[second], rows[third]]
    answer = shop.table("ring").insert(changed, conflict="replace").run(conn)
    assert answer["errors"] == 0


def assert_ring(rows):
    found = {row["id"]: row for row in rows}
    assert sum(row["money"] for row in found.values()) == NODES * MONEY
    at, seen = 0, set()
    while at not in seen:
        seen.add(at)
        at = found[at]["next"]
    assert (at, len(seen)) == (0, NODES)


def newest_index(vault):
    document = json.loads(command("backups", "--vault", vault, "--json")[0])
    [part] = document["vaults"][0]["restorable"]
    return part["first_log_index"], part["last_log_index"]


def test_any_moment_becomes_a_new_cluster(start, server, conn, shop, tmp_path, rng):
    dice = random.Random(rng.random())
    for _ in range(40):
        transfer(shop, conn, dice)
    before = {row["id"]: row for row in shop.table("ring").run(conn)}
    shop.table("notes").get("n5").update({"at": "later"}).run(conn)
    shop.table_drop("ring").run(conn)
    shipped_all(conn)
    vault = (tmp_path / "vault").as_uri()
    first, last = newest_index(vault)
    old_cluster = json.loads((server.data_dir / "identity.json").read_text())["cluster_id"]
    moments = [f"index:{dice.randrange(first, last - 10)}", "before-drop:shop.ring", "latest"]
    for number, moment in enumerate(moments):
        folder = tmp_path / f"restored{number}"
        planned, _ = command("restore", "--to", moment, "--vault", vault, "--data-dir", folder, "--dry-run")
        assert "install image" in planned and not folder.exists()
        said, _ = command("restore", "--to", moment, "--vault", vault, "--data-dir", folder)
        assert said.rstrip().endswith("restore successful")
        restored = start(data_dir=folder)
        c = restored.connect()
        assert json.loads((folder / "identity.json").read_text())["cluster_id"] != old_cluster
        assert list(r.db("rethinkdb").table("vaults").run(c)) == []
        names = r.db("shop").table_list().run(c)
        if moment == "latest":
            assert names == ["notes"]
            assert r.db("shop").table("notes").get("n5").run(c) == {"name": "n5", "at": "later", "hooked": True}
        else:
            assert names == ["notes", "ring"]
            rows = list(r.db("shop").table("ring").run(c))
            assert_ring(rows)
            r.db("shop").table("ring").index_wait().run(c)
            assert r.db("shop").table("ring").order_by(index="money").count().run(c) == NODES
        if moment.startswith("before"):
            assert {row["id"]: row for row in rows} == before
        r.db("shop").table("notes").insert({"name": "new"}).run(c)
        assert r.db("shop").table("notes").get("new").run(c) == {"name": "new", "hooked": True}
        restored.kill()
    _, why = command("restore", "--to", "latest", "--vault", vault, "--data-dir", folder, expect=2)
    assert "not an empty folder" in why
    assert not list(tmp_path.glob("*.restoring"))


def test_restores_that_are_killed_leave_nothing_and_can_be_repeated(server, conn, shop, tmp_path, rng):
    rows = [{"name": f"m{at}", "text": rng.randbytes(300).hex()} for at in range(8000)]
    for at in range(0, len(rows), 400):
        shop.table("notes").insert(rows[at : at + 400], durability="soft").run(conn)
    job(conn, "backups")
    shipped_all(conn)
    vault, folder = (tmp_path / "vault").as_uri(), tmp_path / "restored"
    flags = [sys.executable, "-m", "server", "restore", "--to", "latest", "--vault", vault, "--data-dir", str(folder)]
    killed, building = 0, tmp_path / "restored.restoring"
    for attempt in range(6):  # the first is killed as soon as it has begun, the others later and later
        process = subprocess.Popen(flags, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda p=process: building.exists() or p.poll() is not None, "the restore begins")
        time.sleep(rng.random() * 0.1 * attempt)
        process.kill()
        process.wait()
        if folder.exists():
            break
        killed += 1
    if not folder.exists():
        command("restore", "--to", "latest", "--vault", vault, "--data-dir", folder)
    assert killed
    assert not (tmp_path / "restored.restoring").exists()
    with ServerProcess(folder) as restored:
        assert r.db("shop").table("notes").count().run(restored.connect()) == 8300


def test_a_dropped_table_comes_back_while_others_write(conn, server, shop, tmp_path, rng):
    connect = server.connect
    dice = random.Random(rng.random())
    for _ in range(10):
        transfer(shop, conn, dice)
    lost = {row["id"]: row for row in shop.table("ring").run(conn)}
    uuid = shop.table("ring").info()["id"].run(conn)
    shop.table_drop("ring").run(conn)
    ended, slowest, written = threading.Event(), [0.0], [0]

    def write():
        mine = connect()
        while not ended.is_set():
            began = time.monotonic()
            shop.table("notes").get("n1").update({"at": written[0]}).run(mine)
            slowest[0] = max(slowest[0], time.monotonic() - began)
            written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    said, _ = command("undrop", "shop.ring", "-c", f"localhost:{server.port}")
    ended.set()
    writer.join()
    assert "restore successful" in said
    assert {row["id"]: row for row in shop.table("ring").run(conn)} == lost
    assert shop.table("ring").index_status().run(conn)[0]["ready"]
    assert shop.table("ring").info()["id"].run(conn) == uuid
    assert written[0] > 10
    assert shop.table("notes").get("n1")["at"].run(conn) == written[0] - 1
    assert r.db_list().run(conn) == ["rethinkdb", "shop", "test"]
    events = list(r.db("rethinkdb").table("backup_log").order_by("id")["event"].run(conn))
    assert events[-1] == "restore successful"


def test_a_drop_is_undone_from_the_log_alone(conn, server):
    r.table_create("fresh").run(conn)
    r.table("fresh").insert([{"id": at} for at in range(50)]).run(conn)
    r.table("fresh").get(7).update({"seven": True}).run(conn)
    r.db_drop("test").run(conn)
    said, _ = command("undrop", "test", "-c", f"localhost:{server.port}")
    assert "50 rows" in said
    assert r.table("fresh").get(7).run(conn) == {"id": 7, "seven": True}
    assert r.table("fresh").count().run(conn) == 50


def test_restores_under_other_names_of_single_documents_and_in_place(conn, server, shop):
    port = f"localhost:{server.port}"
    shipped_all(conn)
    then = moment(conn)
    shop.table("notes").get("n1").delete().run(conn)
    shop.table("notes").get("n2").update({"at": "wrong"}).run(conn)
    restore = ["restore", "-c", port, "--to"]
    command(*restore, then, "-i", "shop", "--db-suffix", "_old")
    assert r.db("shop_old").table("notes").count().run(conn) == 300
    assert r.db("shop_old").table("notes").get_write_hook().run(conn)["query"]
    command(*restore, then, "-i", "shop.notes", "--as", "shop.notes=archive.notes_then")
    assert r.db("archive").table("notes_then").get("n2")["at"].run(conn) == 2
    said, _ = command(*restore, then, "-i", "shop.notes", "--key", "n2", "--key", "nobody")
    assert 'no document "nobody"' in said
    assert shop.table("notes").get("n2")["at"].run(conn) == 2
    assert shop.table("notes").get("n1").run(conn) is None
    _, why = command(*restore, then, "-i", "shop.notes", expect=1)
    assert "is there already" in why
    command(*restore, then, "-i", "shop.notes", "--replace")
    assert shop.table("notes").count().run(conn) == 300
    said, _ = command(*restore, then, "-i", "shop.notes", "--replace", "--dry-run", "--json")
    assert json.loads(said)["restored"] == ["shop.notes"]
    for wrong, why in (
        (["2026-03-01 12:00"], "no time zone"),
        (["latest", "-i", "shop.nothing"], "no table shop.nothing"),
        (["index:999999"], "is not there"),
        (["before-drop:shop.ring"], "does not tell of a drop"),
    ):
        _, said = command(*restore, *wrong, expect=2 if "zone" in why else 1)
        assert why in said


def test_a_cancelled_or_crashed_restore_leaves_nothing(start, tmp_path):
    server = start()
    conn = server.connect()
    add_vault(conn, tmp_path / "vault")
    r.table_create("big").run(conn)
    for at in range(0, 12_000, 400):
        rows = [{"id": n, "text": "x" * 400} for n in range(at, at + 400)]
        r.table("big").insert(rows, durability="soft").run(conn)
    job(conn, "backups")
    asked = {"id": "one", "to": "latest", "as": {"test.big": "test.copy"}}

    restores = r.db("rethinkdb").table("restores")

    def begins_to_write():
        return [name for name in r.db_list().run(conn) if name.startswith("restoring_")]

    def has_written(asked_id):
        return (restores.get(asked_id)["rows"] > 0).default(False).run(conn) and begins_to_write()

    with stuck(tmp_path / "vault"):
        restores.insert(asked).run(conn)
        wait_for(lambda: has_written("one"), "rows are being written")
        restores.get("one").delete().run(conn)
        wait_for(lambda: not begins_to_write(), "nothing is left")
        assert r.table_list().run(conn) == ["big"]
        restores.insert({**asked, "id": "two"}).run(conn)
        wait_for(lambda: has_written("two"), "rows are being written")
        server.kill()
    server = start()
    conn = server.connect()
    wait_for(lambda: not begins_to_write(), "what the crash left is dropped")
    assert r.table_list().run(conn) == ["big"]
    row = wait_for(lambda: (row := restores.get("two").run(conn))["state"] == "failed" and row, "it is told")
    assert "stopped before it was done" in row["error"]
    job(conn, "restores", **{**asked, "id": "three"})
    assert r.table("copy").count().run(conn) == 12_000
    assert not list((server.data_dir / "backup").glob("restore-*"))


def test_the_past_is_served_and_cannot_be_changed(conn, shop, tmp_path):
    vault = (tmp_path / "vault").as_uri()
    then = moment(conn)
    shop.table("notes").delete().run(conn)
    shipped_all(conn)
    flags = ["at", then, "--vault", vault, "--driver-port", "0", "--temp-dir", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "server", *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in process.stdout if (found := re.search(r"driver .* port (\d+)", line)))
        past = r.connect(port=port)
        assert shop.table("notes").count().run(past) == 300
        assert shop.table("ring").order_by(index="money").count().run(past) == NODES
        for write in (
            shop.table("notes").insert({"name": "x"}),
            shop.table("notes").get("n1").update({"at": 0}),
            shop.table_drop("notes"),
            r.db_create("other"),
            shop.table("ring").index_drop("money"),
        ):
            with pytest.raises(ReqlOpFailedError, match="shows the past"):
                write.run(past)
        assert shop.table("notes").count().run(past) == 300
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not list(tmp_path.glob("rewinddb-at-*"))


def test_versions_and_differences(conn, server, shop, tmp_path):
    port, vault = f"localhost:{server.port}", (tmp_path / "vault").as_uri()
    then = moment(conn)
    shop.table("notes").get("n3").update({"at": "changed"}).run(conn)
    shop.table("notes").get("n3").delete().run(conn)
    shop.table("notes").insert({"name": "n1000"}).run(conn)
    found = json.loads(command("history", "shop.notes", "n3", "-c", port, "--json")[0])
    assert [version["change"] for version in found["versions"]] == ["created", "changed", "deleted"]
    assert [version["row"] and version["row"]["at"] for version in found["versions"]] == [3, "changed", None]
    shipped_all(conn)
    told = json.loads(command("history", "shop.notes", "n3", "--vault", vault, "--json")[0])
    assert [version["log_index"] for version in told["versions"]][1:] == [
        version["log_index"] for version in found["versions"]
    ][1:]
    here = json.loads(command("diff", "shop", "--from", then, "--to", "latest", "--vault", vault, "--json")[0])
    [table] = here["tables"]
    assert (table["after"], table["inserted"], table["deleted"], table["changed"]) == ("shop.notes", 1, 1, 0)
    assert table["keys"] == [{"key": "n1000", "change": "inserted"}, {"key": "n3", "change": "deleted"}]
    said, _ = command("diff", "--from", then, "--to", "latest", "-c", port)
    assert "shop.notes: 1 inserted, 1 deleted, 0 changed" in said


def test_a_table_that_came_back_has_a_past_as_any_other(start, server, conn, shop, tmp_path):
    """Its rows are in the log packed: every reader of the log has to see them, at every moment on the way."""
    port, vault = f"localhost:{server.port}", (tmp_path / "vault").as_uri()
    then = moment(conn)
    command("restore", "--to", then, "-c", port, "-i", "shop.notes", "--as", "shop.notes=shop.copy")
    restored = moment(conn)
    shop.table("copy").get("n3").update({"at": "changed"}).run(conn)
    shop.table("copy").get("n4").delete().run(conn)
    told = json.loads(command("log", "show", "--data-dir", server.data_dir, "--json")[0])
    puts = [line for line in told if line["kind"] == "put_row"]
    made, packed, changed = (line for line in puts if line["key"] == "n3")
    assert (made["table"], packed["table"][:10], changed["table"]) == ("shop.notes", "restoring_", "shop.copy")
    created = packed["index"]
    assert sum(line["index"] == created for line in puts) == 300

    shipped_all(conn)
    for source in (("-c", port), ("--vault", vault)):
        found = json.loads(command("history", "shop.copy", "n3", *source, "--json")[0])["versions"]
        assert [(version["change"], version["row"]["at"]) for version in found] == [
            ("created", 3),
            ("changed", "changed"),
        ]
        assert found[0]["log_index"] == created
    here = json.loads(command("diff", "shop", "--from", then, "--to", restored, "--vault", vault, "--json")[0])
    [table] = here["tables"]
    assert (table["after"], table["inserted"], table["deleted"]) == ("shop.copy", 300, 0)

    whole = {row["name"]: row for row in shop.table("copy").run(conn)}
    assert len(whole) == 299 and whole["n3"]["at"] == "changed"
    for at, (words, names) in enumerate(
        [(f"index:{created}", ["notes", "ring"]), ("latest", ["copy", "notes", "ring"])]
    ):
        folder = tmp_path / f"then{at}"
        command("restore", "--to", words, "--vault", vault, "--data-dir", folder)
        with ServerProcess(folder) as other:
            c = other.connect()
            wait_for(lambda c=c: r.db_list().run(c) == ["rethinkdb", "shop", "test"], "what was half done is dropped")
            assert r.db("shop").table_list().run(c) == names
            if "copy" in names:
                assert {row["name"]: row for row in r.db("shop").table("copy").run(c)} == whole

    server.kill()
    server = start()
    conn = server.connect()
    assert {row["name"]: row for row in r.db("shop").table("copy").run(conn)} == whole
    r.db("shop").table_drop("copy").run(conn)
    command("undrop", "shop.copy", "-c", f"localhost:{server.port}")
    assert {row["name"]: row for row in r.db("shop").table("copy").run(conn)} == whole


def test_a_moment_becomes_an_archive_for_both_tools(conn, server, shop, tmp_path):
    r.db("rethinkdb").table("users").insert({"id": "eve", "password": "secret"}).run(conn)
    r.db("shop").grant("eve", {"read": True}).run(conn)
    then = moment(conn)
    shop.table("notes").delete().run(conn)
    shipped_all(conn)
    archive, vault = tmp_path / "then.tar.gz", (tmp_path / "vault").as_uri()
    said, _ = command("backups", "export", "--vault", vault, "--to", then, "-f", archive)
    assert f"{300 + NODES} rows exported from 2 tables, with 1 secondary index, and 1 hook function" in said
    r.db_drop("shop").run(conn)
    r.db("rethinkdb").table("users").get("eve").delete().run(conn)
    port = f"localhost:{server.port}"
    command("restore", archive, "-c", port)
    assert shop.table("notes").count().run(conn) == 300
    assert shop.table("notes").get_write_hook().run(conn)["query"]
    assert shop.table("ring").order_by(index="money").count().run(conn) == NODES
    with server.connect(user="eve", password="secret") as eve:
        assert shop.table("ring").count().run(eve) == NODES
    r.db_drop("shop").run(conn)
    tool = [str(Path(sys.executable).parent / "rethinkdb-restore"), str(archive), "-c", port]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.table("notes").count().run(conn) == 300
