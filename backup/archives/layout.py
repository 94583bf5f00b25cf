"""What is in a dump file, and where: RethinkDB's layout, with three kinds of members that its tools pass over.

    <top>/contents.rewinddb      first; which tables follow, taken when, at one point in time or not
    <top>/<db>/<table>.info      all of them before any rows: primary key, indexes, hook, and under the key
                                 "rewinddb" the table's settings
    <top>/<db>/<table>.json      the rows, "[\\n" row ",\\n" row … "\\n]\\n", one on a line
    <top>/manifest.rewinddb      last; rows, bytes and SHA-256 of every .json; users and permissions

`rethinkdb restore` looks at names that end in .json, .csv and .info and at nothing else, and reads from an .info
the keys it knows. One rule: archives of strangers are read too, so whatever is read is checked for its type first.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from backup.selection import NAME, SYSTEM_DATABASE, TableName
from model.errors import UnfitArchive
from model.function_blob import ObsoleteFunction, decode_index_function, decode_write_hook
from model.pseudo_binary import binary_bytes

FORMAT = 1
CONTENTS, MANIFEST = "contents.rewinddb", "manifest.rewinddb"
INFO_BYTES_MAX = 64 << 20
MANIFEST_BYTES_MAX = 256 << 20
TABLES_MAX = 100_000
DATA_SUFFIXES = (".json", ".csv", ".ndjson")


@dataclass(frozen=True)
class Place:
    """Where a member belongs. kind: "contents", "manifest", "info" or a suffix of data."""

    kind: str
    top: str
    table: TableName | None = None


def place_of(path: str) -> Place | None:
    """The place of a member; None if it is none of ours and is passed over. UnfitArchive for tricks with paths."""
    suffix = re.search(r"\.[A-Za-z]+$", path)
    parts = path.split("/")
    if parts[-1] in (CONTENTS, MANIFEST) and len(parts) == 2:
        return Place(parts[-1].partition(".")[0], parts[0])
    if suffix is None or suffix[0] not in (".info", *DATA_SUFFIXES):
        return None
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UnfitArchive(f"The archive has a member with a path that leads elsewhere: {path!r}.")
    if len(parts) != 3:
        raise UnfitArchive(f"Error: Archive file has an unexpected directory structure: {path}")
    top, database, file_name = parts
    table = file_name.removesuffix(suffix[0])
    if not NAME.fullmatch(database) or not NAME.fullmatch(table):
        raise UnfitArchive(f"{path!r} does not name a database and a table.")
    if database == SYSTEM_DATABASE:
        raise UnfitArchive("Error: Cannot import tables into the system database: 'rethinkdb'")
    return Place("info" if suffix[0] == ".info" else suffix[0], top, TableName(database, table))


# --- <table>.info -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IndexInfo:
    """A secondary index. function: binary pseudo-type, or None where the archive has only the name."""

    name: str
    function: dict[str, Any] | None = None

    def problem(self) -> str | None:
        """Why the function cannot be restored here, None if it can. UnfitArchive if it is damaged."""
        if self.function is None:
            return "the archive holds its name, but not its function"
        try:
            decode_index_function(binary_bytes(self.function))
        except ObsoleteFunction as error:
            return error.message
        except ValueError as error:
            raise UnfitArchive(f"its function is not base64 ({error})") from error
        return None


@dataclass(frozen=True)
class TableInfo:
    """What an .info says. primary_key is None if it does not. hook: binary pseudo-type of the write hook."""

    primary_key: str | None = None
    indexes: tuple[IndexInfo, ...] = ()
    hook: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def check(self, table: TableName) -> None:
        """UnfitArchive if an index's or the hook's function is damaged, so that it never reaches a server."""
        for index in self.indexes:
            try:
                index.problem()
            except UnfitArchive as error:
                raise UnfitArchive(f"The index `{index.name}` of {table}: {error}") from error
        if self.hook is not None:
            try:
                decode_write_hook(binary_bytes(self.hook))
            except (UnfitArchive, ValueError) as error:
                raise UnfitArchive(f"The write hook of {table}: {error}") from error


def parse_info(data: bytes, table: TableName) -> TableInfo:
    """Any version's .info: without hook, without the indexes' functions, with the indexes' names only. UnfitArchive."""
    raw = _json_object(data, f"{table}.info")
    primary_key = raw.get("primary_key")
    if primary_key is not None and not isinstance(primary_key, str):
        raise UnfitArchive(f"{table}.info: primary_key is not a string.")
    indexes = raw.get("indexes") or []
    if not isinstance(indexes, list):
        raise UnfitArchive(f"{table}.info: indexes is not a list.")
    hook = raw.get("write_hook") or None
    if isinstance(hook, dict) and "function" in hook:
        hook = hook["function"]
    ours = raw.get("rewinddb")
    settings = ours.get("settings") if isinstance(ours, dict) else None
    info = TableInfo(
        primary_key=primary_key,
        indexes=tuple(_index(index, table) for index in indexes),
        hook=None if hook is None else _binary(hook, f"{table}.info: write_hook"),
        settings=settings if isinstance(settings, dict) else {},
    )
    if len({index.name for index in info.indexes}) != len(info.indexes):
        raise UnfitArchive(f"{table}.info: two indexes have the same name.")
    return info


def info_bytes(
    info: dict[str, Any], indexes: list[dict[str, Any]], hook: dict[str, Any] | None, settings: dict[str, Any]
) -> bytes:
    """The .info of a table from its `info()`, `index_status()`, `get_write_hook()` and settings."""
    whole = {**info, "indexes": indexes, "write_hook": hook, "rewinddb": {"settings": settings}}
    return orjson.dumps(whole) + b"\n"


def _index(raw: Any, table: TableName) -> IndexInfo:
    if isinstance(raw, str):
        return IndexInfo(raw)
    if not isinstance(raw, dict) or not isinstance(raw.get("index"), str):
        raise UnfitArchive(f"{table}.info: an index has no name.")
    function = raw.get("function")
    return IndexInfo(raw["index"], None if function is None else _binary(function, f"{table}.info: {raw['index']}"))


def _binary(value: Any, where: str) -> dict[str, Any]:
    if (
        not isinstance(value, dict)
        or value.get("$reql_type$") != "BINARY"
        or not isinstance(value.get("data"), str)
        or len(value) != 2
    ):
        raise UnfitArchive(f"{where}: the function is not a binary value.")
    return value


# --- contents and manifest --------------------------------------------------------------------------


@dataclass
class Contents:
    """The first member. rows: estimates, for progress only. view: whether all tables are of one point in time.

    log_index: which point that is, in the server's log; 0 if it did not say.
    """

    created: str
    server: str
    view: bool
    rows: dict[str, int]
    log_index: int = 0
    format: int = FORMAT


@dataclass
class TableSum:
    """What a table's .json must come to."""

    rows: int
    bytes: int
    sha256: str


@dataclass
class Manifest:
    """The last member. tables: by `db.table`. users and permissions: None if the dump was not of everything."""

    tables: dict[str, TableSum]
    users: list[dict[str, Any]] | None = None
    permissions: list[dict[str, Any]] | None = None
    finished: str = ""
    format: int = FORMAT


def encode(part: Contents | Manifest) -> bytes:
    return orjson.dumps(asdict(part), option=orjson.OPT_INDENT_2) + b"\n"


def parse_contents(data: bytes) -> Contents:
    """Raises UnfitArchive, also for a format of a later version."""
    raw = _json_object(data, CONTENTS)
    _check_format(raw)
    rows = _typed(raw, "rows", dict, CONTENTS)
    if len(rows) > TABLES_MAX or not all(isinstance(count, int) and count >= 0 for count in rows.values()):
        raise UnfitArchive(f"{CONTENTS}: rows is malformed.")
    return Contents(
        _typed(raw, "created", str, CONTENTS),
        _typed(raw, "server", str, CONTENTS),
        _typed(raw, "view", bool, CONTENTS),
        rows,
        _typed(raw, "log_index", int, CONTENTS),
    )


def parse_manifest(data: bytes) -> Manifest:
    """Raises UnfitArchive, also for a format of a later version."""
    raw = _json_object(data, MANIFEST)
    _check_format(raw)
    tables = {}
    for name, entry in _typed(raw, "tables", dict, MANIFEST).items():
        if not isinstance(entry, dict):
            raise UnfitArchive(f"{MANIFEST}: {name} is malformed.")
        tables[name] = TableSum(
            _typed(entry, "rows", int, MANIFEST),
            _typed(entry, "bytes", int, MANIFEST),
            _typed(entry, "sha256", str, MANIFEST),
        )
    return Manifest(tables, _rows(raw, "users"), _rows(raw, "permissions"), _typed(raw, "finished", str, MANIFEST))


def _check_format(raw: dict[str, Any]) -> None:
    if _typed(raw, "format", int, "The archive") > FORMAT:
        raise UnfitArchive(
            f"The archive has format {raw['format']}; this version reads {FORMAT}.", "Use a newer rewinddb."
        )


def _rows(raw: dict[str, Any], key: str) -> list[dict[str, Any]] | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UnfitArchive(f"{MANIFEST}: {key} is malformed.")
    return value


def _typed(raw: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = raw.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UnfitArchive(f"{where}: {key} is missing or malformed.")
    return value


def _json_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UnfitArchive(f"{where} is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise UnfitArchive(f"{where} does not hold an object.")
    return raw
