"""The verbs on backups in forms that others script against, on a real server."""

import json
import subprocess
import sys

import pytest
from rethinkdb import r

from integration.backup_kit import SYSTEM, add_vault, done, shipped
from server.child import ROOT, ServerProcess

ROWS = 300


def command(*words, expect=0):
    """Runs a verb: (what it said, what it complained of)."""
    ended = subprocess.run(
        [sys.executable, "-m", "server", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == expect, ended.stdout + ended.stderr
    return ended.stdout, ended.stderr


@pytest.fixture
def shop(start, tmp_path):
    """A server with two vaults and a database; (where it is, a connection)."""
    server = start()
    conn = server.connect()
    for name in ("near", "far"):
        add_vault(conn, f"file://{tmp_path}/{name}", name)
    r.db_create("shop").run(conn)
    r.db("shop").table_create("orders").run(conn)
    r.db("shop").table("orders").insert([{"id": at, "at": at} for at in range(ROWS)]).run(conn)
    yield f"localhost:{server.port}", conn
    conn.close(noreply_wait=False)


def orders(conn):
    return list(r.db("shop").table("orders").order_by(index="id").run(conn))


def test_a_backup_goes_into_the_vaults_that_are_named(shop, tmp_path):
    port, conn = shop
    add_vault(conn, f"file://{tmp_path}/third", "third")
    said, _ = command("backup", "-c", port, "--vault", "third", "--vault", "near", "--json")
    row = json.loads(said)
    assert [image["vault"] for image in row["images"]] == ["third", "near"]
    assert len({image["image"] for image in row["images"]}) == 1 and row["rows"] == ROWS
    assert [len(list((tmp_path / name / "images").glob("*/manifest"))) for name in ("third", "near")] == [1, 1]
    assert not (tmp_path / "far" / "images").exists()
    _, why = command("backup", "-c", port, "--vault", "near", "--vault", "nowhere", expect=1)
    assert "Vault `nowhere` does not exist" in why


def test_a_new_folder_comes_of_a_vault_that_the_server_knows_by_name(shop, tmp_path):
    port, conn = shop
    done(conn)
    r.db("shop").table("orders").get(0).update({"at": "later"}).run(conn)
    for name in ("near", "far"):
        shipped(conn, name)
    wanted = orders(conn)
    folder = tmp_path / "new"
    said, _ = command("restore", "--to", "latest", "--data-dir", folder, "--vault", "far", "-c", port)
    assert said.rstrip().endswith("restore successful")
    with ServerProcess(folder, "--no-http") as other, other.connect() as there:
        assert orders(there) == wanted
    _, why = command("restore", "--to", "latest", "--data-dir", tmp_path / "x", "--vault", "no", "-c", port, expect=1)
    assert "There is no `no` in `vaults`" in why and not (tmp_path / "x").exists()


def test_a_restore_into_a_folder_says_that_it_needs_a_moment(tmp_path):
    vault = f"file://{tmp_path}/vault"
    _, why = command("restore", "--data-dir", tmp_path / "new", "--vault", vault, expect=2)
    assert "--to" in why and "FILE" not in why.splitlines()[-1]
    assert not (tmp_path / "new").exists() and not (tmp_path / "vault").exists()


def test_what_was_dropped_takes_the_place_of_what_bears_its_name_now(shop):
    port, conn = shop
    done(conn)
    wanted = orders(conn)
    r.db("shop").table_drop("orders").run(conn)
    r.db("shop").table_create("orders").run(conn)
    r.db("shop").table("orders").insert({"id": "another"}).run(conn)
    _, why = command("undrop", "shop.orders", "-c", port, expect=1)
    assert "shop.orders is there already" in why
    assert orders(conn) == [{"id": "another"}]
    said, _ = command("undrop", "shop.orders", "--replace", "-c", port)
    assert said.rstrip().endswith("restore successful")
    assert orders(conn) == wanted


def test_the_row_of_a_task_has_its_phase_and_percent_from_beginning_to_end(shop):
    _, conn = shop
    done(conn)
    feed = SYSTEM.table("backup_tasks").changes(squash=False).run(conn)
    job = SYSTEM.table("backup_tasks").insert({"task": "verify", "depth": "rows", "vault": "near"}).run(conn)
    [key] = job["generated_keys"]
    seen = []
    while not seen or seen[-1]["state"] in ("queued", "running"):
        change = next(feed)["new_val"]
        if change["id"] == key:
            seen.append(change)
    assert all("phase" in row and 0 <= row["percent"] <= 100 for row in seen)
    assert {row["phase"] for row in seen} <= {None, "files of near", "rows of near", "log of near", "objects of near"}
    assert (seen[-1]["state"], seen[-1]["phase"], seen[-1]["percent"]) == ("successful", None, 100)
