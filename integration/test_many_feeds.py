"""Ten thousand changefeeds on one server, ten thousand connections, and readers that do not read."""

import json
import resource

import pytest
from rethinkdb import r

from integration.cluster_kit import wait_until
from integration.raw_driver import CONTINUE, Crowd, RawDriver, encode, resident_bytes

MIB = 1 << 20
CONNECTIONS, FEEDS_EACH = 20, 500
QUERIES = {
    "table": lambda number: r.table("t").changes(),
    "filter": lambda number: r.table("t").filter(r.row["n"] >= 0).changes(),
    "row": lambda number: r.table("t").get(number % 100).changes(),
}


def open_feeds(crowd, query_of):
    """Opens the feeds and asks each for its first change."""
    for at, driver in enumerate(crowd.drivers):
        for number in range(FEEDS_EACH):
            driver.say(number + 1, encode(query_of(at * FEEDS_EACH + number)))
    opened = 0

    def heed(driver, token, body):
        nonlocal opened
        assert body.startswith(b'{"t":3,"r":[],'), body
        opened += 1
        driver.say(token, CONTINUE)

    return crowd.listen(heed, lambda: opened == CONNECTIONS * FEEDS_EACH, 120)


def hear_of_it(crowd, stamp):
    """Waits until every feed has told of a change, and asks each for the next."""
    waiting = {(driver, token + 1) for driver in crowd.drivers for token in range(FEEDS_EACH)}

    def heed(driver, token, body):
        if stamp in body:
            waiting.discard((driver, token))
        driver.say(token, CONTINUE)

    return crowd.listen(heed, lambda: not waiting, 120)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", QUERIES)
def test_ten_thousand_feeds_are_told_within_one_gibibyte(start, kind):
    server = start("--no-http")
    with server.connect() as conn:
        r.table_create("t").run(conn)
        r.table("t").insert([{"id": n, "n": n, "stamp": "", "filling": "x" * 500} for n in range(100)]).run(conn)
        before = resident_bytes(server.pid)
        crowd = Crowd(server.port, CONNECTIONS)
        try:
            open_s = open_feeds(crowd, QUERIES[kind])
            opened = resident_bytes(server.pid)
            took = []
            for turn in range(3):
                stamp = f"stamp {turn}"
                changed = r.table("t") if kind == "row" else r.table("t").get(5)
                changed.update({"stamp": stamp}).run(conn, durability="soft")
                took.append(hear_of_it(crowd, stamp.encode()))
            after = resident_bytes(server.pid)
        finally:
            crowd.close()
        print(  # noqa: T201
            f"10,000 feeds on {kind}: opened in {open_s:.1f} s, told of a change in {min(took):.2f}-{max(took):.2f} s; "
            f"resident {before / MIB:.0f} MB before, {opened / MIB:.0f} MB with them, {after / MIB:.0f} MB at the end"
        )
        assert after < 1024 * MIB
        jobs = r.db("rethinkdb").table("jobs").filter({"type": "query"})
        wait_until(lambda: jobs.count().run(conn) <= 1, "the end of the feeds")


def read_all(server, conn, reader, rows):
    """Writes rows of 20 KB, 10 at a time, each of which the reader hears of; how much memory that took at most."""
    told, highest = 0, 0
    for number in range(rows // 10):
        batch = [{"id": number * 10 + at, "filling": "x" * 20_000} for at in range(10)]
        r.table("t").insert(batch).run(conn, durability="soft")
        while told < (number + 1) * 10:
            for token, body in reader.heard():
                told += body.count(b'"new_val"')
                reader.say(token, CONTINUE)
        highest = max(highest, resident_bytes(server.pid))
    return highest


@pytest.mark.timeout(300)
def test_a_reader_that_stops_reading_costs_a_bounded_queue_and_no_one_else(start, tmp_path):
    rows, grown = 3000, []
    for has_sleeper in (False, True):
        server = start("--no-http", data_dir=tmp_path / str(has_sleeper))
        with server.connect() as conn:
            r.table_create("t").run(conn)
            sleeper, reader = RawDriver(server.port), RawDriver(server.port)
            feed = r.table("t").changes(changefeed_queue_size=100)
            if has_sleeper:
                assert sleeper.ask(encode(feed), 1).startswith(b'{"t":3')
                for _ in range(500):
                    sleeper.say(1, CONTINUE)  # it asks, and does not read
            assert reader.ask(encode(r.table("t").changes()), 1).startswith(b'{"t":3')
            reader.say(1, CONTINUE)
            before = resident_bytes(server.pid)
            grown.append(read_all(server, conn, reader, rows) - before)
            heard, skipped = 0, 0
            while has_sleeper and heard + skipped < rows:
                for _, body in sleeper.heard():
                    for element in json.loads(body)["r"]:
                        if "error" in element:
                            skipped += int(element["error"].split()[-2])
                        else:
                            heard += 1
        for driver in (sleeper, reader):
            driver.close()
        server.stop()
    print(f"grown by {grown[0] / MIB:.0f} MB without, {grown[1] / MIB:.0f} MB with a reader that sleeps")  # noqa: T201
    assert grown[1] - grown[0] < 40 * MIB  # of 60 MB that were written
    assert skipped > rows / 2
    assert heard + skipped == rows


@pytest.mark.timeout(300)
def test_ten_thousand_idle_connections_cost_little(start):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(9_900, most - 500)  # as many as this machine lets a process have
    server = start("--no-http")
    before = resident_bytes(server.pid)
    drivers = [RawDriver(server.port) for _ in range(count)]
    after = resident_bytes(server.pid)
    each = (after - before) / len(drivers)
    print(f"{len(drivers)} connections: {each / 1024:.1f} KiB each, {(after - before) / MIB:.0f} MB in all")  # noqa: T201
    assert each < 16 * 1024
    assert drivers[-1].ask(b"[1,5]") == b'{"t":1,"r":[5]}'
    for driver in drivers:
        driver.close()
    with server.connect() as conn:
        wait_until(
            lambda: r.db("rethinkdb").table("stats").get(["server", server_id(conn)]).run(conn)
            ["query_engine"]["client_connections"] <= 1,
            "the end of the connections",
        )  # fmt: skip


def server_id(conn):
    return conn.server()["id"]
