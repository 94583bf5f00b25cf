"""Rows that a child hands over (backup/handover), for the fiber that writes them.

One rule: what has arrived is taken in its order; an error of the child comes after it. That packed rows unpack to what
is handed over beside them is believed: the child is this server's own code, and has unpacked them itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from backup.handover import file_of
from model.errors import RewindError
from model.packed_rows import rows_in
from proxy.answers import Done, Fibers


class Arrived(NamedTuple):
    """Some rows of a table, in the order of their keys, and the same packed as in model/packed_rows."""

    table_id: int
    packed: bytes
    keys: list[bytes]
    rows: list[bytes]
    row_bytes: int


class Arrivals:
    """folder: where the pieces are put. taken: hears how many were taken so far."""

    def __init__(self, folder: Path, fibers: Fibers, taken: Callable[[int], None]) -> None:
        self._folder = folder
        self._fibers = fibers
        self._taken = taken
        self._waiting: deque[dict[str, Any]] = deque()
        self._more: Done | None = None
        self._is_over = False
        self._error: RewindError | None = None
        self._plain = bytearray()  # of one piece after the other: memory that was used already costs less

    # -- of the child

    def arrived(self, event: dict[str, Any]) -> None:
        """The event `piece`."""
        self._waiting.append(event)
        self._wake()

    def ended(self, error: RewindError | None = None) -> None:
        """There are no more pieces; `error` if there should have been."""
        self._is_over, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None:
            more(None)

    # -- of the fiber

    def take(self) -> Arrived | None:
        """The next rows; waits for them. None if there are no more. Raises what the child failed with."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._fibers.wait_for(self._when_more)
        event = self._waiting.popleft()
        packed, (keys, rows) = self._read(file_of(self._folder, event["number"]), event["packed"], event["plain"])
        self._taken(event["number"] + 1)
        return Arrived(event["table_id"], packed, keys, rows, event["bytes"])

    def _read(self, file: Path, packed_bytes: int, plain_bytes: int) -> tuple[bytes, tuple[list[bytes], list[bytes]]]:
        if len(self._plain) < plain_bytes:
            self._plain = bytearray(plain_bytes)
        plain = memoryview(self._plain)[:plain_bytes]
        with file.open("rb") as handle:
            packed = handle.read(packed_bytes)
            if len(packed) != packed_bytes or handle.readinto(plain) != plain_bytes:
                raise RewindError(f"{file.name} is shorter than the child process said.")
        return packed, rows_in(plain)

    def _when_more(self, more: Done) -> None:
        self._more = more
