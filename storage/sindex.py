"""Secondary indexes on this replica: entry keys, upkeep with every row change, construction in slices.

An entry is `i` index_id | index key | tag | primary key -> primary key. The tag (2 bytes) counts a row's
equal index keys from 0, so that a multi index holds a row once for each.

    created ──step──► swept ──step…──► ready          drop: forgotten, entries deleted as one range
       ▲                                 │
       └── restart, or rows written while no index function was plugged in ◄──┘ (only if not ready at the restart)

One rule: until an index is ready, its entries are exactly those of the rows with keys up to `cursor`. A row
change keeps that true at once; the builder moves the cursor. Both run on the same thread, and an index that
is not ready when the process ends begins again: nothing about its construction is ever in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from model.errors import Overloaded
from storage.changed_fields import Differing, Fields, can_be_compared, differing, union
from storage.engine import Engine, WriteSet
from storage.layout import PREFIX_BYTES, after, ready_key, sindex_prefix, table_prefix

IndexKeys = Callable[[Sequence[bytes]], list[list[bytes]]]
"""Rows' JSON texts -> for each the encoded index keys; [] for a row without a value."""

IndexFunction = tuple[IndexKeys, Fields | None]
"""The keys, and the fields of a row that alone decide them; None: it may be any."""

SLICE_ROWS: Final = 256  # rows read at once while building
PIECE_ROWS: Final = 16  # of these, between two looks at the clock
ROW_S: Final = 6e-6  # what a row takes at best
WRITE_ENTRIES: Final = 1000  # entries per write at most, as the engine's rules ask
TAGS: Final = 1 << 16  # a row's equal keys beyond this many are not told apart


class Sindex:
    """What this replica knows of one secondary index."""

    __slots__ = (
        "cursor", "fields", "index_id", "is_ready", "is_swept", "keys_of", "prefix", "rows_done", "table_id",
    )  # fmt: skip

    def __init__(self, table_id: int, index_id: int, is_ready: bool = False) -> None:
        self.table_id = table_id
        self.index_id = index_id
        self.prefix = sindex_prefix(index_id)
        self.is_ready = is_ready
        self.keys_of: IndexKeys | None = None
        self.fields: Fields | None = None  # that alone decide a row's keys
        self.restart()

    def restart(self) -> None:
        """Construction begins again; the caller sees to `is_ready` and its mark in the engine."""
        self.cursor = b""  # the primary key of the last row that was indexed
        self.is_swept = False  # whether the entries of an earlier construction are gone
        self.rows_done = 0


class IndexedTable:
    """A table and its secondary indexes: what the hot path needs of them."""

    __slots__ = ("_differing", "prefix", "sindexes")

    def __init__(self, table_id: int) -> None:
        self.prefix = table_prefix(table_id)
        self.sindexes: list[Sindex] = []
        self._differing: Differing | None = None  # of all the fields that the indexes are known to look at

    def remove(self, sindex: Sindex) -> None:
        self.sindexes.remove(sindex)
        self._look_again()

    def learn(self, sindex: Sindex, fields: Fields | None) -> None:
        """The fields that alone decide a row's keys in an index; None: it may be any."""
        if fields is not None and can_be_compared(fields):
            sindex.fields = fields
            self._look_again()

    def touched(self, old: bytes | None, new: bytes | None) -> list[Sindex]:
        """The indexes that have to be asked about a row's change; for others its keys are the same before and after.

        To ask one takes 8 µs, to compare the fields of all takes 2.
        """
        if self._differing is None or old is None or new is None:
            return self.sindexes
        changed = self._differing(old, new)
        return [sindex for sindex in self.sindexes if sindex.fields is None or not sindex.fields.isdisjoint(changed)]

    def _look_again(self) -> None:
        fields = union(sindex.fields for sindex in self.sindexes)
        self._differing = differing(fields) if fields else None


def entry_keys(prefix: bytes, index_keys: list[bytes], primary_key: bytes) -> list[bytes]:
    """The engine keys of a row's entries."""
    if len(index_keys) == 1:
        return [prefix + index_keys[0] + b"\0\0" + primary_key]
    seen: dict[bytes, int] = {}
    entries = []
    for index_key in index_keys:
        tag = seen.get(index_key, 0)
        if tag < TAGS:
            seen[index_key] = tag + 1
            entries.append(prefix + index_key + tag.to_bytes(2, "big") + primary_key)
    return entries


def keep_up(
    changes: dict[bytes, bytes | None], sindex: Sindex, primary_key: bytes, old: bytes | None, new: bytes | None
) -> None:
    """Stages the entry changes that a row's change asks for; `old` and `new` are rows, None for no row."""
    if not sindex.is_ready and primary_key > sindex.cursor:
        return  # the builder has yet to come by
    keys_of = sindex.keys_of
    assert keys_of is not None
    old_keys = keys_of((old,))[0] if old is not None else []
    new_keys = keys_of((new,))[0] if new is not None else []
    if old_keys == new_keys:
        return
    old_entries = entry_keys(sindex.prefix, old_keys, primary_key)
    new_entries = entry_keys(sindex.prefix, new_keys, primary_key)
    for entry in old_entries:
        changes[entry] = None
    for entry in new_entries:
        changes[entry] = primary_key


class SindexBuilder:
    """Constructs secondary indexes, oldest first, a slice of time at a time. `clock` gives seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float], on_ready: Callable[[Sindex], None]) -> None:
        self._engine = engine
        self._clock = clock
        self._on_ready = on_ready
        self.waiting: dict[int, Sindex] = {}

    def add(self, sindex: Sindex) -> None:
        self.waiting[sindex.index_id] = sindex

    def forget(self, index_id: int) -> None:
        self.waiting.pop(index_id, None)

    def step(self, budget_s: float) -> bool:
        """Works for about `budget_s` seconds; whether there is more to do. Takes no step while the engine stalls."""
        deadline = self._clock() + budget_s
        while self.waiting:
            sindex = next(iter(self.waiting.values()))
            try:
                is_done = self._slice(sindex, deadline)
            except Overloaded:
                return True
            if is_done:
                del self.waiting[sindex.index_id]
                self._on_ready(sindex)
            if self._clock() >= deadline:
                break
        return bool(self.waiting)

    def _slice(self, sindex: Sindex, deadline: float) -> bool:
        """Indexes rows behind the cursor until the deadline, at least one; whether that was all of them."""
        changes = WriteSet()
        if not sindex.is_swept:
            changes.delete_range(sindex.prefix, after(sindex.prefix))
        rows = table_prefix(sindex.table_id)
        low = rows + sindex.cursor + b"\0"
        # What is read and not used is read again in the next step: so no more than there will be time for.
        limit = max(PIECE_ROWS, min(SLICE_ROWS, int((deadline - self._clock()) / ROW_S)))
        keys, values = self._engine.scan_chunk(low, after(rows), limit, skip=PREFIX_BYTES)
        done = 0
        while done < len(keys):
            end = done + PIECE_ROWS
            done += self._index_rows(changes.rows, sindex, keys[done:end], values[done:end])
            if self._clock() >= deadline or len(changes.rows) >= WRITE_ENTRIES:
                break
        is_done = done == len(keys) < limit
        if is_done:
            changes.put(ready_key(sindex.index_id), b"\1")
        self._write(changes)
        sindex.is_swept = True
        if done:
            sindex.cursor = keys[done - 1]
            sindex.rows_done += done
        sindex.is_ready = is_done
        return is_done

    def _index_rows(
        self, changes: dict[bytes, bytes | None], sindex: Sindex, primary_keys: list[bytes], rows: list[bytes]
    ) -> int:
        """Stages the entries of rows until a write is full; of how many rows."""
        assert sindex.keys_of is not None
        prefix = sindex.prefix
        done = 0
        for primary_key, index_keys in zip(primary_keys, sindex.keys_of(rows), strict=True):
            if len(index_keys) == 1:
                changes[prefix + index_keys[0] + b"\0\0" + primary_key] = primary_key
            else:
                for entry in entry_keys(prefix, index_keys, primary_key):
                    changes[entry] = primary_key
            done += 1
            if len(changes) >= WRITE_ENTRIES:
                break
        return done

    def _write(self, changes: WriteSet) -> None:
        self._engine.write(changes, self._engine.applied_index)
