"""What a child process does for a restore into the running server, and for questions about the past.

One rule: the past is read here, all of it, and checked; what the server gets is plain JSON and files of rows in which
every row was looked at, or is known to be what the server wrote.

The job says where the past is: `vault` (backup.access), with `own_images` (name -> hash of the manifest), which the
server wrote there itself; or `log`, its own: {"folder", "last_index", "databases", "now_ms"}; both for questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from backup.access import access_from, open_vault
from backup.child import Line
from backup.diff import compare
from backup.handover import hand_over
from backup.history import Era, FindRows, documents_at, eras_of, find_rows, versions, with_own_log
from backup.manifest import ImageManifest, TableImage
from backup.own_log import IMAGE, own_log
from backup.rebuild import Progress
from backup.restore import Planned, plan_from, read_entries
from backup.restore_tables import NotThen, Source, Survey, check_rows, choose, source_of, survey
from backup.row_pieces import ReadPacked, packed_blocks, pieces_of
from backup.selection import TableName, parse_name
from backup.shelf import Shelf, is_stored_as, look
from backup.timeline import ReadEntries, chain_from, format_time, parse_moment, plan_moment, stop_of
from backup.vault import Vault
from model.catalog import Table
from model.keys import primary_key_bytes
from storage.bulk import BulkLoad


def bring_back(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Hands over the rows of the chosen tables of a moment, in `scratch`, or finds the documents under `keys`.

    Fields: to, image, names ("db" or "db.table"), keys (or None), dry_run. Tells {"event": "surveyed", "plan",
    "tables"} before it begins, so that the server may end it; then {"event": "counted", "rows"} and what
    `backup.handover` tells. -> {"log_index", "time_ms", "tables"} or, for keys,
    {"log_index", "time_ms", "documents": [{"key", "row" (JSON text or None)}]}.
    """
    planned, source, find, read = _source(job)
    surveyed = survey(source)
    tables = choose(surveyed, [parse_name(name) for name in job["names"]])
    if not tables:
        raise NotThen("There were no tables at that moment.")
    plain = [_definition(surveyed.named(table), table) for table in tables]
    line.tell("surveyed", plan=planned.as_plain(), lines=planned.describe(), tables=plain)
    result: dict[str, Any] = {"log_index": surveyed.reached.log_index, "time_ms": surveyed.reached.time_ms}
    if job.get("dry_run"):
        return result
    if job.get("keys") is not None:
        return {**result, "documents": _documents(source, surveyed, tables, job["keys"], find)}
    scratch = Path(job["scratch"])
    total, pieces = pieces_of(source, surveyed, tables, scratch / "rebuilt", read, teller(line))
    line.tell("counted", rows=total)
    sums = hand_over(line, scratch, pieces)
    return {
        **result,
        "tables": [{"table_id": table_id, "rows": rows, "bytes": size} for table_id, (rows, size) in sums.items()],
    }


def teller(line: Line) -> Progress:
    """The progress of a rebuild, as events of a child."""

    def tell(what: str, done: int, total: int) -> None:
        line.progress(f"{what} {done}/{total}", done, 0)

    return tell


def _source(job: Mapping[str, Any]) -> tuple[Planned, Source, FindRows, ReadPacked]:
    moment = parse_moment(job["to"], int(job["now_ms"]))
    if job.get("vault"):
        vault = open_vault(access_from(job["vault"]))
        planned = plan_from(vault, moment, job.get("image"), job["names"])
        known = job.get("own_images", {}).get(planned.plan.image.image)
        are_own = known is not None and is_stored_as(vault, planned.plan.image, known)
        return planned, source_of(vault, planned.plan), finder(vault), partial(packed_blocks, vault, are_own)
    shelf, read = _own(job["log"])
    plan = plan_moment(shelf, moment, read)
    source = Source(plan, read, _nothing_to_load)
    return Planned(moment, shelf, plan), source, lambda image, table, keys: {}, lambda image: iter(())


def _nothing_to_load(tables: Sequence[TableImage], load: BulkLoad, progress: Progress) -> None:
    """A log has no images."""


def finder(vault: Vault) -> FindRows:
    """Finds rows in a vault's images, and none in a server's own log."""

    def find(image: ImageManifest, table: TableImage, keys: Any) -> dict[bytes, bytes]:
        return {} if image.image == IMAGE else find_rows(vault, table, keys)

    return find


def _own(log: Mapping[str, Any]) -> tuple[Shelf, ReadEntries]:
    databases = [(str(uuid), str(name)) for uuid, name in log["databases"]]
    return own_log(Path(log["folder"]), int(log["last_index"]), databases, int(log["now_ms"]))


def _definition(name: TableName, table: Table) -> dict[str, Any]:
    return {
        "table_id": table.table_id,
        "uuid": table.uuid,
        "db": name.database,
        "db_uuid": table.database,
        "table": table.name,
        "primary_key": table.primary_key,
        "options": table.options,
        "write_hook": table.write_hook,
        "indexes": [{"name": index.name, "definition": index.definition} for index in table.indexes.values()],
    }


def _documents(
    source: Source, surveyed: Survey, tables: Sequence[Table], keys: Sequence[Any], find: FindRows
) -> list[dict[str, Any]]:
    [table] = tables
    encoded = [primary_key_bytes(key) for key in keys]
    rows = documents_at(source, surveyed, table, set(encoded), find)
    for key, row in rows.items():
        if row is not None:
            check_rows(surveyed.named(table), table.primary_key, (key,), (row,))
    texts = [rows[key] for key in encoded]
    return [{"key": key, "row": None if text is None else text.decode()} for key, text in zip(keys, texts, strict=True)]


def tell_versions(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """The versions of a document. Fields: table ("db.table"), key, vault or None, log or None."""
    name, key = parse_name(job["table"]), primary_key_bytes(job["key"])
    find: FindRows = lambda image, table, keys: {}  # noqa: E731
    eras: list[Era] = []
    if job.get("vault"):
        vault = open_vault(access_from(job["vault"]))
        eras, find = eras_of(look(vault), partial(read_entries, vault)), finder(vault)
    if job.get("log"):
        shelf, read = _own(job["log"])
        eras = with_own_log(eras, Era(chain_from(shelf.images[0], shelf.slices), read))
    known = eras[0].plan if eras else None
    return {
        "table": str(name),
        "key": job["key"],
        "known_since": None if known is None or not known.image.time_ms else format_time(known.image.time_ms),
        "known_since_log_index": None if known is None else known.image.log_index,
        "versions": [version.as_plain() for version in versions(eras, name, key, find)],
    }


def compare_moments(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """What changed between two moments. Fields: from, to, names, most_keys (or None), now_ms, vault or log."""
    first, second = (parse_moment(job[end], int(job["now_ms"])) for end in ("from", "to"))
    read: ReadEntries
    find: FindRows = lambda image, table, keys: {}  # noqa: E731
    if job.get("vault"):
        vault = open_vault(access_from(job["vault"]))
        shelf, read, find = look(vault), partial(read_entries, vault), finder(vault)
    else:
        shelf, read = _own(job["log"])
    stops = [stop_of(shelf, moment, read) for moment in (first, second)]
    found = compare(shelf, stops[0], stops[1], read, find, [parse_name(name) for name in job["names"]])
    return found.as_plain(job.get("most_keys"))
