"""The versions of a document: what it was, when it changed, what became of it; and documents of one moment by key.

One rule: a table is what bore the name when it mattered. Versions are those of every table that ever had the name in
the part of the past that is looked at, under whatever name it had just then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from backup.capture import read_block
from backup.manifest import Block, ImageManifest, TableImage
from backup.plan import Plan, Stop
from backup.rebuild import sound_effects
from backup.restore_tables import NotThen, Source, Survey, narrowed
from backup.selection import TableName
from backup.shelf import Shelf
from backup.timeline import ReadEntries, Walk, chain_from, format_time
from backup.vault import Vault
from model import datum as d
from model.catalog import Catalog, Table
from model.effect import DELETE_ROW, PUT_ROW, Effect, Kind, decode_of

SEARCHED_SHARE: Final = 8  # beyond one key per so many blocks, all blocks are read rather than searched

STOOD: Final = "stood"  # it was there when what is known begins
CREATED: Final = "created"
CHANGED: Final = "changed"
DELETED: Final = "deleted"
DROPPED: Final = "table dropped"

FindRows = Callable[[ImageManifest, TableImage, Collection[bytes]], dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Version:
    """A document from the entry `log_index` on. row: its JSON text, None if it was gone. gap: the log before it is
    not known, so there may have been other versions."""

    log_index: int
    time_ms: int
    change: str
    table_id: int
    table: TableName
    row: bytes | None
    gap: bool = False

    def as_plain(self) -> dict[str, Any]:
        return {
            "log_index": self.log_index,
            "time": format_time(self.time_ms),
            "change": self.change,
            "table": str(self.table),
            "row": None if self.row is None else d.loads(self.row),
            "gap": self.gap,
        }


def find_rows(vault: Vault, table: TableImage, keys: Collection[bytes]) -> dict[bytes, bytes]:
    """The rows under these keys in an image; a few blocks are read if there are few keys."""
    found: dict[bytes, bytes] = {}
    blocks = table.blocks
    if len(keys) * SEARCHED_SHARE > len(blocks):
        for block in blocks:
            found.update(_among(read_block(vault, block), keys))
        return found
    seen: dict[str, tuple[list[bytes], list[bytes]]] = {}

    def read(block: Block) -> tuple[list[bytes], list[bytes]]:
        if block.name not in seen:
            seen[block.name] = read_block(vault, block)
        return seen[block.name]

    for key in keys:
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            part = read(blocks[middle])
            if part[0] and key < part[0][0]:
                high = middle
            elif part[0] and key > part[0][-1]:
                low = middle + 1
            else:
                found.update(_among(part, (key,)))
                break
    return found


def _among(part: tuple[Sequence[bytes], Sequence[bytes]], keys: Collection[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return ((key, row) for key, row in zip(*part, strict=True) if key in keys)


def documents_at(
    source: Source, survey: Survey, table: Table, keys: Collection[bytes], find: FindRows
) -> dict[bytes, bytes | None]:
    """The rows of a table under these keys at the surveyed moment; None where there was none."""
    rows: dict[bytes, bytes | None] = dict.fromkeys(keys)
    for image in source.plan.image.tables:
        if image.table_id == table.table_id and image.uuid == table.uuid:
            rows.update(find(source.plan.image, image, keys))
    with sound_effects():
        for _, _, _, payload in source.read(narrowed(source, survey, [table.table_id])):
            for effect in decode_of(payload, (table.table_id,)).effects if payload else ():
                if effect[0] in (PUT_ROW, DELETE_ROW) and effect[1] == table.table_id and effect[2] in rows:
                    rows[effect[2]] = effect[3] if effect[0] == PUT_ROW else None
    return rows


# --- all versions


@dataclass(frozen=True, slots=True)
class Era:
    """A part of the past that is known without a gap: an image and the log behind it.

    is_joined: nothing is missing between the era before and this one.
    """

    plan: Plan
    read: ReadEntries
    is_joined: bool = False


def eras_of(shelf: Shelf, read: ReadEntries, since: Stop | None = None) -> list[Era]:
    """All of the past that a shelf holds, oldest first: each image that no log leads to begins an era.

    since: the moment from which on it matters; what is surely before it is left out.
    """
    eras: list[Era] = []
    reached = 0
    images = sorted((image for image in shelf.images if image.is_whole), key=lambda image: image.log_index)
    for image in _from(images, since):
        if eras and image.log_index <= reached:
            continue
        plan = chain_from(image, shelf.slices)
        eras.append(Era(plan, read))
        reached = plan.last_index
    return eras


def _from(images: Sequence[ImageManifest], since: Stop | None) -> Sequence[ImageManifest]:
    if since is None:
        return images
    fit = [
        at
        for at, image in enumerate(images)
        if (since.index is not None and image.log_index <= since.index)
        or (since.time_ms is not None and image.time_ms <= since.time_ms)
        or since.newest
    ]
    return images[fit[-1] :] if fit else images


def with_own_log(eras: Sequence[Era], own: Era) -> list[Era]:
    """The eras of a vault, and what only a server's own log holds: entries before the first image, and the newest."""
    if not eras:
        return [own]
    first = eras[0].plan.image.log_index
    joined = list(eras)
    if own.plan.image.log_index < first:
        early = _cut(own.plan, last=first)
        joined = [Era(early, own.read), replace(eras[0], is_joined=early.last_index == first), *eras[1:]]
    last = eras[-1].plan
    if own.plan.last_index <= last.last_index:
        return joined
    if own.plan.image.log_index > last.last_index:
        return [*joined, own]
    return [*joined[:-1], _continued(joined[-1], own)]


def _cut(plan: Plan, last: int) -> Plan:
    steps = [replace(step, last_index=min(step.last_index, last)) for step in plan.replays if step.first_index <= last]
    return replace(plan, replays=tuple(steps))


def _continued(era: Era, own: Era) -> Era:
    """An era with the entries behind it that a server's own log holds."""
    end = era.plan.last_index
    tail = [
        replace(step, first_index=max(step.first_index, end + 1)) for step in own.plan.replays if step.last_index > end
    ]
    own_pieces = {step.piece for step in tail}

    def read(plan: Plan) -> Iterator[tuple[int, int, int, bytes]]:
        for reader, is_own in ((era.read, False), (own.read, True)):
            steps = tuple(step for step in plan.replays if (step.piece in own_pieces) == is_own)
            yield from reader(replace(plan, replays=steps))

    return replace(era, plan=replace(era.plan, replays=(*era.plan.replays, *tail)), read=read)


def versions(eras: Iterable[Era], name: TableName, key: bytes, find: FindRows) -> list[Version]:
    """All versions of a document that the eras tell of, oldest first. Raises NotThen if no table had the name."""
    found: list[Version] = []
    was_named = is_known = False
    for era in eras:
        is_known = True
        part, has_bearers = _versions_in(era, name, key, find)
        was_named = was_named or has_bearers
        if found:
            if part and (part[0].change, part[0].row) == (STOOD, found[-1].row):
                part = part[1:]
            elif found[-1].row is not None and not era.is_joined and not (part and part[0].change == STOOD):
                image = era.plan.image
                part.insert(0, replace(found[-1], log_index=image.log_index, time_ms=image.time_ms, change=DELETED))
                part[0] = replace(part[0], row=None)
            part = [replace(version, gap=at == 0 and not era.is_joined) for at, version in enumerate(part)]
        found += part
    if is_known and not was_named:
        raise NotThen(f"There was no table {name} in all that is known of the past.")
    return found


def _versions_in(era: Era, name: TableName, key: bytes, find: FindRows) -> tuple[list[Version], bool]:
    """The versions in one era, and whether a table had the name.

    Those of all tables are noted on the way: names are known for sure at the end only.
    """
    walk = Walk(era.plan, era.read(era.plan))
    bearers = set(_ids_named(walk.catalog, name))
    names = {table_id: _name(walk.catalog, table_id) for table_id in walk.catalog.tables}
    first_names = dict(names)
    # By entry and table, since only what an entry comes to is a version.
    noted: dict[tuple[int, int], tuple[int, bytes | None, bool, TableName]] = {}

    def before(log_index: int, effect: Effect) -> None:
        gone = [effect[1]] if effect[0] == Kind.DROP_TABLE else []
        if effect[0] == Kind.DROP_DATABASE:
            gone = [table.table_id for table in walk.catalog.databases_by_uuid[effect[1]].tables.values()]
        dropped.extend((table_id, _name(walk.catalog, table_id)) for table_id in gone)

    dropped: list[tuple[int, TableName]] = []
    walk.before = before
    with sound_effects():
        for step in walk:
            if step.catalog_effects:
                bearers.update(_ids_named(walk.catalog, name))
                names = {table_id: _name(walk.catalog, table_id) for table_id in walk.catalog.tables}
                for table_id, known in dropped:
                    noted[step.log_index, table_id] = (step.time_ms, None, True, known)
                dropped.clear()
            for effect in step.effects:
                if effect[0] in (PUT_ROW, DELETE_ROW) and effect[2] == key and effect[1] in names:
                    row = effect[3] if effect[0] == PUT_ROW else None
                    noted[step.log_index, effect[1]] = (step.time_ms, row, False, names[effect[1]])
    image = era.plan.image
    tables = [table for table in image.tables if table.table_id in bearers]
    stood = {table.table_id: row for table in tables for row in find(image, table, (key,)).values()}
    out = [
        Version(image.log_index, image.time_ms, STOOD, table_id, first_names[table_id], row)
        for table_id, row in stood.items()
    ]
    now: dict[int, bytes | None] = dict(stood)
    for (log_index, table_id), (time_ms, row, is_drop, known) in noted.items():
        was = now.get(table_id)
        if table_id in bearers and row != was:
            change = (DROPPED if is_drop else DELETED) if row is None else CREATED if was is None else CHANGED
            out.append(Version(log_index, time_ms, change, table_id, known, row))
            now[table_id] = row
    return out, bool(bearers)


def _ids_named(catalog: Catalog, name: TableName) -> list[int]:
    database = catalog.databases.get(name.database)
    table = None if database is None else database.tables.get(name.table or "")
    return [] if table is None else [table.table_id]


def _name(catalog: Catalog, table_id: int) -> TableName:
    table = catalog.tables[table_id]
    return TableName(catalog.databases_by_uuid[table.database].name, table.name)
