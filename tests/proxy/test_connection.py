"""The shell of a connection on a wire of paper: back-pressure, limits, killing, draining, bookkeeping."""

import json
import struct

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from model.errors import LeadershipLost
from proxy.answers import Answer, Promised
from proxy.auth import UserDirectory, make_credential, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.connection import Connection
from proxy.fibers import FiberPool
from proxy.frames import answer_frame
from proxy.handshake import MAGIC_V0_3, MAGIC_V0_4, MAGIC_V1_0, WIRE_JSON

LOG_IN = struct.pack("<III", MAGIC_V0_4, 0, WIRE_JSON)
WAIT, CHANGES, RANGE, SYNC = 177, 152, 173, 138


class Wire:
    """Keeps what is written; its buffer fills when the test says so."""

    def __init__(self):
        self.written = b""
        self.writes = 0
        self.buffer_bytes = 0
        self.is_reading = True
        self.is_closed = False
        self.is_aborted = False

    def write(self, data):
        assert not self.is_closed
        self.written += data
        self.writes += 1

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_aborted = True

    def pause_reading(self):
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self):
        assert not self.is_reading
        self.is_reading = True

    def get_write_buffer_size(self):
        return self.buffer_bytes


class World:
    """Connections to one fake evaluator, without a reactor."""

    def __init__(self, evaluator, responses, **limits):
        self.reactor = Clock()
        self.seconds = 0.0
        self.evaluator = evaluator
        self.responses = responses
        self.users = {"admin": passwordless_admin()}
        login = UserDirectory(self.users.get, b"secret", self.clock)
        self.fibers = FiberPool(self.reactor, self.clock)
        self.clients = Clients(
            evaluator, login, self.fibers, self.reactor, "id", "name", Limits(**limits), seconds=self.clock
        )

    def clock(self):
        return self.seconds

    def spin(self):
        self.seconds += 0.003

    def connect(self, log_in=LOG_IN):
        connection = Connection(self.clients)
        wire = Wire()
        connection.connected(wire, ("10.0.0.7", 4711))
        if log_in:
            connection.data_received(log_in)
            assert wire.written == b"SUCCESS\0"
            wire.written = b""
        return connection, wire

    def heard(self, wire):
        data, wire.written = wire.written, b""
        return self.responses(data)


@pytest.fixture
def world(evaluator, responses):
    return lambda **limits: World(evaluator, responses, **limits)


def test_a_query_is_answered_before_the_call_returns(world, frame):
    w = world()
    connection, wire = w.connect()
    calls = list(w.reactor.calls)
    connection.data_received(frame(3, b"[1,5]"))
    assert w.heard(wire) == [(3, {"t": 1, "r": [5]})]
    assert w.reactor.calls == calls


def test_queries_may_follow_the_handshake_in_the_same_piece(world, frame):
    w = world()
    connection, wire = w.connect(log_in=b"")
    connection.data_received(LOG_IN + frame(1, b"[1,5]") + frame(2, b"[1,6]"))
    assert wire.written.startswith(b"SUCCESS\0")
    assert [token for token, _ in w.responses(wire.written[8:])] == [1, 2]


def test_the_evaluator_is_told_who_asks(world, frame):
    w = world()
    connection, _ = w.connect()
    connection.data_received(frame(1, b"[1,5]") + frame(2, b'[1,5,{"noreply":true}]'))
    context, quiet = w.evaluator.contexts
    assert (context.user, context.address, context.connection_id) == ("admin", ("10.0.0.7", 4711), 1)
    assert context.fibers is w.fibers
    assert (context.noreply, quiet.noreply) == (False, True)
    assert (context.returns_empty_batches, quiet.connection_id) == (False, 1)


def test_drivers_of_v0_3_get_one_answer_after_the_other(world, frame):
    w = world()
    connection, wire = w.connect(struct.pack("<III", MAGIC_V0_3, 0, WIRE_JSON))
    connection.data_received(frame(1, [1, [WAIT, []]]) + frame(2, b"[1,6]"))
    assert w.heard(wire) == []
    assert not wire.is_reading
    w.evaluator.waiting[0].callback(b"5")
    assert [token for token, _ in w.heard(wire)] == [1, 2]
    assert wire.is_reading
    assert w.evaluator.contexts[0].returns_empty_batches


def test_a_peer_that_does_not_read_gets_nothing_more_to_do(world, frame):
    w = world()
    connection, wire = w.connect()
    connection.data_received(frame(1, [1, [WAIT, []]]))
    connection.pause_writing()
    assert not wire.is_reading
    connection.data_received(frame(2, b"[1,6]"))
    assert len(w.evaluator.contexts) == 1
    connection.resume_writing()
    assert wire.is_reading
    assert [token for token, _ in w.heard(wire)] == [2]


def test_a_peer_that_never_reads_is_cut_in_the_end(world, frame):
    w = world(write_abort_bytes=1000)
    connection, wire = w.connect()
    for token in range(3):
        connection.data_received(frame(token, [1, [WAIT, []]]))
    connection.pause_writing()
    wire.buffer_bytes = 900
    w.evaluator.waiting[0].callback(b"5")
    assert not wire.is_aborted
    wire.buffer_bytes = 1001
    w.evaluator.waiting[1].callback(b"5")
    assert wire.is_aborted
    connection.connection_lost(None)
    assert w.clients.members == {}


def test_a_flood_of_queries_gives_others_a_turn(world, frame):
    w = world()

    def start(body, context):
        w.seconds += 0.0005
        return Answer("atom", [b"1"])

    w.evaluator.start = start
    connection, wire = w.connect()
    connection.data_received(b"".join(frame(token, b"[1,5]") for token in range(20)))
    assert 0 < len(w.heard(wire)) < 20
    assert not wire.is_reading
    while any(call.getTime() <= 0 for call in w.reactor.getDelayedCalls()):
        w.reactor.advance(0)
    assert wire.is_reading
    connection.data_received(frame(99, b"[1,5]"))
    assert w.heard(wire)[-1][0] == 99


def test_a_flood_from_many_connections_takes_one_slice_of_time_in_a_pass(world, frame):
    w = world()

    def start(body, context):
        w.seconds += 0.0005
        return Answer("atom", [b"1"])

    w.evaluator.start = start
    clients = [w.connect() for _ in range(10)]
    soon = []
    w.clients.timers = type("Passes", (), {"callLater": lambda self, delay, call: soon.append(call)})()
    flood = b"".join(frame(token, b"[1,5]") for token in range(20))
    for connection, _ in clients:
        connection.data_received(flood)
    assert w.seconds <= 0.01
    passes = 0
    while soon:
        began, due = w.seconds, [soon.pop(0) for _ in range(len(soon))]
        for call in due:
            call()
        passes += 1
        assert w.seconds - began <= 0.003
    assert 30 < passes < 60
    for _, wire in clients:
        assert [token for token, _ in w.heard(wire)] == list(range(20))
        assert wire.is_reading


def test_the_first_words_of_a_handshake_leave_together(world):
    w = world()
    connection, wire = w.connect(log_in=b"")
    hello = b'{"protocol_version":0,"authentication_method":"SCRAM-SHA-256","authentication":"n,,n=admin,r=nonce"}\0'
    connection.data_received(struct.pack("<I", MAGIC_V1_0) + hello)
    assert wire.writes == 1
    greeting, challenge, nothing = wire.written.split(b"\0")
    assert json.loads(greeting)["success"]
    assert json.loads(challenge)["authentication"].startswith("r=nonce")
    assert nothing == b""


def test_a_handshake_that_takes_too_long(world):
    w = world(handshake_timeout_s=5)
    _, wire = w.connect(log_in=b"")
    _, quick = w.connect()
    w.reactor.advance(6)
    assert wire.is_aborted
    assert not quick.is_aborted
    assert w.clients.unauthenticated == 1


def test_after_failures_the_next_attempt_waits_and_is_not_read_from(world):
    w = world()
    for _ in range(5):
        w.clients.login.note("10.0.0.7", "admin", False)
    held, wire = w.connect(log_in=b"")
    gone, _ = w.connect(log_in=b"")
    for connection in (held, gone):
        connection.data_received(LOG_IN)
    assert wire.written == b""
    assert not wire.is_reading
    gone.connection_lost(None)
    w.reactor.advance(1)
    assert wire.written == b"SUCCESS\0"
    assert wire.is_reading
    assert w.clients.unauthenticated == 0


def test_unfinished_handshakes_are_limited(world):
    w = world(max_unauthenticated=2)
    first, _ = w.connect(log_in=b"")
    w.connect(log_in=b"")
    _, wire = w.connect(log_in=b"")
    assert wire.written == b"ERROR: Too many connections.\n\0"
    assert wire.is_closed
    first.connection_lost(None)
    _, wire = w.connect(log_in=b"")
    assert wire.written == b""


def test_connections_are_limited(world):
    w = world(max_connections=2)
    w.connect()
    w.connect()
    connection, wire = w.connect(log_in=b"")
    assert wire.is_closed
    connection.data_received(LOG_IN)
    connection.connection_lost(None)
    assert len(w.clients.members) == 2


def test_a_query_that_is_too_large_is_answered_and_ends_the_connection(world, frame):
    w = world(max_query_bytes=100, drain_timeout_s=300)
    connection, wire = w.connect()
    connection.data_received(frame(1, b"x" * 200)[:100])
    assert not wire.is_closed
    connection.data_received(b"x" * 112)
    assert w.heard(wire) == [(1, {"t": 16, "r": ["Query size (200) greater than maximum (99)."], "b": []})]
    assert wire.is_closed


def test_the_rest_of_a_query_that_is_too_large_is_not_waited_for_without_end(world, frame):
    w = world(max_query_bytes=100, drain_timeout_s=300)
    connection, wire = w.connect()
    connection.data_received(frame(1, b"x" * 200)[:100])
    w.reactor.advance(301)
    assert wire.is_aborted


def test_what_comes_in_part_is_limited_over_all_connections(world, frame):
    w = world(max_receiving_bytes=1000)
    first, first_wire = w.connect()
    first.data_received(frame(1, b"[1," + b"5" * 800 + b"]")[:700])
    assert w.clients.receiving_bytes == 688
    second, second_wire = w.connect()
    second.data_received(frame(2, b"[1," + b"5" * 800 + b"]")[:400])
    ((token, response),) = w.heard(second_wire)
    assert (token, response["e"]) == (2, 2000000)
    assert second_wire.is_closed
    assert not first_wire.is_closed
    first.data_received(frame(1, b"[1," + b"5" * 800 + b"]")[700:])
    assert w.clients.receiving_bytes == 0


def test_running_queries_are_listed_and_can_be_killed(world, frame):
    w = world()
    connection, wire = w.connect()
    w.connect()
    w.seconds = 10.0
    connection.data_received(frame(1, [1, [WAIT, []]]) + frame(2, [1, [RANGE, [500]]]) + frame(3, [1, [CHANGES, []]]))
    w.heard(wire)
    w.seconds = 12.5
    running = w.clients.running()
    assert [json.loads(query.body)[1][0] for query in running] == [WAIT, RANGE, CHANGES]
    assert [query.duration_s for query in running] == [2.5, 2.5, 2.5]
    assert {(query.user, query.address, query.connection_id) for query in running} == {("admin", ("10.0.0.7", 4711), 1)}
    assert len({query.query_id for query in running}) == 3
    assert w.clients.active == 1
    killed = "Query terminated by the `rethinkdb.jobs` table."
    assert w.clients.kill(running[0].query_id)
    assert w.heard(wire) == [(1, {"t": 18, "e": 4200000, "r": [killed], "b": []})]
    assert not w.clients.kill(running[0].query_id)
    assert w.clients.kill(running[2].query_id)
    assert w.evaluator.cursors[1].closed == 1
    connection.data_received(frame(3, [2]))
    assert w.heard(wire) == [(3, {"t": 18, "e": 4200000, "r": [killed], "b": []})]
    assert len(w.clients.running()) == 1


def test_a_query_sees_itself_among_the_running_and_may_kill_itself(world, frame):
    w = world()

    def start(body, context):
        (running,) = w.clients.running()
        assert (running.body, running.connection_id, running.user) == (body, 1, "admin")
        assert w.clients.kill(running.query_id)
        context.fibers.breathe()

    w.evaluator.start = start
    connection, wire = w.connect()
    connection.data_received(frame(1, b"[1,5]"))
    connection.data_received(frame(1, b"[1,5]") + frame(2, b"[1,5]"))
    killed = "Query terminated by the `rethinkdb.jobs` table."
    assert [(token, response["r"]) for token, response in w.heard(wire)] == [
        (1, [killed]),
        (1, [killed]),
        (2, [killed]),
    ]
    assert w.clients.running() == []


def test_a_lost_connection_ends_its_queries(world, frame):
    w = world()
    w.evaluator.spin = w.spin
    connection, wire = w.connect()
    connection.data_received(frame(1, [1, [WAIT, []]]) + frame(2, [1, [RANGE, [500]]]) + frame(3, [1, [SYNC, []]]))
    w.heard(wire)
    connection.connection_lost(None)
    assert w.evaluator.waiting[0].called
    assert w.evaluator.cursors[0].closed == 1
    w.reactor.advance(0)
    assert connection.session.queries == {}
    assert w.clients.members == {}
    assert wire.written == b""
    connection.connection_lost(None)


def test_a_cursor_that_fails_to_close_harms_nobody(world, frame, caplog):
    w = world()
    connection, wire = w.connect()
    connection.data_received(frame(2, [1, [RANGE, [500]]]))
    w.heard(wire)

    def close():
        raise RuntimeError("a bug in a stream")

    w.evaluator.cursors[0].close = close
    connection.data_received(frame(2, [3]) + frame(3, b"[1,5]"))
    assert [token for token, _ in w.heard(wire)] == [2, 3]
    assert "a bug in a stream" in caplog.text


def test_draining_lets_queries_end_and_takes_no_more(world, frame):
    w = world()
    connection, wire = w.connect()
    _, idle = w.connect()
    _, greeting = w.connect(log_in=b"")
    connection.data_received(frame(1, [1, [WAIT, []]]))
    connection.data_received(frame(2, [1, [CHANGES, []]]))
    connection.data_received(frame(2, [2]))
    w.heard(wire)
    drained = []
    w.clients.drain(10).addCallback(drained.append)
    assert idle.is_closed
    assert greeting.is_closed
    stopped = (2, {"t": 18, "e": 4200000, "r": ["Server is shutting down."], "b": []})
    assert w.heard(wire) == [stopped]  # a feed would never end
    assert not wire.is_closed
    connection.data_received(frame(4, b"[1,5]"))
    _, late = w.connect(log_in=b"")
    assert late.written == b"ERROR: Server is shutting down.\n\0"
    w.evaluator.waiting[0].callback(b"5")
    assert w.heard(wire) == [(1, {"t": 1, "r": [5]})]
    assert wire.is_closed
    for member in list(w.clients.members.values()):
        member.connection_lost(None)
    assert drained == [None]
    assert w.reactor.getDelayedCalls() == []


def test_draining_does_not_wait_for_ever(world, frame):
    w = world()
    connection, wire = w.connect()
    connection.data_received(frame(1, [1, [WAIT, []]]))
    w.clients.drain(10)
    w.reactor.advance(11)
    assert w.heard(wire) == [(1, {"t": 18, "e": 4200000, "r": ["Server is shutting down."], "b": []})]
    assert wire.is_closed
    w.reactor.advance(2)
    assert wire.is_aborted


def test_an_idle_server_is_drained_at_once(world):
    assert world().clients.drain(10).called


def test_a_costly_key_is_checked_beside_the_reactor(world, monkeypatch):
    w = world()
    w.users["admin"] = make_credential("", 10_000)
    checks = []

    def defer_to_thread(function, *args):
        checks.append((function, args, defer.Deferred()))
        return checks[0][2]

    monkeypatch.setattr("proxy.connection.threads.deferToThread", defer_to_thread)
    connection, wire = w.connect(log_in=b"")
    connection.data_received(LOG_IN)
    assert not wire.is_reading
    function, args, deferred = checks[0]
    deferred.callback(function(*args))
    assert wire.written == b"SUCCESS\0"
    assert wire.is_reading


def test_answers_to_frames_that_came_together_leave_together(world, frame):
    w = world()
    connection, wire = w.connect()
    before = wire.writes
    connection.data_received(b"".join(frame(token, b"[1,5]") for token in range(16)))
    assert wire.writes == before + 1
    assert [token for token, _ in w.heard(wire)] == list(range(16))
    connection.data_received(frame(1, b"[1,5]"))
    assert wire.writes == before + 2


def test_large_answers_are_not_kept_back_for_others(world, frame):
    w = world()
    connection, wire = w.connect()
    before = wire.writes
    text = b'[1,"%b"]' % (b"x" * 50_000)
    connection.data_received(b"".join(frame(token, text) for token in range(7)))
    assert wire.writes == before + 3
    assert len(w.heard(wire)) == 7


@pytest.fixture
def large(world):
    """A world that answers with 18 MB in many items, the frame that says so, and how often memory was given back."""
    w = world()
    items = [b'"%09d%b"' % (number, b"x" * 6000) for number in range(3000)]
    relieved = []
    w.clients._give_back = lambda: relieved.append(w.reactor.seconds())
    w.evaluator.start = lambda body, context: Answer("array", list(items))
    return w, answer_frame(7, Answer("array", items)), relieved


def test_a_large_answer_is_sent_in_pieces_and_its_memory_given_back(large, frame):
    w, expected, relieved = large
    connection, wire = w.connect()
    before = wire.writes
    for _ in range(2):
        connection.data_received(frame(1, b"[1,5]") + frame(7, b"[1,5]"))
        w.reactor.advance(0.5)
    assert wire.writes > before + 40
    assert wire.written.endswith(expected)
    assert len(wire.written) == 4 * len(expected)
    assert relieved == []
    w.reactor.advance(0.5)
    assert relieved == [1.5]
    w.reactor.advance(10.0)
    assert relieved == [1.5]


def test_memory_is_given_back_after_a_large_query(world, frame):
    w = world()
    relieved = []
    w.clients._give_back = lambda: relieved.append(1)
    connection, wire = w.connect()
    query = b'[1,"%b"]' % (b"x" * (17 << 20))
    plain = w.evaluator.start

    def promising(body, context):
        return Promised(Answer("atom", [b"1"]), lambda done: done(None))

    for token, w.evaluator.start in enumerate((plain, promising)):
        data = frame(token, query)
        connection.data_received(data[:100])
        connection.data_received(data[100:])
        assert [token for token, _ in w.heard(wire)] == [token]
        w.reactor.advance(0.9)
        assert relieved == []
    w.reactor.advance(1.0)
    assert relieved == [1]


def test_a_server_that_stops_gives_nothing_back(large, frame):
    w, _, relieved = large
    connection, _ = w.connect()
    connection.data_received(frame(1, b"[1,5]") + frame(7, b"[1,5]"))
    w.clients.drain(0.0)
    w.reactor.advance(10.0)
    assert relieved == []


def test_what_was_answered_is_sent_before_the_connection_is_closed(world, frame):
    w = world(max_query_bytes=100)
    connection, wire = w.connect()
    connection.data_received(frame(1, b"[1,5]") + frame(2, b"[1,6]") + frame(3, b"x" * 200))
    assert [token for token, _ in w.heard(wire)] == [1, 2, 3]
    assert wire.is_closed


@pytest.fixture
def glancing(world):
    """A world that answers number 5 at a glance, a connection in it, and the bodies that were run in a fiber."""
    w = world()
    started, start = [], w.evaluator.start

    def run(body, context):
        started.append(body)
        return start(body, context)

    w.evaluator.glance = lambda body, user: b'"seen"' if body.startswith(b"[1,5") and user == "admin" else None
    w.evaluator.start = run
    return (w, *w.connect(), started)


def test_what_is_answered_at_a_glance_takes_no_fiber(glancing, frame):
    w, connection, wire, started = glancing
    connection.data_received(frame(1, b"[1,5]"))
    assert w.heard(wire) == [(1, {"t": 1, "r": ["seen"]})]
    connection.data_received(frame(2, b"[1,6]"))
    connection.data_received(frame(1, b"[1,5]") + frame(2, b"[1,6]") + frame(3, b"[1,5]"))
    assert w.heard(wire) == [(2, {"t": 1, "r": [6]})] + [
        (token, {"t": 1, "r": [answer]}) for token, answer in [(1, "seen"), (2, 6), (3, "seen")]
    ]
    assert started == [b"[1,6]"] * 2
    assert w.clients.queries_total == 5
    assert w.clients.running() == []


def test_who_wants_no_reply_is_not_given_one_at_a_glance(glancing, frame):
    w, connection, wire, started = glancing
    body = b'[1,5,{"noreply":true}]'
    connection.data_received(frame(1, body))
    connection.data_received(frame(2, body) + frame(3, b"[4]"))
    assert w.heard(wire) == [(3, {"t": 4, "r": []})]
    assert started == [body] * 2


def test_an_open_stream_keeps_its_token_from_glances(glancing, frame):
    w, connection, wire, _ = glancing
    connection.data_received(frame(1, b"[1,[152,[]]]"))
    w.heard(wire)
    connection.data_received(frame(1, b"[1,5]"))
    [(token, response)] = w.heard(wire)
    assert (token, response["t"]) == (1, 16)


@pytest.fixture(params=["in a fiber", "at a glance"])
def promising(world, request):
    """A world whose queries all promise something, a connection in it, and the promises' `done`s."""
    w = world()
    begun = []
    w.evaluator.start = lambda body, context: Promised(Answer("atom", [body]), begun.append)
    if request.param == "at a glance":
        w.evaluator.glance = lambda body, user: Promised(Answer("atom", [body]), begun.append)
    return (w, *w.connect(), begun)


def test_promised_answers_are_sent_once_they_are_true(promising, frame):
    w, connection, wire, begun = promising
    connection.data_received(frame(1, b"[1,5]"))
    connection.data_received(frame(2, b"[1,6]") + frame(3, b"[1,7]"))
    assert w.heard(wire) == []
    assert len(w.clients.running()) == 3
    assert w.clients.active == 1
    begun[2](None)
    begun[0](None)
    assert w.heard(wire) == [(3, {"t": 1, "r": [[1, 7]]}), (1, {"t": 1, "r": [[1, 5]]})]
    begun[1](LeadershipLost("gone"))
    ((token, response),) = w.heard(wire)
    assert (token, response["t"], response["e"]) == (2, 18, 4200000)
    assert w.clients.running() == []


def test_who_waits_for_a_promise_can_be_killed_stopped_and_lost(promising, frame):
    w, connection, wire, begun = promising
    connection.data_received(frame(1, b"[1,5]"))
    (running,) = w.clients.running()
    assert w.clients.kill(running.query_id)
    assert w.heard(wire)[0][1]["r"] == ["Query terminated by the `rethinkdb.jobs` table."]
    connection.data_received(frame(2, b"[1,5]"))
    connection.data_received(frame(2, b"[3]"))
    assert [token for token, _ in w.heard(wire)] == [2, 2]
    connection.data_received(frame(3, b"[1,5]"))
    connection.connection_lost(None)
    for done in begun:
        done(None)
    assert w.heard(wire) == []
    assert w.clients.members == {}


def test_a_noreply_query_is_waited_for_until_its_promise_is_kept(promising, frame):
    w, connection, wire, begun = promising
    connection.data_received(frame(1, b'[1,5,{"noreply":true}]') + frame(2, b"[4]"))
    assert w.heard(wire) == []
    begun[0](None)
    assert w.heard(wire) == [(2, {"t": 4, "r": []})]


def test_a_server_that_stops_waits_for_promises(promising, frame):
    w, connection, wire, begun = promising
    connection.data_received(frame(1, b"[1,5]"))
    w.clients.drain(10.0)
    assert not wire.is_closed
    begun[0](None)
    assert w.heard(wire) == [(1, {"t": 1, "r": [[1, 5]]})]
    assert wire.is_closed


def test_what_is_promised_by_a_query_that_waited_before_is_waited_for_too(promising, frame):
    w, _, _, begun = promising
    promise, first = w.evaluator.start, defer.Deferred()

    def wait_then_promise(body, context):
        context.fibers.wait(first)
        return promise(body, context)

    w.evaluator.start = wait_then_promise
    w.evaluator.glance = lambda body, user: None
    waiting, wire = w.connect()
    waiting.data_received(frame(1, b"[1,5]"))
    assert begun == []
    first.callback(None)
    assert len(begun) == 1
    assert w.heard(wire) == []
    begun[0](None)
    assert w.heard(wire) == [(1, {"t": 1, "r": [[1, 5]]})]
