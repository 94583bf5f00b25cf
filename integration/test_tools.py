"""The official tools of the PyPI package `rethinkdb`, unchanged, against a server and back."""

import subprocess
import sys
from pathlib import Path

import pytest
from rethinkdb import r

BIN = Path(sys.executable).parent
ROWS = [
    {"id": n, "city": ["Oslo", "Rome", "Bonn"][n % 3], "tags": [n % 5, "x"], "name": f"näme {n}"} for n in range(500)
]


def tool(server, name, *arguments, cwd):
    done = subprocess.run(
        [str(BIN / f"rethinkdb-{name}"), "-c", f"127.0.0.1:{server.port}", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def filled(conn):
    """Two databases, one with rows of every kind and one secondary index of every kind."""
    r.db_create("shop").run(conn)
    r.db("shop").table_create("orders").run(conn)
    r.db("shop").table_create("empty", primary_key="number").run(conn)
    r.db_create("other").run(conn)
    orders = r.db("shop").table("orders")
    orders.index_create("city").run(conn)
    orders.index_create("tags", multi=True).run(conn)
    orders.index_create("city_and_id", [r.row["city"], r.row["id"]]).run(conn)
    orders.index_create("upper", lambda row: row["city"].upcase()).run(conn)
    orders.index_wait().run(conn)
    orders.insert(ROWS).run(conn)
    orders.insert(
        {
            "id": "kinds",
            "city": "Oslo",
            "tags": [],
            "when": r.epoch_time(1.5),
            "raw": r.binary(b"\0\xff"),
            "nested": {"a": [None, 1.25]},
        }
    ).run(conn)
    return orders


def state(conn):
    """All rows and indexes of the database `shop`, and what its indexes find."""
    orders = r.db("shop").table("orders")
    return {
        "rows": list(orders.order_by(index="id").run(conn, time_format="raw", binary_format="raw")),
        "tables": sorted(r.db("shop").table_list().run(conn)),
        "key": r.db("shop").table("empty").info()["primary_key"].run(conn),
        "indexes": sorted(
            (index["index"], index["multi"], index["geo"], index["query"].partition("(")[2], bytes(index["function"]))
            for index in orders.index_status().run(conn)
        ),
        "oslo": orders.get_all("Oslo", index="city").count().run(conn),
        "x": orders.get_all("x", index="tags").count().run(conn),
        "pair": orders.get_all(["Rome", 1], index="city_and_id")["id"].coerce_to("array").run(conn),
        "upper": orders.get_all("BONN", index="upper").count().run(conn),
    }


def test_dump_and_restore_give_back_what_was_there(server, conn, filled, tmp_path):
    before = state(conn)
    assert before["oslo"] == 168
    assert before["x"] == 500
    said = tool(server, "dump", "-f", "all.tar.gz", cwd=tmp_path)
    assert "501 rows exported from 2 tables" in said
    r.db_drop("shop").run(conn)
    said = tool(server, "restore", "all.tar.gz", cwd=tmp_path)
    assert "501 rows imported to 2 tables" in said
    r.db("shop").table("orders").index_wait().run(conn)
    assert state(conn) == before


def test_restore_over_rows_that_are_there_needs_force(server, conn, filled, tmp_path):
    before = state(conn)
    tool(server, "dump", "-f", "all.tar.gz", "-e", "shop.orders", cwd=tmp_path)
    filled.get(7).update({"city": "lost"}).run(conn)
    filled.get(8).delete().run(conn)
    tool(server, "restore", "all.tar.gz", "--force", cwd=tmp_path)
    filled.index_wait().run(conn)
    assert state(conn) == before


@pytest.mark.parametrize("form", ["json", "csv"])
def test_export_and_import_of_one_table(server, conn, filled, tmp_path, form):
    fields = ["--fields", "id,city"] if form == "csv" else []
    tool(server, "export", "-d", "out", "-e", "shop.orders", "--format", form, *fields, cwd=tmp_path)
    r.db("other").table_create("copy").run(conn)
    tool(
        server,
        "import",
        "-f",
        f"out/shop/orders.{form}",
        "--table",
        "other.copy",
        "--format",
        form,
        "--force",
        cwd=tmp_path,
    )
    copy = r.db("other").table("copy")
    assert copy.count().run(conn) == 501
    if form == "json":
        rows = list(copy.order_by(index="id").run(conn, time_format="raw", binary_format="raw"))
        assert rows == state(conn)["rows"]
    else:
        assert copy.get("7").run(conn) == {"id": "7", "city": "Rome"}


def test_export_and_import_of_a_folder(server, conn, filled, tmp_path):
    before = state(conn)
    tool(server, "export", "-d", "out", cwd=tmp_path)
    r.db_drop("shop").run(conn)
    tool(server, "import", "-d", "out", cwd=tmp_path)
    r.db("shop").table("orders").index_wait().run(conn)
    assert state(conn) == before


def test_index_rebuild(server, conn, filled, tmp_path):
    before = state(conn)
    tool(server, "index-rebuild", "-r", "shop.orders", "--force", cwd=tmp_path)
    assert state(conn) == before
