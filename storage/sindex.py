"""Secondary indexes on this replica: entry keys, upkeep with every row change, construction in slices.

An entry is `i` index_id | index key | primary key | tag -> primary key. The tag counts a row's equal index keys, so
that a multi index holds a row once for each: nothing for the first, two bytes from 1 on for the others. As in
RethinkDB, rows with equal index keys come in the order of their primary keys, each with all its entries.

    created ──step──► swept ──step…──► ready          drop: forgotten, entries deleted as one range
       ▲                                 │
       └── restart, or rows written while no index function was plugged in ◄──┘ (only if not ready at the restart)

One rule: until an index is ready, its entries are exactly those of the rows with keys up to `cursor`. A row
change keeps that true at once; the builder moves the cursor, those of several indexes together where they are
equal. Both run on the same thread, and an index that is not ready when the process ends begins again: nothing
about its construction is ever in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from model.errors import Overloaded
from model.index_function import Decode, Fields, IndexFunction, Rows
from storage.changed_fields import Differing, can_be_compared, differing, union
from storage.engine import Engine, WriteSet
from storage.layout import PREFIX_BYTES, after, ready_key, sindex_prefix, table_prefix

SLICE_ROWS: Final = 256  # rows read at once while building
PIECE_ROWS: Final = 16  # of these, between two looks at the clock
ROW_S: Final = 2e-6  # what a row takes at best,
ENTRY_S: Final = 3e-6  # and what it takes beyond that for each index
WRITE_ENTRIES: Final = 1000  # entries per write at most, as the engine's rules ask
TAGS: Final = 1 << 16  # a row's equal keys beyond this many are not told apart
CATCH_UP_ROWS: Final = 20_000  # an index that has no more rows than this waits for those created after it


class Sindex:
    """What this replica knows of one secondary index."""

    __slots__ = (
        "cursor", "fields", "function", "index_id", "is_ready", "is_swept", "prefix", "rows_done", "table_id",
    )  # fmt: skip

    def __init__(self, table_id: int, index_id: int, is_ready: bool = False) -> None:
        self.table_id = table_id
        self.index_id = index_id
        self.prefix = sindex_prefix(index_id)
        self.is_ready = is_ready
        self.function: IndexFunction | None = None
        self.fields: Fields | None = None  # that alone decide a row's keys and can be compared
        self.restart()

    def restart(self) -> None:
        """Construction begins again; the caller sees to `is_ready` and its mark in the engine."""
        self.cursor = b""  # the primary key of the last row that was indexed
        self.is_swept = False  # whether the entries of an earlier construction are gone
        self.rows_done = 0


class IndexedTable:
    """A table and its secondary indexes: what the hot path needs of them."""

    __slots__ = ("_decode", "_differing", "prefix", "sindexes")

    def __init__(self, table_id: int) -> None:
        self.prefix = table_prefix(table_id)
        self.sindexes: list[Sindex] = []
        self._differing: Differing | None = None  # of all the fields that the indexes are known to look at
        self._decode: Decode | None = None  # what all indexes together look at

    def remove(self, sindex: Sindex) -> None:
        self.sindexes.remove(sindex)
        self._look_again()

    def learn(self, sindex: Sindex, function: IndexFunction) -> None:
        """How an index's keys are computed."""
        sindex.function = function
        if function.fields is not None and can_be_compared(function.fields):
            sindex.fields = function.fields
        self._look_again()

    def touched(self, old: bytes | None, new: bytes | None) -> list[Sindex]:
        """The indexes that have to be asked about a row's change; for others its keys are the same before and after.

        To ask takes 3 µs and 2.5 for each index, to compare the fields of all takes 2.
        """
        if self._differing is None or old is None or new is None:
            return self.sindexes
        changed = self._differing(old, new)
        return [sindex for sindex in self.sindexes if sindex.fields is None or not sindex.fields.isdisjoint(changed)]

    def keep_up(
        self,
        changes: dict[bytes, bytes | None],
        sindexes: list[Sindex],
        primary_key: bytes,
        old: bytes | None,
        new: bytes | None,
    ) -> None:
        """Stages the entry changes that a row's change asks for in some of the table's indexes, whose functions are
        known; `old` and `new` are rows, None for no row."""
        # Where the builder has yet to come by, it is the builder's.
        asked = [sindex for sindex in sindexes if sindex.is_ready or primary_key <= sindex.cursor]
        if not asked:
            return
        if self._decode is None:
            self._decode = joint_decoder(self.sindexes)
        old_rows = self._decode((old,)) if old is not None else None
        new_rows = self._decode((new,)) if new is not None else None
        for sindex in asked:
            assert sindex.function is not None
            keys_of = sindex.function.keys_of
            old_keys = keys_of(old_rows)[0] if old_rows is not None else []
            new_keys = keys_of(new_rows)[0] if new_rows is not None else []
            if old_keys == new_keys:
                continue
            old_entries = entry_keys(sindex.prefix, old_keys, primary_key)
            new_entries = entry_keys(sindex.prefix, new_keys, primary_key)
            for entry in old_entries:
                changes[entry] = None
            for entry in new_entries:
                changes[entry] = primary_key

    def _look_again(self) -> None:
        fields = union(sindex.fields for sindex in self.sindexes)
        self._differing = differing(fields) if fields else None
        self._decode = None


def joint_decoder(sindexes: Iterable[Sindex]) -> Decode:
    """What decodes of rows all that those of the indexes look at whose functions are known; at least one."""
    functions = [sindex.function for sindex in sindexes if sindex.function is not None]
    reads_all = any(function.fields is None for function in functions)
    return functions[0].decoder(None if reads_all else union(function.fields for function in functions))


def entry_keys(prefix: bytes, index_keys: list[bytes], primary_key: bytes) -> list[bytes]:
    """A row's entries in a secondary index, whose keys begin with `prefix`, one for each of its index keys.

    Equal index keys are told apart by a tag at the end: nothing for the first, two bytes from 1 on for the others.
    """
    if len(index_keys) == 1:
        return [prefix + index_keys[0] + primary_key]
    seen: dict[bytes, int] = {}
    entries = []
    for index_key in index_keys:
        tag = seen.get(index_key, 0)
        if tag < TAGS:
            seen[index_key] = tag + 1
            entries.append(prefix + index_key + primary_key + (tag.to_bytes(2, "big") if tag else b""))
    return entries


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
            sindexes, until = self._next()
            try:
                self._slice(sindexes, until, deadline)
            except Overloaded:
                return True
            for sindex in sindexes:
                if sindex.is_ready:
                    del self.waiting[sindex.index_id]
                    self._on_ready(sindex)
            if self._clock() >= deadline:
                break
        return bool(self.waiting)

    def _next(self) -> tuple[list[Sindex], bytes]:
        """The indexes of one table whose turn it is, all at one cursor, and the row to stop at; b"" for the last one.

        The oldest has its turn. But where a few are created at once, to read each row once and not once for each
        of them is worth that the first ones wait until the last one has come as far.
        """
        oldest = next(iter(self.waiting.values()))
        of_table = [sindex for sindex in self.waiting.values() if sindex.table_id == oldest.table_id]
        ahead = b""
        cursor = oldest.cursor
        if oldest.rows_done <= CATCH_UP_ROWS:
            cursor = min(sindex.cursor for sindex in of_table)
            ahead = min((sindex.cursor for sindex in of_table if sindex.cursor > cursor), default=b"")
        return [sindex for sindex in of_table if sindex.cursor == cursor], ahead

    def _slice(self, sindexes: list[Sindex], until: bytes, deadline: float) -> None:
        """Indexes rows behind the cursor until the deadline, at least one."""
        cursor, rows = sindexes[0].cursor, table_prefix(sindexes[0].table_id)
        changes = WriteSet()
        for sindex in sindexes:
            if not sindex.is_swept:
                changes.delete_range(sindex.prefix, after(sindex.prefix))
        # What is read and not used is read again in the next step: so no more than there will be time for.
        row_s = ROW_S + ENTRY_S * len(sindexes)
        limit = max(PIECE_ROWS, min(SLICE_ROWS, int((deadline - self._clock()) / row_s)))
        high = rows + until + b"\0" if until else after(rows)
        keys, values = self._engine.scan_chunk(rows + cursor + b"\0", high, limit, skip=PREFIX_BYTES)
        decode = joint_decoder(sindexes)
        done = 0
        while done < len(keys):
            end = done + PIECE_ROWS
            done += self._index_rows(changes.rows, sindexes, keys[done:end], decode(values[done:end]))
            if self._clock() >= deadline or len(changes.rows) >= WRITE_ENTRIES:
                break
        is_end = done == len(keys) < limit
        if is_end and not until:
            for sindex in sindexes:
                changes.put(ready_key(sindex.index_id), b"\1")
        self._write(changes)
        if done:
            cursor = keys[done - 1]
        if is_end and until:
            cursor = until  # the row that was there may be gone
        for sindex in sindexes:
            sindex.is_swept = True
            sindex.cursor = cursor
            sindex.rows_done += done
            sindex.is_ready = is_end and not until

    def _index_rows(
        self, changes: dict[bytes, bytes | None], sindexes: list[Sindex], primary_keys: list[bytes], rows: Rows
    ) -> int:
        """Stages the entries of rows until a write is full; of how many rows."""
        prefixes = [sindex.prefix for sindex in sindexes]
        keys_by_index = [sindex.function.keys_of(rows) for sindex in sindexes if sindex.function is not None]
        done = 0
        for primary_key, *keys_of_row in zip(primary_keys, *keys_by_index, strict=True):
            for prefix, index_keys in zip(prefixes, keys_of_row, strict=True):
                if len(index_keys) == 1:
                    changes[prefix + index_keys[0] + primary_key] = primary_key
                else:
                    for entry in entry_keys(prefix, index_keys, primary_key):
                        changes[entry] = primary_key
            done += 1
            if len(changes) >= WRITE_ENTRIES:
                break
        return done

    def _write(self, changes: WriteSet) -> None:
        self._engine.write(changes, self._engine.applied_index)
