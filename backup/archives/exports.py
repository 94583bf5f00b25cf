"""`rewinddb export`: tables into a folder of files, `<folder>/<db>/<table>.json|csv|ndjson` and `.info`.

The folder is made beside its place under another name and gets its own only when it is complete. One rule: what is
written can be read again by `rewinddb import` and, csv and json, by `rethinkdb import`.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from backup.archives.dump import DumpSummary, one_line
from backup.archives.layout import info_bytes
from backup.archives.source import RowStreams, SourceTable, check_still_there, choose_tables, open_source
from backup.driver_link import Session, Target, server_version
from backup.progress import Bar
from backup.selection import Selection
from model.errors import ToolFailed


@dataclass(frozen=True)
class ExportOptions:
    """folder: must not exist. form: json, csv or ndjson. fields: only these, in this order for csv."""

    target: Target
    folder: Path
    selection: Selection
    form: str = "json"
    fields: tuple[str, ...] | None = None
    delimiter: str = ","
    clients: int = 3
    outdated: bool = False
    show_bar: bool = True


def default_folder() -> Path:
    return Path(datetime.now().strftime("rethinkdb_export_%Y-%m-%dT%H:%M:%S"))


def export(options: ExportOptions, say: Callable[[str], None]) -> DumpSummary:
    """Makes the folder; say: for notices. Raises RewindError; then there is no folder."""
    began = time.monotonic()
    session = Session(options.target)
    version_text, version = server_version(session)
    session.close()
    source = open_source(options.target, version_text, outdated=options.outdated)
    try:
        if source.view is None:
            say("NOTE: this server has no views: the tables are not at one point in time.")
        choose_tables(source, options.selection, version)
        options.folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{options.folder.name}_partial_", dir=options.folder.parent))
        streams = RowStreams(source, options.clients)
        try:
            total = sum(table.rows_estimate for table in source.tables)
            with Bar("export", total, options.show_bar) as bar:
                rows = sum(
                    _write_table(options, partial, table, streams.rows(index), bar)
                    for index, table in enumerate(source.tables)
                )
            check_still_there(source)
            partial.chmod(0o755)
            partial.rename(options.folder)
        except OSError as error:
            raise ToolFailed(f"Cannot write {options.folder}: {error.strerror or error}.") from error
        finally:
            streams.stop()
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        source.close()
    return DumpSummary(
        rows=rows,
        tables=len(source.tables),
        indexes=sum(len(table.indexes) for table in source.tables),
        hooks=sum(table.hook is not None for table in source.tables),
        is_one_point=source.view is not None,
        seconds=time.monotonic() - began,
    )


def _write_table(
    options: ExportOptions, folder: Path, table: SourceTable, batches: Iterator[list[bytes]], bar: Bar
) -> int:
    """One table's two files; -> its rows."""
    database = folder / table.name.database
    database.mkdir(exist_ok=True)
    info = info_bytes(table.info, table.indexes, table.hook, table.settings)
    (database / f"{table.name.table}.info").write_bytes(info)
    count = 0

    def counted() -> Iterator[list[bytes]]:
        nonlocal count
        for batch in batches:
            count += len(batch)
            bar.add(len(batch), len(batch))
            yield batch

    with (database / f"{table.name.table}.{options.form}").open("wb") as file:
        for text in file_texts(counted(), options.form, options.fields, options.delimiter):
            file.write(text)
    return count


def file_texts(
    batches: Iterator[list[bytes]], form: str, fields: Sequence[str] | None, delimiter: str
) -> Iterator[bytes]:
    """The content of a table's file, piece by piece, from the JSON texts of its rows."""
    if form == "csv":
        yield from _csv_texts(batches, fields or (), delimiter)
        return
    separator, begin, end = (b"\n", b"", b"\n") if form == "ndjson" else (b",\n", b"[\n", b"\n]\n")
    is_first = True
    for batch in batches:
        rows = [one_line(row) for row in batch] if fields is None else [_only(row, fields) for row in batch]
        if rows:
            yield (begin if is_first else separator) + separator.join(rows)
            is_first = False
    if not is_first:
        yield end
    elif form == "json":
        yield b"[\n]\n"


def _only(row: bytes, fields: Sequence[str]) -> bytes:
    document = orjson.loads(row)
    return orjson.dumps({key: value for key, value in document.items() if key in fields})


def _csv_texts(batches: Iterator[list[bytes]], fields: Sequence[str], delimiter: str) -> Iterator[bytes]:
    """Strings as they are, everything else as JSON, missing fields empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(fields)
    for batch in batches:
        for row in batch:
            document = orjson.loads(row)
            writer.writerow([_cell(document[field]) if field in document else None for field in fields])
        yield buffer.getvalue().encode("utf-8")
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")
