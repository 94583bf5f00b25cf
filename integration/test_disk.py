"""A disk that takes no more: writes end with a clear error, and what was acknowledged stays."""

import resource

from rethinkdb import errors, r


def test_a_full_disk_stops_writes_and_keeps_what_was_acknowledged(start):
    server = start()
    conn = server.connect()
    r.table_create("t").run(conn)
    r.table("t").insert([{"id": n} for n in range(50)]).run(conn)
    # From now on no file of this process takes a byte beyond its first 4096.
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    acknowledged = 50
    error = None
    for n in range(50, 100):
        try:
            assert r.table("t").insert({"id": n}).run(conn)["inserted"] == 1
        except (errors.ReqlError, errors.ReqlDriverError) as caught:
            error = caught
            break
        acknowledged += 1
    assert error is not None
    assert server.wait() == 1
    assert "File too large" in server.output
    assert "hint" in server.output or "space" in server.output
    again = start()
    found = sorted(r.table("t")["id"].run(again.connect()))
    assert found[:acknowledged] == list(range(acknowledged))
    assert len(found) <= acknowledged + 1


def test_a_folder_that_cannot_be_written_is_refused(start, tmp_path):
    from server.child import DidNotStart

    (tmp_path / "file").write_text("")
    try:
        start(data_dir=tmp_path / "file" / "data")
    except DidNotStart as error:
        assert "Cannot use the data folder" in str(error)
    else:
        raise AssertionError("a server started in a folder that cannot exist")
