"""Pieces are taken in their order, each once; what the child failed with comes after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backup.handover import file_of
from model.errors import RewindError
from model.packed_rows import pack_rows, plain_rows
from server.restores.arrival import Arrivals, Arrived


class Script:
    """Fibers whose every wait lets the next thing happen."""

    def __init__(self, *events: Callable[[], None]) -> None:
        self.events = list(events)

    def wait_for(self, begin, timeout_s=None):
        told = []
        begin(told.append)
        while not told:
            self.events.pop(0)()


def piece(number: int) -> Arrived:
    rows = [b"row of %d" % number] * (number + 1)
    keys = [b"%d" % at for at in range(number + 1)]
    return Arrived(7, pack_rows(keys, rows), keys, rows, 10 * number)


def put(folder: Path, number: int) -> dict[str, object]:
    """As backup/handover does; something longer was there before."""
    _, packed, keys, rows, row_bytes = piece(number)
    plain = plain_rows(keys, rows)
    file_of(folder, number).write_bytes(packed + plain + b"of a piece before")
    sizes = {"bytes": row_bytes, "packed": len(packed), "plain": len(plain)}
    return {"event": "piece", "number": number, "table_id": 7, **sizes}


def test_pieces_and_the_end(tmp_path: Path) -> None:
    counts: list[int] = []
    script = Script(lambda: arrivals.arrived(put(tmp_path, 2)), lambda: arrivals.ended())
    arrivals = Arrivals(tmp_path, script, counts.append)
    arrivals.arrived(put(tmp_path, 0))
    arrivals.arrived(put(tmp_path, 1))
    taken = [arrivals.take() for _ in range(3)]
    assert taken == [piece(number) for number in range(3)]
    assert counts == [1, 2, 3]
    assert arrivals.take() is None and arrivals.take() is None
    assert not script.events


def test_an_error_comes_when_all_that_arrived_is_taken(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, Script(), lambda count: None)
    arrivals.arrived(put(tmp_path, 0))
    arrivals.ended(RewindError("a block is damaged"))
    assert arrivals.take() == piece(0)
    for _ in range(2):
        with pytest.raises(RewindError, match="damaged"):
            arrivals.take()


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    counts: list[int] = []
    arrivals = Arrivals(tmp_path, Script(), counts.append)
    arrivals.arrived(put(tmp_path, 3))
    file = file_of(tmp_path, 3)
    file.write_bytes(file.read_bytes()[: -len(b"of a piece before") - 1])
    with pytest.raises(RewindError, match="shorter"):
        arrivals.take()
    assert not counts
