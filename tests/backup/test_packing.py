"""Blocks that other processes pack are the same, and their failures are told."""

import random
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context

import pytest

from backup import capture as capturing
from backup.capture import Order, capture
from backup.packing import Packers, end_at_once, interrupts_held, spare_workers
from backup.sealing import Keyring, new_key
from backup.shelf import look
from backup.vault import Vault, VaultUnavailable
from backup.verify import FILES, verify
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


def test_an_image_by_other_processes_is_the_same(checkpoint, tmp_path, monkeypatch):
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]))
    for name, least_rows in (("threads", 1 << 60), ("processes", 0)):
        monkeypatch.setattr(capturing, "APART_ROWS", least_rows)
        monkeypatch.setattr(capturing, "spare_workers", lambda: 1)
        with Image(checkpoint) as image:
            capture(image, vault, Order(name, CLUSTER, 1, 1000, "test"), nothing)
    one, other = look(vault).images
    assert [(t.rows, t.row_bytes, t.row_hash) for t in one.tables] == [
        (t.rows, t.row_bytes, t.row_hash) for t in other.tables
    ]
    assert verify(vault, FILES, nothing).problems == []


def test_what_fails_elsewhere_is_told_here(tmp_path):
    (tmp_path / "file").write_text("")
    packers = Packers(Vault(f"file://{tmp_path}/file/vault"), 1)
    try:
        with pytest.raises(VaultUnavailable):
            packers.submit("images/a/b/0", [b"k"], [b"{}"]).result()
    finally:
        packers.close()


def test_half_of_the_cores_stay_with_the_server(monkeypatch):
    import os

    for cores, workers in ((None, 0), (1, 0), (2, 1), (4, 2), (64, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert spare_workers() == workers


def test_ctrl_c_is_the_parents_to_answer():
    """A worker that heard it could end with the lock of the workers' pipe, and its parent would wait for ever."""
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
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
