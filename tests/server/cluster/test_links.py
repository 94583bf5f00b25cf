"""The node as links see it: whom it lets them bring up slowly, and its courtesy while it is brought up itself."""

import os
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from consensus.messages import Entry, Kind, Message
from server.cluster.links import FEW_QUERIES_PER_S, LOOK_S, STUCK_S, LinkedNode


class Leader:
    """A leader of log entry 100, which is asked a lot."""

    def __init__(self):
        self.clock = Clock()
        self.received = []
        self.core = SimpleNamespace(log=SimpleNamespace(committed=100), last_index=100, transferee=0)
        node = SimpleNamespace(core=self.core, receive=self.received.append, report_snapshot=None)
        self.machine = SimpleNamespace(courtesy=None)
        self.queries = 0
        links = SimpleNamespace(reactor=self.clock)
        self.linked = LinkedNode(node, self.machine, links, None, lambda: self.queries)
        self.serve(FEW_QUERIES_PER_S)

    def serve(self, queries_per_s):
        """A second goes by."""
        self.queries += int(LOOK_S * queries_per_s)
        self.clock.advance(LOOK_S)


def test_a_member_that_is_behind_can_be_waited_for_while_clients_are_served():
    leader = Leader()
    assert leader.linked.can_wait_for(2)
    leader.serve(FEW_QUERIES_PER_S - 1)
    assert not leader.linked.can_wait_for(2)
    leader.serve(1000)
    assert leader.linked.can_wait_for(2)


def test_who_is_to_lead_is_not_waited_for():
    leader = Leader()
    leader.core.transferee = 2
    assert not leader.linked.can_wait_for(2)
    assert leader.linked.can_wait_for(3)


def test_nobody_is_waited_for_while_what_was_written_waits_for_a_quorum():
    leader = Leader()
    leader.core.last_index = 101
    assert leader.linked.can_wait_for(2)
    leader.clock.advance(STUCK_S * 1.01)
    assert not leader.linked.can_wait_for(2)
    leader.core.last_index, leader.core.log.committed = 102, 101
    assert leader.linked.can_wait_for(2)
    leader.clock.advance(STUCK_S * 0.9)
    assert leader.linked.can_wait_for(2)


def entries(index, commit):
    return Message(Kind.APPEND, 1, 2, 5, entries=[Entry(index, 5)], commit=commit)


@pytest.mark.parametrize(
    ("message", "is_courteous"),
    [
        (entries(7, 100), True),
        (entries(100, 100), True),
        (entries(101, 100), False),
        (Message(Kind.APPEND, 1, 2, 5, commit=100), False),
    ],
)
def test_a_member_that_is_brought_up_lets_its_neighbours_go_first(message, is_courteous):
    leader = Leader()
    for before in (None, os.sched_yield):
        leader.machine.courtesy = before
        leader.linked.receive(message)
        assert leader.machine.courtesy == (os.sched_yield if is_courteous else None)
    leader.linked.receive(Message(Kind.HEARTBEAT, 1, 2, 5))
    assert leader.machine.courtesy == (os.sched_yield if is_courteous else None)
    assert leader.received[:2] == [message, message]
