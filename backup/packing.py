"""Packs and stores blocks of rows, in threads, or in processes where there are cores to spare.

One rule: a block that is given back was read back. Worker processes are spawned, get what they need through pipes
(keys of vaults never are arguments), and end when the process that asked does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Final, NamedTuple

import msgspec

from backup.manifest import Block
from backup.sealing import Keyring, digest, seal
from backup.vault import Vault
from model.errors import RewindError
from storage.rows import HASH_MODULUS, row_digest

UPLOADS: Final = 4  # blocks on their way to the vault at the same time
MAX_WORKERS: Final = 4


class Packed(NamedTuple):
    """A block ready to be stored, and the sum of its rows' digests."""

    block: Block
    row_hash: int
    stored: bytes


class Stored(NamedTuple):
    """A block that is in the vault, and the sum of its rows' digests."""

    block: Block
    row_hash: int


def spare_workers() -> int:
    """How many processes may help: half of the cores, the other half stays with the server. 0: too few cores."""
    return min((os.cpu_count() or 1) // 2, MAX_WORKERS)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this; processes that are started meanwhile never hear it.

    A terminal sends it to all processes of a command. The parent ends the others: one that ended with the lock of
    their common pipe in its hands would leave the rest, and the parent, waiting for ever.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_at_once(workers: ProcessPoolExecutor) -> None:
    """Ends worker processes whatever they are doing; what they were to do is lost."""
    with interrupts_held():
        for process in active_children():
            process.kill()
        workers.shutdown(wait=True, cancel_futures=True)


def encode_rows(keys: list[bytes], rows: list[bytes]) -> bytes:
    """The content of a block."""
    return msgspec.msgpack.encode((keys, rows))


def pack(name: str, keys: list[bytes], rows: list[bytes], content: bytes, keyring: Keyring, level: int) -> Packed:
    """Hashes the rows, compresses and encrypts their encoded content."""
    row_hash = sum(map(row_digest, keys, rows)) % HASH_MODULUS
    stored = seal(name, content, keyring, level)
    return Packed(Block(name, len(rows), sum(map(len, rows)), len(stored), digest(stored)), row_hash, stored)


class Packers:
    """Packs and stores blocks away from the caller's thread. workers: processes that pack; 0: threads do."""

    def __init__(self, vault: Vault, workers: int) -> None:
        self._vault = vault
        self.most_under_way = UPLOADS + 2 * workers
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="vault")
        self._workers: ProcessPoolExecutor | None = None
        if workers:
            self._workers = ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, (vault,))

    def submit(self, name: str, keys: list[bytes], rows: list[bytes]) -> Future[Stored]:
        if self._workers is None:
            return self._uploads.submit(self._pack_and_store, name, keys, rows)
        with interrupts_held():  # the first submission starts them
            packing = self._workers.submit(_pack_apart, name, encode_rows(keys, rows))
        return self._uploads.submit(self._store, packing)

    def _pack_and_store(self, name: str, keys: list[bytes], rows: list[bytes]) -> Stored:
        vault = self._vault
        return self._put(pack(name, keys, rows, encode_rows(keys, rows), vault.keyring, vault.level))

    def _store(self, packing: Future[Packed]) -> Stored:
        try:
            return self._put(packing.result())
        except (BrokenProcessPool, CancelledError) as error:
            raise RewindError("A process that packed rows has ended unexpectedly.") from error

    def _put(self, packed: Packed) -> Stored:
        """Stores a block and reads it back."""
        self._vault.put_stored(packed.block.name, packed.stored)
        self._vault.get_stored(packed.block.name, packed.block.sha256)
        return Stored(packed.block, packed.row_hash)

    def close(self) -> None:
        """Ends the threads and processes; what has not begun is given up."""
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=True, cancel_futures=True)
        if self._workers is not None:
            self._workers.shutdown(wait=True)


_VAULT: Vault | None = None  # of a worker process


def begin_worker(vault: Vault) -> None:
    """In a new worker process: what it works on, and that it ends with its parent."""
    global _VAULT
    _VAULT = vault
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def worker_vault() -> Vault:
    """In a worker process: the vault that it works on."""
    assert _VAULT is not None
    return _VAULT


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _pack_apart(name: str, content: bytes) -> Packed:
    vault = worker_vault()
    keys, rows = msgspec.msgpack.decode(content, type=tuple[list[bytes], list[bytes]])
    return pack(name, keys, rows, content, vault.keyring, vault.level)
