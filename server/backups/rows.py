"""What rows of the backup tables may say: from what a driver inserts to the document that the log keeps, and back.

One rule: every field is checked before it is kept, an unknown one is an error, and the message says what is allowed.
Documents are plain JSON; times in them are ReQL's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from backup.access import ACCESS_FIELDS, NAME, VaultAccess, access_from
from backup.plan_expiry import POLICY_FIELDS, policy_from
from backup.timetable import check_timetable
from backup.vault import check_kind
from model.catalog import Catalog
from model.errors import BadSetting, ReqlOpFailedError
from model.pseudo_time import make_time

Row = dict[str, Any]

QUEUED: Final = "queued"
RUNNING: Final = "running"
SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"
ACTIVE: Final = (QUEUED, RUNNING)

BACKUPS: Final = "backups"
RESTORES: Final = "restores"
TASKS: Final = "backup_tasks"
VAULTS: Final = "vaults"
SCHEDULES: Final = "backup_schedules"
LOG: Final = "backup_log"

SCHEDULED_TASKS: Final = ("verify", "drill", "expire", "synthesise", "sync", "look")
IMAGE_TASKS: Final = ("hold", "release", "delete")  # on images by name
TASK_KINDS: Final = (*SCHEDULED_TASKS, *IMAGE_TASKS)
DEPTHS: Final = ("manifest", "files", "rows")
ACTIONS: Final = ("backup", *SCHEDULED_TASKS)
MAX_DEPTH_PART: Final = 10_000


def time_at(ms: float) -> Row:
    """A ReQL time in UTC."""
    time: Row = make_time(ms / 1000)
    return time


def refuse(message: str) -> ReqlOpFailedError:
    return ReqlOpFailedError(message)


class Fields:
    """The fields of an inserted row, taken one by one; `end` refuses what is left."""

    def __init__(self, table: str, row: Mapping[str, Any]) -> None:
        self._table = table
        self._row = dict(row)
        self._taken: list[str] = []

    def _take(self, name: str) -> Any:
        self._taken.append(name)
        return self._row.pop(name, None)

    def text(self, name: str, default: str | None = None, allowed: Sequence[str] = ()) -> Any:
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, str) or (allowed and value not in allowed):
            kind = f"one of {', '.join(allowed)}" if allowed else "text"
            raise refuse(f"`{name}` of a row of `{self._table}` is {kind}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise refuse(f"`{name}` of a row of `{self._table}` is true or false.")
        return default if value is None else value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise refuse(f"`{name}` of a row of `{self._table}` is a whole number from {low} to {high}.")
        return value

    def names(self, name: str, single: str) -> list[str]:
        """A list of names; `single` is the field that may hold just one of them."""
        many, one = self._take(name), self._take(single)
        listed = [many] if isinstance(many, str) else list(many or ()) if isinstance(many, list | None) else [None]
        listed += [] if one is None else [one]
        if not all(isinstance(item, str) for item in listed):
            raise refuse(f"`{name}` of a row of `{self._table}` is a list of names.")
        return list(dict.fromkeys(listed))

    def any(self, name: str) -> Any:
        return self._take(name)

    def end(self) -> None:
        if self._row:
            known = ", ".join(sorted(self._taken))
            raise refuse(f"A row of `{self._table}` has no field `{min(self._row)}`; it may have: {known}.")


def checked(check: Callable[[], Any]) -> Any:
    """Runs a check of the backup room; what it refuses is told to the driver."""
    try:
        return check()
    except BadSetting as error:
        raise refuse(str(error)) from error


# -- vaults


VAULT_FIELDS: Final = (*ACCESS_FIELDS, "required", "retention", "pause")


def vault_document(key: Any, row: Mapping[str, Any], since_index: int) -> Row:
    """The document of a new vault, or of one that was changed."""
    fields = Fields(VAULTS, row)
    fields.any("id")
    if not isinstance(key, str):
        raise refuse("The `id` of a row of `vaults` is text.")
    given = {name: fields.any(name) for name in ACCESS_FIELDS}
    given["name"] = given["name"] or key
    access: VaultAccess = checked(lambda: access_from(given))
    checked(lambda: check_kind(access.url))
    retention = fields.any("retention")
    document = {
        "id": key,
        **access.as_plain(),
        "required": fields.flag("required", True),
        "pause": fields.flag("pause", False),
        "retention": None if retention is None else retention_document(retention),
        "since_index": since_index,
        "noted_index": since_index,
        "claimed": False,
        "missing": None,
    }
    fields.end()
    document["environment"], document["options"] = dict(access.environment), dict(access.options)
    return document


def retention_document(retention: Any) -> Row:
    """A vault's retention: `keep_images`, `keep_days`, `window_days`, `minimum_images`; any of them."""
    if not isinstance(retention, dict):
        raise refuse(f"`retention` is an object with any of: {', '.join(POLICY_FIELDS)}.")
    checked(lambda: policy_from(retention))
    return dict(retention)


def check_vault_names(catalog: Catalog, names: Iterable[str]) -> None:
    """Refuses names of vaults that there are not."""
    known = {document["name"] for document in catalog.documents(VAULTS).values()}
    if not known:
        raise refuse(
            "There is no vault to keep a backup in. Add one: `rewinddb vault add main file:///var/backups/rewinddb` or "
            "r.db('rethinkdb').table('vaults').insert({name: 'main', url: 'file:///var/backups/rewinddb'})"
        )
    for name in names:
        if name not in known:
            raise refuse(f"Vault `{name}` does not exist. There are: {', '.join(sorted(known))}.")


# -- backups


def backup_document(key: Any, row: Mapping[str, Any], catalog: Catalog, now_ms: int, user: str) -> tuple[Row, bool]:
    """(the document of a backup that was asked for, whether the one who asked waits for its end)."""
    fields = Fields(BACKUPS, row)
    fields.any("id")
    databases, tables = fields.names("databases", "database"), fields.names("tables", "table")
    vaults = fields.names("vaults", "vault")
    name = fields.text("name") or default_name(databases, tables, now_ms)
    limit = fields.number("max_bytes_per_s", 0, 0, 1 << 40)
    hold = fields.flag("hold", False)
    wait = fields.flag("wait", False)
    fields.end()
    _check_key_and_name(BACKUPS, key, name)
    check_selection(catalog, databases, tables)
    check_vault_names(catalog, vaults)
    document = {
        **job_fields(key, name, now_ms, user),
        "databases": databases,
        "tables": tables,
        "vaults": vaults or sorted(document["name"] for document in catalog.documents(VAULTS).values()),
        "max_bytes_per_s": limit,
        "hold": hold,
        "server": None,
        "images": [],
    }
    return document, wait


def default_name(databases: Sequence[str], tables: Sequence[str], now_ms: int) -> str:
    """`mydb-20260301T120000`, or `all-...`, `several-...`."""
    named = [*databases, *(table.replace(".", "-") for table in tables)]
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{named[0] if len(named) == 1 else 'several' if named else 'all'}-{stamp}"


def check_selection(catalog: Catalog, databases: Sequence[str], tables: Sequence[str]) -> None:
    """Refuses databases and tables that there are not."""
    for name in databases:
        if name not in catalog.databases:
            raise refuse(f"Database `{name}` does not exist.")
    for name in tables:
        database, dot, table = name.partition(".")
        if not dot or not table:
            raise refuse(f"`{name}` in `tables` is not of the form DATABASE.TABLE.")
        if database not in catalog.databases:
            raise refuse(f"Database `{database}` does not exist.")
        if table not in catalog.databases[database].tables:
            raise refuse(f"Table `{name}` does not exist.")


def _check_key_and_name(table: str, key: Any, name: str) -> None:
    if not isinstance(key, str):
        raise refuse(f"The `id` of a row of `{table}` is text.")
    if not name or len(name) > 200:
        raise refuse(f"The `name` of a row of `{table}` is text of up to 200 characters.")


def job_fields(key: str, name: str, now_ms: int, user: str) -> Row:
    return {
        "id": key,
        "name": name,
        "state": QUEUED,
        "percent": 0,
        "rows": 0,
        "bytes": 0,
        "rows_per_s": 0,
        "requested": time_at(now_ms),
        "requested_by": user,
        "started": None,
        "finished": None,
        "seconds": None,
        "log_index": None,
        "error": None,
    }


# -- restores: what is asked is checked by the mechanism that does it


def restore_document(
    key: Any, row: Mapping[str, Any], check: Callable[[Row], Row], now_ms: int, user: str
) -> tuple[Row, bool]:
    """(the document of a restore, whether the one who asked waits). `check` gives the mechanism's own fields."""
    fields = Fields(RESTORES, {name: row[name] for name in row if name in ("id", "wait", "name")})
    fields.any("id")
    wait = fields.flag("wait", False)
    name = fields.text("name") or f"restore-{now_ms}"
    _check_key_and_name(RESTORES, key, name)
    asked = {field: value for field, value in row.items() if field not in ("id", "wait", "name")}
    return {**job_fields(key, name, now_ms, user), **checked(lambda: check(asked))}, wait


# -- tasks


def task_document(key: Any, row: Mapping[str, Any], catalog: Catalog, now_ms: int, user: str) -> tuple[Row, bool]:
    """(the document of a task on a vault, whether the one who asked waits)."""
    fields = Fields(TASKS, row)
    fields.any("id")
    task = fields.text("task", "", TASK_KINDS)
    if not task:
        raise refuse(f"A row of `{TASKS}` needs a `task`: one of {', '.join(TASK_KINDS)}.")
    vaults = fields.names("vaults", "vault")
    document = {
        **job_fields(key, fields.text("name") or f"{task}-{now_ms}", now_ms, user),
        "task": task,
        "vaults": vaults,
        "depth": fields.text("depth", "files", DEPTHS),
        "part": _part(fields.any("part")),
        "dry_run": fields.flag("dry_run", False),
        "to": fields.text("to"),
        "images": fields.names("images", "image"),
        "phase": None,
        "result": None,
    }
    wait = fields.flag("wait", False)
    fields.end()
    _check_key_and_name(TASKS, key, document["name"])
    check_vault_names(catalog, [*vaults, *([document["to"]] if document["to"] else [])])
    document["vaults"] = vaults or sorted(vault["name"] for vault in catalog.documents(VAULTS).values())
    if task == "sync" and (not document["to"] or len(document["vaults"]) != 1 or document["to"] in vaults):
        raise refuse("The task `sync` copies from one `vault` to another one, `to`.")
    if bool(document["images"]) != (task in IMAGE_TASKS):
        raise refuse(f"`images` go with the tasks {', '.join(IMAGE_TASKS)}, and with no other.")
    return document, wait


def new_task(task: str, vaults: list[str], now_ms: int, user: str) -> Row:
    """The document of a task that the server itself asks for."""
    job = job_fields(str(uuid4()), f"{task}-{now_ms}", now_ms, user)
    asked = {"task": task, "vaults": vaults, "depth": "files", "part": None, "dry_run": False, "to": None, "images": []}
    return {**job, **asked, "phase": None, "result": None}


def _part(part: Any) -> list[int] | None:
    """[k, n]: the k-th of n parts of the data, k from 1."""
    if part is None:
        return None
    is_pair = isinstance(part, list) and len(part) == 2 and all(type(number) is int for number in part)
    if not is_pair or not 1 <= part[0] <= part[1] <= MAX_DEPTH_PART:
        raise refuse(f"`part` is [k, n]: the k-th of n parts, 1 <= k <= n <= {MAX_DEPTH_PART}.")
    return [part[0], part[1]]


# -- schedules


def schedule_document(key: Any, row: Mapping[str, Any], catalog: Catalog, now_ms: int) -> Row:
    """The document of a schedule. `last_due_ms` moves forward only: what was due is never run twice."""
    fields = Fields(SCHEDULES, row)
    fields.any("id")
    name = fields.text("name") or key
    document = {
        "id": key,
        "name": name,
        "cron": fields.text("cron"),
        "timezone": fields.text("timezone", "UTC"),
        "action": fields.text("action", "backup", ACTIONS),
        "enabled": fields.flag("enabled", True),
        "databases": fields.names("databases", "database"),
        "tables": fields.names("tables", "table"),
        "vaults": fields.names("vaults", "vault"),
        "depth": fields.text("depth", "files", DEPTHS),
        "parts": fields.number("parts", 1, 1, MAX_DEPTH_PART),
        "to": fields.text("to"),
        "last_due_ms": now_ms,
        "runs": 0,
    }
    fields.end()
    _check_key_and_name(SCHEDULES, key, name)
    if not NAME.match(name):
        raise refuse(f"{name!r} cannot be a schedule's name: use up to 64 letters, digits, - and _.")
    if document["cron"] is None:
        raise refuse("A schedule needs a `cron` expression, such as '0 3 * * *' for every day at three.")
    checked(lambda: check_timetable(document["cron"], document["timezone"]))
    check_selection(catalog, document["databases"], document["tables"])
    check_vault_names(catalog, [*document["vaults"], *([document["to"]] if document["to"] else [])])
    return document
