"""Pieces are taken in their order, each once; what the child failed with comes after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backup.handover import file_of
from backup.row_pieces import Piece
from model.errors import RewindError
from server.restores.arrival import Arrivals


class Script:
    """Fibers whose every wait lets the next thing happen."""

    def __init__(self, *events: Callable[[], None]) -> None:
        self.events = list(events)

    def wait_for(self, begin, timeout_s=None):
        told = []
        begin(told.append)
        while not told:
            self.events.pop(0)()


def test_pieces_and_the_end(tmp_path: Path) -> None:
    counts: list[int] = []

    def come(number: int) -> None:
        file_of(tmp_path, number).write_bytes(b"rows %d" % number)
        arrivals.arrived({"event": "piece", "number": number, "table_id": 7, "rows": number, "bytes": 10 * number})

    script = Script(lambda: come(2), lambda: arrivals.ended())
    arrivals = Arrivals(tmp_path, script, counts.append)
    come(0)
    come(1)
    assert [arrivals.take() for _ in range(3)] == [Piece(7, b"rows %d" % at, at, 10 * at) for at in range(3)]
    assert counts == [1, 2, 3] and not list(tmp_path.iterdir())
    assert arrivals.take() is None and arrivals.take() is None
    assert not script.events


def test_an_error_comes_when_all_that_arrived_is_taken(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, Script(), lambda count: None)
    file_of(tmp_path, 0).write_bytes(b"rows")
    arrivals.arrived({"event": "piece", "number": 0, "table_id": 7, "rows": 1, "bytes": 4})
    arrivals.ended(RewindError("a block is damaged"))
    assert arrivals.take() == Piece(7, b"rows", 1, 4)
    for _ in range(2):
        with pytest.raises(RewindError, match="damaged"):
            arrivals.take()
