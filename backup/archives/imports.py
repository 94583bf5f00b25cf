"""`rewinddb import`: a folder of files as export makes it, or one file into one table.

One rule: files are told apart by what their names end in, and a file that is not understood is named in a warning,
never passed over in silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from backup.archives.csv_rows import csv_rows
from backup.archives.layout import INFO_BYTES_MAX, TableInfo, parse_info
from backup.archives.loading import BATCH_ROWS, LoadedTable, Loader
from backup.archives.row_text import ROW_BYTES_MAX, json_rows
from backup.archives.schema import Planned, check_counts, prepare, restore_hooks, restore_indexes
from backup.archives.undump import RestoreSummary
from backup.driver_link import Session, Target, server_version
from backup.progress import Bar
from backup.selection import NAME, SYSTEM_DATABASE, Selection, TableName
from model.errors import ToolFailed, UnfitArchive

FORMS = (".json", ".csv", ".ndjson")


@dataclass(frozen=True)
class ImportOptions:
    """Either `folder`, or `file` and `table`. form: json, ndjson or csv, for `file`; None: by its name.

    header: names of csv columns; has_header: whether the first line holds them.
    """

    target: Target
    folder: Path | None = None
    file: Path | None = None
    table: TableName | None = None
    selection: Selection = field(default_factory=Selection)
    form: str | None = None
    fields: tuple[str, ...] | None = None
    delimiter: str = ","
    header: tuple[str, ...] | None = None
    has_header: bool = True
    clients: int = 8
    durability: str = "soft"
    force: bool = False
    with_indexes: bool = True
    create: dict[str, Any] = field(default_factory=dict)
    batch_rows: int = BATCH_ROWS
    row_bytes_max: int = ROW_BYTES_MAX
    show_bar: bool = True


@dataclass(frozen=True)
class _File:
    path: Path
    form: str
    plan: Planned


def import_files(options: ImportOptions, warn: Callable[[str], None]) -> RestoreSummary:
    """Fills the server; warn: what was left out. Raises RewindError."""
    began = time.monotonic()
    session = Session(options.target)
    try:
        _, version = server_version(session)
        files = _one_file(options) if options.file is not None else _files_of_folder(options, warn)
        plans = [file.plan for file in files]
        if options.with_indexes:
            for plan in plans:
                plan.info.check(plan.source)
        tables = prepare(session, plans, version, force=options.force, create=options.create)
        total = sum(file.path.stat().st_size for file in files)
        with Bar("import", total, options.show_bar) as bar:
            _load(options, files, tables, bar)
            check_counts(session, list(tables.values()))
            summary = RestoreSummary(rows=sum(table.rows_written for table in tables.values()), tables=len(tables))
            if options.with_indexes:
                summary.indexes = restore_indexes(session, plans, warn, bar)
            summary.hooks = restore_hooks(session, plans, warn)
    finally:
        session.close()
    summary.seconds = time.monotonic() - began
    return summary


def _one_file(options: ImportOptions) -> list[_File]:
    assert options.file is not None and options.table is not None
    form = f".{options.form}" if options.form else options.file.suffix
    if form not in FORMS:
        raise ToolFailed(f"Unrecognized file format: {form.lstrip('.') or options.file.name}")
    info = _info_beside(options.file, options.table)
    return [_File(options.file, form, Planned(options.table, options.table, info or TableInfo()))]


def _info_beside(file: Path, table: TableName) -> TableInfo | None:
    path = file.with_suffix(".info")
    if not path.is_file():
        return None
    if path.stat().st_size > INFO_BYTES_MAX:
        raise UnfitArchive(f"{path} is larger than {INFO_BYTES_MAX} bytes.")
    return parse_info(path.read_bytes(), table)


def _files_of_folder(options: ImportOptions, warn: Callable[[str], None]) -> list[_File]:
    """All tables' files, each with the .info beside it. UnfitArchive if a table has two files."""
    assert options.folder is not None
    found: dict[TableName, _File] = {}
    for path in sorted(options.folder.rglob("*")):
        if not path.is_file() or path.suffix == ".info":
            continue
        database, table = path.parent.name, path.stem
        if path.parent.parent != options.folder or path.suffix not in FORMS:
            warn(f"Not imported: {path}")
            continue
        if not NAME.fullmatch(database) or not NAME.fullmatch(table) or database == SYSTEM_DATABASE:
            raise UnfitArchive(f"{path} does not name a database and a table.")
        if not options.selection.holds(database, table):
            continue
        name = TableName(database, table)
        info = _info_beside(path, name)
        if info is None:
            warn(f"Not imported, because there is no {table}.info beside it: {path}")
            continue
        if name in found:
            raise UnfitArchive(f"Duplicate db.table found in directory tree: {name}")
        found[name] = _File(path, path.suffix, Planned(name, name, info))
    if not found:
        raise ToolFailed(f"There is nothing to import in {options.folder}.")
    return list(found.values())


def _load(options: ImportOptions, files: list[_File], tables: dict[TableName, LoadedTable], bar: Bar) -> None:
    loader = Loader(
        options.target,
        clients=options.clients,
        durability=options.durability,
        force=options.force,
        bar=bar,
        batch_rows=options.batch_rows,
    )
    try:
        for file in files:
            for batch in _rows(options, file, bar):
                loader.put(tables[file.plan.source], batch)
        loader.finish()
    except BaseException:
        loader.stop()
        raise


def _rows(options: ImportOptions, file: _File, bar: Bar) -> Iterator[list[bytes]]:
    with file.path.open("rb") as raw:

        def read(size: int) -> bytes:
            data = raw.read(size)
            bar.add(parts=len(data))
            return data

        if file.form == ".csv":
            batches = csv_rows(
                read,
                file.path.name,
                delimiter=options.delimiter,
                header=options.header,
                has_header=options.has_header,
            )
        else:
            batches = json_rows(read, file.path.name, options.row_bytes_max)
        for batch in batches:
            yield batch if options.fields is None else [_only(row, options.fields) for row in batch]


def _only(row: bytes, fields: tuple[str, ...]) -> bytes:
    return orjson.dumps({key: value for key, value in orjson.loads(row).items() if key in fields})
