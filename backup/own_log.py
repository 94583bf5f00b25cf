"""A server's own log as a source of the past, where no vault has it, or not yet.

One rule: read only, beside the server that writes it, and never beyond the entry that the server says is committed.

It looks like a vault with one image, of the moment before the log begins: the databases that there are, and no
tables. So a table can be brought back if the log still holds its creation, and is not known of otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from backup.manifest import ImageManifest, SliceName
from backup.plan import Mark, Plan
from backup.shelf import Shelf
from backup.timeline import ReadEntries
from model.effect import Effect, Kind, time_of
from model.errors import RewindError
from wal.describe import scan
from wal.reader import EntryReader
from wal.record import Kind as RecordKind
from wal.record import Record

IMAGE: Final = "own-log"
READ_BYTES: Final = 4 << 20


class LogMoved(RewindError):
    """The server released the part of its log that was being read."""


def own_log(
    folder: Path, last_index: int, databases: Iterable[tuple[str, str]], now_ms: int, cluster_id: str = ""
) -> tuple[Shelf, ReadEntries]:
    """The log in a folder up to entry `last_index`. databases: (UUID, name) of those that there are now.

    Raises Corrupt.
    """
    opened = scan(folder)
    chart = opened.chart
    first, last = chart.first_index, min(chart.last_index, last_index)
    catalog: tuple[Effect, ...] = tuple((int(Kind.CREATE_DATABASE), uuid, name) for uuid, name in databases)
    term = chart.terms.term(first - 1)
    image = ImageManifest(IMAGE, cluster_id, first - 1, term, 0, 0, 0, "", (), catalog, ())
    slices = (SliceName(first, last, 0, 0),) if first <= last else ()
    reader = EntryReader(chart.map, {segment.number: segment.path for segment in opened.segments})

    def read(plan: Plan) -> Iterator[tuple[int, int, int, bytes]]:
        return _entries(reader.read, plan)

    return Shelf((image,), slices, frozenset(), (Mark(last, now_ms),), ()), read


def _entries(read: Callable[[int, int, int], list[Record]], plan: Plan) -> Iterator[tuple[int, int, int, bytes]]:
    for step in plan.replays:
        low = step.first_index
        while low <= step.last_index:
            try:
                records = read(low, step.last_index + 1, READ_BYTES)
            except FileNotFoundError as error:
                raise LogMoved("The server has released the log that was being read.", "Try again.") from error
            for kind, raft_term, log_index, data in records:
                payload = data if kind == RecordKind.ENTRY else b""
                time_ms = time_of(payload) if payload else 0
                if plan.until_ms is not None and time_ms > plan.until_ms:
                    return
                yield log_index, raft_term, time_ms, payload
                low = log_index + 1
