"""Drivers that follow changefeeds: real evaluator, real connections, on wires of paper."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest
from rethinkdb import r
from rethinkdb.ast import ReQLEncoder
from twisted.internet.task import Clock

from proxy.answers import NEEDS_FIBER
from proxy.auth import UserDirectory, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.connection import Connection
from proxy.fibers import FiberPool
from proxy.handshake import MAGIC_V0_4, WIRE_JSON
from proxy.reql.feeds.hub import FeedHub
from tests.reql.conftest import SmallWorld

T = r.table("t")
CONTINUE, STOP = b"[2]", b"[3]"


class Fed(SmallWorld):
    """A world with changefeeds, whose readers are woken when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Any] = []
        self.feeds = FeedHub(self.machine.watched.add, self.machine.watched.discard, self.soon.append)
        self.machine.on_changes = self.feeds.on_changes
        self.make_table("t", [{"id": n, "a": n % 3} for n in range(9)])

    def tell(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Wire:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """Nobody looks."""

    def pause_reading(self) -> None:
        """Nobody looks."""

    def resume_reading(self) -> None:
        """Nobody looks."""


class Server:
    """Connections to a world's evaluator."""

    def __init__(self) -> None:
        self.world = Fed()
        self.clock = Clock()
        self.fibers = FiberPool(self.clock, self.clock.seconds)
        login = UserDirectory({"admin": passwordless_admin()}.get, b"secret")
        evaluator: Any = self.world.evaluator
        self.clients = Clients(evaluator, login, self.fibers, self.clock, "id", "name", Limits())

    def connect(self) -> Driver:
        return Driver(self)

    def write(self, query: Any) -> None:
        self.world.run(query)
        self.world.tell()


class Driver:
    def __init__(self, server: Server) -> None:
        self.wire = Wire()
        self.connection = Connection(server.clients)
        self.connection.connected(self.wire, ("10.0.0.7", 4711))
        self.connection.data_received(struct.pack("<III", MAGIC_V0_4, 0, WIRE_JSON))
        self.wire.written = b""

    def say(self, token: int, *bodies: bytes) -> None:
        self.connection.data_received(b"".join(struct.pack("<qI", token, len(body)) + body for body in bodies))

    def follow(self, token: int, query: Any, **optargs: Any) -> list[Any]:
        """Opens a feed; what it begins with."""
        self.say(token, ReQLEncoder().encode([1, query, optargs]).encode())
        [(_, response)] = self.heard()
        assert response["t"] == 3
        return list(response["r"])

    def heard(self) -> list[tuple[int, Any]]:
        data, self.wire.written = self.wire.written, b""
        found = []
        while data:
            token, size = struct.unpack_from("<qI", data)
            found.append((token, orjson.loads(data[12 : 12 + size])))
            data = data[12 + size :]
        return found

    def told(self) -> list[Any]:
        """The elements of what was heard."""
        return [element for _, response in self.heard() for element in response["r"]]


@pytest.fixture
def server() -> Server:
    return Server()


def fibers_at_work(server: Server) -> int:
    """How many fibers hold a query."""
    return sum(query.fiber is not None for _, query in server.clients._queries())


def test_a_waiting_reader_holds_no_fiber_and_is_told(server: Server) -> None:
    driver = server.connect()
    assert driver.follow(1, T.changes()) == []
    driver.say(1, CONTINUE)
    assert (driver.heard(), fibers_at_work(server), server.clients.active) == ([], 0, 1)
    server.write(T.get(1).update({"a": 7}))
    [(token, response)] = driver.heard()
    assert token == 1
    assert response == {"t": 3, "r": [{"old_val": {"id": 1, "a": 1}, "new_val": {"id": 1, "a": 7}}], "n": [1]}
    assert server.clients.active == 0


def test_what_came_before_the_reader_asked_is_there_at_once(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    server.write(T.get(1).update({"a": 7}))
    server.write(T.get(2).delete())
    assert driver.heard() == []
    driver.say(1, CONTINUE)
    assert [element["new_val"] for element in driver.told()] == [{"id": 1, "a": 7}, None]


def test_readers_of_the_same_are_sent_the_same_bytes(server: Server) -> None:
    drivers = [server.connect() for _ in range(3)]
    for driver in drivers:
        driver.follow(1, T.changes())
        driver.say(1, CONTINUE)
    server.write(T.get(1).update({"a": 7}))
    frames = {driver.wire.written for driver in drivers}
    assert len(frames) == 1
    assert len(drivers[0].told()) == 1


def test_who_asks_while_changes_keep_coming_gets_several_in_one_response(server: Server) -> None:
    world, clock = server.world, server.clock
    world.feeds = FeedHub(
        world.machine.watched.add, world.machine.watched.discard, world.soon.append, clock.callLater, clock.seconds
    )
    world.machine.on_changes = world.feeds.on_changes
    drivers = [server.connect() for _ in range(3)]
    for driver in drivers:
        driver.follow(1, T.changes())
        driver.say(1, CONTINUE)
    server.write(T.get(1).update({"a": 10}))
    assert [len(driver.told()) for driver in drivers] == [1, 1, 1]
    for number in range(4):
        server.write(T.get(1).update({"a": 20 + number}))
        for driver in drivers[:2]:
            if not number:
                driver.say(1, CONTINUE)
            assert driver.heard() == []
    clock.advance(1)
    for driver in drivers[:2]:
        assert [element["new_val"]["a"] for element in driver.told()] == [20, 21, 22, 23]
    clock.advance(1)
    drivers[2].say(1, CONTINUE)
    assert len(drivers[2].told()) == 4


QUERIES = {
    "all": T.changes(),
    "states": T.changes(include_states=True, include_initial=True),
    "types": T.changes(include_types=True),
    "positions": T.changes(include_positions=True),
    "filter": T.filter(r.row["a"] > 1).changes(),
    "default": T.filter(lambda row: row["b"] > 1, default=True).changes(),
    "map": T.map(lambda row: row["a"] + 1).changes(),
    "pluck": T.pluck("a").changes(include_types=True),
    "between": T.between(2, 6).changes(),
    "get_all": T.get_all(1, 2).changes(),
    "row": T.get(1).changes(),
    "row, initial": T.get(1).changes(include_initial=True),
    "after": T.changes().filter(r.row["new_val"]["a"] > 1),
    "after, mapped": T.changes()["new_val"],
    "union": T.filter(r.row["a"] > 1).union(T.get_all(1)).changes(),
    "first": T.order_by(index="id").limit(3).changes(),
    "now": T.filter(r.row["a"] > r.now().to_epoch_time().mod(1)).changes(),
}
WRITES = [
    T.get(1).update({"a": 7}),
    T.get(2).delete(),
    T.insert({"id": 20, "a": 5, "b": 2}),
    T.update({"a": r.row["a"] + 1}),
    T.get(1).update({"a": 0}),
    T.filter(r.row["id"] > 5).delete(),
]


@pytest.mark.parametrize("name", QUERIES)
def test_all_ways_to_read_a_feed_tell_the_same(server: Server, name: str) -> None:
    """Asked before or after each change, alone or with others, and by the cursor's other door."""
    query = QUERIES[name]
    eager, second, lazy = server.connect(), server.connect(), server.connect()
    told: dict[Driver, list[Any]] = {driver: driver.follow(1, query) for driver in (eager, second, lazy)}
    answer = server.world.start(query)
    plain = [orjson.loads(item) for item in answer.items]
    cursor: Any = answer.cursor

    def hear(driver: Driver) -> None:
        for _, response in driver.heard():
            told[driver] += response["r"]
            driver.say(1, CONTINUE)

    for driver in (eager, second):
        driver.say(1, CONTINUE)
        hear(driver)
    for write in WRITES:
        server.write(write)
        for driver in (eager, second, eager, second):
            hear(driver)
    lazy.say(1, CONTINUE)
    for _ in range(4):
        hear(lazy)
        plain += [orjson.loads(item) for item in cursor.first_batch().items]
    assert told[second] == told[eager]
    if name == "union":  # two feeds side by side
        for elements in (*told.values(), plain):
            elements.sort(key=repr)
    if name != "first":  # which tells how the rows are now, not how they became so
        assert told[lazy] == told[eager] == plain
    assert len(told[eager]) >= 2
    assert fibers_at_work(server) == 0


def open_twice(world: Fed, first: Any, second: Any) -> tuple[Any, Any]:
    return world.start(first).cursor, world.start(second).cursor


def is_shared(first: Any, second: Any) -> bool:
    """Whether one query's feed gives the other's what it worked out."""
    world = Fed()
    one, other = open_twice(world, first, second)
    world.run(T.get(1).update({"a": 8}))
    assert one.listen(list) is NEEDS_FIBER
    answer = one.news()
    body = other.listen(list)
    if body is NEEDS_FIBER:
        return False
    assert orjson.loads(body)["r"] == [orjson.loads(item) for item in answer.items]
    return True


def test_equal_queries_work_it_out_once():
    assert is_shared(T.filter(r.row["a"] > 1).changes(), T.filter(r.row["a"] > 1).changes())
    assert is_shared(T.pluck("a").changes(), T.pluck("a").changes())
    assert is_shared(T.filter({"a": 8}).changes(squash=False), T.filter({"a": 8}).changes(squash=False))


def test_queries_that_may_differ_are_each_worked_out():
    assert not is_shared(T.filter(r.row["a"] > 1).changes(), T.filter(r.row["a"] > 2).changes())
    assert not is_shared(T.pluck("a").changes(), T.pluck("id").changes())
    assert not is_shared(T.pluck("a").changes(), T.pluck("a").changes(include_types=True))
    now = T.filter(r.row["a"] > r.now().to_epoch_time().mod(1)).changes()
    assert not is_shared(now, now)
    default = T.filter(lambda row: row["a"] > 1, default=r.error()).changes()
    assert not is_shared(default, default)


def test_an_index_that_is_another_by_now_shares_nothing():
    world = Fed()
    query = T.get_all(8, index="a").changes()
    world.run(T.index_create("a"))
    one = world.start(query).cursor
    world.run(T.index_drop("a"))
    world.run(T.index_create("a", r.row["id"]))
    other = world.start(query).cursor
    world.run(T.get(8).update({"b": 1}))
    assert one.news() is None
    assert len(other.news().items) == 1


def test_stop_ends_a_feed_that_waits(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, CONTINUE)
    driver.say(1, STOP)
    assert [response["t"] for _, response in driver.heard()] == [2, 2]
    assert server.world.feeds.open_count == 0
    server.write(T.get(1).update({"a": 7}))
    assert driver.heard() == []


def test_a_lost_connection_ends_its_feeds(server: Server) -> None:
    driver = server.connect()
    for token in range(3):
        driver.follow(token, T.changes())
        driver.say(token, CONTINUE)
    driver.connection.connection_lost(None)
    assert (server.world.feeds.open_count, len(server.clients.members)) == (0, 0)
    server.write(T.get(1).update({"a": 7}))


def test_a_feed_that_waits_can_be_killed(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, CONTINUE)
    [running] = server.clients.running()
    assert server.clients.kill(running.query_id)
    [(token, response)] = driver.heard()
    assert (token, response["t"]) == (1, 18)
    assert "jobs" in response["r"][0]
    assert server.world.feeds.open_count == 0


def test_a_driver_may_ask_ahead(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, CONTINUE, CONTINUE)
    server.write(T.get(1).update({"a": 7}))
    assert len(driver.told()) == 1
    server.write(T.get(1).update({"a": 8}))
    assert len(driver.told()) == 1
    server.write(T.get(1).update({"a": 9}))
    assert driver.told() == []


def test_who_wants_no_reply_gets_none(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, b'[2,null,{"noreply":true}]')
    server.write(T.get(1).update({"a": 7}))
    assert driver.heard() == []
    driver.say(1, CONTINUE)
    server.write(T.get(1).update({"a": 8}))
    assert [element["new_val"]["a"] for element in driver.told()] == [8]


def test_a_dropped_table_is_told_to_who_waits(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, CONTINUE)
    server.world.feeds.on_table_gone(server.world.machine.catalog.next_id - 1)
    server.world.tell()
    [(_, response)] = driver.heard()
    assert (response["t"], response["e"]) == (18, 4100000)
    assert server.world.feeds.open_count == 0


def test_a_large_response_is_cut_where_the_query_says(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes(), max_batch_rows=2)
    server.write(T.update({"a": 50}))
    sizes = []
    for _ in range(5):
        driver.say(1, CONTINUE)
        sizes.append(len(driver.told()))
    assert sizes == [2, 2, 2, 2, 1]


def test_a_reader_that_was_too_slow_is_told_how_much_it_missed(server: Server) -> None:
    driver, other = server.connect(), server.connect()
    driver.follow(1, T.changes(changefeed_queue_size=3))
    other.follow(1, T.changes())
    for number in range(10):
        server.write(T.get(1).update({"a": 10 + number}))
    driver.say(1, CONTINUE)
    assert driver.told() == [{"error": "Changefeed cache over array size limit, skipped 10 elements."}]
    driver.say(1, CONTINUE)
    other.say(1, CONTINUE)
    assert len(other.told()) == 10
    server.write(T.get(1).update({"a": 99}))
    assert [element["new_val"]["a"] for element in driver.told()] == [99]


@pytest.mark.parametrize("name", ["all", "filter", "after", "union"])
def test_what_a_peer_does_not_read_waits_in_the_queue_of_its_feed(server: Server, name: str) -> None:
    driver = server.connect()
    assert driver.follow(1, QUERIES[name]) == []
    driver.say(1, CONTINUE, CONTINUE, CONTINUE)
    driver.connection.pause_writing()
    for number in range(4):
        server.write(T.get(1).update({"a": 10 + number}))
    assert driver.heard() == []
    driver.connection.resume_writing()
    assert {element["new_val"]["a"] for element in driver.told()} == {10, 11, 12, 13}
    server.write(T.get(1).update({"a": 20}))
    assert {element["new_val"]["a"] for element in driver.told()} == {20}


def test_a_stop_after_a_continue_that_was_put_off_comes_after_it(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, T.changes())
    driver.say(1, CONTINUE)
    driver.connection.pause_writing()
    driver.say(1, STOP)
    server.write(T.get(1).update({"a": 10}))
    driver.connection.resume_writing()
    assert [response["t"] for _, response in driver.heard()] == [3, 2]
    assert server.world.feeds.open_count == 0


@pytest.mark.parametrize(
    ("query", "begins_with"),
    [
        (r.map(T.changes(), r.range(), lambda change, number: number), []),
        (r.map(r.range(), T.limit(0).coerce_to("array").union(T.changes()), lambda number, change: number), []),
        (T.changes().union(r.range(600), interleave=lambda row: row), list(range(600))),
        (T.filter(False).union(r.range(2), interleave=lambda row: row), [0, 1]),
    ],
)
def test_a_feed_without_news_holds_up_nobody(server: Server, query: Any, begins_with: list[Any]) -> None:
    """Neither the query, which would turn in a circle and let nobody else work, nor what the feed is put beside."""
    driver = server.connect()
    driver.say(1, ReQLEncoder().encode([1, query]).encode())
    assert driver.told() == begins_with
    driver.say(2, b"[1,5]")
    assert driver.told() == [5]


def test_a_feed_beside_numbers_goes_on_when_there_is_news(server: Server) -> None:
    driver = server.connect()
    driver.follow(1, r.map(T.changes()["new_val"]["id"], r.range(), lambda key, number: [key, number]))
    driver.say(1, CONTINUE)
    for key in (30, 31):
        server.write(T.insert({"id": key}))
    driver.say(1, CONTINUE)
    assert driver.told() == [[30, 0], [31, 1]]


def test_what_is_made_null_of_is_left_out(server: Server) -> None:
    server.write(T.get(1).update({"a": None}))
    driver = server.connect()
    begins_with = driver.follow(1, T.get_all(1, 2)["a"].changes(include_initial=True))
    assert begins_with == [{"new_val": 2}]
    driver.follow(2, T.map(lambda row: row["a"].default(None)).changes(include_types=True))
    driver.say(2, CONTINUE)
    server.write(T.insert({"id": 30, "a": None}))
    server.write(T.get(30).update({"a": 5}))
    server.write(T.get(30).delete())
    driver.say(2, CONTINUE)
    assert driver.told() == [
        {"old_val": None, "new_val": 5, "type": "add"},
        {"old_val": 5, "new_val": None, "type": "remove"},
    ]


def test_is_empty_waits_for_the_first_change_and_does_nothing_meanwhile(server: Server) -> None:
    driver = server.connect()
    calls = server.clock.getDelayedCalls()
    driver.say(1, ReQLEncoder().encode([1, T.changes().is_empty()]).encode())
    server.clock.advance(1)
    assert driver.heard() == []
    assert server.clock.getDelayedCalls() == calls
    server.write(T.get(1).update({"a": 7}))
    server.clock.advance(0)
    assert driver.heard() == [(1, {"t": 1, "r": [False]})]
    assert server.clients.active == 0


@pytest.mark.parametrize(
    ("query", "words", "path"),
    [
        (T.union(T).limit(2), "Cannot call `changes` on a slice of a union.", [0, 0]),
        (T.union(r.expr([1])).limit(2), "Cannot call `changes` on an eager stream.", [0]),
        (T.union(T).limit(2).map(lambda row: row), "Changefeeds are not supported on queries that have a transf", [0]),
        (T.limit(2).pluck("a"), "Changefeeds are not supported on queries that have a transformation following", [0]),
        (T.skip(2).pluck("a"), "Changefeeds are not supported on queries that have a transformation following", [0]),
        (T.limit(2).filter(True), "Cannot get changes on the first elements of an unordered stream.", []),
    ],
)
def test_slices_that_have_no_feed(server: Server, query: Any, words: str, path: list[int]) -> None:
    driver = server.connect()
    driver.say(1, ReQLEncoder().encode([1, query.changes()]).encode())
    [(_, response)] = driver.heard()
    assert response["t"] == 18
    assert response["r"][0].startswith(words)
    assert response["b"] == path
    assert server.world.feeds.open_count == 0
