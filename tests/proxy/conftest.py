"""A stand-in for the evaluator and a listening server around it, for tests that need no ReQL.

The reactor is pytest-twisted's, on asyncio (`--reactor=asyncio`, set in pyproject.toml), so that the listener takes
its fast path. Blocking clients, such as the official driver, run in threads.
"""

import itertools
import json
import struct

import pytest
import pytest_twisted
from twisted.internet import defer

from model.errors import ReqlUserError
from proxy.answers import Answer
from proxy.auth import UserDirectory, make_credential, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.fibers import FiberPool
from proxy.listener import DriverListener

MAKE_ARRAY, ERROR, SYNC, RANDOM, CHANGES, RANGE, WAIT = 2, 12, 138, 151, 152, 173, 177


class RangeCursor:
    """A stream of numbers, `size` to a batch."""

    def __init__(self, numbers, size=100):
        self.numbers = iter(numbers)
        self.size = size
        self.closed = 0

    def next_batch(self):
        items = [b"%d" % number for number in itertools.islice(self.numbers, self.size)]
        if len(items) < self.size:
            return Answer("sequence", items)
        return Answer("partial", items, cursor=self)

    def close(self):
        self.closed += 1


class FeedCursor:
    """A changefeed: each batch waits until the test fires it."""

    def __init__(self, evaluator, fibers):
        self.evaluator = evaluator
        self.fibers = fibers
        self.closed = 0

    def next_batch(self):
        return Answer("partial", [self.evaluator.wait(self.fibers)], [1], cursor=self)

    def close(self):
        self.closed += 1


class FakeEvaluator:
    """Answers some terms: data, arrays, ERROR, RANGE, CHANGES; WAIT waits, SYNC works for ever, RANDOM is a bug."""

    def __init__(self):
        self.waiting = []
        self.contexts = []
        self.cursors = []

    def spin(self):
        """What SYNC does between two breaths."""

    def wait(self, fibers):
        deferred = defer.Deferred()
        self.waiting.append(deferred)
        return fibers.wait(deferred)

    def glance(self, body, user):
        return None

    def start(self, body, context):
        self.contexts.append(context)
        term = json.loads(body)[1]
        if not isinstance(term, list):
            return Answer("atom", [json.dumps(term).encode()])
        kind, args = term[0], term[1] if len(term) > 1 else []
        if kind == MAKE_ARRAY:
            return Answer("atom", [json.dumps(args).encode()])
        if kind == ERROR:
            raise ReqlUserError(args[0], (0,))
        if kind == RANDOM:
            return 1 / 0
        if kind == WAIT:
            return Answer("atom", [self.wait(context.fibers)])
        if kind == SYNC:
            while True:
                self.spin()
                context.fibers.breathe()
        if kind == CHANGES:
            self.cursors.append(FeedCursor(self, context.fibers))
            return Answer("partial", [], [1], cursor=self.cursors[-1])
        self.cursors.append(RangeCursor(range(args[0])))
        return self.cursors[-1].next_batch()


class Server:
    """A listener with a fake evaluator behind it."""

    def __init__(self, limits=None, tls=None):
        from twisted.internet import reactor  # only here: pytest-twisted is to install it

        self.users = {"admin": passwordless_admin(), "bob": make_credential("secret")}
        self.evaluator = FakeEvaluator()
        self.fibers = FiberPool(reactor)
        login = UserDirectory(self.users.get, b"a secret of this server")
        self.clients = Clients(self.evaluator, login, self.fibers, reactor, "an id", "a_name", limits or Limits())
        self.listener = DriverListener(self.clients, reactor, "127.0.0.1", 0, tls)

    @property
    def port(self):
        return self.listener.port

    @defer.inlineCallbacks
    def stop(self):
        yield self.listener.stop()
        yield self.clients.drain(0.0)


@pytest.fixture
def evaluator():
    return FakeEvaluator()


@pytest.fixture
def serving():
    """Gives a function that starts a server; all are stopped at the end."""
    servers = []

    @defer.inlineCallbacks
    def serve(**options):
        server = Server(**options)
        servers.append(server)
        yield server.listener.start()
        return server

    yield serve
    for server in servers:
        pytest_twisted.blockon(server.stop())


@pytest.fixture(scope="session")
def frame():
    """Gives a function from (token, query as data) to a query frame."""

    def make(token, query):
        body = query if isinstance(query, bytes) else json.dumps(query).encode()
        return struct.pack("<qI", token, len(body)) + body

    return make


@pytest.fixture(scope="session")
def responses():
    """Gives a function from bytes to the list of (token, response as data); the bytes have to be whole frames."""

    def read(data):
        found = []
        while data:
            token, size = struct.unpack_from("<qI", data)
            found.append((token, json.loads(data[12 : 12 + size])))
            data = data[12 + size :]
        return found

    return read
