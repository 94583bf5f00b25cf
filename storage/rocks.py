"""The engine on disk: RocksDB through rocksdict, in raw bytes mode, its own log switched off.

One rule: what rocksdict gets wrong is dealt with here and nowhere else. Found in 0.3.29, each with a test:

- `Snapshot.items/keys/iter` read the live data (only `Snapshot[key]` is fixed), so a view is held by an
  iterator made when the view was taken.
- `ReadOptions.set_iterate_lower_bound` sets the *upper* bound, so it is never called; scans in reverse cut
  what lies below the range.
- The upper bound is passed to C++ as a pointer into the Python bytes: they must outlive the iterator.
- `items()` ends on a read error as if the range had ended, so whoever comes to an end asks `status()` why.
- A write stall holds the GIL, so writes carry `no_slowdown` and fail instead; a failed batch is used up.
- `create_checkpoint` holds the GIL while it flushes, so a flush (which does not) comes first.
- With no thread for compactions, which are held then, a database that wants one does not close.
- Never fork with an open database: its threads do not exist in the child.
- A database that is there already is opened with the options it was made with, and RocksDB's own block cache of
  8 MB, unless they are given a second time, as those of its column family.

Measured (2 busy cores, 150,000 rows of 230 bytes): get 3.3-4.5 µs, miss 0.65 µs thanks to the bloom filters of
memtable and files (2.9 µs in the memtable without), range rows by `items` 0.42-0.49 µs, by an iterator's
valid/key/value/next 0.61-0.67 µs; an `items` call 2.4 µs, an iterator with one row and its status 3.8 µs.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from weakref import WeakSet

from rocksdict import (
    AccessType,
    Checkpoint,
    IngestExternalFileOptions,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from model.errors import Corrupt, DiskFull, FolderInUse, Overloaded, RewindError
from storage.compactions import COMPACTIONS, yield_to_others
from storage.engine import WriteSet
from storage.gaps import Gaps
from storage.lookups import RecentLookups, is_lookup
from storage.recent import RecentValues
from storage.ring import Ring
from storage.rocks_options import DEFAULT_SETTINGS, RocksSettings, database_options

log = logging.getLogger("rewinddb.storage")

FORMAT_VERSION: Final = 1
APPLIED_KEY: Final = b"m applied"
FORMAT_KEY: Final = b"m format"
STEPPED_ROWS: Final = 64  # up to so many rows come by an iterator's steps, whose status is at hand where they end
MULTI_GET_KEYS: Final = 256  # more per call would hold the GIL for longer than a millisecond when not cached
LOOKUP_KEYS: Final = 64  # who asks for more at once reads many rows, each of them perhaps never again
WHOLE_WAIT_S: Final = 2.0  # what a checkpoint waits for an entry to be applied whole
SLOW_SCAN_S: Final = 150e-6  # what takes longer than this may have passed by much that was deleted
SLOW_ROW_S: Final = 5e-6  # beyond that, for each row
PAUSES_S: Final = (0.001, 0.002, 0.004)  # what a write waits for a stall to pass before it gives up

PROPERTIES: Final = {
    "live_bytes": "rocksdb.estimate-live-data-size",
    "file_bytes": "rocksdb.total-sst-files-size",
    "memtable_bytes": "rocksdb.cur-size-all-mem-tables",
    "cache_bytes": "rocksdb.block-cache-usage",
    "table_reader_bytes": "rocksdb.estimate-table-readers-mem",
    "compaction_pending_bytes": "rocksdb.estimate-pending-compaction-bytes",
    "running_compactions": "rocksdb.num-running-compactions",
    "running_flushes": "rocksdb.num-running-flushes",
    "keys": "rocksdb.estimate-num-keys",
    "is_write_stopped": "rocksdb.is-write-stopped",
    "background_errors": "rocksdb.background-errors",
}


def fault(error: Exception) -> RewindError:
    """What a RocksDB error means here; rocksdict raises bare `Exception`s whose text begins with the status."""
    text = str(error)
    if "Write stall" in text:
        return Overloaded("the storage engine is behind with its compactions")
    if "No space left" in text or "Read-only file system" in text or "quota" in text:
        return DiskFull(f"the storage engine cannot write: {text}", "Free disk space, then start the server again.")
    if "lock" in text.lower() and ("Resource temporarily unavailable" in text or "No locks available" in text):
        return FolderInUse(f"the storage folder is open in another process: {text}")
    return Corrupt(f"the storage engine failed: {text}", "Restore this server from its peers or from a backup.")


def _open(folder: Path, settings: RocksSettings, access: AccessType | None = None) -> Rdict:
    options = database_options(settings)
    families = {"default": options}  # see the module's rule: without, `settings` would only count for a new folder
    try:
        if access is None:
            return Rdict(str(folder), options, families)
        return Rdict(str(folder), options, families, access)
    except Exception as error:  # rocksdict knows no narrower class
        raise fault(error) from error


Row = tuple[bytes, bytes]


def _walk(cursor: RdictIter, low: bytes, high: bytes, limit: int, reverse: bool) -> list[Row]:
    """Up to `limit` (key, value) of [low, high) by an iterator's single steps; raises Corrupt on a read error."""
    rows: list[Row] = []
    add, valid, key_of, value_of = rows.append, cursor.valid, cursor.key, cursor.value
    if reverse:
        step = cursor.prev
        cursor.seek_for_prev(high)
        if valid() and key_of() >= high:
            step()
    else:
        step = cursor.next
        cursor.seek(low)
    for _ in range(limit):
        if not valid():
            try:
                cursor.status()
            except Exception as error:
                raise fault(error) from error
            break
        key = key_of()
        if key < low or key >= high:
            break
        add((key, value_of()))
        step()
    return rows


def _walk_values(cursor: RdictIter, low: bytes, limit: int) -> tuple[list[bytes], bytes]:
    """As `_walk` from `low` up to the iterator's own bound, but the values, and the last key if there are `limit`."""
    values: list[bytes] = []
    add, valid, value_of, step = values.append, cursor.valid, cursor.value, cursor.next
    cursor.seek(low)
    for _ in range(limit - 1):
        if not valid():
            break
        add(value_of())
        step()
    if valid():
        add(value_of())
        return values, cursor.key()
    try:
        cursor.status()
    except Exception as error:
        raise fault(error) from error
    return values, b""


def _last_key(rows: list[Row], limit: int) -> bytes:
    return rows[-1][0] if len(rows) == limit else b""


def _columns(rows: list[Row], skip: int) -> tuple[list[bytes], list[bytes]]:
    """The keys, without their first `skip` bytes, and the values. Two comprehensions are the fastest: 0.1 µs a row."""
    return [key[skip:] for key, _ in rows], [value for _, value in rows]


class RocksReader:
    """Reads of an open database; by itself, of a checkpoint that nobody writes (opens in about 6 ms)."""

    readahead_bytes = 0  # more is for long scans of files that nobody has read yet

    def __init__(self, folder: Path, settings: RocksSettings = DEFAULT_SETTINGS) -> None:
        self._adopt(_open(folder, settings, AccessType.read_only()), folder)

    def _adopt(self, db: Rdict, folder: Path) -> None:
        self._db: Any = db  # the stub does not know raw mode, where keys and values are bytes
        self._get: Callable[[bytes], bytes | None] = db.get
        self.folder = folder
        self.applied_index = int.from_bytes(self.get(APPLIED_KEY) or b"", "big")
        version = self.get(FORMAT_KEY)
        if version is not None and version != bytes([FORMAT_VERSION]):
            db.close()
            raise Corrupt(
                f"{folder} has storage format {version[0]}; this version reads {FORMAT_VERSION}",
                "Start a newer RewindDB on this data folder.",
            )

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._get(key)
        except Exception as error:  # rocksdict knows no narrower class
            raise fault(error) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        try:
            for start in range(0, len(keys), MULTI_GET_KEYS):
                found += self._db.get(list(keys[start : start + MULTI_GET_KEYS]))
        except Exception as error:
            raise fault(error) from error
        return found

    def scan_chunk(
        self, low: bytes, high: bytes, limit: int, reverse: bool = False, skip: int = 0
    ) -> tuple[list[bytes], list[bytes]]:
        return _columns(self._rows(low, high, limit, reverse), skip)

    def scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        if reverse or limit > STEPPED_ROWS or low >= high or limit <= 0:
            rows = self._rows(low, high, limit, reverse)
            return [value for _, value in rows], _last_key(rows, limit) if rows else b""
        options = ReadOptions()
        options.set_iterate_upper_bound(high)
        return _walk_values(self._db.iter(options), low, limit)

    def _rows(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[Row]:
        """The rows of a chunk: 4 µs to begin, then 0.5 µs a row, 0.7 in short chunks.

        Where a range may well be short (an index lookup), single steps of one iterator find its end and whether
        that is an error. A longer chunk comes by `items`, which makes its tuples in C; only if it comes to an end
        before the limit, an iterator goes on from there to find out why.
        """
        if low >= high or limit <= 0:
            return []
        options = ReadOptions()
        if self.readahead_bytes:
            options.set_readahead_size(self.readahead_bytes)
        options.set_iterate_upper_bound(high)  # `high` stays alive in this frame: see the module's rule
        if limit <= STEPPED_ROWS:
            return _walk(self._db.iter(options), low, high, limit, reverse)
        if not reverse:
            rows: list[Row] = list(islice(self._db.items(False, low, options), limit))
            if len(rows) < limit:
                start = rows[-1][0] + b"\0" if rows else low
                rows += _walk(self._db.iter(options), start, high, limit - len(rows), reverse)
            return rows
        rows = list(islice(self._db.items(True, high, options), limit))
        if rows and rows[0][0] >= high:
            del rows[0]
        if rows and rows[-1][0] < low:
            del rows[bisect_left(rows, True, key=lambda row: row[0] < low) :]
        elif len(rows) < limit:
            rows += _walk(self._db.iter(options), low, rows[-1][0] if rows else high, limit - len(rows), reverse)
        return rows

    def reel(self, low: bytes, high: bytes) -> Callable[[int], list[Row]]:
        """A function that gives the next so many rows of [low, high); fewer are the last ones. Raises Corrupt.

        One iterator for all of a long range: none of what it read ahead is read again, as for a scan in chunks.
        """
        options: Any = ReadOptions()  # the stub lacks the argument of `fill_cache`
        if self.readahead_bytes:
            options.set_readahead_size(self.readahead_bytes)
        options.fill_cache(False)  # each block is read once: to keep it costs a tenth of the time
        options.set_iterate_upper_bound(high)  # `high` stays alive in the closure: see the module's rule
        following = self._db.items(False, low, options) if low < high else iter(())
        start = low

        def take(limit: int) -> list[Row]:
            nonlocal start
            rows: list[Row] = list(islice(following, limit))
            if rows:
                start = rows[-1][0] + b"\0"
            if len(rows) < limit and start < high:
                rows += _walk(self._db.iter(options), start, high, limit - len(rows), False)
            return rows

        return take

    def close(self) -> None:
        self._get = _closed
        self._db.close()


def _closed(key: bytes) -> bytes | None:
    raise RuntimeError(f"the storage engine is closed; asked for {key!r}")


class RocksView:
    """A fixed point-in-time read: one iterator, made now. It pins the memtables and files of this moment."""

    def __init__(self, cursor: RdictIter, applied_index: int) -> None:
        self._cursor: RdictIter | None = cursor
        self.applied_index = applied_index

    def _open_cursor(self) -> RdictIter:
        if self._cursor is None:
            raise RuntimeError("the view is closed")
        return self._cursor

    def get(self, key: bytes) -> bytes | None:
        cursor = self._open_cursor()
        cursor.seek(key)
        if cursor.valid():
            return cursor.value() if cursor.key() == key else None
        try:
            cursor.status()
        except Exception as error:
            raise fault(error) from error
        return None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan_chunk(
        self, low: bytes, high: bytes, limit: int, reverse: bool = False, skip: int = 0
    ) -> tuple[list[bytes], list[bytes]]:
        return _columns(_walk(self._open_cursor(), low, high, limit, reverse), skip) if low < high else ([], [])

    def scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        rows = _walk(self._open_cursor(), low, high, limit, reverse) if low < high else []
        return [value for _, value in rows], _last_key(rows, limit) if rows else b""

    def close(self) -> None:
        self._cursor = None


class RocksEngine(RocksReader):
    """A database open for writing. `pause` waits between the attempts of a stalled write (seconds)."""

    def __init__(
        self,
        folder: Path,
        settings: RocksSettings = DEFAULT_SETTINGS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._lock = threading.RLock()  # a checkpoint may be taken on another thread, between two writes
        self._closing = threading.Lock()  # rocksdict refuses to close while another thread flushes
        self._views: WeakSet[RocksView] = WeakSet()
        self._ring = Ring(settings.ring_bytes)
        ring = self._ring if settings.has_rows_in_ring else None
        self._recent = RecentValues(super().get, super().get_many, settings.recent_bytes, ring)
        self._gaps = Gaps()
        self._lookups = RecentLookups(self._scan_values, self._ring)
        self.get = self._recent.get  # type: ignore[method-assign]  # every read of a row: one call fewer
        self._pause = pause
        self._is_open = True
        folder.mkdir(parents=True, exist_ok=True)
        db = _open(folder, settings)
        write_options: Any = WriteOptions()
        write_options.disable_wal = True  # a property, whatever the type stub says
        write_options.no_slowdown = True
        db.set_write_options(write_options)
        yield_to_others()
        self._adopt(db, folder)
        if self.get(FORMAT_KEY) is None:
            first = WriteSet()
            first.put(FORMAT_KEY, bytes([FORMAT_VERSION]))
            self.write(first, self.applied_index)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._recent.get_many(keys) if len(keys) <= LOOKUP_KEYS else super().get_many(keys)

    def scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        if limit <= STEPPED_ROWS and not reverse and is_lookup(low, high):
            return self._lookups.values(low, high, limit)
        return self._scan_values(low, high, limit, reverse)

    def _scan_values(self, low: bytes, high: bytes, limit: int, reverse: bool = False) -> tuple[list[bytes], bytes]:
        if reverse or limit > STEPPED_ROWS or limit <= 0 or self._gaps.knows(low):
            rows = self._rows(low, high, limit, reverse)
            return [value for _, value in rows], _last_key(rows, limit) if rows else b""
        began_s = perf_counter()
        found = super().scan_values(low, high, limit)
        if perf_counter() - began_s > SLOW_SCAN_S:
            self._find_gaps(low, high, limit, False)
        return found

    def _rows(self, low: bytes, high: bytes, limit: int, reverse: bool) -> list[Row]:
        rows: list[Row] = []
        for start, end in self._gaps.pieces(low, high, reverse) if self._gaps.knows(low) else ((low, high),):
            began_s = perf_counter()
            found = super()._rows(start, end, limit - len(rows), reverse)
            if perf_counter() - began_s > SLOW_SCAN_S + len(found) * SLOW_ROW_S:
                self._find_gaps(start, end, limit, reverse)
            rows = rows + found if rows else found
            if len(rows) >= limit:
                break
        return rows

    def _find_gaps(self, low: bytes, high: bytes, limit: int, reverse: bool) -> None:
        """Goes the way of a slow scan again, for at most so many rows."""
        options = ReadOptions()
        options.set_iterate_upper_bound(high)  # `high` stays alive in this frame: see the module's rule
        try:
            self._gaps.find(self._db.iter(options), low, high, min(limit, STEPPED_ROWS), reverse)
        except Exception as error:  # rocksdict knows no narrower class
            raise fault(error) from error

    def write(self, changes: WriteSet, applied_index: int) -> None:
        for pause_s in PAUSES_S:
            try:
                return self._write(changes, applied_index)
            except Overloaded:
                self._pause(pause_s)
        COMPACTIONS.let_go()  # it may be them that the stall waits for
        return self._write(changes, applied_index)

    def _write(self, changes: WriteSet, applied_index: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for low, high in changes.ranges:
            batch.delete_range(low, high)
        for key, value in changes.rows.items():
            if value is None:
                del batch[key]
            else:
                batch[key] = value  # 1.4 µs, where `put` takes 1.9
        batch[APPLIED_KEY] = applied_index.to_bytes(8, "big")
        with self._lock:
            try:
                self._db.write(batch)
            except Exception as error:
                raise fault(error) from error
            self.applied_index = applied_index
        if changes.ranges:
            self._forget()
        self._recent.written(changes.rows)
        self._lookups.written(changes.rows)
        if self._gaps:
            self._gaps.written(changes.rows)

    def view(self) -> RocksView:
        with self._lock:
            view = RocksView(self._db.iter(), self.applied_index)
        self._views.add(view)
        return view

    def flush(self) -> int:
        covered = self.applied_index
        with self._closing:
            if self._is_open:
                try:
                    self._db.flush()
                except Exception as error:
                    raise fault(error) from error
        return covered

    def ingest(self, files: Sequence[Path]) -> None:
        """Takes in sorted files (storage/bulk), which it moves away. Their keys must not be in the engine."""
        options = IngestExternalFileOptions()
        options.set_move_files(True)
        try:
            self._db.ingest_external_file([str(file) for file in files], options)
        except Exception as error:
            raise fault(error) from error
        self._forget()

    def _forget(self) -> None:
        self._ring.forget()
        self._recent.forget()
        self._lookups.forget()
        self._gaps.forget()

    def checkpoint(self, folder: Path) -> int:
        self.flush()  # off the GIL; what is written from here on is little, and flushed by the checkpoint itself
        if not self._lock.acquire(timeout=WHOLE_WAIT_S):
            raise Overloaded("an entry is being applied part by part")
        try:
            with self._closing:
                Checkpoint(self._db).create_checkpoint(str(folder))
            return self.applied_index
        except Exception as error:
            raise fault(error) from error
        finally:
            self._lock.release()

    def whole(self) -> AbstractContextManager[object]:
        return self._lock

    def sizes(self) -> dict[str, int]:
        return {name: self._db.property_int_value(rocks_name) or 0 for name, rocks_name in PROPERTIES.items()}

    def close(self) -> None:
        COMPACTIONS.let_go()  # RocksDB waits for those that it has asked for
        with self._closing:
            if self._is_open:
                self._is_open = False
                self._forget()
                for view in list(self._views):
                    view.close()
                super().close()
