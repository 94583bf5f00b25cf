"""A native backup as an archive that RethinkDB's tools, and `rewinddb restore FILE`, take: `backups export`.

One rule: the archive is what `rewinddb dump` would have written at that moment; the same code writes its members.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from backup.archives.codec import codec_named
from backup.archives.dump import DumpSummary, default_top, destination, now_text, write_rows
from backup.archives.layout import CONTENTS, MANIFEST, Contents, Manifest, encode, info_bytes
from backup.archives.tar_output import TarOutput
from backup.progress import Bar
from backup.rebuild import Progress
from backup.restore import Planned
from backup.restore_tables import RebuiltTable, choose, rebuild_tables, source_of, survey
from backup.selection import TableName
from backup.vault import Vault
from model.catalog import Catalog, Table
from proxy.reql import terms as _terms  # noqa: F401  (the terms come before what prints them
from proxy.reql.terms.indexes import index_status_row, write_hook_row
from server import VERSION
from server.compatibility import listed_system_tables
from server.daemon import RECURSION_LIMIT
from server.restores.asking import check_definitions
from server.system.accounts import credentials_table, make_at_once, users_table
from server.system.grants import permissions_table
from server.system.table import system_table_uuid
from storage.image import Image

DOC_COUNT: Final = "doc_count_estimates"


@dataclass(frozen=True)
class ExportOptions:
    """file: None for standard output. wanted: databases and tables, none for all, with users and permissions."""

    file: Path | None
    wanted: tuple[TableName, ...]
    codec: str
    level: int | None
    threads: int
    temp_dir: Path | None


class _Env:
    """What functions that print rows of system tables ask of a query: the catalog, and that all indexes are ready."""

    def __init__(self, catalog: Catalog) -> None:
        self.data = self
        self.catalog = catalog

    def index_ready(self, index_id: int) -> bool:
        return True


def export(vault: Vault, planned: Planned, options: ExportOptions, progress: Progress, bar: Bar) -> DumpSummary:
    """Makes the archive of a planned moment. Raises RewindError; then there is none."""
    began_s = time.monotonic()
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    source = source_of(vault, planned.plan)
    surveyed = survey(source)
    tables = choose(surveyed, options.wanted)
    check_definitions([_described(surveyed.reached.catalog, table) for table in tables])
    scratch = Path(tempfile.mkdtemp(prefix="rewinddb-export-", dir=options.temp_dir))
    try:
        rebuilt = rebuild_tables(source, surveyed, tables, scratch / "rows", progress)
        bar.retitle("writing", sum(table.rows for table in rebuilt))
        with destination(options.file) as raw, Image(scratch / "rows") as image:
            catalog, log_index = surveyed.reached.catalog, surveyed.reached.log_index
            summary = _write(raw, image, rebuilt, catalog, log_index, options, bar)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    summary.seconds = time.monotonic() - began_s
    return summary


def _described(catalog: Catalog, table: Table) -> dict[str, Any]:
    return {
        "db": catalog.databases_by_uuid[table.database].name,
        "table": table.name,
        "primary_key": table.primary_key,
        "write_hook": table.write_hook,
        "indexes": [{"name": index.name, "definition": index.definition} for index in table.indexes.values()],
    }


def _write(
    raw: IO[bytes],
    image: Image,
    tables: Sequence[RebuiltTable],
    catalog: Catalog,
    log_index: int,
    options: ExportOptions,
    bar: Bar,
) -> DumpSummary:
    top = default_top()
    output = TarOutput(
        raw,
        codec_named(options.codec, options.level),
        int(time.time()),
        threads=options.threads,
        temp_dir=None if options.temp_dir is None else str(options.temp_dir),
        can_rewind=options.file is not None,
    )
    try:
        counts = {str(table.name): table.rows for table in tables}
        output.add(f"{top}/{CONTENTS}", encode(Contents(now_text(), f"rewinddb {VERSION}", True, counts, log_index)))
        for table in tables:
            output.add(f"{_path(top, table)}.info", _info(catalog, table))
        sums = {
            str(table.name): write_rows(output, f"{_path(top, table)}.json", _rows(image, table), bar)
            for table in tables
        }
        manifest = Manifest(sums, finished=now_text())
        if not options.wanted:
            manifest.users, manifest.permissions = _accounts(catalog)
        output.add(f"{top}/{MANIFEST}", encode(manifest))
        output.close()
    except BaseException:
        output.abort()
        raise
    return DumpSummary(
        rows=sum(table_sum.rows for table_sum in sums.values()),
        tables=len(tables),
        indexes=sum(len(table.table.indexes) for table in tables),
        hooks=sum(table.table.write_hook is not None for table in tables),
        is_one_point=True,
        bytes=output.compressed_length,
    )


def _path(top: str, table: RebuiltTable) -> str:
    return f"{top}/{table.name.database}/{table.name.table}"


def _rows(image: Image, table: RebuiltTable) -> Iterator[list[bytes]]:
    for block in image.blocks(table.table.table_id):
        yield block.rows


def _info(catalog: Catalog, rebuilt: RebuiltTable) -> bytes:
    table = rebuilt.table
    database = catalog.databases_by_uuid[table.database]
    info = {
        "db": {"id": database.uuid, "name": database.name, "type": "DB"},
        DOC_COUNT: [rebuilt.rows],
        "id": table.uuid,
        "name": table.name,
        "primary_key": table.primary_key,
        "type": "TABLE",
    }
    env = _Env(catalog)
    indexes = [index_status_row(env, table.indexes[name]) for name in sorted(table.indexes)]
    settings: dict[str, Any] = {key: table.options[key] for key in ("durability", "write_acks") if key in table.options}
    return info_bytes(info, indexes, write_hook_row(table.write_hook), settings)


def _accounts(catalog: Catalog) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Users with their credentials, and permissions, as `dump` reads them from a server."""
    env = _Env(catalog)
    credentials = {row["id"]: row for row in _table_rows(credentials_table().rows(env, "name"))}
    users = [dict(row) for row in users_table(make_at_once).rows(env, "name")]
    for user in users:
        if user["id"] in credentials:
            user["credentials"] = {key: value for key, value in credentials[user["id"]].items() if key != "id"}
    names = {system_table_uuid(name): name for name in listed_system_tables()}
    return users, _table_rows(permissions_table(names.get).rows(env, "name"))


def _table_rows(rows: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]
