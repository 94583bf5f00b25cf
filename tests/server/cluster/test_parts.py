"""The small parts of a member: the stall meter, the gate before the evaluator, hearsay, the door."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from conf.settings import Settings
from consensus.messages import Entry, Kind
from model.errors import NotLeader, ReqlOpIndeterminateError
from proxy.answers import QueryContext
from server.cluster.door import MAX_STRANGERS, PATIENCE_S, Door
from server.cluster.gate import Gate
from server.cluster.joining import MAGIC, MAX_BYTES, Invitation, Question
from server.cluster.plug import MESSAGE_BYTES, WINDOW_BYTES, raft_config
from server.cluster.stalls import EVERY_S, RESTING_EVERY_S, StallMeter
from server.cluster.vitals import FRESH_S, Hearsay, Vitals, encode_vitals
from tests.consensus.lone import Lone


class Late(Clock):
    """A reactor that can be kept from its timers, and its thread's use of the processor."""

    worked_s = 0.0

    def stall(self, seconds):
        self.rightNow += seconds
        self.worked_s += seconds
        self.advance(0)

    def work(self, seconds, share):
        """Short turns that take so much of the processor."""
        for _ in range(round(seconds / EVERY_S)):
            self.worked_s += EVERY_S * share
            self.advance(EVERY_S)

    def looks_in(self, seconds, share):
        """How often the meter looks."""
        seen, before = 0, list(self.getDelayedCalls())
        for _ in range(round(seconds / EVERY_S)):
            self.work(EVERY_S, share)
            after = list(self.getDelayedCalls())
            seen, before = seen + (after != before), after
        return seen


def test_a_meter_looks_often_only_while_the_thread_is_busy():
    clock = Late()
    meter = StallMeter(clock, lambda: clock.worked_s)
    meter.start()
    clock.work(1, 0.02)
    assert 9 <= clock.looks_in(1, 0.02) <= 11
    clock.work(0.2, 0.6)
    assert 99 <= clock.looks_in(1, 0.6) <= 101
    clock.work(0.2, 0.02)
    assert 9 <= clock.looks_in(1, 0.02) <= 11
    meter.stop()


@pytest.mark.parametrize("into_the_rest_s", [0.0, 0.03, 0.06])
def test_a_stall_out_of_a_rest_is_as_long_as_the_thread_worked(into_the_rest_s):
    clock = Late()
    meter = StallMeter(clock, lambda: clock.worked_s)
    meter.start()
    clock.work(1, 0.0)
    while clock.getDelayedCalls()[0].getTime() - clock.seconds() > RESTING_EVERY_S - into_the_rest_s:
        clock.work(EVERY_S, 0.0)
    clock.stall(0.15)
    assert meter.longest_ms() == pytest.approx(150, abs=2)
    assert meter.too_long == 1
    meter.stop()


def test_the_longest_stall_of_the_last_minute_is_told():
    clock = Late()
    meter = StallMeter(clock, lambda: clock.seconds())
    meter.start()
    clock.pump([EVERY_S] * int(2 / EVERY_S))
    assert meter.longest_ms() < 1
    clock.stall(0.3)
    clock.pump([EVERY_S] * int(2 / EVERY_S))
    clock.stall(0.12)
    clock.pump([EVERY_S] * int(2 / EVERY_S))
    assert 240 < meter.longest_ms() < 310
    clock.pump([EVERY_S] * int(57 / EVERY_S))
    assert 60 < meter.longest_ms() < 130
    clock.pump([EVERY_S] * int(5 / EVERY_S))
    assert meter.longest_ms() < 1
    assert meter.too_long == 2
    meter.stop()
    assert not clock.getDelayedCalls()


class Evaluator:
    """An evaluator that counts, and fails as it is told."""

    def __init__(self):
        self.runs = 0
        self.during = lambda: None

    def glance(self, body, user):
        return None

    def start(self, body, context):
        self.runs += 1
        self.during()
        return body


class Here:
    """The rest of a server: whether it leads, who has written, which fiber runs."""

    can_serve = True
    current = "fiber"

    def __init__(self):
        self.writers = set()


@pytest.fixture
def gate():
    here, evaluator = Here(), Evaluator()
    return Gate(evaluator, here, here, here), here, evaluator


CONTEXT = QueryContext("admin", ("", 0), 0, None)


def test_a_server_that_does_not_lead_looks_at_nothing_unless_it_may_be_outdated(gate):
    gate, here, evaluator = gate
    here.can_serve = False
    with pytest.raises(NotLeader):
        gate.start(b'[1,[15,["t"]],{}]', CONTEXT)
    assert evaluator.runs == 0
    assert gate.start(b'[1,[15,["t"],{"read_mode":"outdated"}],{}]', CONTEXT)
    assert evaluator.runs == 1


def test_a_query_that_wrote_and_lost_the_lead_is_not_run_again(gate):
    gate, here, evaluator = gate

    def write_and_lose():
        here.writers.add("fiber")
        raise NotLeader("lost")

    evaluator.during = write_and_lose
    with pytest.raises(ReqlOpIndeterminateError):
        gate.start(b"", CONTEXT)


def test_what_an_earlier_query_of_the_same_fiber_wrote_does_not_count(gate):
    gate, here, evaluator = gate
    here.writers.add("fiber")

    def lose():
        raise NotLeader("lost")

    evaluator.during = lose
    with pytest.raises(NotLeader):
        gate.start(b"", CONTEXT)


def test_what_was_heard_counts_for_a_while():
    clock = Clock()
    hearsay = Hearsay(clock.seconds)
    vitals = Vitals(applied_index=5, address="a:1", connected=[1, 2])
    assert hearsay.take(2, encode_vitals(vitals)) == vitals
    clock.advance(FRESH_S)
    assert hearsay.of(2) == vitals
    clock.advance(0.1)
    assert hearsay.of(2) is None
    assert hearsay.of(3) is None


class Link(Protocol):
    """A link that keeps what it hears."""

    def __init__(self):
        self.heard = b""
        self.was_lost = False

    def dataReceived(self, data):
        self.heard += data

    def connectionLost(self, reason=None):
        self.was_lost = True


class Links(Factory):
    def __init__(self):
        self.made = []

    def buildProtocol(self, addr):
        self.made.append(Link())
        return self.made[-1]


class Visit:
    """A door, and connections to it."""

    def __init__(self):
        self.clock = Clock()
        self.links = Links()
        self.asked = []
        self.answers = Deferred()
        self.door = Door(self.links, self._answer, self.clock)

    def _answer(self, asked):
        self.asked.append(asked)
        return self.answers

    def come(self):
        transport = StringTransport()
        visitor = self.door.buildProtocol(None)
        if visitor is not None:
            visitor.makeConnection(transport)
        return visitor, transport


def test_a_member_goes_on_to_its_link_and_is_heard_there():
    visit = Visit()
    visitor, transport = visit.come()
    for part in (b"\x10\x00", b"\x00\x00hel", b"lo"):
        visitor.dataReceived(part)
    visitor.dataReceived(b" again")
    (link,) = visit.links.made
    assert link.heard == b"\x10\x00\x00\x00hello again"
    assert link.transport is transport
    visitor.connectionLost()
    assert link.was_lost
    assert not visit.clock.getDelayedCalls()


QUESTION = Question.about(Invitation((), "c", "i", b"s"), "server", "name", "a:1", "0.1.0", []).to_bytes()


@given(st.lists(st.integers(1, len(QUESTION)), max_size=5))
def test_a_question_is_taken_in_whatever_parts_it_comes(cuts):
    visit = Visit()
    visitor, transport = visit.come()
    edges = [0, *sorted(cuts), len(QUESTION)]
    for low, high in pairwise(edges):
        visitor.dataReceived(QUESTION[low:high])
    assert [asked.ask.server_id for asked in visit.asked] == ["server"]
    visit.answers.callback(b"answer")
    assert transport.value() == b"answer"
    assert transport.disconnecting
    visitor.connectionLost()


def test_who_says_nothing_or_too_much_is_cut_off():
    visit = Visit()
    silent, transport = visit.come()
    silent.dataReceived(MAGIC[:3])
    visit.clock.advance(PATIENCE_S)
    assert transport.disconnected or transport.disconnecting
    loud, transport = visit.come()
    loud.dataReceived(MAGIC + (MAX_BYTES + 1).to_bytes(4, "little"))
    assert transport.disconnected or transport.disconnecting
    assert not visit.asked


def test_garbage_is_refused_with_a_reason():
    visit = Visit()
    visitor, transport = visit.come()
    visitor.dataReceived(MAGIC + (3).to_bytes(4, "little") + b"abc" + bytes(32))
    assert b"cannot be read" in transport.value()
    assert not visit.asked


def test_strangers_are_counted_and_let_go():
    visit = Visit()
    come = [visit.come()[0] for _ in range(MAX_STRANGERS)]
    assert visit.come()[0] is None
    come[0].connectionLost()
    assert visit.come()[0] is not None
    come[1].dataReceived(b"link!")
    assert visit.come()[0] is not None
    assert visit.come()[0] is None


def test_a_member_far_behind_is_sent_so_little_at_once_that_the_leader_goes_on_serving():
    config, _ = raft_config(Settings(), 1)
    leader = Lone(config=config, pre_vote=False)
    leader.storage.append([Entry(index, 1, data=bytes(1000)) for index in range(1, 5001)])
    leader.restart()
    leader.lead(2)
    leader.acknowledge([3])
    leader.tell(Kind.APPEND_REPLY, 2, 2, index=5000, reject=True)
    sent = leader.tell(Kind.APPEND_REPLY, 2, 2, index=1)
    to_late = [message for message in sent if message.to == 2 and message.entries]
    assert len(to_late) > 1, "several at once, so that the link is never idle"
    sizes = [sum(len(entry.data) for entry in message.entries) for message in to_late]
    assert max(sizes) <= MESSAGE_BYTES
    assert sum(sizes) <= WINDOW_BYTES + MESSAGE_BYTES
    last = to_late[0].entries[-1].index
    more = [message for message in leader.tell(Kind.APPEND_REPLY, 2, 2, index=last) if message.entries]
    assert [message.to for message in more] == [2], "the next one once the first has arrived"
