"""The tables by which backups are asked for and watched, from any driver:

    backups  backup_tasks  restores       jobs: insert to start, watch with `changes()`, delete to cancel or forget
    vaults  backup_schedules              settings: insert, update, delete
    backup_log                            what happened; nobody writes it

One rule: a row that was inserted with `wait: true` is answered when its job is finished, and a job that failed is an
error of the insert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from model.errors import ReqlOpFailedError
from server.backups.archiver import HIDDEN
from server.backups.ledger import delete_effect, put_effect
from server.backups.rows import (
    ACTIVE,
    BACKUPS,
    FAILED,
    LOG,
    RESTORES,
    SCHEDULES,
    TASKS,
    VAULT_FIELDS,
    VAULTS,
    Row,
    backup_document,
    refuse,
    restore_document,
    schedule_document,
    task_document,
    vault_document,
)
from server.backups.service import BackupService
from server.system import Change, SystemTable

WAITED_FOR: Final = {BACKUPS: "backup failed", TASKS: "task failed", RESTORES: "restore failed"}
SCHEDULE_FIELDS: Final = ("id", "name", "cron", "timezone", "action", "enabled", "databases", "tables", "vaults")
SCHEDULE_FIELDS_TOO: Final = ("depth", "parts", "to")

MakeJob = Callable[[Change], tuple[Row, bool]]


def backup_tables(service: BackupService) -> list[SystemTable]:
    """The tables of a service."""
    ledger = service.ledger

    def backup(change: Change) -> tuple[Row, bool]:
        return backup_document(change.key, _new(change), change.catalog, ledger.now_ms(), change.env.user)

    def task(change: Change) -> tuple[Row, bool]:
        return task_document(change.key, _new(change), change.catalog, ledger.now_ms(), change.env.user)

    def restore(change: Change) -> tuple[Row, bool]:
        return restore_document(change.key, _new(change), service.restores.check, ledger.now_ms(), change.env.user)

    return [
        _job_table(service, BACKUPS, backup),
        _job_table(service, TASKS, task),
        _job_table(service, RESTORES, restore),
        _table(VAULTS, service.vault_rows, lambda change: _write_vault(service, change)),
        _table(SCHEDULES, service.schedules.rows, lambda change: _write_schedule(service, change)),
        SystemTable(LOG, lambda env, form: ledger.documents(LOG).values(), admin_only=False),
    ]


def _table(name: str, rows: Callable[[], Iterable[Row]], write: Callable[[Change], Row | None]) -> SystemTable:
    return SystemTable(name, lambda env, form: rows(), write=write, changes_catalog=True)


def _new(change: Change) -> Row:
    assert change.new is not None
    return change.new


# -- jobs


def _job_table(service: BackupService, collection: str, make: MakeJob) -> SystemTable:
    lane = service.lanes[collection]

    def write(change: Change) -> Row | None:
        if change.new is None:
            _forget(change)
            return None
        if change.old is not None:
            raise refuse(f"A row of `{collection}` is what happened and cannot be changed; delete it to cancel it.")
        document, waits = make(change)
        change.effects.append(put_effect(collection, change.key, document))

        def after() -> Row | None:
            lane.tick()
            return _finished(change) if waits else document

        change.after = after
        return document

    def _finished(change: Change) -> Row:
        row: Row = change.env.fibers.wait_for(lambda done: lane.when_done(change.key, done))
        if row["state"] == FAILED:
            raise ReqlOpFailedError(f"{WAITED_FOR[collection]}: {row['error']}")
        return row

    def _forget(change: Change) -> None:
        if change.old is None:
            return
        change.effects.append(delete_effect(collection, change.key))
        if change.old["state"] in ACTIVE:
            message = f"{change.old['name']} was cancelled by {change.env.user}"
            change.effects += service.ledger.entry("cancelled", message, {"name": change.old["name"]})

        def after() -> None:
            lane.cancel(change.key, f"It was cancelled by {change.env.user}.")

        change.after = after

    return _table(collection, lane.rows, write)


# -- vaults


def _write_vault(service: BackupService, change: Change) -> Row | None:
    old = service.ledger.documents(VAULTS).get(change.key)
    if change.new is None:
        if old is not None:
            change.effects.append(delete_effect(VAULTS, change.key))
        return None
    given = _without_shown(change, VAULT_FIELDS) if old is not None else change.new
    document = vault_document(change.key, given, service.state.archivable_index)
    _check_unique(service, VAULTS, change.key, document["name"])
    if old is not None and old["url"] == document["url"]:
        document |= {name: old[name] for name in ("claimed", "missing", "since_index", "noted_index")}
    change.effects.append(put_effect(VAULTS, change.key, document))
    return {name: value for name, value in document.items() if name not in HIDDEN}


# -- schedules


def _write_schedule(service: BackupService, change: Change) -> Row | None:
    old = service.ledger.documents(SCHEDULES).get(change.key)
    if change.new is None:
        if old is not None:
            change.effects.append(delete_effect(SCHEDULES, change.key))
        return None
    known = (*SCHEDULE_FIELDS, *SCHEDULE_FIELDS_TOO)
    given = _without_shown(change, known) if old is not None else change.new
    document = schedule_document(change.key, given, change.catalog, service.ledger.now_ms())
    _check_unique(service, SCHEDULES, change.key, document["name"])
    if old is not None:
        document["runs"] = old["runs"]
        if (old["cron"], old["timezone"], old["enabled"]) == tuple(
            document[name] for name in ("cron", "timezone", "enabled")
        ):
            document["last_due_ms"] = old["last_due_ms"]
    change.effects.append(put_effect(SCHEDULES, change.key, document))
    return {name: value for name, value in document.items() if name != "last_due_ms"}


def _without_shown(change: Change, settable: Iterable[str]) -> Row:
    """The settable fields of a changed row; what is only shown must be as it was."""
    new, old = _new(change), change.old or {}
    fields = {"id", *settable}
    for name in {**new, **old}:
        if name not in fields and new.get(name) != old.get(name):
            raise refuse(f"`{name}` cannot be set; what can be set is: {', '.join(sorted(fields - {'id'}))}.")
    return {name: value for name, value in new.items() if name in fields}


def _check_unique(service: BackupService, collection: str, key: Any, name: str) -> None:
    for other, document in service.ledger.documents(collection).items():
        if other != key and document["name"] == name:
            raise refuse(f"`{name}` exists already in `{collection}`.")
