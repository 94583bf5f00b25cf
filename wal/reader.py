"""Opening a log: scan every segment, cut a torn tail, refuse damage; and reading entries back.

One rule: nothing is skipped. The only bytes ever given up are a torn tail, the part of the last group
that nothing proves was ever synced, and those are copied to a `.broken` file first. Anything else that
does not read back raises Corrupt with the file, the offset and what to do.

A torn tail is only possible at the very end. A bad spot is damage when a record of a later group, or
merely the name of a later segment, exists: the writer makes either only once everything before is synced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from model.errors import Corrupt
from wal.chart import Anchor, Chart, EntryMap
from wal.files import Files, OsFiles, final_error, read_all, write_all
from wal.record import FIRST_ENTRY_KIND, Decoded, Record, Why, decode, find_leftover, read_run
from wal.segment import Segment, decode_head, is_spare, parse_name

_log = logging.getLogger("rewinddb.wal")

DAMAGE_HINT: Final = (
    "Nothing was changed. Check the disk; then let this member be rebuilt from the others"
    " (remove it, empty its data folder, add it again), or restore from a backup."
)
_ANCHORS_AT_ONCE: Final = 64
_READ_BYTES: Final = 64 << 10
_ZERO_BYTES: Final = 1 << 20


@dataclass(slots=True)
class OpenedLog:
    """A scanned log, ready to be appended to at the end of its last segment."""

    folder: Path
    log_id: bytes | None  # None: there is no log yet
    segments: list[Segment]
    spares: list[Path]
    chart: Chart
    broken: list[Path] = field(default_factory=list)  # copies of what was cut now


def damage(path: Path, offset: int, what: str) -> Corrupt:
    """The error for stored bytes at `offset` of `path` that are not what was written there."""
    return Corrupt(f"The log is damaged: file {path}, offset {offset}: {what}.", DAMAGE_HINT)


def list_segments(files: Files, folder: Path) -> list[Segment]:
    """The segments that `folder` has by name, oldest first; raises Corrupt if one in between is missing."""
    found = sorted((parsed, name) for name in files.names(folder) if (parsed := parse_name(name)))
    segments = [Segment(number, first, folder / name, 0, True) for (number, first), name in found]
    for before, after in pairwise(segments):
        if after.number != before.number + 1:
            raise Corrupt(
                f"The log is damaged: folder {folder} has no segment {before.number + 1:08x},"
                f" between {before.path.name} and {after.path.name}.",
                DAMAGE_HINT,
            )
    return segments


def open_log(folder: Path, files: Files | None = None) -> OpenedLog:
    """Scans the whole log in `folder` (made if need be), cuts a torn tail, makes the rest durable.

    Raises Corrupt, or DiskFull or SyncFailed. The caller is the only process that uses the folder.
    """
    files = files or OsFiles()
    try:
        return _open_log(folder, files)
    except OSError as error:
        raise final_error(error, folder) from error


def _open_log(folder: Path, files: Files) -> OpenedLog:
    files.make_folder(folder)
    files.sync_folder(folder)  # the process before may have ended between a change of names and its sync
    segments = list_segments(files, folder)
    spares = [folder / name for name in sorted(files.names(folder)) if is_spare(name)]
    opened = OpenedLog(folder, None, [], spares, Chart())
    why = Why.END
    for position, segment in enumerate(segments):
        is_last = position == len(segments) - 1
        handle = files.open(segment.path, writable=is_last)
        try:
            data = read_all(files, handle)
            decoded = take_segment(opened, segment, data, is_last)
            if decoded is not None and is_last:
                _settle_tail(files, handle, opened, segment, decoded)
        finally:
            files.close(handle)
        if decoded is None:
            if why is Why.TORN:
                raise damage(opened.segments[-1].path, opened.segments[-1].end, "its end does not match its checksum")
            _drop_unbegun(files, opened, segment, data)
        else:
            why = decoded.why
    if opened.segments:
        opened.segments[-1].is_sealed = False
    return opened


def take_segment(opened: OpenedLog, segment: Segment, data: bytes, is_last: bool) -> Decoded | None:
    """Scans one segment into `opened`; None if it is the last one and its first group never reached the disk.

    That group is nothing but the head and copies of what the segment before holds, so one has to be there.
    """
    decoded = decode(data, segment.number, keep_payloads=False)
    if decoded.why is Why.DAMAGED:
        raise damage(
            segment.path,
            decoded.good_until,
            f"the record there does not match its checksum, while later ones (from offset {decoded.later}) do",
        )
    if not decoded.records:
        if is_last and (opened.segments or segment.number == 1):
            return None
        raise damage(segment.path, 0, "the segment's first record does not match its checksum")
    _check_head(opened, segment, decoded)
    _take_records(opened.chart, segment, decoded)
    segment.end = decoded.good_until
    opened.segments.append(segment)
    return decoded


def _check_head(opened: OpenedLog, segment: Segment, decoded: Decoded) -> None:
    """Checks the segment's head against the segment before it, the last of `opened.segments`."""
    head = decode_head(decoded.records[0], str(segment.path))
    if opened.log_id is None:
        opened.log_id = head.log_id
    elif head.log_id != opened.log_id:
        raise damage(segment.path, 0, "the segment belongs to another log")
    if decoded.records[0].log_index + 1 != segment.first_index:
        raise damage(
            segment.path, 0, f"the segment begins with entry {decoded.records[0].log_index + 1}, unlike its name"
        )
    if opened.segments and head.previous_end != opened.segments[-1].end:
        before = opened.segments[-1]
        raise damage(
            before.path,
            min(before.end, head.previous_end),
            f"its records end at {before.end}, but {head.previous_end} bytes were written",
        )


def _take_records(chart: Chart, segment: Segment, decoded: Decoded) -> None:
    """Adds a segment's records to `chart`; raises Corrupt with the place."""
    for record, offset in zip(decoded.records, decoded.offsets, strict=True):
        try:
            chart.take(record, segment.number, offset)
        except Corrupt as error:
            raise damage(segment.path, offset, error.message) from error


def _settle_tail(files: Files, handle: int, opened: OpenedLog, segment: Segment, decoded: Decoded) -> None:
    """Cuts the last segment's torn tail, if it has one; then syncs what the process before may have left unsynced."""
    if decoded.why is Why.TORN:
        opened.broken.append(_copy_tail(files, handle, segment))
        end, size = segment.end, files.size(handle)
        for offset in range(end, size, _ZERO_BYTES):
            write_all(files, handle, bytes(min(_ZERO_BYTES, size - offset)), offset)
        _log.warning(
            "cut a torn tail from the log: file %s, offset %d; the bytes are kept in %s",
            segment.path.name,
            end,
            opened.broken[-1].name,
        )
    files.datasync(handle)


def _copy_tail(files: Files, handle: int, segment: Segment) -> Path:
    copy_path = segment.path.with_name(f"{segment.path.stem}-{segment.end:08x}.broken")
    copy = files.open(copy_path, writable=True, create=True)
    try:
        write_all(files, copy, read_all(files, handle, segment.end).rstrip(b"\0"), 0)
        files.datasync(copy)
    finally:
        files.close(copy)
    files.sync_folder(segment.path.parent)
    return copy_path


def _drop_unbegun(files: Files, opened: OpenedLog, segment: Segment, data: bytes) -> None:
    """Removes a last segment whose first group never fully reached the disk, so nothing in it was acknowledged.

    Its number is taken again, so its bytes must never be found under that number: parts of records of
    its own are kept as a `.broken` file, anything else is what the file held before.
    """
    if find_leftover(data, segment.number, 0) is None:
        files.remove(segment.path)
    else:
        opened.broken.append(segment.path.with_suffix(".broken"))
        files.rename(segment.path, opened.broken[-1])
    files.sync_folder(opened.folder)


class EntryReader:
    """Reads entries back by index, from any thread. Whoever calls sees to it that they are not released meanwhile."""

    def __init__(self, entry_map: EntryMap, paths: dict[int, Path], files: Files | None = None) -> None:
        self._map = entry_map
        self._paths = paths  # by segment number; kept up to date by the writer
        self._files = files or OsFiles()

    def read(self, low: int, high: int, max_bytes: int) -> list[Record]:
        """Entries in [low, high), all synced, up to `max_bytes` of payload but at least one. Raises Corrupt."""
        found: list[Record] = []
        room = max_bytes
        while low < high:
            for record in self._read_some(low, high):
                room -= len(record.payload)
                if found and room < 0:
                    return found
                found.append(record)
                low = record.log_index + 1
        return found

    def _read_some(self, low: int, high: int) -> Iterator[Record]:
        """Entries from `low` on, as far as the anchors taken at once lead, at least one."""
        anchors = self._map.anchors(low, _ANCHORS_AT_ONCE)
        if not anchors or anchors[0].log_index > low:
            raise Corrupt(f"Entry {low} is missing from the log.", DAMAGE_HINT)
        following = [*anchors[1:], None] if len(anchors) < _ANCHORS_AT_ONCE else anchors[1:]
        handle, number = -1, -1
        try:
            for anchor, after in zip(anchors, following, strict=False):
                stop = min(high, after.log_index) if after else high
                if low >= stop:
                    return
                if anchor.segment != number:
                    if handle >= 0:
                        self._files.close(handle)
                    number, handle = anchor.segment, -1
                    handle = self._files.open(self._paths[number], writable=False)
                size = after.offset - anchor.offset if after and after.segment == number else _READ_BYTES
                for record in self._entries_from(handle, anchor, size):
                    if record.log_index >= low:
                        yield record
                        low = record.log_index + 1
                        if low == stop:
                            break
        finally:
            if handle >= 0:
                self._files.close(handle)

    def _entries_from(self, handle: int, anchor: Anchor, size: int) -> Iterator[Record]:
        """Entries from `anchor` on, read `size` bytes at a time; the caller stops at the last that must be there."""
        offset, expected = anchor.offset, anchor.log_index
        while True:
            data = self._files.pread(handle, size, offset)
            records, offsets, end, needed = read_run(data, anchor.segment)
            for record, at in zip(records, offsets, strict=True):
                if record.kind >= FIRST_ENTRY_KIND:
                    if record.log_index != expected:
                        raise damage(self._paths[anchor.segment], offset + at, f"entry {expected} is not there")
                    expected += 1
                    yield record
            offset += end
            if not needed or len(data) < size:
                raise damage(self._paths[anchor.segment], offset, f"entry {expected} does not match its checksum")
            size = max(_READ_BYTES, needed)
