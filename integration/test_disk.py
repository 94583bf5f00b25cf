"""A disk that takes no more: writes end with a clear error, and what was acknowledged stays."""

import resource
import sys

import pytest
from rethinkdb import errors, r

from integration.small_disk import SmallDisk
from server.child import DidNotStart


def insert_until_refused(conn, first, size):
    """Inserts rows one by one; how many were acknowledged, and the error of the first that was not."""
    for n in range(first, first + 20_000):
        try:
            assert r.table("t").insert({"id": n, "text": "x" * size}).run(conn)["inserted"] == 1
        except (errors.ReqlError, errors.ReqlDriverError) as error:
            return n, error
    raise AssertionError("the disk took everything")


def check_rows(server, acknowledged):
    found = sorted(r.table("t")["id"].run(server.connect()))
    assert found[:acknowledged] == list(range(acknowledged))
    assert len(found) <= acknowledged + 1


def test_a_disk_that_refuses_writes_stops_the_server_and_keeps_what_was_acknowledged(start):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    r.table("t").insert([{"id": n} for n in range(50)]).run(conn)
    # From now on no file of this process takes a byte beyond its first 4096.
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    acknowledged, error = insert_until_refused(conn, 50, 1)
    assert isinstance(error, errors.ReqlOpIndeterminateError)
    assert "File too large" in error.message
    assert server.wait() == 1
    assert "check the disk, then start the server again" in server.output
    check_rows(start(), acknowledged)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MB."""
    disk = SmallDisk(tmp_path / "disk", 40)
    yield disk
    disk.close()


def test_a_full_disk_stops_writes_and_with_space_again_everything_acknowledged_is_there(start, small_disk, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text("log: {segment_bytes: 1_048_576}\n")
    small_disk.fill(leave_bytes=24_000_000)
    flags, where = ("--config", str(config)), {"data_dir": small_disk.folder / "data", "command": small_disk.server}
    server = start(*flags, **where)
    conn = server.connect()
    r.table_create("t").run(conn)
    acknowledged, error = insert_until_refused(conn, 0, 50_000)
    assert acknowledged > 50
    assert "space" in str(error)
    assert server.wait() == 1
    assert "Free" in server.output or "space" in server.output
    with pytest.raises(DidNotStart, match="space"):
        start(*flags, **where)
    small_disk.free()
    check_rows(start(*flags, **where), acknowledged)


def test_a_failed_sync_stops_the_server_and_is_never_tried_again(start, tmp_path):
    trigger = tmp_path / "now"
    server = start(command=(sys.executable, "-m", "integration.failing_sync", str(trigger)))
    conn = server.connect()
    r.table_create("t").run(conn)
    r.table("t").insert([{"id": n} for n in range(20)]).run(conn)
    trigger.touch()
    with pytest.raises(errors.ReqlOpIndeterminateError, match="Input/output error"):
        r.table("t").insert({"id": 20}).run(conn)
    assert server.wait() == 1
    assert "Input/output error" in server.output
    check_rows(start(), 20)


def test_a_folder_that_can_only_be_read_is_refused(start, small_disk):
    where = {"data_dir": small_disk.folder / "data", "command": small_disk.server}
    assert start("--cache-bytes", "8388608", **where).stop() == 0
    small_disk.run("mount", "-o", "remount,ro", str(small_disk.folder))
    with pytest.raises(DidNotStart, match=r"Cannot use the data folder .*: Read-only file system"):
        start("--cache-bytes", "8388608", **where)


def test_a_folder_that_cannot_be_made_is_refused(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DidNotStart, match="Cannot use the data folder"):
        start(data_dir=tmp_path / "file" / "data")
