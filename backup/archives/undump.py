"""`rewinddb restore FILE`: an archive of ours or of `rethinkdb dump` back into a server.

The archive streams through: nothing is unpacked to disk. Where the descriptions of the tables do not come before
their rows, as in RethinkDB's archives, a file is read twice, the first time for the descriptions only; from a pipe,
rows that come too early wait compressed in memory, beyond SPOOL_BYTES in an unnamed file. One rule: everything that
can be checked is checked before the server is touched, and the rest before "restored" is said.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from backup.archives.accounts import restore_accounts
from backup.archives.codec import opened
from backup.archives.csv_rows import csv_rows
from backup.archives.layout import (
    INFO_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    TABLES_MAX,
    Contents,
    Manifest,
    Place,
    TableInfo,
    TableSum,
    parse_contents,
    parse_info,
    parse_manifest,
    place_of,
)
from backup.archives.loading import BATCH_ROWS, LoadedTable, Loader
from backup.archives.row_text import ROW_BYTES_MAX, json_rows
from backup.archives.schema import Planned, check_counts, prepare, restore_hooks, restore_indexes
from backup.archives.tar_input import TarInput, TarMember
from backup.driver_link import Session, Target, server_version
from backup.progress import Bar, plural
from backup.selection import Renames, Selection, TableName
from model.errors import ToolFailed, UnfitArchive

SPOOL_BYTES = 64 << 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class RestoreOptions:
    """file: None for standard input. create: shards and replicas for new tables."""

    target: Target
    file: Path | None
    selection: Selection
    renames: Renames
    clients: int = 8
    durability: str = "soft"
    force: bool = False
    with_indexes: bool = True
    with_users: bool = True
    create: dict[str, Any] = field(default_factory=dict)
    batch_rows: int = BATCH_ROWS
    row_bytes_max: int = ROW_BYTES_MAX
    temp_dir: str | None = None
    show_bar: bool = True


@dataclass
class RestoreSummary:
    """What was done, for the lines at the end. is_verified: the archive had sums, and they were right."""

    rows: int = 0
    tables: int = 0
    indexes: int = 0
    hooks: int = 0
    users: int = 0
    is_verified: bool = False
    seconds: float = 0.0

    def line(self) -> str:
        """RethinkDB's line, which scripts look for."""
        return (
            f"{plural(self.rows, 'row', 'rows')} imported to {plural(self.tables, 'table', 'tables')} "
            f"in {self.seconds:.2f} secs"
        )


def restore(options: RestoreOptions, say: Callable[[str], None], warn: Callable[[str], None]) -> RestoreSummary:
    """Fills the server. say: notices; warn: what could not be restored beside the rows. Raises RewindError."""
    began = time.monotonic()
    session = Session(options.target)
    try:
        _, version = server_version(session)
        size = options.file.stat().st_size if options.file is not None else None
        with Bar("restore", size, options.show_bar) as bar:
            run = _Restore(options, session, version, bar, say, warn)
            run.read()
            summary = run.finish()
    finally:
        session.close()
    if not summary.is_verified:
        say("NOTE: the archive has no sums to compare with; the rows read are the rows written.")
    summary.seconds = time.monotonic() - began
    return summary


class _Restore:
    """One run: from reading the archive to the last comparison."""

    def __init__(
        self,
        options: RestoreOptions,
        session: Session,
        version: tuple[int, ...],
        bar: Bar,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._options = options
        self._session = session
        self._version = version
        self._bar = bar
        self._say = say
        self._warn = warn
        self._infos: dict[TableName, TableInfo] = {}
        self._contents: Contents | None = None
        self._manifest: Manifest | None = None
        self._plans: dict[TableName, Planned] = {}
        self._tables: dict[TableName, LoadedTable] = {}
        self._sums: dict[TableName, TableSum] = {}
        self._early: dict[TableName, tuple[Place, IO[bytes]]] = {}
        self._loader = Loader(
            options.target,
            clients=options.clients,
            durability=options.durability,
            force=options.force,
            bar=bar,
            batch_rows=options.batch_rows,
        )

    def read(self) -> None:
        """All members of the archive; rows go to the writers as they are met."""
        try:
            if self._options.file is not None and not self._begins_with_contents():
                self._read_infos()
            for place, member in self._members():
                if place.kind == "contents":
                    self._take_contents(parse_contents(member.read_all(MANIFEST_BYTES_MAX)))
                elif place.kind == "manifest":
                    self._manifest = parse_manifest(member.read_all(MANIFEST_BYTES_MAX))
                elif place.kind == "info":
                    self._take_info(place, member)
                else:
                    self._take_data(place, member)
            self._take_early()
            self._plan()
            self._check_selection()
            self._loader.finish()
        except BaseException:
            self._loader.stop()
            raise

    def finish(self) -> RestoreSummary:
        """Compares, then makes what belongs to full tables."""
        self._compare()
        plans = list(self._plans.values())
        check_counts(self._session, list(self._tables.values()))
        summary = RestoreSummary(
            rows=sum(table.rows_written for table in self._tables.values()),
            tables=len(plans),
            is_verified=self._manifest is not None,
        )
        if self._options.with_indexes:
            summary.indexes = restore_indexes(self._session, plans, self._warn, self._bar)
        summary.hooks = restore_hooks(self._session, plans, self._warn)
        manifest = self._manifest
        if manifest is not None and self._options.with_users and self._options.selection.is_everything:
            summary.users = restore_accounts(
                self._session, manifest, self._options.renames, self._options.force, self._say, self._warn
            )
        return summary

    # --- reading the archive ------------------------------------------------------------------------

    @contextmanager
    def _stream(self, bar: Bar | None) -> Iterator[IO[bytes]]:
        if self._options.file is None:
            yield opened(sys.stdin.buffer)
            return
        try:
            with self._options.file.open("rb") as raw:
                yield opened(raw if bar is None else cast(IO[bytes], _Counted(raw, bar)))
        except OSError as error:
            raise ToolFailed(f"Cannot read {self._options.file}: {error.strerror or error}.") from error

    def _members(self, bar: bool = True) -> Iterator[tuple[Place, TarMember]]:
        """The members that mean something, and belong to selected tables. UnfitArchive for a second top folder."""
        seen: set[tuple[str, TableName | None]] = set()
        top = None
        with self._stream(self._bar if bar else None) as stream:
            for member in TarInput(stream):
                place = place_of(member.name)
                if place is None:
                    continue
                top = top or place.top
                if place.top != top:
                    raise UnfitArchive(
                        f"Error: Archive file has an unexpected directory structure ({place.top} vs {top})"
                    )
                kind = place.kind if place.kind in ("info", "contents", "manifest") else "data"
                if (kind, place.table) in seen:
                    raise UnfitArchive(f"The archive has {member.name} twice.")
                if len(seen) > 2 * TABLES_MAX:
                    raise UnfitArchive(f"The archive has more than {TABLES_MAX} tables.")
                seen.add((kind, place.table))
                if place.table is None or self._options.selection.holds(place.table.database, place.table.table or ""):
                    yield place, member
        if top is None:
            raise UnfitArchive("Error: Archive file had no files")

    def _begins_with_contents(self) -> bool:
        return next(iter(self._members(bar=False)))[0].kind == "contents"

    def _read_infos(self) -> None:
        """The first reading of a file whose descriptions may come after the rows they describe."""
        for place, member in self._members(bar=False):
            if place.kind == "info" and place.table is not None:
                self._infos[place.table] = parse_info(member.read_all(INFO_BYTES_MAX), place.table)
        self._check_selection()
        self._plan()

    def _take_contents(self, contents: Contents) -> None:
        self._contents = contents
        holds = self._options.selection.holds
        selected = [count for name, count in contents.rows.items() if "." in name and holds(*name.split(".", 1))]
        self._bar.measure_by_rows(sum(selected))

    def _take_info(self, place: Place, member: TarMember) -> None:
        assert place.table is not None
        if place.table in self._infos:
            return  # known from the first reading
        self._infos[place.table] = parse_info(member.read_all(INFO_BYTES_MAX), place.table)

    def _take_data(self, place: Place, member: TarMember) -> None:
        assert place.table is not None
        if place.table not in self._infos:
            if self._contents is not None or self._options.file is not None:
                raise UnfitArchive(f"The archive has rows of {place.table}, but no {place.table}.info.")
            self._early[place.table] = (place, _spooled(member, self._options.temp_dir))
            return
        self._plan()
        self._load(place, member.read)

    def _take_early(self) -> None:
        for name, (place, spool) in self._early.items():
            if name not in self._infos:
                raise UnfitArchive(f"The archive has rows of {name}, but no {name}.info.")
            self._plan()
            self._load(place, zstandard.ZstdDecompressor().stream_reader(spool).read)
            spool.close()

    def _load(self, place: Place, read: Callable[[int], bytes]) -> None:
        """One table's file, to the writers."""
        name = place.table
        assert name is not None
        table = self._tables[name]
        digest = hashlib.sha256()
        size = 0

        def counted(limit: int) -> bytes:
            nonlocal size
            chunk = read(limit)
            digest.update(chunk)
            size += len(chunk)
            return chunk

        if place.kind == ".csv":
            batches = csv_rows(counted, f"{name}.csv")
        else:
            batches = json_rows(counted, f"{name}{place.kind}", self._options.row_bytes_max)
        for batch in batches:
            self._loader.put(table, batch)
        self._sums[name] = TableSum(table.rows_read, size, digest.hexdigest())

    # --- what is done with it -----------------------------------------------------------------------

    def _plan(self) -> None:
        """Makes the tables that are described but not made yet, all checks first."""
        new = [
            Planned(name, self._options.renames.table(name), info)
            for name, info in sorted(self._infos.items())
            if name not in self._plans
        ]
        if not new:
            return
        if self._contents is not None:
            self._check_selection()
        self._options.renames.check_distinct(self._infos)
        for plan in new:
            if self._options.with_indexes:
                plan.info.check(plan.source)
        self._plans.update((plan.source, plan) for plan in new)
        self._tables |= prepare(
            self._session, new, self._version, force=self._options.force, create=self._options.create
        )

    def _check_selection(self) -> None:
        """ToolFailed if something was asked for that the archive does not have."""
        for wanted in self._options.selection.wanted:
            if not any(wanted in (name, TableName(name.database)) for name in self._infos):
                raise ToolFailed(f"The archive does not have {wanted}.")

    def _compare(self) -> None:
        """UnfitArchive if the archive did not hold what it says it holds."""
        for name in self._plans.keys() - self._sums.keys():
            raise UnfitArchive(f"The archive describes {name}, but has no rows of it: it is not whole.")
        if self._contents is not None and self._manifest is None:
            raise UnfitArchive("The archive has no manifest at its end: it is not whole.")
        if self._manifest is None:
            return
        for text, expected in self._manifest.tables.items():
            name = TableName(*text.split(".", 1))
            if not self._options.selection.holds(name.database, name.table or ""):
                continue
            if self._sums.get(name) != expected:
                raise UnfitArchive(f"The rows of {name} are not those that were dumped: {self._sums.get(name)}.")


class _Counted:
    """A file that moves the bar as it is read."""

    def __init__(self, raw: IO[bytes], bar: Bar) -> None:
        self._raw = raw
        self._bar = bar

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._bar.add(parts=len(data))
        return data


def _spooled(member: TarMember, temp_dir: str | None) -> IO[bytes]:
    """The member's data, compressed, in memory or an unnamed file."""
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=temp_dir)  # noqa: SIM115 (closed when it is read)
    compress = zstandard.ZstdCompressor(level=1).compressobj()
    while chunk := member.read(_READ_BYTES):
        spool.write(compress.compress(chunk))
    spool.write(compress.flush())
    spool.seek(0)
    return spool
