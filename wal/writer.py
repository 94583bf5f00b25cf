"""Writes the log: it joins all that waits into one write and one fdatasync, a group.

One rule: a failure is final. After a failed write or sync nothing is known about the disk, so nothing
is retried, nothing more is acknowledged, and the process has to stop and recover from what is there.

Order is the order of the calls, and one group is under way at a time. A group goes behind the last one with zeros
after it, up to the end of the page, so that neither old records of a recycled file nor half a page read from disk
stand in the way. A file that is still growing is zero-filled a step ahead before the same sync, since syncing a file
that grows costs more than syncing one that does not.

Two write, in turns. A short group that finds its place in the open file is written by the caller, and the kernel syncs
it (`wal.syncs`): no thread has to be woken, there and back. All else, and everything where the kernel does not, is the
thread's: what may wait for the disk longer than a short write into the page cache does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final

from model.errors import RewindError, SyncFailed
from wal.chart import EntryMap
from wal.files import Files, OsFiles, final_error, write_all
from wal.reader import EntryReader, OpenedLog
from wal.record import FIRST_ENTRY_KIND, HEAD_BYTES, Kind, Record, encode
from wal.segment import DEFAULT_SEGMENT_BYTES, LOG_ID_BYTES, Segment, SegmentHead, segment_name, spare_name
from wal.syncs import Syncs

_log = logging.getLogger("rewinddb.wal")

PAGE_BYTES: Final = 4096
GROW_BYTES: Final = 1 << 20
# In pieces, since Linux keeps the pages of one write together and looks at all of them for each later write to any:
# after one write of 1 MiB that is 9 µs, after these 6, and it counts 64 KiB as written each time, not 1 MiB.
PIECE_BYTES: Final = 64 << 10
_ZEROS: Final = bytes(GROW_BYTES)
SHORT_BYTES: Final = 256 << 10
"""A group up to this size is short: to check and to copy it takes the caller a tenth of a millisecond."""
DEFAULT_SPARES: Final = 2

_TRUNCATE: Final = int(Kind.TRUNCATE)
_VOIDING: Final = (_TRUNCATE, int(Kind.RESTART))  # plain numbers, as those of records are

Done = Callable[[], None]


class _Roll:
    """A command in the queue: begin a new segment."""


class _Release:
    """A command in the queue: entries before `index` are no longer needed."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Close:
    """A command in the queue: everything before it is written, then the thread ends."""


@dataclass(slots=True)
class _Group:
    """What was written and is not synced yet; also a command in the queue: the thread is to sync it."""

    end: int
    notes: list[tuple[int, int]]
    """Index and offset of each entry in it."""
    size: int
    """Payload bytes."""
    callbacks: list[Done]


_Appended = tuple[Sequence[Record], Done | None]
_Item = _Appended | _Roll | _Release | _Close | _Group


class LogWriter:
    """Appends to an opened log.

    `append`, `truncate_after`, `release_before`, `roll` and `close` are called by one thread and never
    wait for a sync (`close` does, unless told otherwise). `on_synced` and `on_failure` are called on the writer's
    thread or, with `syncs`, on the one on which those tell their end; never before `append` has returned.
    """

    def __init__(
        self,
        opened: OpenedLog,
        *,
        files: Files | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        spares_kept: int = DEFAULT_SPARES,
        syncs: Syncs | None = None,
        on_failure: Callable[[RewindError], None] | None = None,
    ) -> None:
        self.failed: RewindError | None = None
        self.synced_groups = 0
        self.entry_map: EntryMap = opened.chart.map
        self.log_id = opened.log_id or os.urandom(LOG_ID_BYTES)
        self.paths = {segment.number: segment.path for segment in opened.segments}
        self._folder = opened.folder
        self._files = files or OsFiles()
        self._segment_bytes = segment_bytes
        self._spares = list(opened.spares)
        self._spares_kept = spares_kept
        self._on_failure = on_failure
        self._segments = list(opened.segments)
        self._last = (opened.chart.last_index, opened.chart.last_term)
        conf_states = opened.chart.conf_states
        self._carried: dict[int, Record | None] = {
            Kind.HARD_STATE: opened.chart.hard_state,
            Kind.CONF_STATE: conf_states[-1] if conf_states else None,
        }
        self._handle = -1
        self._size = 0  # of the open file
        self._head_end = 0  # offset behind what begins the open segment; 0 if this process did not begin it
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._bytes_in = 0  # written by the caller's thread only
        self._bytes_out = 0  # written by whoever writes the log
        self._syncs = syncs
        self._under_way: _Group | None = None  # the kernel syncs it
        self._held: list[_Item] = []  # waits for the end of that, or of the thread's work
        self._given = 0  # items put into the queue; written by the caller's thread only
        self._finished = 0  # of those; written by the writer's thread only. The caller may write if all are
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Starts the thread; what was appended before is written now."""
        self._thread.start()

    # -- called from outside

    @property
    def queued_bytes(self) -> int:
        """Payload bytes appended and not yet synced; callers refuse new work above their limit."""
        return self._bytes_in - self._bytes_out

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, oldest first; the last one is open."""
        return tuple(self._segments)

    def reader(self) -> EntryReader:
        """Reads synced entries back."""
        return EntryReader(self.entry_map, self.paths, self._files)

    def append(self, records: Sequence[Record], on_synced: Done | None = None) -> None:
        """Queues `records`; once they are on disk `on_synced` is called. Raises the failure, if there was one."""
        if self.failed is not None:
            raise self.failed
        size = 0
        for record in records:
            size += len(record[3])
        self._bytes_in += size
        if self._under_way is not None or self._held:
            self._held.append((records, on_synced))
        elif self._given == self._finished:
            if not self._write_short([(records, on_synced)]):
                self._give((records, on_synced))
        elif self._syncs is None or size > SHORT_BYTES:
            self._give((records, on_synced))
        else:  # else the thread, which would find this in its queue, would go on for as long as more comes
            self._held.append((records, on_synced))
            self._thread_rests()

    def truncate_after(self, index: int, raft_term: int) -> None:
        """Makes the entries after `index`, whose raft_term is given, void."""
        self.append([Record(Kind.TRUNCATE, raft_term, index)])

    def release_before(self, index: int) -> None:
        """Lets go of the sealed segments all of whose entries are before `index`."""
        self._in_order(_Release(index))

    def roll(self) -> None:
        """Seals the open segment after what is queued and begins a new one."""
        self._in_order(_Roll())

    def close(self, wait: bool = True) -> None:
        """Writes what is queued, seals nothing, ends the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._in_order(_Close())
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            if self._syncs is not None and self._syncs.is_here:
                self._hand_over()
            self._thread.join()

    # -- the caller's thread: short groups

    def _in_order(self, command: _Item) -> None:
        if self._under_way is not None or self._held:
            self._held.append(command)
        else:
            self._give(command)

    def _give(self, item: _Item) -> None:
        """To the thread, which may have something to do already, while the kernel has not."""
        self._given += 1
        self._queue.put(item)

    def _thread_rests(self) -> None:
        """Goes on with what is held, if nobody writes."""
        if self._held and self._under_way is None and self._given == self._finished:
            self._go_on()

    def _go_on(self) -> None:
        """Writes what is held, as a short group or through the thread."""
        held, self._held = self._held, []
        if not self._write_short(held):
            for item in held:
                self._give(item)

    def _hand_over(self) -> None:
        """Gives all that is held to the thread, once the kernel has nothing of this log under way."""
        while self._under_way is not None and self._syncs is not None:
            self._syncs.wait()
        held, self._held = self._held, []
        for item in held:
            self._give(item)

    def _write_short(self, items: Sequence[_Item]) -> bool:
        """Writes what `items` append, and has the kernel sync it; False, and nothing was done, if they are no short
        group or have no place in the open file as it is."""
        syncs = self._syncs
        if syncs is None or self._handle < 0:
            return False
        records: list[Record] = []
        callbacks: list[Done] = []
        size = 0
        for item in items:
            if type(item) is not tuple:
                return False
            for record in item[0]:
                if record[0] in _VOIDING:
                    return False
                size += len(record[3])
            records += item[0]
            if item[1] is not None:
                callbacks.append(item[1])
        until = self._segments[-1].end + size + len(records) * HEAD_BYTES
        if size > SHORT_BYTES or until + HEAD_BYTES > self._segment_bytes or _page_end(until) > self._size:
            return False
        try:
            end, notes = self._write(records)
        except Exception as error:
            self._stop(error)
            return True
        self._under_way = group = _Group(end, notes, size, callbacks)
        if not syncs.begin(self._handle, partial(self._short_synced, group)):
            self._under_way = None
            self._give(group)
        return True

    def _short_synced(self, group: _Group, error: OSError | None) -> None:
        """The kernel's answer. What was held goes on first, since those who are called may append more."""
        self._under_way = None
        try:
            if error is not None:
                raise error
            self._settle(group.end, group.notes)
            self._bytes_out += group.size
            if self._held:
                self._go_on()
            for done in group.callbacks:
                done()
        except Exception as failure:
            self._stop(failure)

    # -- the writer's thread

    def _run(self) -> None:
        try:
            while self._write_next():
                pass
        except Exception as error:
            self._stop(error)
        finally:
            if self._handle >= 0:
                self._files.close(self._handle)
                self._handle = -1

    def _write_next(self) -> bool:
        """Waits for work and does all of it that is there; False after a `_Close`."""
        queue = self._queue
        item = queue.get()
        records: list[Record] = []
        callbacks: list[Done] = []
        taken = 0
        while self.failed is None:  # else the caller's thread found it out
            taken += 1
            if type(item) is tuple:
                records += item[0]
                if item[1] is not None:
                    callbacks.append(item[1])
            else:
                self._write_group(records, callbacks)
                records, callbacks = [], []
                if not self._obey(item):
                    return False
            if queue.empty():  # nobody else takes from it
                self._write_group(records, callbacks)
                self._finished += taken
                if self._held and self._syncs is not None:  # the caller looks at both, too, once it holds something
                    self._syncs.soon(self._thread_rests)
                return True
            item = queue.get()
        return False

    def _obey(self, command: _Item) -> bool:
        """False after a `_Close`."""
        if isinstance(command, _Group):
            self._files.datasync(self._handle)
            self._settle(command.end, command.notes)
            self._bytes_out += command.size
            for done in command.callbacks:
                done()
        elif isinstance(command, _Release):
            self._release(command.index)
        elif isinstance(command, _Roll):
            self._roll()
        else:
            self._mark_end()
            return False
        return True

    def _write_group(self, records: list[Record], callbacks: list[Done]) -> None:
        if records:
            self._write_records(records)
            size = 0
            for record in records:
                size += len(record[3])
            self._bytes_out += size
        for done in callbacks:
            done()

    def _write_records(self, records: list[Record]) -> None:
        """Writes and syncs `records`, in as many groups as segments take part and as entries become void."""
        if self._handle < 0:
            self._open_last()
        begun, offset = 0, self._segments[-1].end
        for at, record in enumerate(records):
            size = HEAD_BYTES + len(record[3])
            has_place = offset + size + HEAD_BYTES <= self._segment_bytes or offset <= self._head_end
            if not has_place or record[0] in _VOIDING:
                self._write_synced(records[begun:at])
                begun = at
                if not has_place:
                    self._begin_segment()
                if record[0] in _VOIDING:
                    self.entry_map.truncate_after(record[2] if record[0] == _TRUNCATE else -1)
                offset = self._segments[-1].end
            offset += size
        self._write_synced(records[begun:])

    def _write_synced(self, records: Sequence[Record]) -> None:
        """One group: one write, one fdatasync; then the entries in it can be read."""
        if not records:
            return
        begun = self._segments[-1].end
        end, notes = self._write(records)
        until = _page_end(end)
        if until > self._size:
            # Behind a large group others will follow that are: each piece would wait for the interpreter anew.
            self._grow(until, PIECE_BYTES if end - begun < PIECE_BYTES else GROW_BYTES)
        self._files.datasync(self._handle)
        self._settle(end, notes)

    # -- whoever writes

    def _write(self, records: Sequence[Record]) -> tuple[int, list[tuple[int, int]]]:
        """Writes a group that has its place in the open segment: (where it ends, index and offset of its entries)."""
        segment = self._segments[-1]
        number, group = segment.number, segment.end
        offset = group
        parts: list[bytes] = []
        notes: list[tuple[int, int]] = []
        for record in records:
            data = encode(record, number, group)
            kind, raft_term, index, _ = record
            if kind >= FIRST_ENTRY_KIND:
                notes.append((index, offset))
                self._last = (index, raft_term)
            elif kind in _VOIDING:
                self._last = (index, raft_term)
            elif kind in self._carried:
                self._carried[kind] = record
            parts.append(data)
            offset += len(data)
        parts.append(_ZEROS[: _page_end(offset) - offset])
        write_all(self._files, self._handle, b"".join(parts), group)
        return offset, notes

    def _settle(self, end: int, notes: list[tuple[int, int]]) -> None:
        """A group is on disk."""
        segment = self._segments[-1]
        segment.end = end
        self.synced_groups += 1
        note, number = self.entry_map.note, segment.number
        for index, offset in notes:
            note(index, number, offset)

    def _stop(self, error: Exception) -> None:
        """Ends the log because of `error`; a bug leaves the disk's state as unknown as a failed sync does."""
        if self.failed is not None:
            return
        if isinstance(error, OSError):
            failed = final_error(error, self._folder)
            _log.error("%s", failed)
        else:
            failed = SyncFailed(f"The log writer stopped: {error!r}.", "Restart the server and report this.")
            _log.error("%s", failed, exc_info=error)
        self.failed = failed
        self._queue.put(_Close())  # wakes the thread, if it was not the one
        if self._on_failure is not None:
            self._on_failure(failed)

    def _grow(self, until: int, piece_bytes: int) -> None:
        """Fills the file with zeros a step ahead, piece by piece; it has been written up to `until`."""
        self._size = max(until, min(self._size + GROW_BYTES, self._segment_bytes))
        for at in range(until, self._size, piece_bytes):
            write_all(self._files, self._handle, _ZEROS[: min(piece_bytes, self._size - at)], at)

    def _mark_end(self) -> None:
        """A group of its own at a regular end: it proves that all before it was synced, so damage there will show."""
        hard_state = self._carried[Kind.HARD_STATE]
        if self.synced_groups and hard_state is not None:
            self._write_records([hard_state])

    # -- segments, on the writer's thread

    def _roll(self) -> None:
        if self._handle < 0:
            self._open_last()
        if self._segments[-1].end > self._head_end:
            self._begin_segment()

    def _open_last(self) -> None:
        if not self._segments:
            self._begin_segment()
            return
        self._handle = self._files.open(self._segments[-1].path, writable=True)
        self._size = self._files.size(self._handle)

    def _begin_segment(self) -> Segment:
        """Seals the open segment, which is synced, and begins the next with its head and the states to carry on."""
        before = self._segments[-1] if self._segments else None
        number = before.number + 1 if before else 1
        index, raft_term = self._last
        path = self._folder / segment_name(number, index + 1)
        if self._spares:
            self._files.rename(self._spares.pop(), path)
            handle = self._files.open(path, writable=True)
        else:
            handle = self._files.open(path, writable=True, create=True)
        self._files.sync_folder(self._folder)
        if self._handle >= 0:
            self._files.close(self._handle)
        self._handle, self._size = handle, self._files.size(handle)
        head = SegmentHead(self.log_id, time.time_ns() // 1_000_000, before.end if before else 0)
        first = Record(Kind.SEGMENT, raft_term, index, head.encode())
        carried = [record for record in self._carried.values() if record is not None]
        segment = Segment(number, index + 1, path, 0, False)
        self.paths[number] = path
        self._segments.append(segment)
        if before is not None:
            before.is_sealed = True
        self._write_synced([first, *carried])
        self._head_end = segment.end
        return segment

    def _release(self, index: int) -> None:
        """Removes segments from the oldest on, each removal made durable before the next: never a gap."""
        while len(self._segments) > 1 and self._segments[1].first_index <= index:
            segment = self._segments[0]
            self.entry_map.release_before(segment.number + 1)
            del self._segments[0]
            del self.paths[segment.number]
            if len(self._spares) < self._spares_kept and segment.end <= self._segment_bytes:
                spare = self._folder / spare_name(segment.number)
                self._files.rename(segment.path, spare)
                self._spares.append(spare)
            else:
                self._files.remove(segment.path)
            self._files.sync_folder(self._folder)


def _page_end(end: int) -> int:
    """Where the page ends that a header's length of zeros behind a group ends in."""
    return -(-(end + HEAD_BYTES) // PAGE_BYTES) * PAGE_BYTES
