"""`rewinddb dump`: all tables, or some, into one archive that RethinkDB's restore takes.

Tables stream from the server through the compression into the file or a pipe; nothing is staged. The archive is
written under another name and gets its own only when it is complete and flushed to disk. One rule: it is called
done only after the counts were compared with the server's.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from backup.archives.codec import codec_named
from backup.archives.layout import CONTENTS, MANIFEST, Contents, Manifest, TableSum, encode, info_bytes
from backup.archives.source import (
    RowStreams,
    Source,
    SourceTable,
    check_still_there,
    choose_tables,
    open_source,
    read_accounts,
)
from backup.archives.tar_output import TarOutput
from backup.driver_link import Session, Target, r, server_version
from backup.progress import Bar, plural
from backup.selection import Selection
from model.errors import ToolFailed


@dataclass(frozen=True)
class DumpOptions:
    """file: None for standard output. top: the archive's top folder. level: None for the codec's own."""

    target: Target
    file: Path | None
    top: str
    selection: Selection
    clients: int = 3
    outdated: bool = False
    codec: str = "gz"
    level: int | None = None
    threads: int = 2
    temp_dir: str | None = None
    show_bar: bool = True


@dataclass
class DumpSummary:
    """What was done, for the lines at the end."""

    rows: int = 0
    tables: int = 0
    indexes: int = 0
    hooks: int = 0
    is_one_point: bool = False
    bytes: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """RethinkDB's line, which scripts look for."""
        return (
            f"{plural(self.rows, 'row', 'rows')} exported from {plural(self.tables, 'table', 'tables')}, "
            f"with {plural(self.indexes, 'secondary index', 'secondary indexes')}, "
            f"and {plural(self.hooks, 'hook function', 'hook functions')}"
        )


def default_top() -> str:
    """`rethinkdb_dump_<date>`; without colons where file names cannot have them."""
    clock = "%H-%M-%S" if sys.platform in ("win32", "cygwin") else "%H:%M:%S"
    return datetime.now().strftime(f"rethinkdb_dump_%Y-%m-%dT{clock}")


def dump(options: DumpOptions, say: Callable[[str], None]) -> DumpSummary:
    """Makes the archive. say: for notices to the user. Raises RewindError; then there is no archive."""
    began = time.monotonic()
    session = Session(options.target)
    version_text, version = server_version(session)
    session.close()
    source = open_source(options.target, version_text, outdated=options.outdated)
    try:
        if source.view is None:
            say("NOTE: this server has no views: the tables are not at one point in time.")
        choose_tables(source, options.selection, version)
        with destination(options.file) as raw:
            summary = _write(options, source, raw)
    finally:
        source.close()
    summary.seconds = time.monotonic() - began
    return summary


def _write(options: DumpOptions, source: Source, raw: IO[bytes]) -> DumpSummary:
    output = TarOutput(
        raw,
        codec_named(options.codec, options.level),
        int(time.time()),
        threads=options.threads,
        temp_dir=options.temp_dir,
        can_rewind=options.file is not None,  # what standard output is opened for is not ours to know
    )
    streams = RowStreams(source, options.clients)
    total = sum(table.rows_estimate for table in source.tables)
    try:
        with Bar("dump", total, options.show_bar) as bar:
            rows = {str(table.name): table.rows_estimate for table in source.tables}
            contents = Contents(now_text(), source.version, source.view is not None, rows, source.log_index)
            output.add(f"{options.top}/{CONTENTS}", encode(contents))
            for table in source.tables:
                output.add(_path(options, table, ".info"), _info(table))
            sums = {}
            for index, table in enumerate(source.tables):
                sums[str(table.name)] = write_rows(output, _path(options, table, ".json"), streams.rows(index), bar)
        _check_counts(source, sums)
        accounts = read_accounts(source) if options.selection.is_everything else (None, None)
        manifest = Manifest(sums, *accounts, finished=now_text())
        output.add(f"{options.top}/{MANIFEST}", encode(manifest))
        output.close()
    except BaseException:
        output.abort()
        raise
    finally:
        streams.stop()
    return DumpSummary(
        rows=sum(table_sum.rows for table_sum in sums.values()),
        tables=len(source.tables),
        indexes=sum(len(table.indexes) for table in source.tables),
        hooks=sum(table.hook is not None for table in source.tables),
        is_one_point=source.view is not None,
        bytes=output.compressed_length,
    )


def _path(options: DumpOptions, table: SourceTable, suffix: str) -> str:
    return f"{options.top}/{table.name.database}/{table.name.table}{suffix}"


def _info(table: SourceTable) -> bytes:
    return info_bytes(table.info, table.indexes, table.hook, table.settings)


def write_rows(output: TarOutput, path: str, batches: Iterable[list[bytes]], bar: Bar) -> TableSum:
    """One table's .json; -> what it came to."""
    digest = hashlib.sha256()
    member = output.begin(path)
    rows = size = 0

    def write(text: bytes) -> None:
        nonlocal size
        digest.update(text)
        member.write(text)
        size += len(text)

    for batch in batches:
        write((b",\n" if rows else b"[\n") + b",\n".join(one_line(row) for row in batch))
        rows += len(batch)
        bar.add(len(batch), len(batch))
    write(b"\n]\n" if rows else b"[\n]\n")
    member.close()
    return TableSum(rows, size, digest.hexdigest())


def one_line(row: bytes) -> bytes:
    """The row without line breaks; in JSON they can only be white space between tokens."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in row or b"\r" in row else row


def _check_counts(source: Source, sums: dict[str, TableSum]) -> None:
    """With a view the counts must be the server's; without one the tables must at least be the same."""
    check_still_there(source)
    if source.view is None:
        return
    for table in source.tables:
        count = source.session.run(f"count {table.name}", r.db(table.name.database).table(table.name.table).count())
        if count != sums[str(table.name)].rows:
            raise ToolFailed(
                f"{table.name} has {count} rows, but {sums[str(table.name)].rows} were read.",
                "The archive was not made; please report this.",
            )


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def destination(file: Path | None) -> Iterator[IO[bytes]]:
    """Where the archive goes. A file has the ending .part until it is complete, and only its owner may read it."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = file.with_name(file.name + ".part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w+b") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ToolFailed(f"Cannot write {file}: {error.strerror or error}.") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
