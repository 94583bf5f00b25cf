"""Rows that a child hands over (backup/handover), for the fiber that writes them.

One rule: what has arrived is taken in its order, and its file is gone then; an error of the child comes after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backup.handover import file_of
from backup.row_pieces import Piece
from model.errors import RewindError
from proxy.answers import Done, Fibers


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

    def take(self) -> Piece | None:
        """The next piece; waits for it. None if there are no more. Raises what the child failed with."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._fibers.wait_for(self._when_more)
        event = self._waiting.popleft()
        file = file_of(self._folder, event["number"])
        packed = file.read_bytes()
        file.unlink()
        self._taken(event["number"] + 1)
        return Piece(event["table_id"], packed, event["rows"], event["bytes"])

    def _when_more(self, more: Done) -> None:
        self._more = more
