"""Queries on a server that does not lead come back as if the driver had asked the leader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from model.errors import (
    NotLeader,
    ReqlNonExistenceError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlResourceLimitError,
)
from proxy.answers import ATOM, PARTIAL, SEQUENCE, Answer, QueryContext
from proxy.fibers import FiberPool
from proxy.forward import Forwarder, may_write

READ = b'[1,[15,["t"]],{}]'
WRITE = b'[1,[56,[[15,["t"]],{}]],{}]'


class Stream:
    """A stream of three batches that knows whether it was closed."""

    def __init__(self) -> None:
        self.left = 2
        self.is_closed = False

    def next_batch(self) -> Answer:
        self.left -= 1
        if self.left:
            return Answer(PARTIAL, [b"%d" % self.left], [1], cursor=self)
        return Answer(SEQUENCE, [b"0"], [1])

    def close(self) -> None:
        self.is_closed = True


class Local:
    """The evaluator of one server."""

    def __init__(self) -> None:
        self.leads = False
        self.answer: Callable[[], Answer] = lambda: Answer(ATOM, [b"1"])
        self.users: list[str] = []

    def glance(self, body: bytes, user: str) -> bytes | None:
        return None

    def start(self, body: bytes, context: QueryContext) -> Answer:
        if not self.leads:
            raise NotLeader("this server does not lead")
        self.users.append(context.user)
        return self.answer()


class Pair:
    """Two servers, 1 and 2; what they send waits until it is delivered. The driver is at server 1."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pool = FiberPool(self.clock, self.clock.seconds)
        self.locals = {1: Local(), 2: Local()}
        self.leader: int | None = 2
        self.linked = True
        self.wire: list[tuple[int, int, bytes]] = []
        self.servers = {me: self._server(me) for me in (1, 2)}
        self.locals[2].leads = True

    def _server(self, me: int) -> Forwarder:
        class Link:
            max_bytes = 1000

            def send(link, member: int, payload: bytes) -> bool:
                if self.linked:
                    self.wire.append((me, member, payload))
                return self.linked

        return Forwarder(self.locals[me], Link(), me, lambda: self.leader, self.pool, self.clock.seconds)

    def deliver(self) -> None:
        while self.wire:
            sender, receiver, payload = self.wire.pop(0)
            self.servers[receiver].receive(sender, payload)

    def run(self, work: Callable[[], Any]) -> list[Any]:
        """Runs work in a fiber at server 1; the list gets its result or error."""
        out: list[Any] = []
        self.pool.run(lambda item: work(), Item(), lambda item, result, error: out.append(error or result))
        return out

    def start(self, body: bytes) -> list[Any]:
        context = QueryContext("jane", ("10.0.0.1", 5), 1, self.pool)
        return self.run(lambda: self.servers[1].start(body, context))


class Item:
    fiber: Any = None


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_an_answer_comes_back_and_the_leader_knows_who_asks(pair: Pair) -> None:
    out = pair.start(READ)
    pair.deliver()
    assert out[0].kind == ATOM
    assert out[0].items == [b"1"]
    assert pair.locals[2].users == ["jane"]


def test_errors_keep_class_message_and_path(pair: Pair) -> None:
    def fail() -> Answer:
        raise ReqlNonExistenceError("No attribute `a` in object.", (0, "index", 1))

    pair.locals[2].answer = fail
    out = pair.start(READ)
    pair.deliver()
    assert type(out[0]) is ReqlNonExistenceError
    assert out[0].message == "No attribute `a` in object."
    assert out[0].path == (0, "index", 1)


def test_errors_of_a_room_of_their_own_come_back_as_what_drivers_know(pair: Pair) -> None:
    class Absent(ReqlNonExistenceError):
        """A class that only the leader's evaluator knows."""

    def fail() -> Answer:
        raise Absent("No attribute `a` in object.", (0,))

    pair.locals[2].answer = fail
    out = pair.start(READ)
    pair.deliver()
    assert type(out[0]) is ReqlNonExistenceError


def test_a_stream_goes_on_and_ends(pair: Pair) -> None:
    stream = Stream()
    pair.locals[2].answer = lambda: Answer(PARTIAL, [b"2"], [1], cursor=stream)
    first = pair.start(READ)
    pair.deliver()
    cursor = first[0].cursor
    items = [first[0].items]
    for _ in range(2):
        batch = pair.run(cursor.next_batch)
        pair.deliver()
        items.append(batch[0].items)
    assert items == [[b"2"], [b"1"], [b"0"]]
    assert batch[0].kind == SEQUENCE
    assert batch[0].cursor is None
    assert not pair.servers[1]._asked
    assert not pair.servers[2]._serving


def test_closing_a_stream_closes_it_on_the_leader(pair: Pair) -> None:
    stream = Stream()
    pair.locals[2].answer = lambda: Answer(PARTIAL, [b"2"], cursor=stream)
    first = pair.start(READ)
    pair.deliver()
    first[0].cursor.close()
    pair.deliver()
    assert stream.is_closed
    assert not pair.servers[2]._serving


@pytest.mark.parametrize(("body", "expected"), [(READ, ATOM), (WRITE, ReqlOpIndeterminateError)])
def test_a_lost_link_repeats_reads_and_never_writes(pair: Pair, body: bytes, expected: Any) -> None:
    out = pair.start(body)
    pair.wire.clear()
    pair.leader = None
    pair.servers[1].lost(2)
    pair.locals[1].leads, pair.leader = True, 1
    pair.clock.advance(0.1)
    assert expected in (type(out[0]), getattr(out[0], "kind", None))


def test_a_leader_that_has_just_lost_the_lead_refuses_and_the_query_moves_on(pair: Pair) -> None:
    pair.locals[2].leads = False
    out = pair.start(WRITE)
    pair.deliver()
    assert not out
    pair.locals[1].leads, pair.leader = True, 1
    pair.clock.advance(0.1)
    assert out[0].items == [b"1"]


def test_who_lost_the_lead_and_has_it_again_is_given_up_for_the_first_time_only(pair: Pair) -> None:
    first = pair.start(WRITE)
    asked_so_far = pair.servers[1].asked_so_far
    second = pair.start(WRITE)
    pair.servers[1].give_up(2, asked_so_far)
    assert type(first[0]) is ReqlOpIndeterminateError
    assert not second
    pair.deliver()
    assert second[0].items == [b"1"]


def test_without_a_leader_the_query_fails_in_the_end(pair: Pair) -> None:
    pair.leader = None
    out = pair.start(WRITE)
    for _ in range(250):
        pair.clock.advance(0.05)
    assert type(out[0]) is ReqlOpFailedError


def test_an_open_stream_fails_when_its_server_is_lost(pair: Pair) -> None:
    stream = Stream()
    pair.locals[2].answer = lambda: Answer(PARTIAL, [b"2"], cursor=stream)
    first = pair.start(READ)
    pair.deliver()
    batch = pair.run(first[0].cursor.next_batch)
    pair.servers[1].lost(2)
    pair.servers[2].lost(1)
    assert type(batch[0]) is ReqlOpFailedError
    assert stream.is_closed


def test_what_may_write_is_known_from_the_query() -> None:
    assert may_write(WRITE)
    assert may_write(b"[1,[64,[[69,[[2,[1]],[53,[[10,[1]],{}]]]],1]],{}]")
    assert not may_write(READ)
    assert not may_write(b'[1,{"a":[2,["insert"]]},{}]')


def test_what_runs_for_another_server_is_shown_and_can_be_ended(pair: Pair) -> None:
    stream = Stream()
    pair.locals[2].answer = lambda: Answer(PARTIAL, [b"2"], cursor=stream)
    first = pair.start(READ)
    pair.deliver()
    pair.clock.advance(3)
    (running,) = pair.servers[2].running()
    assert (running.user, running.address, running.duration_s, running.body) == ("jane", ("10.0.0.1", 5), 3, READ)
    assert not pair.servers[2].kill("00000000-0000-4000-8000-000000000000")
    assert pair.servers[2].kill(running.query_id)
    assert stream.is_closed
    batch = pair.run(first[0].cursor.next_batch)
    pair.deliver()
    assert type(batch[0]) is ReqlOpIndeterminateError
    assert batch[0].message == "Query terminated by the `rethinkdb.jobs` table."
    assert not pair.servers[2].running()


def test_a_query_is_ended_while_it_runs_for_another_server(pair: Pair) -> None:
    def wait_long() -> Answer:
        pair.pool.wait_for(lambda done: None)
        raise AssertionError("nobody ended it")

    pair.locals[2].answer = wait_long
    out = pair.start(READ)
    pair.deliver()
    (running,) = pair.servers[2].running()
    assert pair.servers[2].kill(running.query_id)
    pair.deliver()
    assert type(out[0]) is ReqlOpIndeterminateError
    assert not pair.servers[2].running()


def test_an_answer_that_the_link_does_not_take_is_sent_as_soon_as_it_does(pair: Pair) -> None:
    out = pair.start(WRITE)
    pair.linked = False
    pair.deliver()
    pair.clock.advance(0.1)
    assert not out and not pair.wire
    pair.linked = True
    pair.clock.advance(0.1)
    pair.deliver()
    assert out[0].items == [b"1"]
    assert not pair.servers[2]._late


def test_an_answer_for_a_server_whose_link_broke_is_let_go(pair: Pair) -> None:
    pair.start(WRITE)
    pair.linked = False
    pair.deliver()
    pair.servers[2].lost(1)
    pair.linked = True
    pair.clock.advance(1)
    assert not pair.wire
    assert not pair.servers[2]._late


def test_an_answer_above_what_links_carry_is_an_error_and_not_a_wait_without_end(pair: Pair) -> None:
    pair.locals[2].answer = lambda: Answer(ATOM, [b"x" * 2000])
    out = pair.start(READ)
    pair.deliver()
    assert type(out[0]) is ReqlResourceLimitError
    assert "at most 1000" in out[0].message
    assert not pair.servers[1]._asked
