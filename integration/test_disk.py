"""A disk that takes no more: writes end with a clear error, and what was acknowledged stays."""

import resource
import subprocess
import sys

import pytest
from rethinkdb import errors, r

from server.child import ROOT, DidNotStart


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
    """A file system of 40 MB in a mount namespace of its own; gives its folder and how to run commands there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=40m none {disk} && echo mounted && exec cat"
    holder = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "mounted\n", "this machine lets nobody mount a file system"
    yield disk, ("nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials", f"--wd={ROOT}", "--")
    holder.stdin.close()
    holder.wait()


def test_a_full_disk_stops_writes_and_with_space_again_everything_acknowledged_is_there(start, small_disk, tmp_path):
    disk, inside = small_disk
    config = tmp_path / "small.yaml"
    config.write_text("log: {segment_bytes: 1_048_576}\n")
    ballast = disk / "ballast"
    subprocess.run([*inside, "dd", "if=/dev/zero", f"of={ballast}", "bs=1M", "count=16"], check=True)
    command = (*inside, sys.executable, "-m", "server")
    server = start("--config", str(config), data_dir=disk / "data", command=command)
    conn = server.connect()
    r.table_create("t").run(conn)
    acknowledged, error = insert_until_refused(conn, 0, 50_000)
    assert acknowledged > 50
    assert "space" in str(error)
    assert server.wait() == 1
    assert "Free" in server.output or "space" in server.output
    with pytest.raises(DidNotStart, match="space"):
        start("--config", str(config), data_dir=disk / "data", command=command)
    subprocess.run([*inside, "rm", str(ballast)], check=True)
    check_rows(start("--config", str(config), data_dir=disk / "data", command=command), acknowledged)


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
    disk, inside = small_disk
    command = (*inside, sys.executable, "-m", "server")
    assert start("--cache-bytes", "8388608", data_dir=disk / "data", command=command).stop() == 0
    subprocess.run([*inside, "mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(DidNotStart, match=r"Cannot use the data folder .*: Read-only file system"):
        start("--cache-bytes", "8388608", data_dir=disk / "data", command=command)


def test_a_folder_that_cannot_be_made_is_refused(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DidNotStart, match="Cannot use the data folder"):
        start(data_dir=tmp_path / "file" / "data")
