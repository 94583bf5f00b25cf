"""What is in a log, for people: one dict per effect, and whether the log is whole.

One rule: reads only, and may run while a server writes the log: what is being written then is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from model.effect import Effect, Kind, decode
from model.errors import Corrupt, RewindError
from model.keys import key_from_bytes
from wal.chart import Chart
from wal.files import Files, OsFiles, read_all
from wal.reader import EntryReader, OpenedLog, list_segments, take_segment
from wal.record import Kind as RecordKind
from wal.record import Record, Why
from wal.record import decode as decode_records
from wal.segment import Segment

_ATTEMPTS: Final = 4
_CHUNK_BYTES: Final = 1 << 20
_ROW_KINDS: Final = (Kind.PUT_ROW, Kind.DELETE_ROW)
_OF_TABLE: Final = frozenset(range(Kind.CREATE_TABLE, Kind.PUT_SYSTEM)) | set(_ROW_KINDS)


def scan(folder: Path, files: Files | None = None) -> OpenedLog:
    """The log in `folder` as it is now, without changing anything. Raises Corrupt.

    A server that writes may release or reuse a file while it is read; then the log is read anew.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _scan(folder, files or OsFiles())
        except (Corrupt, FileNotFoundError):
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _scan(folder: Path, files: Files) -> OpenedLog:
    opened = OpenedLog(folder, None, [], [], Chart())
    segments = list_segments(files, folder)
    for segment in segments:
        take_segment(opened, segment, _read(files, segment), segment is segments[-1])
    return opened


def _read(files: Files, segment: Segment) -> bytes:
    handle = files.open(segment.path, writable=False)
    try:
        return read_all(files, handle)
    finally:
        files.close(handle)


def describe(folder: Path, from_index: int | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """One dict per effect of the entries that count, from `from_index` on, at most `limit` of them.

    Keys: index, raft_term, time (ISO 8601, None for Raft's own entries), kind (lower case), table
    ("database.table" where the log says so, else the table's number, None where there is none), key, bytes
    (of the row), detail (of other effects, a dict). Raises Corrupt.
    """
    opened = scan(folder)
    reader = EntryReader(opened.chart.map, {segment.number: segment.path for segment in opened.segments})
    names = _Names()
    low, high, shown = opened.chart.first_index, opened.chart.last_index + 1, 0
    while low < high:
        for record in reader.read(low, high, _CHUNK_BYTES):
            low = record.log_index + 1
            for line in _lines(record, names):
                if from_index is not None and record.log_index < from_index:
                    continue
                if limit is not None and shown >= limit:
                    return
                shown += 1
                yield line


class _Names:
    """Names of databases and tables, as the effects so far gave them."""

    def __init__(self) -> None:
        self._databases: dict[str, str] = {}
        self._tables: dict[int, tuple[str, str]] = {}

    def take(self, effect: Effect) -> None:
        kind, first, *rest = effect
        if kind in (Kind.CREATE_DATABASE, Kind.RENAME_DATABASE):
            self._databases[first] = rest[0]
        elif kind == Kind.CREATE_TABLE:
            self._tables[first] = (rest[1], rest[2])
        elif kind == Kind.ALTER_TABLE and first in self._tables:
            database, name = self._tables[first]
            self._tables[first] = (rest[0].get("database", database), rest[0].get("name", name))

    def table(self, table_id: int) -> str | int:
        if table_id not in self._tables:
            return table_id
        database, name = self._tables[table_id]
        return f"{self._databases.get(database, database)}.{name}"


def _lines(record: Record, names: _Names) -> Iterator[dict[str, Any]]:
    line: dict[str, Any] = {"index": record.log_index, "raft_term": record.raft_term, "time": None}
    line |= {"kind": "leader", "table": None, "key": None, "bytes": len(record.payload), "detail": None}
    if record.kind != RecordKind.ENTRY:
        yield line | {"kind": "membership"}
    elif not record.payload:
        yield line
    else:
        batch = decode(record.payload)
        line["time"] = datetime.fromtimestamp(batch.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        for effect in batch.effects:
            names.take(effect)
            yield line | _of_effect(effect, names)


def _of_effect(effect: Effect, names: _Names) -> dict[str, Any]:
    kind = Kind(effect[0])
    table = names.table(effect[1]) if kind in _OF_TABLE else None
    told: dict[str, Any] = {"kind": kind.name.lower(), "table": table, "bytes": 0}
    if kind in _ROW_KINDS:
        return told | {"key": _printable(effect[2]), "bytes": len(effect[3]) if kind == Kind.PUT_ROW else 0}
    if kind in (Kind.PUT_SYSTEM, Kind.DELETE_SYSTEM):
        # Its document may hold keys to vaults and passwords' checks: never shown.
        return told | {"key": effect[2], "detail": {"collection": effect[1]}}
    return told | {"detail": {"fields": list(effect[1:])}}


def _printable(key: bytes) -> Any:
    try:
        datum = key_from_bytes(key)
    except (ValueError, IndexError, KeyError, RewindError):
        return f"0x{key.hex()}"
    return datum if datum is None or isinstance(datum, str | int | float | bool | list | dict) else str(datum)


def verify(folder: Path) -> dict[str, Any]:
    """Reads the whole log: {"folder", "segments", "first_index", "last_index", "records", "bytes", "problems"}.

    Each segment and each problem is a dict; no problems: the log is whole. A torn tail is a note, not a
    problem, in "torn_tail": a server cuts it when it starts.
    """
    files = OsFiles()
    report: dict[str, Any] = {"folder": str(folder), "segments": [], "first_index": None, "last_index": None}
    report |= {"records": 0, "bytes": 0, "torn_tail": None, "problems": []}
    try:
        opened = scan(folder)
        segments = opened.segments
        report |= {"first_index": opened.chart.first_index, "last_index": opened.chart.last_index}
    except (Corrupt, OSError) as error:
        report["problems"].append({"what": str(error)})
        try:
            segments = list_segments(files, folder)
        except (Corrupt, OSError):
            return report
    for segment in segments:
        _verify_segment(files, segment, report)
    return report


def _verify_segment(files: Files, segment: Segment, report: dict[str, Any]) -> None:
    """Adds what one segment holds to the report, whatever the others hold."""
    try:
        decoded = decode_records(_read(files, segment), segment.number, keep_payloads=False)
    except OSError as error:
        report["problems"].append({"file": segment.path.name, "what": str(error)})
        return
    entries = [record.log_index for record in decoded.records if record.kind >= RecordKind.ENTRY]
    told = {"file": segment.path.name, "records": len(decoded.records), "bytes": decoded.good_until}
    told |= {"first_index": min(entries, default=None), "last_index": max(entries, default=None)}
    report["segments"].append(told)
    report["records"] += len(decoded.records)
    report["bytes"] += decoded.good_until
    place = {"file": segment.path.name, "offset": decoded.good_until, "what": decoded.why.value}
    if decoded.why is Why.DAMAGED:
        report["problems"].append(place)
    elif decoded.why is Why.TORN:
        report["torn_tail"] = place
