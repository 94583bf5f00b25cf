"""The leader's head state: the applied state plus the effects that are in the log but not applied yet.

One rule: it is an overlay that only the leader fills, in log order, and that is dropped as a whole when
leadership is lost: what was in flight may never come. Settling costs one step per effect that was staged.

Rows that are gathered for the next entry lie above all others until that entry is staged, or refused.

Packed rows are unpacked only if somebody asks for a row of their table before they are applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from model.catalog import Catalog, Table
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Effect, Kind
from model.packed_rows import unpack_rows
from storage.documents import copy_catalog, is_moot
from storage.rows import Store

RowName = tuple[int, bytes]
"""(table_id, key)"""

_NOT_STAGED: Final = (0, None)
_NOT_GATHERED: Final[Any] = object()


class Head:
    """What a write is evaluated against. One thread.

    gathered: rows of the entry that will be appended next. Who gathers them puts them in, and takes them all out before
    that entry is staged, or when it is refused.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gathered: dict[RowName, bytes | None] = {}
        self._rows: dict[RowName, tuple[int, bytes | None]] = {}  # the last log_index that staged it, the row
        self._packed: dict[int, list[tuple[int, list[RowName], bytes]]] = {}  # table_id -> (log_index, names, rows)
        self._dropped: dict[int, int] = {}  # table_id -> log_index
        self._catalog_effects: list[tuple[int, Effect]] = []
        self._catalog: Catalog | None = None
        self._catalog_of: tuple[int, int, int] = (0, 0, 0)  # what `_catalog` was made of
        self._batches: deque[tuple[int, list[RowName], list[int], int]] = deque()
        self.count_in_flight = 0  # effects staged and not settled

    def get(self, table_id: int, key: bytes) -> bytes | None:
        """A row as it will be when everything in the log, and what is gathered for it, is applied."""
        if self.gathered:
            row: bytes | None = self.gathered.get((table_id, key), _NOT_GATHERED)
            if row is not _NOT_GATHERED:
                return row
        if self._batches:
            if table_id in self._packed:
                self._unpack(table_id)
            staged = self._rows.get((table_id, key))
            if staged is not None:
                return staged[1]
            if table_id in self._dropped:
                return None
        return self._store.get(table_id, key)

    def get_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get` for many keys."""
        if not self._batches and not self.gathered:
            return self._store.get_many(table_id, keys)
        if table_id in self._packed:
            self._unpack(table_id)
        if table_id in self._dropped:
            return [self.get(table_id, key) for key in keys]
        staged, gathered = self._rows, self.gathered
        found = self._store.get_many(table_id, keys)
        for at, key in enumerate(keys):
            name = (table_id, key)
            if name in gathered:
                found[at] = gathered[name]
            elif name in staged:
                found[at] = staged[name][1]
        return found

    def staged_at(self, table_id: int, key: bytes) -> int:
        """The newest log index, not applied yet, that puts or deletes this row; 0 if there is none."""
        if table_id in self._packed:
            self._unpack(table_id)
        return max(self._rows.get((table_id, key), _NOT_STAGED)[0], self._dropped.get(table_id, 0))

    def stage(self, log_index: int, effects: Sequence[Effect]) -> None:
        """Adds the effects of an entry just appended to the leader's log; log indexes grow."""
        names: list[RowName] = []
        dropped: list[int] = []
        for effect in effects:
            kind = effect[0]
            if kind in (PUT_ROW, DELETE_ROW):
                if effect[1] in self._packed:
                    self._unpack(effect[1])
                name = (effect[1], effect[2])
                self._rows[name] = (log_index, effect[3] if kind == PUT_ROW else None)
                names.append(name)
                continue
            if kind == PUT_ROWS:
                self._packed.setdefault(effect[1], []).append((log_index, names, effect[2]))
                continue
            if kind == Kind.DROP_TABLE:
                dropped.append(effect[1])
            elif kind == Kind.DROP_DATABASE:
                dropped += [table.table_id for table in self._tables_of(effect[1])]
            self._catalog_effects.append((log_index, effect))
        for table_id in dropped:
            self._dropped[table_id] = log_index
            self._packed.pop(table_id, None)
            for name in [name for name in self._rows if name[0] == table_id]:
                self._rows[name] = (log_index, None)
                names.append(name)
        self._batches.append((log_index, names, dropped, len(effects)))
        self.count_in_flight += len(effects)

    def _unpack(self, table_id: int) -> None:
        """Stages packed rows one by one; what is staged of the table already is older."""
        for log_index, names, packed in self._packed.pop(table_id):
            for key, row in zip(*unpack_rows(packed), strict=True):
                name = (table_id, key)
                self._rows[name] = (log_index, row)
                names.append(name)

    def settle(self, applied_index: int) -> None:
        """Forgets what is applied up to and including this index."""
        batches = self._batches
        while batches and batches[0][0] <= applied_index:
            log_index, names, dropped, effects = batches.popleft()
            rows = self._rows
            for name in names:
                if rows.get(name, _NOT_STAGED)[0] == log_index:
                    del rows[name]
            for table_id in dropped:
                if self._dropped.get(table_id) == log_index:
                    del self._dropped[table_id]
            self.count_in_flight -= effects
        if self._packed:
            self._forget_packed(applied_index)
        while self._catalog_effects and self._catalog_effects[0][0] <= applied_index:
            del self._catalog_effects[0]

    def _forget_packed(self, applied_index: int) -> None:
        for table_id, packed in list(self._packed.items()):
            left = [item for item in packed if item[0] > applied_index]
            if left:
                self._packed[table_id] = left
            else:
                del self._packed[table_id]

    def drop(self) -> None:
        """Forgets everything in flight: leadership is lost."""
        self.gathered.clear()
        self._rows.clear()
        self._packed.clear()
        self._dropped.clear()
        self._catalog_effects.clear()
        self._batches.clear()
        self._catalog = None
        self.count_in_flight = 0

    @property
    def catalog(self) -> Catalog:
        """The catalog as it will be when everything in the log is applied; not to be changed."""
        if not self._catalog_effects:
            return self._store.catalog
        made_of = (self._store.catalog.revision, self._catalog_effects[-1][0], len(self._catalog_effects))
        if self._catalog is None or self._catalog_of != made_of:
            self._catalog = copy_catalog(self._store.catalog)
            self._catalog_of = made_of
            for _, effect in self._catalog_effects:
                if not is_moot(self._catalog, effect):
                    self._catalog.apply(effect)
        return self._catalog

    def _tables_of(self, database_uuid: str) -> list[Table]:
        database = self.catalog.databases_by_uuid.get(database_uuid)
        return list(database.tables.values()) if database is not None else []
