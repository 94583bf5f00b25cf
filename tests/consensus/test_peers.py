"""Servers linked over wires in memory: what arrives, what is refused, what happens to slow and silent ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from consensus.connections import SLICE_BYTES
from consensus.links import Identity, LinkLimits
from consensus.messages import ConfState, Entry, Kind, Message, Snapshot
from consensus.pacing import BURST_BYTES, PERIOD_S
from consensus.peers import PeerLinks
from consensus.shipping import Shelf
from model.errors import BadSetting
from tests.consensus.file_shelf import FileShelf, describe
from tests.consensus.wires import Wires

LIMITS = LinkLimits(frame_bytes=1 << 20, buffer_bytes=1 << 20, piece_bytes=1000, ship_give_up_s=20.0)


class Ear:
    """A node that only listens."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unreachable: list[int] = []
        self.snapshots: list[tuple[int, bool]] = []
        self.is_patient = False

    def can_wait_for(self, member: int) -> bool:
        return self.is_patient

    def receive(self, message: Message) -> None:
        self.messages.append(message)

    def report_unreachable(self, member: int) -> None:
        self.unreachable.append(member)

    def report_snapshot(self, member: int, delivered: bool) -> None:
        self.snapshots.append((member, delivered))


class Town:
    """Some servers; number n listens on port n."""

    def __init__(
        self, count: int = 2, limits: LinkLimits = LIMITS, shelves: Callable[[int], Shelf] | None = None
    ) -> None:
        self.wires = Wires()
        self.ears = {number: Ear() for number in range(1, count + 1)}
        self.links = {
            number: PeerLinks(
                self.identity(number),
                ear,
                reactor=self.wires,
                limits=limits,
                shelf=shelves(number) if shelves else None,
                on_query=lambda member, payload, number=number: self.queries.append((number, member, payload)),  # type: ignore[misc]
            )
            for number, ear in self.ears.items()
        }
        for number, links in self.links.items():
            links.on_unheard = lambda member, number=number: self.unheard.append((number, member))  # type: ignore[misc]
        self.queries: list[tuple[int, int, bytes]] = []
        self.unheard: list[tuple[int, int]] = []

    def identity(self, number: int) -> Identity:
        return Identity("town", number, f"server-{number}", b"secret")

    def open(self) -> None:
        """Let all call all."""
        for number, links in self.links.items():
            links.listen("127.0.0.1", number)
            links.set_members({other: ("127.0.0.1", other) for other in self.links})
            links.start()
        self.wires.let_pass()

    def status(self, number: int, other: int) -> tuple[bool, str]:
        """Whether a server's link to another stands, and what is wrong with it."""
        (found,) = (status for status in self.links[number].status() if status.member_id == other)
        return found.is_up, found.problem


def append(sender: int, to: int, size: int = 10, index: int = 1) -> Message:
    return Message(Kind.APPEND, to, sender, 1, entries=[Entry(index, 1, data=b"x" * size)])


def test_messages_arrive_in_order_and_unchanged() -> None:
    town = Town(3)
    town.open()
    sent = [append(1, 2, size, size + 1) for size in (0, 10, 100_000)] + [append(1, 3)]
    town.links[1].send(sent)
    town.wires.let_pass()
    assert town.ears[2].messages == sent[:3]
    assert town.ears[3].messages == sent[3:]


def test_a_large_message_is_sent_in_slices_with_turns_between_them_and_nothing_overtakes_it() -> None:
    town = Town()
    town.open()
    sent = [append(1, 2, 5, 1), append(1, 2, 5 * SLICE_BYTES, 2), append(1, 2, 6, 3), append(1, 2, 2 * SLICE_BYTES, 4)]
    written: list[int] = []
    pipe = town.wires.pipes[0][0]
    pipe.bend = lambda data: written.append(len(data)) or data  # type: ignore[func-returns-value]
    town.wires.part_bytes = 1 << 30
    town.links[1].send(sent)
    connection = town.links[1]._links[2].connection
    assert connection is not None
    assert connection.waiting_bytes > 7 * SLICE_BYTES
    town.wires.let_pass()
    assert town.ears[2].messages == sent
    assert max(written) <= SLICE_BYTES + 1000
    assert connection.waiting_bytes == 0


def behind(index: int, size: int, commit: int = 1_000_000) -> Message:
    """Entries that others have had for long."""
    message = append(1, 2, size, index)
    message.commit = commit
    return message


def test_a_member_that_is_behind_is_brought_up_in_bursts_while_others_are_served() -> None:
    town = Town(limits=replace(LIMITS, frame_bytes=8 << 20, buffer_bytes=64 << 20))
    town.open()
    town.ears[1].is_patient = True
    heartbeat = Message(Kind.HEARTBEAT, 2, 1, 1)
    old = [behind(index, 3 << 20) for index in range(1, 6)]
    new = append(1, 2, 10, 6)
    town.links[1].send([*old, new, heartbeat])
    town.wires.let_pass()
    assert [message for message in town.ears[2].messages if message.kind is Kind.APPEND] == old[:3]
    assert heartbeat in town.ears[2].messages
    town.wires.let_pass(PERIOD_S)
    assert [message for message in town.ears[2].messages if message.kind is Kind.APPEND] == [*old, new]


def test_what_is_new_is_never_held_back() -> None:
    town = Town(limits=replace(LIMITS, frame_bytes=8 << 20, buffer_bytes=64 << 20))
    town.open()
    town.ears[1].is_patient = True
    sent = [append(1, 2, 3 << 20, index) for index in range(1, 10)]
    town.links[1].send(sent)
    town.wires.let_pass()
    assert town.ears[2].messages == sent


def test_a_member_that_cannot_be_waited_for_is_brought_up_at_once() -> None:
    town = Town(limits=replace(LIMITS, frame_bytes=8 << 20, buffer_bytes=64 << 20))
    town.open()
    sent = [behind(index, 3 << 20) for index in range(1, 10)]
    town.links[1].send(sent)
    town.wires.let_pass()
    assert town.ears[2].messages == sent


def test_what_is_held_back_is_forgotten_with_the_connection() -> None:
    town = Town(limits=replace(LIMITS, frame_bytes=8 << 20, buffer_bytes=64 << 20))
    town.open()
    town.ears[1].is_patient = True
    town.links[1].send([behind(index, 3 << 20) for index in range(1, 10)])
    town.wires.let_pass()
    town.wires.pipes[0][0].abortConnection()
    town.wires.let_pass(2)
    assert town.ears[1].unreachable == [2]
    assert len(town.ears[2].messages) == 3
    town.links[1].send([behind(4, 10)])
    town.wires.let_pass()
    assert town.ears[2].messages[-1] == behind(4, 10)


def test_queries_go_to_whom_they_are_for() -> None:
    town = Town()
    town.open()
    assert town.links[1].send_query(2, b"hello")
    assert not town.links[1].send_query(9, b"hello")
    town.wires.let_pass()
    assert town.queries == [(2, 1, b"hello")]


def test_a_server_that_comes_later_is_found() -> None:
    town = Town()
    town.links[1].set_members({2: ("127.0.0.1", 2)})
    town.links[1].start()
    town.wires.let_pass(1)
    assert not town.status(1, 2)[0]
    town.links[1].send([append(1, 2)])
    town.wires.let_pass()
    assert town.ears[1].unreachable == [2]
    town.open()
    town.wires.let_pass(5)
    assert town.status(1, 2) == (True, "")


def test_a_server_that_calls_is_called_back_at_once() -> None:
    town = Town()
    first, second = town.links[1], town.links[2]
    first.listen("127.0.0.1", 1)
    first.set_members({2: ("127.0.0.1", 2)})
    first.start()
    town.wires.advance(10.0)
    assert town.status(1, 2)[0] is False
    second.listen("127.0.0.1", 2)
    second.set_members({1: ("127.0.0.1", 1)})
    second.start()
    town.wires.let_pass()
    assert town.status(1, 2)[0] is True


def test_retries_come_less_and_less_often() -> None:
    town = Town()
    town.links[1].set_members({2: ("127.0.0.1", 2)})
    calls: list[float] = []
    connect = town.wires.connectTCP
    town.wires.connectTCP = lambda *args: calls.append(town.wires.seconds()) or connect(*args)  # type: ignore[func-returns-value,method-assign]
    town.links[1].start()
    town.wires.let_pass(60)
    gaps = [later - earlier for earlier, later in pairwise(calls)]
    assert gaps[0] < 0.2
    assert all(1.4 <= gap <= 3.2 for gap in gaps[-10:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"secret": b"other"}, "secret"),
        ({"cluster_id": "village"}, "another cluster"),
        ({"member_id": 3}, "Member 2 was called, but this is member 3"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    town = Town()
    town.links[2].identity = replace(town.links[2].identity, **change)  # type: ignore[arg-type]
    town.open()
    town.wires.let_pass(1)
    is_up, problem = town.status(1, 2)
    assert not is_up
    assert reason in problem


def test_a_server_that_is_no_member_is_refused() -> None:
    town = Town()
    town.open()
    town.links[2].set_members({})
    town.wires.let_pass(1)
    assert "knows no member 1" in town.status(1, 2)[1]
    assert not town.links[2].incoming


def test_a_lost_connection_is_made_again_and_the_node_is_told() -> None:
    town = Town()
    town.open()
    town.wires.pipes[0][0].abortConnection()
    town.wires.let_pass()
    assert town.ears[1].unreachable == [2]
    town.wires.let_pass(2)
    assert town.status(1, 2)[0]


def test_it_is_told_when_what_a_member_sent_last_may_be_lost() -> None:
    """Each direction has a connection of its own: the answers to what one sends come over the other one."""
    town = Town()
    town.open()
    assert town.links[2].hears(1) and not town.unheard
    town.links[2].incoming[1].end("for the test")
    town.wires.let_pass()
    assert not town.links[2].hears(1)
    assert town.unheard == [(2, 1)]
    town.wires.let_pass(1.0)
    assert town.links[2].hears(1)
    # A second call takes the place of the first, whose last words may be on their way.
    town.links[1]._links[2].call()
    town.wires.let_pass()
    assert town.unheard == [(2, 1)] * 2
    assert town.links[2].hears(1)


def test_a_silent_member_is_called_anew() -> None:
    town = Town()
    town.open()
    town.wires.is_stuck = True
    town.wires.let_pass(7)
    assert not town.status(1, 2)[0]
    town.wires.is_stuck = False
    town.wires.let_pass(10)
    assert town.status(1, 2)[0]


def test_what_a_slow_member_does_not_take_is_dropped_and_the_node_is_told() -> None:
    town = Town()
    town.open()
    town.wires.is_stuck = True
    for _ in range(40):
        town.links[1].send([append(1, 2, 50_000)])
    waiting = town.links[1]._links[2].connection
    assert waiting is not None
    assert waiting.waiting_bytes <= LIMITS.buffer_bytes
    town.wires.let_pass()
    assert town.ears[1].unreachable == [2]


def test_a_message_above_the_frame_limit_is_dropped() -> None:
    town = Town()
    town.open()
    town.links[1].send([append(1, 2, LIMITS.frame_bytes + 1), append(1, 2)])
    town.wires.let_pass()
    assert town.ears[2].messages == [append(1, 2)]


@pytest.mark.parametrize(
    "message",
    [
        append(3, 2),
        append(1, 9),
        Message(Kind.HUP, 2, 1),
        Message(Kind.STORAGE_APPENDED, 2, 1),
        Message(Kind.PROPOSE, 2, (1 << 63) - 1),
    ],
)
def test_a_member_that_speaks_for_others_or_for_our_disk_is_cut_off(message: Message) -> None:
    town = Town()
    town.open()
    link = town.links[1]._links[2]
    link.send([message])
    town.wires.let_pass()
    assert not town.ears[2].messages
    assert not town.status(1, 2)[0]


def test_a_read_may_be_passed_on_for_another() -> None:
    town = Town()
    town.open()
    message = Message(Kind.READ_INDEX, 2, 3, entries=[Entry(0, 0, data=b"r")])
    town.links[1].send([message])
    town.wires.let_pass()
    assert town.ears[2].messages == [message]


def test_bytes_that_changed_on_the_way_end_the_connection() -> None:
    town = Town()
    town.open()
    town.wires.pipes[0][0].bend = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    town.links[1].send([append(1, 2)])
    town.wires.let_pass()
    assert not town.ears[2].messages
    assert town.ears[1].unreachable


def test_who_never_greets_is_cut_off_and_there_are_not_too_many_of_them() -> None:
    town = Town()
    town.open()
    factory = town.wires.ports[2]
    for _ in range(LIMITS.strangers + 5):
        town.wires._connect(2, _Mute())
    town.wires.let_pass()
    assert len(town.links[2].strangers) == LIMITS.strangers
    town.wires.let_pass(6)
    assert not town.links[2].strangers
    assert factory is not None


class _Mute:
    """A caller that says nothing."""

    def buildProtocol(self, _address: object) -> _Mute:
        return self

    def makeConnection(self, transport: object) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: object) -> None:
        pass


def test_links_need_a_secret_or_certificates() -> None:
    with pytest.raises(BadSetting, match="secret"):
        PeerLinks(Identity("town", 1, "server", b""), reactor=Wires())


# -- snapshots


def shelf_town(tmp_path: Path, limits: LinkLimits = LIMITS, size: int = 25_600) -> tuple[Town, Message, Path]:
    """Two servers with shelves, and a snapshot on the first one's."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
    town = Town(2, limits, lambda number: FileShelf(tmp_path / str(number)))
    town.open()
    file = tmp_path / "1" / "snapshot-7"
    file.write_bytes(bytes(range(256)) * (size // 256))
    snapshot = Snapshot(7, 2, ConfState((1, 2)), describe(file))
    return town, Message(Kind.SNAPSHOT, 2, 1, 2, snapshot=snapshot), tmp_path / "2" / "snapshot-7"


def test_a_snapshot_arrives_whole_before_the_core_hears_of_it(tmp_path: Path) -> None:
    town, message, arrived = shelf_town(tmp_path)
    town.links[1].send([message])
    town.wires.let_pass()
    assert town.ears[2].messages == [message]
    assert arrived.read_bytes() == bytes(range(256)) * 100
    assert town.ears[1].snapshots == [(2, True)]


def test_a_snapshot_goes_in_bursts_too(tmp_path: Path) -> None:
    town, message, arrived = shelf_town(
        tmp_path, replace(LIMITS, piece_bytes=64 << 10, buffer_bytes=64 << 20), 30 << 20
    )
    town.ears[1].is_patient = True
    town.links[1].send([message])
    came = []
    for _ in range(20):
        town.wires.let_pass(PERIOD_S / 5)
        partial = arrived.with_name("snapshot-7.arriving")
        came.append(partial.stat().st_size if partial.exists() else 30 << 20)
    assert town.ears[1].snapshots == [(2, True)]
    assert came[0] <= BURST_BYTES + (64 << 10)
    gains = [later - earlier for earlier, later in pairwise(came)]
    assert max(gains) <= BURST_BYTES + (64 << 10)
    assert sum(gain > 0 for gain in gains) == 3
    assert arrived.stat().st_size == 30 << 20


def test_a_broken_snapshot_goes_on_where_it_was(tmp_path: Path) -> None:
    town, message, arrived = shelf_town(tmp_path)
    town.links[1].send([message])
    passed = 0

    def count(data: bytes) -> bytes:
        nonlocal passed
        passed += len(data)
        if passed > 12_000:
            town.wires.pipes[0][0].abortConnection()
        return data

    town.wires.part_bytes = 500
    town.wires.pipes[0][0].bend = count
    town.wires.let_pass()
    partial = arrived.with_name("snapshot-7.arriving")
    began = partial.stat().st_size
    assert 5_000 < began < 20_000
    assert not town.ears[2].messages
    sent_before = town.links[1]._links[2].status.sent_bytes
    town.wires.let_pass(3)
    assert arrived.read_bytes() == bytes(range(256)) * 100
    connection = town.links[1]._links[2].connection
    assert connection is not None
    assert connection.sent_bytes < 25_600 - began + 3_000
    assert sent_before > began
    assert town.ears[1].snapshots == [(2, True)]


def test_a_snapshot_that_differs_from_its_hash_is_not_taken(tmp_path: Path) -> None:
    town, message, arrived = shelf_town(tmp_path)
    (tmp_path / "1" / "snapshot-7").write_bytes(bytes(25_600))
    town.links[1].send([message])
    town.wires.let_pass()
    assert not arrived.exists()
    assert not town.ears[2].messages
    assert town.ears[1].snapshots == [(2, False)]


def test_a_snapshot_for_a_member_that_stays_away_is_given_up(tmp_path: Path) -> None:
    town, message, _ = shelf_town(tmp_path)
    town.links[2].stop()
    town.wires.let_pass()
    town.links[1].send([message])
    town.wires.let_pass(30)
    assert town.ears[1].snapshots == [(2, False)]


def test_a_snapshot_that_is_gone_is_reported(tmp_path: Path) -> None:
    town, message, _ = shelf_town(tmp_path)
    (tmp_path / "1" / "snapshot-7").unlink()
    town.links[1].send([message])
    town.wires.let_pass()
    assert town.ears[1].snapshots == [(2, False)]


def test_a_snapshot_named_like_a_path_is_refused(tmp_path: Path) -> None:
    _, message, _ = shelf_town(tmp_path)
    good = message.snapshot
    assert good is not None
    message.snapshot = Snapshot(7, 2, good.conf, good.data.replace(b"snapshot-7", b"../ hop -7"))
    with pytest.raises(Exception, match="no server of ours"):
        FileShelf(tmp_path).path_of(message.snapshot)
