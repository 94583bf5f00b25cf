"""Hands pieces of rows to the server that started this process: through a few files, each used again and again, and a
line that says what is in them.

One rule: a file is written anew only when the server has said that it took what was in it; so no more than MOST_AHEAD
pieces wait for it, and neither disk nor memory fills when it is slower.

A file has a piece packed, as the log will hold it, and behind that the same unpacked: this process has unpacked it
anyway. Files that are there already cost a third of new ones: their pages need not be found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from backup.row_pieces import Piece

MOST_AHEAD: Final = 8
WAIT_S: Final = 60.0


class ServerLine(Protocol):
    """What of `backup.child.Line` is needed."""

    def tell(self, event: str, **fields: object) -> None: ...
    def newest_order(self, timeout_s: float) -> dict[str, int] | None: ...


def file_of(folder: Path, number: int) -> Path:
    """Where the piece of that number is put."""
    return folder / f"{number % MOST_AHEAD}.rows"


def hand_over(line: ServerLine, folder: Path, pieces: Iterable[Piece]) -> dict[int, tuple[int, int]]:
    """Hands all pieces over; table_id -> (rows, bytes of rows) of those that there were.

    Tells {"event": "piece", "number", "table_id", "bytes" (of rows), "packed", "plain" (bytes in the file)}; hears
    {"taken": pieces so far}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = 0
    sums: dict[int, tuple[int, int]] = {}
    for number, piece in enumerate(pieces):
        while number - taken >= MOST_AHEAD:
            order = line.newest_order(WAIT_S)
            taken = taken if order is None else order["taken"]
        _write(file_of(folder, number), piece)
        line.tell(
            "piece",
            number=number,
            table_id=piece.table_id,
            bytes=piece.row_bytes,
            packed=len(piece.packed),
            plain=len(piece.plain),
        )
        rows, size = sums.get(piece.table_id, (0, 0))
        sums[piece.table_id] = (rows + piece.rows, size + piece.row_bytes)
    return sums


def _write(file: Path, piece: Piece) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as handle:
        handle.write(piece.packed)
        handle.write(piece.plain)
