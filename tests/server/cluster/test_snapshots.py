"""Snapshots between two real stores: whole or not at all, however often the way in between breaks."""

import random
from contextlib import suppress

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from consensus.messages import ConfState, Kind, Message, Snapshot
from consensus.raftlog import SnapshotUnavailable
from consensus.shipping import Receiver, Shipper, decode_word
from model.effect import PUT_ROW, encode
from model.effect import Kind as Effects
from model.errors import Corrupt, Overloaded
from server.cluster.snapshot_files import Contents, Incoming, Outgoing, installed_in, list_files
from server.cluster.snapshots import KEEP_S, Snapshots
from server.folder import DataFolder
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

SMALL = RocksSettings(cache_bytes=8 << 20, memtable_bytes=1 << 20)


class Log:
    """The part of a log that snapshots look at."""

    def __init__(self):
        self.first = 1

    def first_index(self):
        return self.first

    def term(self, index):
        return 7


class Server:
    """A store with its folder and its snapshots; threads run at once."""

    def __init__(self, path):
        self.folder = DataFolder(path)
        self.machine = Machine(RocksEngine(self.folder.rows, SMALL))
        self.log = Log()
        self.conf = ConfState(voters=(1,))
        self.clock = Clock()
        self.snapshots = Snapshots(
            self.machine,
            self.log,
            self.folder,
            lambda: self.conf,
            lambda path: RocksEngine(path, SMALL),
            self.machine.switch,
            self.clock,
            maybeDeferred,
        )

    def fill(self, rows, width=1000, table_id=1):
        dice = random.Random(rows)
        index = self.machine.applied_index
        if not index:
            made = [
                (Effects.CREATE_DATABASE, "d", "test"),
                (Effects.CREATE_TABLE, table_id, "t", "d", "t", "id", {}),
            ]
            self.machine.apply([(1, encode(made, 0))])
            index = 1
        for start in range(0, rows, 500):
            effects = [
                (PUT_ROW, table_id, b"%08d" % n, dice.randbytes(width)) for n in range(start, min(start + 500, rows))
            ]
            index += 1
            while self.machine.applied_index < index:
                with suppress(Overloaded):  # its memtables are small, and a flush may have to wait for the processor
                    self.machine.apply([(index, encode(effects, 0))])

    def newest(self):
        """The snapshot that is there once it has been asked for."""
        with pytest.raises(SnapshotUnavailable):
            self.snapshots.newest()
        return self.snapshots.newest()

    def close(self):
        self.machine.close()
        self.folder.close()


@pytest.fixture
def pair(tmp_path):
    servers = [Server(tmp_path / name) for name in ("leader", "follower")]
    yield servers
    for server in servers:
        server.close()


def ship(leader, follower, snapshot, words=10**9, piece_bytes=64 << 10):
    """Sends a snapshot over a link that breaks after that many words; (delivered message or None, words)."""
    wire, delivered, reports = [], [], []
    shipper = Shipper(leader.snapshots, lambda data: wire.append((0, data)), reports.append, piece_bytes=piece_bytes)
    receiver = Receiver(follower.snapshots, lambda data: wire.append((1, data)), delivered.append, 1 << 40)
    shipper.link_up()
    shipper.ship(Message(Kind.SNAPSHOT, 2, 1, 1, snapshot=snapshot), 0.0)
    said = 0
    while wire and said < words:
        side, data = wire.pop(0)
        said += 1
        receiver.take(decode_word(data)) if side == 0 else shipper.take(decode_word(data), 0.0)
    receiver.close()
    shipper._end(False)
    return (delivered or [None])[0], said


def install(server, snapshot):
    outcome = []
    server.snapshots.install(snapshot, outcome.append)
    assert outcome == [None]


def test_what_arrives_is_the_same_state(pair):
    leader, follower = pair
    leader.fill(3000)
    snapshot = leader.newest()
    assert (snapshot.index, snapshot.raft_term, snapshot.conf) == (leader.machine.applied_index, 7, leader.conf)
    message, _ = ship(leader, follower, snapshot)
    assert message.snapshot == snapshot
    install(follower, snapshot)
    assert follower.machine.applied_index == snapshot.index
    assert follower.machine.store.state_hash() == leader.machine.store.state_hash()
    follower.fill(3500)
    assert follower.machine.store.count(1) == 3500


def test_the_rows_are_the_new_ones_after_a_restart_too_and_say_what_they_came_with(pair, tmp_path):
    leader, follower = pair
    leader.fill(500)
    snapshot = leader.newest()
    ship(leader, follower, snapshot)
    install(follower, snapshot)
    assert installed_in(follower.folder.rows) == snapshot
    follower.close()
    again = pair[1] = Server(tmp_path / "follower")
    assert again.machine.applied_index == snapshot.index
    assert again.folder.rows.name == f"rows-{snapshot.index}-{again.folder.rows.name[-8:]}"
    assert not (again.folder.path / "rows").exists()


@pytest.mark.parametrize("words", [1, 2, 3, 5, 8])
def test_a_link_that_breaks_again_and_again_brings_it_in_the_end(pair, words):
    leader, follower = pair
    leader.fill(1500)
    snapshot = leader.newest()
    message, attempts, most = None, 0, 3000
    while message is None and attempts < most:
        message, _ = ship(leader, follower, snapshot, words=words + attempts % 4, piece_bytes=4096 + attempts)
        attempts += 1
    assert message is not None
    install(follower, snapshot)
    assert follower.machine.store.state_hash() == leader.machine.store.state_hash()


def test_an_attempt_goes_on_where_the_last_one_ended(pair, tmp_path):
    leader, follower = pair
    leader.fill(2000)
    snapshot = leader.newest()
    ship(leader, follower, snapshot, words=20)
    follower.close()
    follower = pair[1] = Server(tmp_path / "follower")
    size = leader.snapshots.open(snapshot).size
    receipt = follower.snapshots.receive(snapshot, size)
    assert receipt.offset >= 4 * (64 << 10)
    receipt.close()
    message, _ = ship(leader, follower, snapshot)
    assert message is not None
    install(follower, snapshot)
    assert follower.machine.store.state_hash() == leader.machine.store.state_hash()


def test_damage_on_the_way_is_found_and_nothing_of_it_is_used(pair):
    leader, follower = pair
    leader.fill(1000)
    snapshot = leader.newest()
    source = leader.snapshots.open(snapshot)
    receipt = follower.snapshots.receive(snapshot, source.size)
    data = b""
    while len(data) < source.size:
        data += source.read(len(data), 1 << 20)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    receipt.write(bytes(damaged))
    outcome = []
    receipt.finish(outcome.append)
    assert isinstance(outcome[0], Corrupt)
    assert "did not arrive as it was sent" in outcome[0].message
    message, _ = ship(leader, follower, snapshot)
    assert message is not None


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".hidden", "x" * 200, "installed.snapshot", "files.list"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one").write_bytes(b"1234")
    files = [file.__class__(name, file.size, file.hash) for file in list_files(folder)]
    outgoing = Outgoing(folder, files)
    incoming = Incoming(tmp_path / "in" / "here", Snapshot(5, 1, data=outgoing.data), outgoing.size)
    with pytest.raises(Corrupt):
        incoming.write(outgoing.open().read(0, 1 << 20) + b"1234")
    assert not (tmp_path / "in" / "here").exists()


def test_empty_files_come_too(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "full").write_bytes(b"1234")
    for name in ("none", "nothing"):
        (folder / name).touch()
    outgoing = Outgoing(folder, list_files(folder))
    incoming = Incoming(tmp_path / "in", Snapshot(5, 1, data=outgoing.data), outgoing.size)
    source = outgoing.open()
    while incoming.offset < outgoing.size:
        incoming.write(source.read(incoming.offset, 3))
    incoming.seal(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"full", "none", "nothing", "installed.snapshot"}


def test_another_format_is_refused_with_the_reason(pair):
    import msgspec

    data = msgspec.msgpack.encode(Contents("tape 3", 10, b"h"))
    with pytest.raises(Corrupt, match=r"tape 3.*Start the same version"):
        pair[1].snapshots.receive(Snapshot(5, 1, data=data), 100)


def test_a_snapshot_older_than_the_log_is_made_anew(pair):
    leader, _ = pair
    leader.fill(100)
    first = leader.newest()
    assert leader.snapshots.newest() == first
    leader.log.first = first.index + 1
    assert leader.snapshots.newest() == first  # the log goes on right behind it
    leader.fill(200)
    leader.log.first = first.index + 2
    assert leader.newest().index == leader.machine.applied_index


def test_a_change_of_the_membership_meanwhile_makes_the_snapshot_void(pair):
    leader, _ = pair
    leader.fill(100)
    checkpoint = leader.machine.checkpoint

    def with_a_change(folder):
        leader.snapshots.conf_changed()
        leader.conf = ConfState(voters=(1,), learners=(2,))
        leader.machine.checkpoint = checkpoint
        return checkpoint(folder)

    leader.machine.checkpoint = with_a_change
    for _ in range(2):
        with pytest.raises(SnapshotUnavailable):
            leader.snapshots.newest()
    assert leader.snapshots.newest().conf == leader.conf


def test_the_log_behind_a_snapshot_is_kept_while_somebody_reads_it_and_a_while_longer(pair):
    leader, _ = pair
    assert leader.snapshots.keep_from() is None
    leader.fill(100)
    snapshot = leader.newest()
    source = leader.snapshots.open(snapshot)
    leader.clock.advance(2 * KEEP_S)
    assert leader.snapshots.keep_from() == snapshot.index + 1
    source.close()
    leader.clock.advance(KEEP_S / 2)
    assert leader.snapshots.keep_from() == snapshot.index + 1
    leader.clock.advance(KEEP_S)
    assert leader.snapshots.keep_from() is None
    assert not list((leader.folder.path / "snapshots").iterdir())
    with pytest.raises(SnapshotUnavailable):
        leader.snapshots.open(snapshot)
