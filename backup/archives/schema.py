"""Makes databases, tables, indexes and write hooks on a server as an archive describes them.

Before rows: databases and tables. After rows: indexes, because building them once over all rows is cheaper than
keeping them up row by row, and hooks, because they must not change restored rows. One rule: everything that would
stop a restore is looked for before the first thing is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backup.archives.layout import TableInfo
from backup.archives.loading import LoadedTable
from backup.driver_link import RAW_FORMATS, Session, r
from backup.progress import Bar
from backup.selection import SYSTEM_DATABASE, TableName
from model.errors import ToolFailed

_SETTINGS = ("durability", "write_acks")
_WAIT_FIRST_S, _WAIT_MAX_S = 0.01, 0.5
_WRITE_HOOKS_SINCE = (2, 3, 7)


@dataclass(frozen=True)
class Planned:
    """A table to be filled: where its rows come from and go to."""

    source: TableName
    target: TableName
    info: TableInfo


def prepare(
    session: Session, plans: Sequence[Planned], version: tuple[int, ...], *, force: bool, create: dict[str, Any]
) -> dict[TableName, LoadedTable]:
    """Makes what is missing; -> by source name, the tables ready to be filled. create: shards, replicas.

    Raises ToolFailed before anything is made if a table is there already and `force` is not given, or if it has
    another primary key. version: the server's.
    """
    configs = session.run("list tables", r.db(SYSTEM_DATABASE).table("table_config").pluck("db", "name", "primary_key"))
    existing = {TableName(config["db"], config["name"]): config["primary_key"] for config in configs}
    present = sorted(str(plan.target) for plan in plans if plan.target in existing)
    if present and not force:
        raise ToolFailed(_already_there(present))
    for plan in plans:
        key = existing.get(plan.target)
        if key is not None and plan.info.primary_key not in (None, key):
            raise ToolFailed(
                f"Table '{plan.target}' already exists with a different primary key: {key} "
                f"(expected: {plan.info.primary_key})"
            )
    databases = sorted({plan.target.database for plan in plans})
    missing = r.expr(databases).set_difference(r.db_list())
    session.run(f"ensure dbs: {', '.join(databases)}", missing.for_each(lambda name: r.db_create(name)))
    return {plan.source: _prepare_table(session, plan, version, existing, create) for plan in plans}


def _already_there(names: list[str]) -> str:
    if len(names) == 1:
        return f"Table '{names[0]}' already exists, run with --force to import into the existing table"
    listed = "\n  ".join(names)
    return f"The following tables already exist, run with --force to import into the existing tables:\n  {listed}"


def _prepare_table(
    session: Session,
    plan: Planned,
    version: tuple[int, ...],
    existing: dict[TableName, str],
    create: dict[str, Any],
) -> LoadedTable:
    database = r.db(plan.target.database)
    table = database.table(plan.target.table)
    if plan.target in existing:
        hook = None
        if version >= _WRITE_HOOKS_SINCE:
            hook = session.run(f"write hook of {plan.target}", table.get_write_hook(), **RAW_FORMATS)
        return LoadedTable(plan.target, existing[plan.target], is_new=False, has_hook=hook is not None)
    options = {**create, "primary_key": plan.info.primary_key or create.get("primary_key", "id")}
    wanted = r.expr([plan.target.table]).set_difference(database.table_list())
    session.run(f"create table: {plan.target}", wanted.for_each(lambda name: database.table_create(name, **options)))
    session.run(f"wait for {plan.target}", table.wait(timeout=30))
    settings = {key: plan.info.settings[key] for key in _SETTINGS if key in plan.info.settings}
    if settings and settings != {"durability": "hard", "write_acks": "majority"}:
        session.run(f"settings of {plan.target}", table.config().update(settings))
    return LoadedTable(plan.target, options["primary_key"], is_new=True)


def restore_indexes(
    session: Session, plans: Sequence[Planned], warn: Callable[[str], None], bar: Bar | None = None
) -> int:
    """Makes the indexes and waits until they are built; -> how many. What a server refuses is warned of."""
    made: dict[TableName, list[str]] = {}
    for plan in plans:
        table = r.db(plan.target.database).table(plan.target.table)
        present = {}
        if plan.info.indexes:
            status = session.run(f"indexes of {plan.target}", table.index_status(), **RAW_FORMATS)
            present = {index["index"]: index["function"] for index in status}
        for index in plan.info.indexes:
            where = f"{plan.target}:{index.name}"
            if index.function is None:
                warn(f"The index {where} was not restored: {index.problem()}.")
                continue
            try:
                if present.get(index.name) != index.function:
                    if index.name in present:
                        session.run(f"drop index: {where}", table.index_drop(index.name))
                    session.run(f"create index: {where}", table.index_create(index.name, r.expr(index.function)))
                made.setdefault(plan.target, []).append(index.name)
            except ToolFailed as error:
                warn(f"The index {where} was not restored: {error}")
    _wait_for_indexes(session, made, bar)
    return sum(map(len, made.values()))


def _wait_for_indexes(session: Session, made: dict[TableName, list[str]], bar: Bar | None) -> None:
    """Polls rather than waits in the server, so that there is something to show."""
    total = sum(map(len, made.values()))
    if bar is not None and total:
        bar.retitle("indexes", 100 * total)
    for name, indexes in made.items():
        table = r.db(name.database).table(name.table)
        shown = 0
        wait_s = _WAIT_FIRST_S
        while True:
            status = session.run(f"progress of indexes of {name}", table.index_status(r.args(indexes)))
            progress = int(sum(100 if index["ready"] else 100 * index.get("progress", 0) for index in status))
            if bar is not None and progress > shown:
                bar.add(parts=progress - shown)
                shown = progress
            if all(index["ready"] for index in status):
                break
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MAX_S)


def restore_hooks(session: Session, plans: Sequence[Planned], warn: Callable[[str], None]) -> int:
    """Sets the write hooks, whether a table has indexes or not; -> how many."""
    count = 0
    for plan in plans:
        if plan.info.hook is None:
            continue
        table = r.db(plan.target.database).table(plan.target.table)
        try:
            session.run(f"write hook of {plan.target}", table.set_write_hook(r.expr(plan.info.hook)))
            count += 1
        except ToolFailed as error:
            warn(f"The write hook of {plan.target} was not restored: {error}")
    return count


def check_counts(session: Session, tables: Sequence[LoadedTable]) -> None:
    """Makes the rows durable. ToolFailed unless each table made for this has exactly the rows that were written."""
    for table in tables:
        base = r.db(table.name.database).table(table.name.table)
        session.run(f"sync {table.name}", base.sync())
        if table.rows_written != table.rows_read:
            raise ToolFailed(f"{table.rows_read} rows were read for {table.name}, {table.rows_written} written.")
        if table.is_new:
            count = session.run(f"count {table.name}", base.count())
            if count != table.rows_written:
                raise ToolFailed(f"{table.name} holds {count} rows, but {table.rows_written} were written to it.")
