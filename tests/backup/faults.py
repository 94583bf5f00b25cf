"""A vault whose store fails as stores do: before or after doing what it was told, half way, or with other bytes.

One rule: a fault is decided by the number of the operation, so that a failing case can be named and run again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from backup.vault import Vault

WRITES = ("pipe_file", "mv", "rm_file")
READS = ("cat_file", "exists", "find")


class Killed(BaseException):
    """The process ended here: nobody catches this."""


Fault = Callable[[str], str | None]
"""From an operation's name to what goes wrong with it, or None.

    before, after   an error instead of, or in spite of, doing it      kill     the process ends before it is done
    half            a write stops in the middle, with an error         killed   the process ends when it is done
    full            no space                                           flip     a read gives one other bit
"""


class FaultyStore:
    """Stands in front of a vault's fsspec file system."""

    def __init__(self, store: Any, fault: Fault) -> None:
        self._store = store
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        return self._faulty(name, attribute) if name in WRITES + READS else attribute

    def _faulty(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            kind = self._fault(name)
            if kind == "before":
                raise OSError("the connection was refused")
            if kind == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            if kind == "kill":
                raise Killed
            if kind == "half":
                if name == "pipe_file" and ".part-" in args[0]:  # stores with whole objects have no halves
                    path, data = args
                    call(path, data[: len(data) // 2])
                raise OSError("the connection was reset")
            result = call(*args, **kwargs)
            if kind == "after":
                raise OSError("the answer was lost")
            if kind == "killed":
                raise Killed
            if kind == "flip" and isinstance(result, bytes) and result:
                return result[:-1] + bytes((result[-1] ^ 4,))
            return result

        return run


def at_operation(number: int, kind: str, names: tuple[str, ...] = WRITES + READS) -> Fault:
    """A fault at the n-th operation (from 1) of these names, and none after it."""
    count = 0

    def fault(name: str) -> str | None:
        nonlocal count
        if name in names:
            count += 1
            if count == number:
                return kind
        return None

    return fault


def make_faulty(vault: Vault, fault: Fault) -> Vault:
    """The vault, with that going wrong."""
    vault._fs = FaultyStore(vault._fs, fault)
    return vault
