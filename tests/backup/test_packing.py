"""Blocks that other processes pack are the same, and their failures are told."""

import random
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, resource_tracker

import pytest

from backup import capture_tables as capturing
from backup.capture import Order, capture, read_block
from backup.capture_tables import Read
from backup.packing import BlockWriter, end_at_once, interrupts_held, spare_workers
from backup.sealing import Keyring, new_key
from backup.shelf import look
from backup.vault import Vault, VaultUnavailable
from backup.verify import FILES, verify
from model.effect import PUT_ROW, Kind
from model.errors import RewindError, UnfitArchive
from storage.image import Image
from tests.backup.past_ledger import CLUSTER, History


def nothing(*_):
    """Nobody wants to know how far it is."""


@pytest.fixture
def checkpoint(tmp_path):
    history = History(tmp_path / "server", random.Random(4))
    history.write(*history.create_database())
    history.write(*history.create_table())
    history.steps(60)
    history.machine.checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def large(tmp_path):
    """A checkpoint of three tables: with keys of which each has the same beginning, with any keys, with no rows."""
    history = History(tmp_path / "server", random.Random(4))
    history.write(*history.create_database())
    [database] = history.machine.catalog.databases_by_uuid
    full, other, empty = 101, 102, 103
    for table_id in (full, other, empty):
        name = f"t{table_id}"
        history.write((int(Kind.CREATE_TABLE), table_id, name, database, name, "id", {}))
    dice = random.Random(5)
    rows = [(PUT_ROW, full, b"same beginning %06d" % dice.randrange(1_000_000), b'{"n":%d}' % n) for n in range(4000)]
    rows += [(PUT_ROW, other, dice.randbytes(dice.randrange(1, 40)), dice.randbytes(50)) for _ in range(500)]
    for begin in range(0, len(rows), 500):
        history.write(*rows[begin : begin + 500])
    history.machine.checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_an_image_by_several_processes_is_the_same(large, tmp_path, monkeypatch):
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]))
    monkeypatch.setattr(capturing, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(capturing, "PIECE_BYTES", 10_000)
    told = {}
    for name, least_rows in (("one", 1 << 60), ("several", 0)):
        monkeypatch.setattr(capturing, "APART_ROWS", least_rows)
        monkeypatch.setattr(capturing, "spare_workers", lambda: 2)
        told[name] = []
        with Image(large) as image:
            order = Order(name, CLUSTER, 1, 1000, "test")
            capture(image, vault, order, lambda what, rows, size, name=name: told[name].append((rows, size)))
    one, several = look(vault).images
    found = {}
    for image in (one, several):
        found[image.image] = []
        for table in image.tables:
            read = [read_block(vault, block) for block in table.blocks]
            keys = [key for keys, _ in read for key in keys]
            assert keys == sorted(set(keys)) and len(keys) == table.rows
            found[image.image].append((table.rows, table.row_bytes, keys, [row for _, rows in read for row in rows]))
        assert told[image.image][-1] == (image.rows, image.row_bytes) and told[image.image] == sorted(told[image.image])
    assert found["one"] == found["several"]
    assert len(several.tables[0].blocks) > 10
    assert verify(vault, FILES, nothing).problems == []


def test_within_a_low_limit_one_process_is_enough(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(capturing, "APART_ROWS", 0)
    monkeypatch.setattr(capturing, "ProcessPoolExecutor", None)  # cannot be called
    with Image(checkpoint) as image:
        order = Order("slow", CLUSTER, 1, 1000, "test", max_bytes_per_s=capturing.APART_BYTES_PER_S - 1)
        assert capture(image, Vault(f"file://{tmp_path}/vault"), order, nothing).manifest.rows


def test_what_fails_in_another_process_is_told_here(large, tmp_path, monkeypatch):
    """This process only passes pieces on; the other one finds that the vault cannot be written to."""
    monkeypatch.setattr(capturing, "APART_ROWS", 0)
    monkeypatch.setattr(capturing, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(capturing, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(capturing, "spare_workers", lambda: 1)
    monkeypatch.setattr(capturing.PieceReader, "read", lambda self, piece, tell: Read([], piece.low))
    (tmp_path / "file").write_text("")
    with Image(large) as image, pytest.raises(VaultUnavailable):
        capture(image, Vault(f"file://{tmp_path}/file/vault"), Order("one", CLUSTER, 1, 1000, "test"), nothing)
    assert active_children() == []


def test_a_process_that_ends_fails_the_image(large, tmp_path, monkeypatch):
    monkeypatch.setattr(capturing, "APART_ROWS", 0)
    monkeypatch.setattr(capturing, "spare_workers", lambda: 1)
    vault = Vault(f"file://{tmp_path}/vault")

    def read(self, piece, tell):
        for process in active_children():
            process.kill()
        return Read([], piece.low)

    monkeypatch.setattr(capturing.PieceReader, "read", read)
    with Image(large) as image, pytest.raises(RewindError, match="ended unexpectedly"):
        capture(image, vault, Order("one", CLUSTER, 1, 1000, "test"), nothing)
    assert look(vault).images == ()


def test_a_block_that_is_not_read_back_as_it_was_written_fails(tmp_path):
    class Forgetful(Vault):
        def get_stored(self, name, expected=None):
            return super().get_stored(name, expected)[:-1]

    writer = BlockWriter(Forgetful(f"file://{tmp_path}/vault"))
    try:
        assert writer.write("images/a/b/0", 1, [b"k"], [b"{}"]) == []
        with pytest.raises(UnfitArchive, match="does not read back"):
            writer.finish()
    finally:
        writer.close()


def test_half_of_the_cores_stay_with_the_server(monkeypatch):
    import os

    for cores, workers in ((None, 0), (1, 0), (2, 1), (4, 2), (64, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert spare_workers() == workers


def test_ctrl_c_is_the_parents_to_answer():
    """A worker that heard it could end with the lock of the workers' pipe, and its parent would wait for ever."""
    resource_tracker._resource_tracker._stop()  # which the first process that is spawned starts, as in a new server
    with interrupts_held():
        workers = ProcessPoolExecutor(2, get_context("spawn"))
        blocked = workers.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert signal.SIGINT in blocked.result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    stuck = [workers.submit(signal.pause) for _ in range(3)]
    end_at_once(workers)
    assert active_children() == []
    assert all(future.cancelled() or isinstance(future.exception(), BrokenProcessPool) for future in stuck)


def test_ctrl_c_waits_for_the_end_of_the_block():
    reached = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background without
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == ["the end"]
