"""The state machine: puts log entries into the engine, in order, each exactly once.

One rule: the state after entry N is a function of the entries up to N alone. Rows, counts, the catalog's
documents, secondary index entries and the applied index of one entry become durable together; a crash goes
back to an earlier entry, and applying the log from there comes to the same state again.

An entry is worked out in memory against the engine and what is not written yet, and written in parts of
about 1000 rows. A part that ends inside an entry carries the applied index of the entry before: applying
that entry again over its own first part changes nothing twice, since counts and index entries are worked
out from the rows that are there. `engine.whole()` keeps checkpoints out of such an entry.

When the engine stalls, `apply` raises Overloaded and keeps what it worked out: call it again, with the same
entries or with later ones too. Packed rows are written in pieces of `turn_s` seconds: after one it raises Unfinished,
which means the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Final, NamedTuple

from model.catalog import Catalog, Index, Table
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Effect, Kind, decode_stored, rows_of, unpacked
from model.errors import Corrupt, Overloaded, Unfinished
from model.index_function import IndexFunction
from storage import documents
from storage.engine import Engine, WriteSet, scan
from storage.layout import (
    COUNTS_HIGH,
    COUNTS_LOW,
    READY_HIGH,
    READY_LOW,
    after,
    count_key,
    number_in,
    ready_key,
    sindex_prefix,
    table_prefix,
)
from storage.rows import LiveStore
from storage.sindex import IndexedTable, Sindex, SindexBuilder

PART_ROWS: Final = 900  # engine keys per write; a write of more than 1000 would hold the GIL too long
PART_BYTES: Final = 4 << 20
MANY_EFFECTS: Final = 8  # in an entry whose old rows are read together


_Made = tuple[int, list[Effect]]
"""What a payload encodes: (time_ms, effects), as a `Batch` is."""


class Change(NamedTuple):
    """What an entry did to one row of a watched table; None is no row."""

    table_id: int
    key: bytes
    old: bytes | None
    new: bytes | None


class _Part(NamedTuple):
    """What one write brings: counts are those of the tables that it touches, None for those that it drops."""

    changes: WriteSet
    applied_index: int
    counts: dict[int, int | None]
    is_of_packed: bool  # after it, others may have a turn


class Machine:
    """Applies entries to one engine. All calls on one thread, but for `flush` and `checkpoint`."""

    def __init__(
        self,
        engine: Engine,
        index_function: Callable[[Table, Index], IndexFunction] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.on_changes: Callable[[int, int, list[Change]], None] | None = None
        self.on_catalog: Callable[[Effect], None] | None = None
        self.on_index_ready: Callable[[int], None] | None = None
        self.watched: set[int] = set()
        self.index_function = index_function
        self.courtesy: Callable[[], object] | None = None  # called between steps of half a millisecond
        self.turn_s: float | None = None  # how long packed rows are written before others have a turn; None: no turns
        self.catalog = Catalog()
        self._clock = clock
        self._foreseen: deque[tuple[int, bytes, _Made]] = deque()
        self._counts: dict[int, int] = {}
        self._visible_counts: dict[int, int] = {}
        self._tables: dict[int, IndexedTable] = {}
        self._sindexes: dict[int, Sindex] = {}
        self.store = LiveStore(engine, self.catalog, self._visible_counts, self._sindexes)
        self._load(engine)

    def _load(self, engine: Engine) -> None:
        """Takes up what an engine holds, and nothing of what was before; the dicts stay the same objects."""
        documents.load_catalog(engine, self.catalog)
        self._counts = {number_in(k): int.from_bytes(v, "big") for k, v in scan(engine, COUNTS_LOW, COUNTS_HIGH)}
        self._visible_counts.clear()
        self._visible_counts.update(self._counts)
        self._tables.clear()
        self._sindexes.clear()
        self._builder = SindexBuilder(engine, self._clock, self._index_is_ready)
        ready = {number_in(key) for key, _ in scan(engine, READY_LOW, READY_HIGH)}
        for table in self.catalog.tables.values():
            self._tables[table.table_id] = IndexedTable(table.table_id)
            for index in table.indexes.values():
                self._add_sindex(table.table_id, index.index_id, index.index_id in ready)
        self._staged = WriteSet()
        self._staged_bytes = 0
        self._touched: set[int] = set()  # tables whose count changed since the last seal
        self._parts: list[_Part] = []  # to be written
        self._whole: AbstractContextManager[object] | None = None  # entered while parts of an entry are missing
        self._has_unpacked = False  # just now, which takes longer than a turn
        self._events: list[Callable[[], None]] = []  # to tell once the parts are written
        self._worked_index = engine.applied_index

    def switch(self, engine: Engine) -> Engine:
        """Goes on with another engine, as a snapshot brings one; the old one, for the caller to close.

        `store` and `catalog` stay the same objects. The listeners hear nothing of what is different.
        """
        old, self.engine = self.engine, engine
        self._let_checkpoints_in()
        self.store.switch(engine)
        self._load(engine)
        self._foreseen.clear()
        return old

    @property
    def applied_index(self) -> int:
        """The last entry that readers see and that went to the engine whole."""
        return self.engine.applied_index

    # --- applying

    def foresee(self, log_index: int, payload: bytes, made: _Made) -> None:
        """This payload, which encodes those rows, was proposed here: where it is applied, it is not decoded.

        It counts only if the very same object comes back at that index: whatever another leader put there, or what
        was read from the disk, is decoded. To be called in the order of the log.
        """
        foreseen = self._foreseen
        while foreseen and foreseen[-1][0] >= log_index:
            foreseen.pop()  # another leader's entries have taken their place, or will
        foreseen.append((log_index, payload, made))

    def _made_of(self, log_index: int, payload: bytes) -> _Made:
        foreseen = self._foreseen
        while foreseen and foreseen[0][0] <= log_index:
            index, proposed, made = foreseen.popleft()
            if proposed is payload and index == log_index:
                return made
        return decode_stored(payload)

    def apply(self, entries: Sequence[tuple[int, bytes]]) -> None:
        """Applies (log_index, payload) in order; those applied before are passed over; b"" only counts.

        Raises Overloaded when the engine stalls: nothing is lost, call again. Every entry must be synced in
        this server's own log, since the engine may flush at any moment and must not get ahead of the log.
        """
        if self._parts:
            self._write_parts()
        worked_index = self._worked_index
        for log_index, payload in entries:
            if log_index <= worked_index:
                continue
            if log_index != worked_index + 1:
                raise Corrupt(f"log entry {log_index} came to storage after entry {worked_index}")
            if payload:
                self._work_out(log_index, payload)
            self._worked_index = worked_index = log_index
            if len(self._staged.rows) >= PART_ROWS or self._staged_bytes >= PART_BYTES or self._parts:
                self._seal(worked_index)
                self._write_parts()
        if worked_index > self.engine.applied_index:
            self._seal(worked_index)
            self._write_parts()

    def _work_out(self, log_index: int, payload: bytes) -> None:
        """Stages what one entry does, and seals parts of it when it is large."""
        courtesy = self.courtesy
        if courtesy is not None:
            courtesy()
        time_ms, effects = self._made_of(log_index, payload) if self._foreseen else decode_stored(payload)
        if effects and effects[0][0] == PUT_ROWS:
            if self._put_new_rows(log_index, effects[0]):
                return
            effects = rows_of(effects[0])
        rows, ranges = self._staged.rows, self._staged.ranges
        parts, get, stored, tables = self._parts, self.engine.get, self._stored, self._tables
        changes: list[Change] = []
        if courtesy is not None:
            courtesy()
        ahead = self._read_ahead(effects) if len(effects) >= MANY_EFFECTS and not (parts or ranges) else {}
        if courtesy is not None:
            courtesy()
        for effect in effects:
            kind = effect[0]
            if kind == PUT_ROW:
                new: bytes | None = effect[3]
            elif kind == DELETE_ROW:
                new = None
            else:
                self._change_catalog(effect)
                continue
            table_id = effect[1]
            table = tables.get(table_id)
            if table is None:
                continue  # dropped by an entry before
            primary_key = effect[2]
            key = table.prefix + primary_key
            if key in rows:
                old = rows[key]
            elif parts or ranges:
                old = stored(key)
            else:
                old = ahead[key] if key in ahead else get(key)
            if old == new:
                continue
            rows[key] = new
            if old is None:
                self._counts[table_id] = self._counts.get(table_id, 0) + 1
                self._touched.add(table_id)
            elif new is None:
                self._counts[table_id] -= 1
                self._touched.add(table_id)
            if new is not None:
                self._staged_bytes += len(new)
            if table.sindexes:
                self._keep_indexes_up(table, primary_key, old, new)
            if table_id in self.watched:
                changes.append(Change(table_id, primary_key, old, new))
            if len(rows) >= PART_ROWS or self._staged_bytes >= PART_BYTES:
                self._seal(log_index - 1)
                rows, ranges = self._staged.rows, self._staged.ranges
        if changes:
            self._events.append(partial(self._tell_changes, log_index, time_ms, changes))

    def _put_new_rows(self, log_index: int, effect: Effect) -> bool:
        """Seals parts of packed rows that replace nothing and that nobody has to be told of; False if they do."""
        table_id = effect[1]
        table = self._tables.get(table_id)
        if table is None:
            return True  # dropped by an entry before
        if table.sindexes or table_id in self.watched:
            return False
        keys, rows = unpacked(effect)
        if not keys:
            return True
        prefix = table.prefix
        is_ascending = all(map(lt, keys, islice(keys, 1, None)))
        if not is_ascending or not self._is_vacant(prefix + keys[0], prefix + keys[-1]):
            return False
        if self._staged.rows or self._staged.ranges:
            self._seal(log_index - 1)
        step = max(1, min(PART_ROWS, PART_BYTES * len(rows) // max(1, sum(map(len, rows)))))
        for at in range(0, len(keys), step):
            names = [prefix + key for key in keys[at : at + step]]
            self._staged.rows = dict(zip(names, rows[at : at + step], strict=True))
            self._counts[table_id] = self._counts.get(table_id, 0) + len(names)
            self._touched.add(table_id)
            self._seal(log_index - 1, is_of_packed=True)
        self._has_unpacked = self.turn_s is not None
        return True

    def _is_vacant(self, first: bytes, last: bytes) -> bool:
        """Whether no row lies from the one key to the other, nor will when all that is staged is written."""
        for changes in (self._staged, *(part.changes for part in self._parts)):
            if any(first <= key <= last for key in changes.rows):
                return False
        return not self.engine.scan_chunk(first, last + b"\0", 1)[0]

    def _read_ahead(self, effects: list[Effect]) -> dict[bytes, bytes | None]:
        """The rows that an entry of many effects replaces, read at once: a third of the price where there are none."""
        tables = self._tables
        keys = [
            tables[effect[1]].prefix + effect[2]
            for effect in effects
            if (effect[0] == PUT_ROW or effect[0] == DELETE_ROW) and effect[1] in tables
        ]
        return dict(zip(keys, self.engine.get_many(keys), strict=True))

    def _stored(self, key: bytes) -> bytes | None:
        """A key's value where deleted ranges or sealed parts lie between what is staged and the engine."""
        for part in (self._staged, *(part.changes for part in reversed(self._parts))):
            if key in part.rows:
                return part.rows[key]
            if any(low <= key < high for low, high in part.ranges):
                return None
        return self.engine.get(key)

    def _keep_indexes_up(self, table: IndexedTable, primary_key: bytes, old: bytes | None, new: bytes | None) -> None:
        touched = table.touched(old, new)
        for sindex in touched:
            if sindex.function is None and not self._plug(sindex):
                self._build_again(table)
                return
        table.keep_up(self._staged.rows, touched, primary_key, old, new)

    def _build_again(self, table: IndexedTable) -> None:
        """The rows of a table change while no index function is plugged in: its indexes will be constructed anew."""
        for sindex in table.sindexes:
            if sindex.is_ready:
                sindex.is_ready = False
                sindex.restart()
                self._builder.add(sindex)
                self._staged.delete(ready_key(sindex.index_id))

    def _seal(self, applied_index: int, is_of_packed: bool = False) -> None:
        """Ends the staged part; it will be written with this applied index and the counts as they are now."""
        part = self._staged
        counts = {table_id: self._counts.get(table_id) for table_id in self._touched}
        for table_id, count in counts.items():
            part.rows[count_key(table_id)] = None if count is None else count.to_bytes(8, "big")
        self._parts.append(_Part(part, applied_index, counts, is_of_packed))
        self._staged = WriteSet()
        self._staged_bytes = 0
        self._touched = set()

    def _write_parts(self) -> None:
        """Writes the sealed parts, then tells the listeners; raises Overloaded with the rest still waiting."""
        parts = self._parts
        until: float | None = None
        if self._has_unpacked:
            self._has_unpacked = False
            raise Unfinished("rows were unpacked and are to be written")
        if self._whole is None and len(parts) > 1:  # one write is whole by itself
            self._whole = self.engine.whole()
            self._whole.__enter__()
        try:
            while parts:
                part = parts[0]
                if self.courtesy is not None:
                    self.courtesy()
                self.engine.write(part.changes, part.applied_index)
                for table_id, count in part.counts.items():
                    if count is None:
                        self._visible_counts.pop(table_id, None)
                    else:
                        self._visible_counts[table_id] = count
                del parts[0]
                if part.is_of_packed and parts and self.turn_s is not None:
                    if until is None:
                        until = self._clock() + self.turn_s
                    elif self._clock() >= until:
                        raise Unfinished("more rows are to be written")
        finally:
            if not parts:
                self._let_checkpoints_in()
        if self._events:
            events, self._events = self._events, []
            for tell in events:
                tell()

    def _let_checkpoints_in(self) -> None:
        whole, self._whole = self._whole, None
        if whole is not None:
            whole.__exit__(None, None, None)

    def _tell_changes(self, log_index: int, time_ms: int, changes: list[Change]) -> None:
        if self.on_changes is not None:
            self.on_changes(log_index, time_ms, changes)

    # --- the catalog

    def _change_catalog(self, effect: Effect) -> None:
        """Makes a catalog effect's change in memory and stages its documents; a moot one is passed over."""
        if documents.is_moot(self.catalog, effect):
            return
        kind = effect[0]
        changes = self._staged
        dropped: list[int] = []
        if kind == Kind.DROP_TABLE:
            dropped = [effect[1]]
        elif kind == Kind.DROP_DATABASE:
            dropped = [table.table_id for table in self.catalog.databases_by_uuid[effect[1]].tables.values()]
        for table_id in dropped:
            self._forget_table(table_id)
        self.catalog.apply(effect)
        if kind in (Kind.CREATE_DATABASE, Kind.DROP_DATABASE, Kind.RENAME_DATABASE):
            documents.save_database(changes, self.catalog, effect[1])
        elif kind == Kind.CREATE_TABLE:
            self._tables[effect[1]] = IndexedTable(effect[1])
            documents.save_table(changes, self.catalog, effect[1])
        elif kind in (Kind.ALTER_TABLE, Kind.SET_WRITE_HOOK):
            documents.save_table(changes, self.catalog, effect[1])
        elif kind == Kind.CREATE_INDEX:
            self._add_sindex(effect[1], effect[2], is_ready=False)
            documents.save_sindex(changes, self.catalog, effect[1], effect[2])
        elif kind == Kind.DROP_INDEX:
            self._forget_sindex(effect[1], effect[2])
            documents.save_sindex(changes, self.catalog, effect[1], effect[2])
        elif kind == Kind.RENAME_INDEX:
            documents.save_sindex(changes, self.catalog, effect[1], effect[2])
        elif kind in (Kind.PUT_SYSTEM, Kind.DELETE_SYSTEM):
            documents.save_system(changes, self.catalog, effect[1], effect[2])
        if self.on_catalog is not None:
            self._events.append(lambda: self._tell_catalog(effect))

    def _tell_catalog(self, effect: Effect) -> None:
        if self.on_catalog is not None:
            self.on_catalog(effect)

    def _forget_table(self, table_id: int) -> None:
        table = self.catalog.tables[table_id]
        for index in list(table.indexes.values()):
            self._forget_sindex(table_id, index.index_id)
            self._staged.delete(documents.sindex_key(table_id, index.index_id))
        del self._tables[table_id]
        prefix = table_prefix(table_id)
        self._staged.delete_range(prefix, after(prefix))
        self._staged.delete(documents.table_key(table_id))
        self._counts.pop(table_id, None)
        self._touched.add(table_id)

    # --- secondary indexes

    def _add_sindex(self, table_id: int, index_id: int, is_ready: bool) -> None:
        sindex = Sindex(table_id, index_id, is_ready)
        self._sindexes[index_id] = sindex
        self._tables[table_id].sindexes.append(sindex)
        if not is_ready:
            self._builder.add(sindex)

    def _forget_sindex(self, table_id: int, index_id: int) -> None:
        self._builder.forget(index_id)
        self._tables[table_id].remove(self._sindexes.pop(index_id))
        prefix = sindex_prefix(index_id)
        self._staged.delete_range(prefix, after(prefix))
        self._staged.delete(ready_key(index_id))

    def _plug(self, sindex: Sindex) -> bool:
        """Asks the port for a secondary index's function; False if no port is plugged in."""
        if self.index_function is None:
            return False
        table = self.catalog.tables[sindex.table_id]
        index = next(index for index in table.indexes.values() if index.index_id == sindex.index_id)
        self._tables[sindex.table_id].learn(sindex, self.index_function(table, index))
        return True

    def build_step(self, budget_s: float = 0.002) -> bool:
        """Constructs secondary indexes for about `budget_s` seconds; whether there is more to do.

        To be called between applies, on their thread. Does nothing while no index function is plugged in.
        """
        if self._parts:
            return True
        for sindex in self._builder.waiting.values():
            if sindex.function is None and not self._plug(sindex):
                return False
        return self._builder.step(budget_s)

    @property
    def indexes_waiting(self) -> list[int]:
        """The ids of the secondary indexes that are not ready, in the order of their construction."""
        return list(self._builder.waiting)

    def _index_is_ready(self, sindex: Sindex) -> None:
        if self.on_index_ready is not None:
            self.on_index_ready(sindex.index_id)

    # --- durability

    def flush(self) -> int:
        """Makes the applied state durable in the engine; the log index that it covers. Blocks: run it in a thread."""
        return self.engine.flush()

    def checkpoint(self, folder: Path) -> int:
        """Writes a consistent image of the applied state into a new folder; the log index in it. For a thread."""
        if self._parts:
            raise Overloaded("storage has entries to write before a checkpoint can be taken")
        return self.engine.checkpoint(folder)

    def close(self) -> None:
        """Flushes and closes the engine."""
        self._let_checkpoints_in()
        self.engine.close()
