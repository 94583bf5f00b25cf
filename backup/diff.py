"""What changed between two moments: per table how many rows came, went and changed, and under which keys.

One rule: what counts is the difference of the two states. A row that was changed and changed back is not counted.

The log between the moments says which keys were touched; their rows before come from the image and the log up to the
first moment, and only those are looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backup.history import FindRows, documents_at
from backup.plan import Stop, plan_restore
from backup.rebuild import sound_effects
from backup.restore import Reached, reach
from backup.restore_tables import Source, Survey, choose, narrowed, survey
from backup.selection import TableName
from backup.shelf import Shelf
from backup.timeline import ReadEntries, Walk, format_time
from model.catalog import Table
from model.effect import DELETE_ROW, PUT_ROW, decode_of
from model.errors import BadSetting, RewindError
from model.keys import key_from_bytes

MOST_KEYS: Final = 5_000_000  # touched between the moments; they are kept in memory

INSERTED: Final = "inserted"
DELETED: Final = "deleted"
CHANGED: Final = "changed"


class TooManyChanges(RewindError):
    """More keys were touched than are compared at once."""


@dataclass(slots=True)
class TableDiff:
    """One table. before, after: its names, None where there was none. keys: (key bytes, what happened), by key."""

    before: TableName | None
    after: TableName | None
    inserted: int = 0
    deleted: int = 0
    changed: int = 0
    keys: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def is_any(self) -> bool:
        return bool(self.before != self.after or self.inserted or self.deleted or self.changed)

    def as_plain(self, most_keys: int | None) -> dict[str, Any]:
        """most_keys: how many keys to list, None for all."""
        return {
            "before": None if self.before is None else str(self.before),
            "after": None if self.after is None else str(self.after),
            "inserted": self.inserted,
            "deleted": self.deleted,
            "changed": self.changed,
            "keys": [{"key": key_from_bytes(key), "change": change} for key, change in self.keys[:most_keys]],
            "more_keys": 0 if most_keys is None else max(len(self.keys) - most_keys, 0),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two moments of the log; tables by their newer name, those without any change left out."""

    first: Reached
    second: Reached
    tables: tuple[TableDiff, ...]

    def as_plain(self, most_keys: int | None = None) -> dict[str, Any]:
        return {
            "from": {"log_index": self.first.log_index, "time": format_time(self.first.time_ms)},
            "to": {"log_index": self.second.log_index, "time": format_time(self.second.time_ms)},
            "tables": [table.as_plain(most_keys) for table in self.tables],
        }


Touched = dict[int, dict[bytes, bytes | None]]  # table_id -> key -> the row that the last effect left


def compare(
    shelf: Shelf, first: Stop, second: Stop, read: ReadEntries, find: FindRows, names: Collection[TableName] = ()
) -> Difference:
    """What changed from the first moment to the second. names: of tables or databases at either moment; () for all.

    Raises what `plan_restore` raises, BadSetting if the second moment is the earlier one, NotThen, TooManyChanges.
    """
    early = plan_restore(shelf.images, shelf.slices, first, shelf.marks)
    late = plan_restore([early.image], shelf.slices, second, shelf.marks)
    source = Source(early, read, _no_load)
    before = survey(source)
    after, touched = _changes(Walk(late, read(late)), before.reached.log_index)
    if after.log_index < before.reached.log_index:
        raise BadSetting("The second moment is before the first one.")
    diffs = []
    for old, new in _pairs(before, after, names):
        diff = TableDiff(
            None if old is None else before.named(old), None if new is None else Survey(after, {}).named(new)
        )
        _count_changes(diff, source, before, old, new, touched, find)
        diffs.append(diff)
    found = sorted((diff for diff in diffs if diff.is_any), key=lambda diff: str(diff.after or diff.before))
    return Difference(before.reached, after, tuple(found))


def _no_load(tables: Any, load: Any, progress: Any) -> None:
    raise AssertionError("a comparison reads no whole tables")


def _changes(walk: Walk, after_index: int) -> tuple[Reached, Touched]:
    """Walks to the end; the rows that the effects behind `after_index` leave."""
    touched: Touched = {}
    total = 0
    with sound_effects():
        for step in walk:
            if step.log_index <= after_index:
                continue
            for effect in step.effects:
                if effect[0] in (PUT_ROW, DELETE_ROW):
                    rows = touched.setdefault(effect[1], {})
                    total += effect[2] not in rows
                    rows[effect[2]] = effect[3] if effect[0] == PUT_ROW else None
            if total > MOST_KEYS:
                raise TooManyChanges(
                    f"More than {MOST_KEYS} rows were touched between the moments.", "Choose moments closer together."
                )
        return reach(walk), touched


def _pairs(before: Survey, after: Reached, names: Collection[TableName]) -> list[tuple[Table | None, Table | None]]:
    """Tables that are in either state, as (then, later); the same table is known by its UUID."""
    later = Survey(after, {})
    old = {table.uuid: table for table in before.reached.catalog.tables.values()}
    new = {table.uuid: table for table in after.catalog.tables.values()}
    wanted = set(old) | set(new)
    if names:
        wanted = set()
        for name in names:
            both = [_named(state, name) for state in (before, later)]
            if not any(both):
                choose(later, [name])  # says what there is instead
            wanted |= {table.uuid for tables in both for table in tables}
    return [(old.get(uuid), new.get(uuid)) for uuid in sorted(wanted)]


def _named(state: Survey, name: TableName) -> list[Table]:
    tables = state.reached.catalog.tables.values()
    return [table for table in tables if name in (named := state.named(table), TableName(named.database))]


def _count_changes(
    diff: TableDiff,
    source: Source,
    before: Survey,
    old: Table | None,
    new: Table | None,
    touched: Touched,
    find: FindRows,
) -> None:
    if new is None:
        assert old is not None
        diff.deleted = _count(source, before, old, find)
        return
    rows = touched.get(new.table_id, {})
    was: Mapping[bytes, bytes | None] = dict.fromkeys(rows)
    if old is not None and rows:
        was = documents_at(source, before, old, set(rows), find)
    for key, row in sorted(rows.items()):
        if row != was[key]:
            change = INSERTED if was[key] is None else DELETED if row is None else CHANGED
            diff.keys.append((key, change))
    counts = Counter(change for _, change in diff.keys)
    diff.inserted, diff.deleted, diff.changed = counts[INSERTED], counts[DELETED], counts[CHANGED]


def _count(source: Source, before: Survey, table: Table, find: FindRows) -> int:
    """How many rows a table had at the first moment: those of the image, and what the log made of them."""
    images = [image for image in source.plan.image.tables if image.table_id == table.table_id]
    last: dict[bytes, bool] = {}
    with sound_effects():
        for _, _, _, payload in source.read(narrowed(source, before, [table.table_id])):
            for effect in decode_of(payload, (table.table_id,)).effects if payload else ():
                if effect[0] in (PUT_ROW, DELETE_ROW) and effect[1] == table.table_id:
                    last[effect[2]] = effect[0] == PUT_ROW
    count = sum(last.values())
    for image in images:
        count += image.rows - len(find(source.plan.image, image, set(last)))
    return count
