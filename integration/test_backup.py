"""Backups on real servers, asked for as users do; and what a killed server, a dropped table or a full vault does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rethinkdb import r

import rewinddb
from integration.backup_kit import SYSTEM, add_vault, done, events, job, shipped, until, vault
from server.child import ROOT

MYTABLE = r.db("mydb").table("mytable")


@pytest.fixture
def filled(start, tmp_path):
    """A server with a vault and the beginning of the article's example; a connection to it."""
    server = start("--log-level", "info")
    conn = server.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.db_create("mydb").run(conn)
    r.db("mydb").table_create("mytable").run(conn)
    MYTABLE.insert([{"name": "John"}, {"name": "Jane"}]).run(conn)
    yield server, conn
    if server.is_running:
        conn.close(noreply_wait=False)


def test_the_example_that_users_read(filled):
    """Back up, write, drop, restore: John and Jane are back, and the log tells it."""
    server, conn = filled
    backup = r.db("mydb").backup().run(conn)
    assert (backup["state"], backup["rows"]) == ("successful", 2)
    MYTABLE.insert([{"name": "Alice"}, {"name": "Bob"}]).run(conn)
    r.db("mydb").table_drop("mytable").run(conn)
    assert r.db("mydb").restore().run(conn)["state"] == "successful"
    assert sorted(MYTABLE["name"].run(conn)) == ["Jane", "John"]
    [told] = SYSTEM.table("backup_log").filter({"event": "backup successful"}).run(conn)
    assert (told["name"], told["databases"], told["rows"]) == (backup["name"], ["mydb"], 2)
    assert told["bytes"] > 0 and told["log_index"] == backup["log_index"] and told["seconds"] > 0
    assert told["where"][0]["vault"] == "main"
    assert "backup successful" in server.output
    [listed] = r.db("mydb").backups().run(conn)
    assert listed["id"] == backup["id"]


def test_tables_and_the_whole_server(filled):
    _, conn = filled
    conn.use("mydb")
    assert r.table("mytable").backup(name="one table", hold=True).run(conn)["tables"] == ["mydb.mytable"]
    assert r.backup().run(conn)["rows"] == 2
    assert [row["name"] for row in r.table("mytable").backups().run(conn)][-1] == "one table"
    with pytest.raises(rewinddb.r.errors.ReqlUserError, match=r"nothing.* does not exist"):
        r.db("mydb").backup(vault="nothing").run(conn)
    with pytest.raises(rewinddb.r.errors.ReqlOpFailedError):
        r.db("nodb").backup().run(conn)


LOOPS = {
    "asyncio": """
async def main():
    conn = await r.connect(port=port)
    print((await r.db("mydb").backup().run(conn))["state"], (await r.backup().run(conn))["state"])
    await conn.close()
import asyncio
asyncio.run(main())
""",
    "tornado": """
async def main():
    conn = await r.connect(port=port)
    print((await r.db("mydb").backup().run(conn))["state"], (await r.backup().run(conn))["state"])
    await conn.close()
from tornado.ioloop import IOLoop
IOLoop.current().run_sync(main)
""",
    "trio": """
import trio
async def main():
    async with trio.open_nursery() as nursery:
        conn = await r.connect(port=port, nursery=nursery)
        print((await r.db("mydb").backup().run(conn))["state"], (await r.backup().run(conn))["state"])
        await conn.close()
        nursery.cancel_scope.cancel()
trio.run(main)
""",
    "gevent": """
conn = r.connect(port=port)
print(r.db("mydb").backup().run(conn)["state"], r.backup().run(conn)["state"])
conn.close()
""",
    "twisted": """
from twisted.internet import defer, task
async def main(reactor):
    conn = await r.connect(port=port)
    print((await r.db("mydb").backup().run(conn))["state"], (await r.backup().run(conn))["state"])
    await conn.close()
task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
""",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_driver_extension_on_every_loop(filled, loop):
    server, _ = filled
    patched = "from gevent import monkey\nmonkey.patch_all()\n" if loop == "gevent" else ""
    opening = f"{patched}import rewinddb\nfrom rethinkdb import r\nr.set_loop_type({loop!r})\nport = {server.port}\n"
    done = subprocess.run(
        [sys.executable, "-c", opening + LOOPS[loop]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split() == ["successful", "successful"], done.stderr


def test_a_feed_shows_a_job_from_its_beginning_to_its_end(filled):
    _, conn = filled
    feed = SYSTEM.table("backups").changes().run(conn)
    SYSTEM.table("backups").insert({"id": "watched"}).run(conn)
    states = []
    for change in feed:
        states.append(change["new_val"]["state"])
        if states[-1] in ("successful", "failed"):
            break
    feed.close()
    assert states[0] in ("queued", "running") and states[-1] == "successful"
    assert "running" in states


def test_what_makes_no_sense_is_refused_with_what_would(filled):
    _, conn = filled
    for table, row, words in (
        ("backups", {"databases": ["no"]}, "does not exist"),
        ("backups", {"tables": ["mytable"]}, "DATABASE.TABLE"),
        ("backups", {"colour": "red"}, "it may have"),
        ("vaults", {"name": "x", "url": "s3://user:hunter2@place"}, "password"),
        ("vaults", {"name": "x", "url": "floppy://a"}, "no kind of place"),
        ("vaults", {"name": "main", "url": "file:///other"}, "exists already"),
        ("vaults", {"name": "x", "url": "file:///x", "retention": {"keep": 3}}, "keep_images"),
        ("backup_schedules", {"name": "x", "cron": "every day"}, "five fields"),
        ("backup_schedules", {"name": "x", "cron": "0 0 * * *", "timezone": "Mars"}, "time zone"),
        ("backup_tasks", {"task": "dance"}, "verify, drill"),
        ("backup_tasks", {"task": "verify", "part": [3, 2]}, "k-th"),
    ):
        assert words in job(conn, table, **row)[1] if table.endswith(("ups", "sks")) else True
        error = SYSTEM.table(table).insert(row).run(conn)["first_error"]
        assert words in error
        assert "hunter2" not in error


def test_every_task(filled, tmp_path):
    _, conn = filled
    for number in range(2):
        MYTABLE.insert([{"n": number} for _ in range(50)]).run(conn)
        done(conn)
    shipped(conn)
    for depth in ("manifest", "files", "rows"):
        [result] = done(conn, "backup_tasks", task="verify", depth=depth)["result"].values()
        assert (result["problems"], result["images"]) == ([], 2)
    [result] = done(conn, "backup_tasks", task="drill")["result"].values()
    assert result["rows"] == 102 and result["restore_seconds"] > 0 and result["compared_with_log"]
    MYTABLE.insert({"n": "new"}).run(conn)
    shipped(conn)
    [made] = done(conn, "backup_tasks", task="synthesise")["result"].values()
    assert made["rows"] == 103 and made["parent"]
    add_vault(conn, f"file://{tmp_path}/second", "second")
    done(conn, "backup_tasks", task="sync", vault="main", to="second")
    done(conn, "backup_tasks", task="verify", depth="rows", vault="second")
    SYSTEM.table("vaults").filter({"name": "main"}).update({"retention": {"keep_images": 1}}).run(conn)
    [planned] = done(conn, "backup_tasks", task="expire", vault="main", dry_run=True)["result"].values()
    assert len(planned["images"]) == 2
    done(conn, "backup_tasks", task="expire", vault="main")
    until(lambda: len(vault(conn)["inventory"]["images"]) == 1)
    until(lambda: all(row["images"][0].get("expired") for row in r.backups().run(conn)))


def test_images_by_name_are_those_of_whichever_vault_has_them(filled, tmp_path):
    _, conn = filled
    add_vault(conn, f"file://{tmp_path}/second", "second")
    [only] = done(conn, vaults=["main"])["images"]
    [both, _] = done(conn)["images"]
    result = done(conn, "backup_tasks", task="hold", images=[only["image"], both["image"]])["result"]
    assert {name: told["images"] for name, told in result.items()} == {
        "main": [only["image"], both["image"]],
        "second": [both["image"]],
    }
    done(conn, "backup_tasks", task="release", images=[only["image"]])
    _, error = job(conn, "backup_tasks", task="hold", images=["nothing"])
    assert "There is no image nothing in any of the vaults main, second" in error
    done(conn, "backup_tasks", task="delete", images=[only["image"]])
    assert [image["image"] for image in vault(conn)["inventory"]["images"]] == [both["image"]]


def test_a_vault_that_fails_fails_the_backup_with_its_reason_and_no_other(filled, tmp_path):
    _, conn = filled
    (tmp_path / "file").write_text("a file where a folder should be")
    SYSTEM.table("vaults").insert({"name": "bad", "url": f"file://{tmp_path}/file/vault"}).run(conn)
    row, error = job(conn)
    assert row is None
    assert error.startswith("backup failed: in vault bad:") and "It is whole in vault main." in error
    assert events(conn)[-1] == "backup failed"
    assert "bad" in SYSTEM.table("backup_log").max("id")["error"].run(conn)
    assert done(conn, vault="main")["state"] == "successful"
    until(lambda: vault(conn, "bad")["state"] in ("unavailable", "refused"))
    kinds = {issue["type"]: issue for issue in SYSTEM.table("current_issues").run(conn)}
    assert kinds["backup_vault_unavailable"]["critical"]
    SYSTEM.table("vaults").filter({"name": "bad"}).update({"required": False}).run(conn)
    row = done(conn)
    assert "bad" in row["warnings"][0] and [image["vault"] for image in row["images"]] == ["main"]


def children_of(server, word):
    """The processes that a server started, by what is open or written in them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            files = [str(file.readlink()) for file in (process / "fd").iterdir()]
        except OSError:
            continue
        if parent == server.pid and any(word in file for file in files):
            found.append(int(process.name))
    return found


def test_a_vault_that_hangs_is_given_up_and_holds_up_no_other(start, tmp_path):
    config = tmp_path / "impatient.yaml"
    config.write_text("backup: {stall_timeout_ms: 20_000}\n")
    server = start("--config", str(config))
    conn = server.connect()
    for name in ("hanging", "good"):
        add_vault(conn, f"file://{tmp_path}/{name}", name)
    r.table_create("t").run(conn)
    r.table("t").insert([{"text": os.urandom(300).hex()} for _ in range(300)]).run(conn)
    SYSTEM.table("backups").insert({"id": "b", "max_bytes_per_s": 60_000}).run(conn)
    [first, *_] = until(lambda: children_of(server, "/backup/checkpoint-"))
    os.kill(first, signal.SIGSTOP)
    row = until(lambda: SYSTEM.table("backups").filter({"state": "failed"}).nth(0).default(None).run(conn), 120)
    assert "seems to hang" in row["error"]
    whole, hanging = ("good", "hanging") if row["error"].startswith("in vault hanging") else ("hanging", "good")
    assert f"in vault {hanging}" in row["error"] and f"It is whole in vault {whole}" in row["error"]
    assert r.table("t").insert({"more": 1}).run(conn)["inserted"] == 1
    until(lambda: not children_of(server, "/backup/checkpoint-"))
    done(conn)
    shipped(conn, "good")
    shipped(conn, "hanging")
    done(conn, "backup_tasks", task="verify", depth="rows")


def test_a_vault_that_goes_away_and_comes_back(filled, tmp_path):
    _, conn = filled
    shipped(conn)
    (tmp_path / "vault").rename(tmp_path / "away")
    (tmp_path / "vault").write_text("not a folder")
    MYTABLE.insert([{"n": number} for number in range(100)]).run(conn)
    until(lambda: vault(conn)["state"] == "unavailable" and vault(conn)["gap"] > 1)
    MYTABLE.insert({"n": "meanwhile"}).run(conn)
    (tmp_path / "vault").unlink()
    (tmp_path / "away").rename(tmp_path / "vault")
    until(lambda: vault(conn)["state"] == "ok" and vault(conn)["gap"] == 0)
    done(conn)
    done(conn, "backup_tasks", task="verify", depth="rows")


def test_an_empty_mount_point_is_not_taken_for_the_vault(filled, tmp_path):
    """The volume is gone and its folder is empty: nothing may be written there as if all were well."""
    server, conn = filled
    shipped(conn)
    conn.close()
    server.stop()
    (tmp_path / "vault").rename(tmp_path / "away")
    (tmp_path / "vault").mkdir()
    from server.child import ServerProcess

    with ServerProcess(tmp_path / "data") as again, again.connect() as conn:
        until(lambda: vault(conn)["state"] == "unavailable")
        assert "mounted" in vault(conn)["error"]
        assert "mounted" in job(conn)[1]
        assert not list((tmp_path / "vault").iterdir())
        (tmp_path / "vault").rmdir()
        (tmp_path / "away").rename(tmp_path / "vault")
        until(lambda: vault(conn)["state"] == "ok")
        done(conn)


def test_a_server_killed_at_any_point_never_tells_a_lie(start, tmp_path, rng):
    """Killed at random points of writes, backups, expiry: what it says of backups afterwards is true; it goes on."""
    server = start()
    conn = server.connect()
    add_vault(conn, f"file://{tmp_path}/vault", retention={"keep_images": 2})
    r.table_create("ring").run(conn)
    for round_number in range(5):
        rows = [{"id": number, "round": round_number} for number in range(500)]
        r.table("ring").insert(rows, conflict="replace").run(conn)
        SYSTEM.table("backups").insert([{"id": f"{round_number}-{part}"} for part in range(2)]).run(conn)
        ends = rng.uniform(0.0, 4.0)
        feed = SYSTEM.table("backups").changes(include_types=True).run(conn)
        try:
            feed.next(wait=ends)
            feed.next(wait=rng.uniform(0.0, 1.0))
        except (r.errors.ReqlTimeoutError, StopIteration):
            pass
        server.kill()
        server = start()
        conn = server.connect()
        states = {row["id"]: row for row in SYSTEM.table("backups").run(conn)}
        for row in states.values():
            if row["state"] == "failed":
                assert row["error"]
        until(lambda conn=conn: SYSTEM.table("backups").filter(r.row["finished"].eq(None)).is_empty().run(conn))
    last = done(conn)
    shipped(conn)
    report = done(conn, "backup_tasks", task="verify", depth="rows")["result"]["main"]
    assert report["problems"] == []
    listed = {image["image"] for image in until(lambda: vault(conn)["inventory"])["images"]}
    assert last["images"][0]["image"] in listed or until(
        lambda: last["images"][0]["image"] in {image["image"] for image in vault(conn)["inventory"]["images"]}
    )
    assert not list((tmp_path / "data" / "backup").glob("*"))
    told = [event for event in events(conn) if event.startswith("backup ")]
    assert len(told) == SYSTEM.table("backups").count().run(conn)


def test_what_is_dropped_while_it_is_backed_up(filled):
    _, conn = filled
    MYTABLE.insert([{"text": "x" * 500} for _ in range(5000)]).run(conn)
    SYSTEM.table("backups").insert({"id": "b", "databases": ["mydb"]}).run(conn)
    r.db_drop("mydb").run(conn)
    row = until(lambda: next(iter(SYSTEM.table("backups").filter(~r.row["finished"].eq(None)).run(conn)), None))
    if row["state"] == "successful":
        assert row["rows"] == 5002
    else:
        assert "does not exist" in row["error"]
    done(conn)
    done(conn, "backup_tasks", task="verify", depth="rows")


def test_log_that_nobody_takes_is_let_go_and_the_vault_asks_for_an_image(start, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(
        "log: {segment_bytes: 1_048_576, retain_bytes: 0}\n"
        "storage: {flush_interval_ms: 200}\n"
        "backup: {max_log_bytes: 1_048_576}\n"
    )
    server = start("--config", str(config))
    conn = server.connect()
    add_vault(conn, f"file://{tmp_path}/vault")
    r.table_create("t").run(conn)
    done(conn)
    shipped(conn)
    (tmp_path / "vault").rename(tmp_path / "away")
    (tmp_path / "vault").write_text("")
    for _ in range(16):
        r.table("t").insert([{"text": os.urandom(600).hex()} for _ in range(400)]).run(conn)
    until(lambda: "released" in server.output)
    (tmp_path / "vault").unlink()
    (tmp_path / "away").rename(tmp_path / "vault")
    until(lambda: vault(conn)["state"] == "broken: needs a new image")
    kinds = [issue["type"] for issue in SYSTEM.table("current_issues").run(conn)]
    assert "backup_vault_broken" in kinds
    done(conn)
    until(lambda: vault(conn)["state"] == "ok")
    shipped(conn)
    done(conn, "backup_tasks", task="drill")
    _, error = job(conn, "backup_tasks", task="verify", depth="manifest")
    assert "cannot be restored; later images begin anew" in error


def test_secrets_stay_where_they_are(start, tmp_path, monkeypatch):
    """Neither rows nor logs nor command lines hold them, encrypted vaults do not hold the data in clear."""
    key = tmp_path / "key"
    key.write_text("b2gsIHdoYXQgYSBzZWNyZXQga2V5IHRoaXMgaXMuLi4=\n")
    key.chmod(0o600)
    server = start()
    conn = server.connect()
    add_vault(conn, f"file://{tmp_path}/vault", key_file=str(key))
    r.table_create("t").run(conn)
    r.table("t").insert([{"text": "nobody may read this"} for _ in range(300)]).run(conn)
    SYSTEM.table("backups").insert({}).run(conn)
    seen = set()

    def finished():
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(process.read_bytes())
            except OSError:
                continue
        return SYSTEM.table("backups").filter({"state": "successful"}).count().run(conn)

    until(finished)
    shipped(conn)
    assert any(b"backup.child" in line for line in seen)
    for text in (b"b2gsIHdoYX", b"oh, what a secret"):
        assert not any(text in line for line in seen)
        for path in (tmp_path / "vault").rglob("*"):
            assert not path.is_file() or text not in path.read_bytes()
        assert text.decode() not in server.output
    for path in (tmp_path / "vault").rglob("*"):
        assert not path.is_file() or b"nobody may read" not in path.read_bytes()
    done(conn, "backup_tasks", task="verify", depth="rows")
    shutil.move(key, tmp_path / "lost")
    assert "cannot be read" in job(conn)[1]


def test_a_job_can_be_cancelled(filled):
    _, conn = filled
    MYTABLE.insert([{"text": os.urandom(400).hex()} for _ in range(3000)]).run(conn)
    SYSTEM.table("backups").insert({"id": "slow", "max_bytes_per_s": 100_000}).run(conn)
    until(lambda: SYSTEM.table("backups").get("slow")["state"].run(conn) == "running")
    SYSTEM.table("backups").get("slow").delete().run(conn)
    until(lambda: "backup failed" in events(conn))
    assert "cancelled by admin" in SYSTEM.table("backup_log").max("id")["error"].run(conn)
    assert SYSTEM.table("backups").get("slow").run(conn) is None
    assert done(conn)["rows"] == 3002
