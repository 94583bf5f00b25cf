"""A reactor whose turns a test takes itself, and members of a group over disks and links in memory.

One rule: time passes only when a test says so; what other threads post is waited for, never slept for.
"""

import heapq
from collections import deque
from itertools import count
from queue import Empty, SimpleQueue

from twisted.internet.defer import fail, succeed

from consensus.core import Config
from consensus.logstore import LogStore
from consensus.messages import ConfState
from consensus.node import Node
from model.errors import Overloaded
from tests.wal.lossy_disk import FOLDER, LossyDisk

SEGMENT_BYTES = 4000


class Later:
    def __init__(self, call):
        self.call = call

    def active(self):
        return self.call is not None

    def cancel(self):
        self.call = None


class Turns:
    """Implements `consensus.ports.Reactor`, and `soon` and `in_thread` of the node."""

    def __init__(self):
        self.now = 0.0
        self._order = count()
        self._later = []
        self._soon = deque()
        self._posted = SimpleQueue()
        self.members = []

    def seconds(self):
        return self.now

    def callLater(self, delay, call, *args):
        later = Later(lambda: call(*args))
        heapq.heappush(self._later, (self.now + delay, next(self._order), later))
        return later

    def callFromThread(self, call, *args):
        self._posted.put(lambda: call(*args))

    def soon(self, call):
        self._soon.append(call)

    def in_thread(self, call):
        try:
            return succeed(call())
        except Exception as error:
            return fail(error)

    def turn(self):
        """One turn: what was due before it; whether there was anything."""
        due = list(self._soon)
        self._soon.clear()
        while not self._posted.empty():
            due.append(self._posted.get())
        for call in due:
            call()
        return bool(due)

    def until(self, condition):
        """Takes turns until `condition()`; time stands still."""
        while not condition():
            if not self.turn():
                self._wait()

    def settle(self):
        """Takes turns until nothing is due and no member waits for its disk."""
        while self.turn() or any(member.waits_for_disk for member in self.members):
            if not self._soon and self._posted.empty() and any(member.waits_for_disk for member in self.members):
                self._wait()

    def _wait(self):
        try:
            self._posted.get(timeout=20)()
        except Empty:
            raise AssertionError("nothing happens any more") from None

    def advance(self, seconds):
        """Lets time pass, with the turns that it takes."""
        self.settle()
        end = self.now + seconds
        while self._later and self._later[0][0] <= end:
            self.now, _, later = heapq.heappop(self._later)
            if later.active():
                call, later.call = later.call, None
                call()
            self.settle()
        self.now = end


class Machine:
    """A state machine that remembers what it was given; `durable`: what a crash leaves."""

    def __init__(self, durable=(0, ())):
        self.applied_index, self.payloads = durable[0], list(durable[1])
        self.durable = durable
        self.stalls = 0
        self.error = None
        self.calls = 0

    def apply(self, entries):
        if self.error is not None:
            raise self.error
        if self.stalls:
            self.stalls -= 1
            raise Overloaded("the engine stalls")
        self.calls += 1
        for log_index, payload in entries:
            assert log_index == self.applied_index + 1
            self.applied_index = log_index
            if payload:
                self.payloads.append(payload)

    def flush(self):
        self.durable = (self.applied_index, tuple(self.payloads))
        return self.applied_index


class Links:
    """Carries messages between the nodes of `members`; `cut`: pairs that hear nothing of each other."""

    def __init__(self, turns):
        self.turns = turns
        self.members = {}
        self.cut = set()

    def send(self, messages):
        for message in messages:
            if not {message.to, message.sender} & self.cut:
                self.turns.soon(lambda message=message: self._deliver(message))

    def _deliver(self, message):
        member = self.members.get(message.to)
        if member is not None and message.to not in self.cut:
            member.node.receive(message)


class Member:
    """A node with its disk and state machine; `crash` and `begin` give it another life."""

    def __init__(self, turns, member_id=1, voters=(1,), links=None, disk=None, **options):
        self.turns, self.id, self.links, self.options = turns, member_id, links, options
        self.disk = disk or LossyDisk()
        self.machine = Machine()
        self.fatal, self.leadership = [], []
        turns.members.append(self)
        if links is not None:
            links.members[member_id] = self
        self.begin(voters)

    @property
    def waits_for_disk(self):
        return self.node.failed is None and self.node._is_running and bool(self.node._pending)

    def begin(self, voters=()):
        self.machine = Machine(self.machine.durable)
        self.store = LogStore(FOLDER, self.machine.applied_index, files=self.disk, segment_bytes=SEGMENT_BYTES)
        if voters:
            self.store.bootstrap(ConfState(voters=tuple(voters)))
        self.node = Node(
            Config(self.id),
            self.store,
            self.machine,
            self.links,
            reactor=self.turns,
            soon=self.turns.soon,
            in_thread=self.turns.in_thread,
            **self.options,
        )
        self.node.on_fatal = self.fatal.append
        self.node.on_leadership = self.leadership.append
        self.node.start()

    def crash(self, dice):
        """The power goes: the node ends where it is, its disk and machine keep what was synced."""
        self.node.on_fatal = None
        self.node.fail(AssertionError("the power is gone"))
        self.store._writer.close()
        self.disk = self.disk.after_power_loss(dice)
