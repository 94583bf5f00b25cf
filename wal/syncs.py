"""Syncs that the kernel makes beside the caller, so that no thread has to wait for the disk.

One rule: at most one sync is under way, and its end is told on the thread that began it.

Linux alone has them (`io_submit` with `IOCB_CMD_FDSYNC`, since 4.18), not for every file system, and containers may
forbid them. Where they are missing the log writer's thread syncs, as it does for all that is not a short group.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

_log = logging.getLogger("rewinddb.wal")

Ended = Callable[[OSError | None], None]

_AT_ONCE: Final = 2  # one is under way; room in the kernel's ring is counted with a margin


class Syncs(Protocol):
    """What the log writer needs of it."""

    def begin(self, handle: int, ended: Ended) -> bool:
        """Begins to sync the data of an open file; `ended` is called once, with what failed. False: not now."""

    def wait(self) -> None:
        """Returns once `ended` was called, where `is_here`."""

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that `ended` is called on."""

    def soon(self, call: Callable[[], None]) -> object:
        """Has that thread call `call`; from any thread."""


class Loop(Protocol):
    """What is needed of an event loop (`asyncio.AbstractEventLoop`)."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[[], None]) -> object: ...


class KernelSyncs:
    """Linux's own, told through an eventfd. Made and used on the loop's thread."""

    def __init__(self, context: Any, operation: Any, loop: Loop) -> None:
        self._context = context
        self._operation = operation
        self._ended: Ended | None = None
        self._thread = threading.get_ident()
        os.set_inheritable(context.fileno, False)
        loop.add_reader(context.fileno, self._look)
        self.soon = loop.call_soon_threadsafe

    def begin(self, handle: int, ended: Ended) -> bool:
        """See `Syncs`."""
        operation = self._operation.fdsync(handle)
        operation.set_callback(self._told)
        self._ended = ended
        try:
            return bool(self._context.submit(operation) == 1)
        except (OverflowError, ValueError, SystemError) as error:  # the library's names for EAGAIN, EINVAL and others
            _log.info("the kernel does not take a sync (%s): the log's thread makes it", error)
            return False

    def wait(self) -> None:
        """See `Syncs`."""
        self._context.process_events(_AT_ONCE, 1, -1)

    @property
    def is_here(self) -> bool:
        """See `Syncs`."""
        return threading.get_ident() == self._thread

    def _look(self) -> None:
        try:
            self._context.poll()
        except BlockingIOError:  # told already, by `wait`
            return
        self._context.process_events(_AT_ONCE)

    def _told(self, result: int) -> None:
        ended = self._ended
        self._ended = None
        if ended is not None:
            ended(_error_of(result) if result else None)


def kernel_syncs(folder: Path, loop: Loop) -> KernelSyncs | None:
    """The kernel's syncs if they work for the files of `folder`: tried with the folder itself, and None if not."""
    try:
        from caio.linux_aio import Context, Operation
    except ImportError:  # another system, an old kernel, or a container that forbids it
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        results: list[int] = []
        context, operation = Context(_AT_ONCE), Operation.fdsync(handle)
        operation.set_callback(results.append)
        context.submit(operation)
        context.process_events(_AT_ONCE, 1, -1)
        works = results == [0]
    except (OverflowError, ValueError, SystemError):
        works = False
    finally:
        os.close(handle)
    return KernelSyncs(context, Operation, loop) if works else None


def _error_of(result: int) -> OSError:
    """What failed. The kernel tells an error as its number less than zero, the library that as unsigned 64 bits."""
    number = (1 << 64) - result
    return OSError(number, os.strerror(number))
