"""Packs and stores blocks of rows; and what worker processes have in common.

One rule: a block that is given back was read back. Worker processes are spawned, get what they need through pipes
(keys of vaults never are arguments), and end when the process that asked does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, parent_process, resource_tracker
from typing import Final, NamedTuple

import msgspec

from backup.manifest import Block
from backup.sealing import content_hash, seal
from backup.vault import Vault

UPLOADS: Final = 4  # blocks on their way to the vault at the same time, of each process
MAX_WORKERS: Final = 4


class Stored(NamedTuple):
    """A block that is in the vault, of which table, and its first key."""

    block: Block
    table_id: int
    low: bytes


def spare_workers() -> int:
    """How many processes may help: half of the cores, the other half stays with the server. 0: too few cores."""
    return min((os.cpu_count() or 1) // 2, MAX_WORKERS)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this; processes that are started meanwhile never hear it.

    A terminal sends it to all processes of a command. The parent ends the others: one that ended with the lock of
    their common pipe in its hands would leave the rest, and the parent, waiting for ever.
    """
    resource_tracker.ensure_running()  # else the first process that is spawned starts it, which ends what is held
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


class BlockWriter:
    """Packs blocks in the caller's thread, which is busy with it, and stores them in others, which mostly wait."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._encoder = msgspec.msgpack.Encoder()
        self._content = bytearray()  # of one block after the other: memory that was used already costs less
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="vault")
        self._under_way: deque[Future[Stored]] = deque()

    def write(self, name: str, table_id: int, keys: list[bytes], rows: list[bytes]) -> list[Stored]:
        """Sends a block on its way, once there are not too many; those that have arrived meanwhile."""
        self._encoder.encode_into((keys, rows), self._content)
        found = content_hash(self._content)
        stored, sha256 = seal(name, self._content, self._vault.keyring, self._vault.level)
        block = Block(name, len(rows), sum(map(len, rows)), len(stored), sha256, found)
        arrived = self._arrived(UPLOADS)
        self._under_way.append(self._uploads.submit(self._store, Stored(block, table_id, keys[0]), stored))
        return arrived

    def finish(self) -> list[Stored]:
        """Waits for all that are under way."""
        return self._arrived(0)

    def _arrived(self, most: int) -> list[Stored]:
        arrived = []
        while len(self._under_way) > most:
            arrived.append(self._under_way.popleft().result())
        return arrived

    def _store(self, made: Stored, stored: bytes) -> Stored:
        """Stores a block and reads it back."""
        self._vault.put_stored(made.block.name, stored, is_settled=False)
        self._vault.read_back(made.block.name, stored)
        return made

    def close(self) -> None:
        """Ends the threads; what has not begun is given up."""
        self._uploads.shutdown(wait=True, cancel_futures=True)


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
