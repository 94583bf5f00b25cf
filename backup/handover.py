"""Hands pieces of packed rows to the server that started this process: a file each, told by a line, a few ahead.

One rule: the server takes a file by removing it, and says so; no more than MOST_AHEAD wait for it, so neither disk nor
memory fills when it is slower.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from backup.row_pieces import Piece

MOST_AHEAD: Final = 12
WAIT_S: Final = 60.0


class ServerLine(Protocol):
    """What of `backup.child.Line` is needed."""

    def tell(self, event: str, **fields: object) -> None: ...
    def newest_order(self, timeout_s: float) -> dict[str, int] | None: ...


def file_of(folder: Path, number: int) -> Path:
    """Where the piece of that number is put."""
    return folder / f"{number:08d}.rows"


def hand_over(line: ServerLine, folder: Path, pieces: Iterable[Piece]) -> dict[int, tuple[int, int]]:
    """Hands all pieces over; table_id -> (rows, bytes of rows) of those that there were.

    Tells {"event": "piece", "number", "table_id", "rows", "bytes"}; hears {"taken": pieces so far}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = 0
    sums: dict[int, tuple[int, int]] = {}
    for number, piece in enumerate(pieces):
        while number - taken >= MOST_AHEAD:
            order = line.newest_order(WAIT_S)
            taken = taken if order is None else order["taken"]
        file_of(folder, number).write_bytes(piece.packed)
        line.tell("piece", number=number, table_id=piece.table_id, rows=piece.rows, bytes=piece.row_bytes)
        rows, size = sums.get(piece.table_id, (0, 0))
        sums[piece.table_id] = (rows + piece.rows, size + piece.row_bytes)
    return sums
