"""Some tables as they were at one moment, without rebuilding the others: what restores into a running server read.

    survey   one pass over the log: the catalog of that moment, and which slices touch which table
    rebuild  the chosen tables' blocks, then the slices that touch them, into a scratch folder of rows

One rule: a name means what it meant at that moment. Tables may have had other names in the image, and other tables
theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backup.image_loading import Loading
from backup.manifest import TableImage
from backup.packing import spare_workers
from backup.plan import Plan
from backup.rebuild import Progress, apply_patiently, sound_effects
from backup.restore import Reached, reach, read_entries
from backup.selection import TableName
from backup.timeline import ReadEntries, Walk
from backup.vault import Vault
from model import datum as d
from model.catalog import Catalog, Table
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Effect, Kind, decode_of, encode
from model.errors import ReqlError, RewindError, UnfitArchive
from model.keys import primary_key_bytes
from storage.bulk import BulkLoad
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

SCRATCH: Final = RocksSettings(cache_bytes=32 << 20, memtable_bytes=32 << 20, memtables=2)
DATABASE: Final = "d"  # uuid of the one database of a scratch folder
BUCKET: Final = 256  # entries that are told apart when noting which tables the log touches
APPLY_ENTRIES: Final = 500
MOST_SUGGESTED: Final = 10


class NotThen(RewindError):
    """What is asked for did not exist at that moment."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the past is read from: a vault, or a server's own log."""

    plan: Plan
    read: ReadEntries
    load: Callable[[Sequence[TableImage], BulkLoad, Progress], None]


def source_of(vault: Vault, plan: Plan) -> Source:
    """A plan of a vault as a source."""
    loading = Loading(vault, spare_workers(), SCRATCH, is_packed=False)
    return Source(plan, lambda plan: read_entries(vault, plan), loading.load)


@dataclass(frozen=True, slots=True)
class Survey:
    """A moment without its rows. touched: table_id -> buckets of entries with changes of its rows."""

    reached: Reached
    touched: dict[int, set[int]]

    def named(self, table: Table) -> TableName:
        """A table's name at that moment."""
        return TableName(self.reached.catalog.databases_by_uuid[table.database].name, table.name)


def survey(source: Source) -> Survey:
    """Walks to the moment. Raises UnfitArchive or VaultUnavailable."""
    touched: dict[int, set[int]] = {}
    walk = Walk(source.plan, source.read(source.plan), unpacks=False)
    with sound_effects():
        for step in walk:
            for effect in step.effects:
                if effect[0] in (PUT_ROW, DELETE_ROW, PUT_ROWS):
                    touched.setdefault(effect[1], set()).add(step.log_index // BUCKET)
        return Survey(reach(walk), touched)


def choose(survey: Survey, wanted: Collection[TableName]) -> list[Table]:
    """The tables that names mean at that moment, by id; all of them for no names. Raises NotThen."""
    tables = {survey.named(table): table for table in survey.reached.catalog.tables.values()}
    chosen = []
    for name in wanted:
        if name.database not in survey.reached.catalog.databases:
            known = sorted(survey.reached.catalog.databases)
            raise NotThen(f"There was no database {name.database} at that moment.", _suggest("databases", known))
        if name.table is not None and name not in tables:
            known = sorted(str(other) for other in tables if other.database == name.database)
            raise NotThen(f"There was no table {name} at that moment.", _suggest("tables", known))
        chosen += [table for other, table in tables.items() if name in (other, TableName(other.database))]
    found = {table.table_id: table for table in (chosen if wanted else tables.values())}
    return sorted(found.values(), key=lambda table: table.table_id)


def _suggest(what: str, names: Sequence[str]) -> str:
    if not names:
        return f"There were no {what}."
    more = ", ..." if len(names) > MOST_SUGGESTED else ""
    return f"There were the {what} {', '.join(names[:MOST_SUGGESTED])}{more}."


def narrowed(source: Source, survey: Survey, table_ids: Collection[int]) -> Plan:
    """The plan with just the slices that change rows of these tables, and nothing behind the moment."""
    buckets = set().union(*(survey.touched.get(table_id, set()) for table_id in table_ids))
    last_index = survey.reached.log_index
    kept = []
    for step in source.plan.replays:
        last = min(step.last_index, last_index)
        span = range(step.first_index // BUCKET, last // BUCKET + 1)
        is_touched = (
            any(bucket in buckets for bucket in span)
            if len(span) < len(buckets)
            else any(bucket in span for bucket in buckets)
        )
        if is_touched and step.first_index <= last:
            kept.append(replace(step, last_index=last))
    return replace(source.plan, replays=tuple(kept), until_ms=None)


@dataclass(frozen=True, slots=True)
class RebuiltTable:
    """A table in a scratch folder, under its table_id."""

    name: TableName
    table: Table
    rows: int
    row_bytes: int


def rebuild_tables(
    source: Source, survey: Survey, tables: Sequence[Table], folder: Path, progress: Progress
) -> list[RebuiltTable]:
    """Makes `folder` hold the rows of these tables at that moment, or not exist. Every row is looked at.

    Raises UnfitArchive, VaultUnavailable, DiskFull.
    """
    loading = folder.with_name(folder.name + ".rebuilding")
    shutil.rmtree(loading, ignore_errors=True)
    try:
        with sound_effects():
            _load(source, tables, loading, progress)
            _replay(source, survey, tables, loading, progress)
            with Image(loading) as image:
                rebuilt = [_checked(image, survey.named(table), table, progress) for table in tables]
        loading.rename(folder)
        return rebuilt
    finally:
        shutil.rmtree(loading, ignore_errors=True)


def _load(source: Source, tables: Sequence[Table], folder: Path, progress: Progress) -> None:
    wanted = {table.table_id: table for table in tables}
    images = [image for image in source.plan.image.tables if image.table_id in wanted]
    images = [image for image in images if image.uuid == wanted[image.table_id].uuid]
    load = BulkLoad(folder, SCRATCH, is_packed=False)
    try:
        source.load(images, load, progress)
        load.finish(_scratch_catalog(tables), 0)
    except BaseException:
        load.cancel()
        raise


def _scratch_catalog(tables: Iterable[Table]) -> Catalog:
    catalog = Catalog()
    catalog.apply((int(Kind.CREATE_DATABASE), DATABASE, DATABASE))
    for table in tables:
        name = str(table.table_id)
        effect: Effect = (int(Kind.CREATE_TABLE), table.table_id, table.uuid, DATABASE, name, table.primary_key, {})
        catalog.apply(effect)
    return catalog


def _replay(source: Source, survey: Survey, tables: Sequence[Table], folder: Path, progress: Progress) -> None:
    """Entries get numbers of their own, one after the other: those of other tables are passed over."""
    wanted = {table.table_id for table in tables}
    plan = narrowed(source, survey, wanted)
    if not plan.replays:
        return
    engine = RocksEngine(folder, SCRATCH)
    try:
        machine = Machine(engine)
        waiting: list[tuple[int, bytes]] = []
        applied, total = 0, sum(step.last_index - step.first_index + 1 for step in plan.replays)
        for done, (_, _, _, payload) in enumerate(source.read(plan), 1):
            kept = _rows_of(payload, wanted) if payload else []
            if kept:
                applied += 1
                waiting.append((applied, encode(kept, 0)))
            if len(waiting) >= APPLY_ENTRIES:
                apply_patiently(machine, waiting)
                waiting = []
                progress("log", done, total)
        apply_patiently(machine, waiting)
        machine.flush()
    finally:
        engine.close()


def _rows_of(payload: bytes, table_ids: Collection[int]) -> list[Effect]:
    effects = decode_of(payload, table_ids).effects
    return [effect for effect in effects if effect[0] in (PUT_ROW, DELETE_ROW) and effect[1] in table_ids]


def _checked(image: Image, name: TableName, table: Table, progress: Progress) -> RebuiltTable:
    """Looks at each row: it goes to drivers as it is, so it has to be an object with the primary key it lies under."""
    count = size = 0
    total = image.count(table.table_id)
    for block in image.blocks(table.table_id):
        check_rows(name, table.primary_key, block.keys, block.rows)
        size += sum(map(len, block.rows))
        count += len(block.rows)
        progress("checked", count, total)
    if count != total:
        raise UnfitArchive(f"Table {name} has {count} rows, but {total} were counted.")
    return RebuiltTable(name, table, count, size)


def check_rows(name: TableName, primary_key: str, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
    """Raises UnfitArchive unless each row is an object with the primary key that it lies under."""
    loads, is_object = d.loads, d.is_object
    try:
        for key, row in zip(keys, rows, strict=True):
            datum = loads(row)
            if not is_object(datum) or primary_key_bytes(datum[primary_key]) != key:
                raise UnfitArchive(f"Table {name} holds a row under a key that is not its own.")
    except (ValueError, KeyError, ReqlError, RecursionError) as error:
        raise UnfitArchive(f"Table {name} holds a row that is none: {error!r}.") from error
