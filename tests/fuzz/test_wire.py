"""Hostile bytes on the driver port: nothing raises, every answer is well formed, nothing grows without bound."""

import json
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from model.errors import ReqlUserError
from proxy.answers import Answer
from proxy.auth import UserDirectory, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.connection import Connection
from proxy.fibers import FiberPool
from proxy.handshake import (
    MAGIC_V0_1,
    MAGIC_V0_3,
    MAGIC_V0_4,
    MAGIC_V1_0,
    MAX_MESSAGE_BYTES,
    WIRE_JSON,
    Handshake,
    Ready,
    Refuse,
)

LOG_IN = struct.pack("<III", MAGIC_V0_4, 0, WIRE_JSON)
MAX_QUERY_BYTES = 4096


class Stream:
    def __init__(self, batches):
        self.batches = batches

    def next_batch(self):
        self.batches -= 1
        return Answer("partial" if self.batches else "sequence", [b"1"], cursor=self if self.batches else None)

    def close(self):
        self.batches = 0


class Evaluator:
    """An outcome by the body's length: value, error, bug, stream, wait."""

    def glance(self, body, user):
        return None

    def start(self, body, context):
        kind = len(body) % 5
        if kind == 0:
            raise ReqlUserError("no", (0, "x"))
        if kind == 1:
            return {}["bug"]
        if kind == 2:
            return Stream(3).next_batch()
        if kind == 3:
            context.fibers.wait_for(lambda done: None)
        return Answer("atom", [b"1"])


class Wire:
    def __init__(self):
        self.written = b""
        self.is_closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.is_closed = True

    abort = close

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self):
        return 0


def connect(log_in=b""):
    reactor = Clock()
    login = UserDirectory({"admin": passwordless_admin()}.get, b"secret", reactor.seconds)
    fibers = FiberPool(reactor, reactor.seconds)
    limits = Limits(max_query_bytes=MAX_QUERY_BYTES, max_running=16)
    clients = Clients(Evaluator(), login, fibers, reactor, "id", "name", limits, seconds=reactor.seconds)
    connection = Connection(clients)
    wire = Wire()
    connection.connected(wire, ("10.0.0.1", 1))
    if log_in:
        connection.data_received(log_in)
    return connection, wire, clients


def feed(connection, wire, data, dice):
    at = 0
    while at < len(data) and not wire.is_closed:
        size = dice.choice((1, 3, 11, 12, 13, 100, 5000))
        connection.data_received(data[at : at + size])
        at += size


def check_responses(data):
    while data:
        _, size = struct.unpack_from("<qI", data)
        response = json.loads(data[12 : 12 + size])
        assert response["t"] in (1, 2, 3, 4, 5, 16, 17, 18)
        assert isinstance(response["r"], list)
        data = data[12 + size :]


def check_end(connection, wire, clients):
    connection.connection_lost(None)
    assert clients.members == {}
    assert clients.unauthenticated == 0
    assert clients.receiving_bytes == 0
    if connection.session is not None:
        assert connection.session.queries == {}


BODIES = [
    b"[1,5]", b"[1,55]", b"[1,555]", b"[1,5555]", b"[1,55555]", b"[2]", b"[3]", b"[4]", b"[5]", b"[1]", b"", b"[]",
    b"[1,5,[]]", b"[1,5,{}]", b'[1,5,{"noreply":true}]', b'[2,null,{"noreply":true}]', b"[1,5,{},6]", b"[[1],5]",
    b"[1e99]", b"[-1]", b"null", b"\xff\xff", b"[" * 2000, b'"' + b"\\u0000" * 50 + b'"', b"[1," + b"[" * 3000,
    b"x" * MAX_QUERY_BYTES, b'[1,{"noreply":true', b"[1 ,5]", b" [1,5]", b"[5]\0", b"[5.5]", b"[true]",
]  # fmt: skip


def query_stream(dice):
    data = b""
    for _ in range(dice.randrange(1, 25)):
        body = dice.choice(BODIES)
        size = len(body) if dice.random() < 0.97 else dice.choice((0, 1, MAX_QUERY_BYTES, 1 << 30, 0xFFFFFFFF))
        data += struct.pack("<qI", dice.choice((1, 2, 3, -1, 1 << 62)), size) + body
    return data


def mutated(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice((0, 0, 1, 2, 8))):
        at = dice.randrange(len(data))
        action = dice.randrange(4)
        if action == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif action == 1:
            del data[at : at + dice.randrange(1, 20)]
        elif action == 2:
            data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 20)))
        else:
            data[at:at] = data[: dice.randrange(1, 200)]
        data = data or bytearray(b"x")
    return bytes(data)


@pytest.mark.parametrize("seed", range(150))
def test_mutated_queries(seed):
    dice = random.Random(seed)
    connection, wire, clients = connect(LOG_IN)
    wire.written = b""
    feed(connection, wire, mutated(query_stream(dice), dice), dice)
    check_responses(wire.written)
    check_end(connection, wire, clients)


def handshake_stream(dice):
    magic = dice.choice((MAGIC_V0_1, MAGIC_V0_3, MAGIC_V0_4, MAGIC_V1_0, MAGIC_V1_0, MAGIC_V1_0, 0))
    if magic in (MAGIC_V0_3, MAGIC_V0_4):
        key = b"k" * dice.choice((0, 0, 1, 2048, 2049))
        return struct.pack("<II", magic, len(key)) + key + struct.pack("<I", WIRE_JSON)
    first = {
        "protocol_version": dice.choice((0, 0, 0, 1, None, "0", 1e300)),
        "authentication_method": dice.choice(("SCRAM-SHA-256", "SCRAM-SHA-256", "PLAIN", 5)),
        "authentication": dice.choice(
            ("n,,n=admin,r=abc", "n,,n=admin,r=abc", "n,,", "y,,", "n,,n==2C,r=", "n,,r=a,n=x,m=1", "", 7, "n" * 1500)
        ),
    }
    final = {"authentication": dice.choice(("c=biws,r=abc,p=xx", "p=", "c=biws", "", None, "c=biws,r=a,p=" + "A" * 44))}
    return struct.pack("<I", magic) + json.dumps(first).encode() + b"\0" + json.dumps(final).encode() + b"\0"


@pytest.mark.parametrize("seed", range(150))
def test_mutated_handshakes(seed):
    dice = random.Random(1000 + seed)
    connection, wire, clients = connect()
    feed(connection, wire, mutated(handshake_stream(dice) + query_stream(dice), dice), dice)
    check_end(connection, wire, clients)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=3000), max_size=4))
def test_a_handshake_takes_any_bytes_and_keeps_few(start, more):
    login = UserDirectory({"admin": passwordless_admin()}.get, b"secret", lambda: 0.0)
    talk = Handshake(login, lambda size: b"n" * size, "10.0.0.1")
    ended = False
    for data in (struct.pack("<I", MAGIC_V1_0) + start, *more):
        if ended:
            break
        events = talk.receive(data)
        ended = any(isinstance(event, Ready | Refuse) for event in events)
        assert len(talk._data) <= MAX_MESSAGE_BYTES
        for event in events:
            if isinstance(event, bytes):
                assert isinstance(json.loads(event.removesuffix(b"\0")), dict)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_a_session_takes_any_bytes(data):
    connection, wire, clients = connect(LOG_IN)
    wire.written = b""
    connection.data_received(data)
    check_responses(wire.written)
    check_end(connection, wire, clients)
