"""`rewinddb index-rebuild`: makes indexes anew that a newer version of the server calls outdated.

A copy of the index is built under another name and then takes the place of the old one, so that queries have an
index all the time. One rule: a copy left behind by an earlier run is taken away first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backup.driver_link import RAW_FORMATS, Session, Target, r
from backup.progress import Bar
from backup.selection import SYSTEM_DATABASE, Selection, TableName

TEMPORARY = "$reql_temp_index$_"
_WAIT_S = 0.1


@dataclass(frozen=True)
class RebuildOptions:
    """concurrent: how many indexes are built at once. force: also those that are not outdated."""

    target: Target
    selection: Selection
    concurrent: int = 1
    force: bool = False
    show_bar: bool = True


@dataclass
class _Rebuild:
    table: TableName
    name: str
    function: Any
    shown: int = 0

    @property
    def temporary(self) -> str:
        return TEMPORARY + self.name

    def query(self) -> Any:
        return r.db(self.table.database).table(self.table.table)

    def __str__(self) -> str:
        return f"`{self.table}:{self.name}`"


def rebuild(options: RebuildOptions, say: Callable[[str], None]) -> int:
    """Rebuilds; -> how many. Raises RewindError."""
    session = Session(options.target)
    try:
        waiting = deque(_to_rebuild(session, options))
        total = len(waiting)
        names = ", ".join(map(str, waiting))
        say(f"Rebuilding {total} index{'' if total == 1 else 'es'}: {names}")
        building: list[_Rebuild] = []
        with Bar("index-rebuild", 100 * total, options.show_bar) as bar:
            while waiting or building:
                while waiting and len(building) < options.concurrent:
                    item = waiting.popleft()
                    create = item.query().index_create(item.temporary, r.expr(item.function))
                    session.run(f"create temp index: {item}", create)
                    building.append(item)
                building = [item for item in building if not _is_done(session, item, bar)]
                if building:
                    time.sleep(_WAIT_S)
        return total
    finally:
        session.close()


def _to_rebuild(session: Session, options: RebuildOptions) -> list[_Rebuild]:
    """The indexes in question, after copies of an earlier run were dropped."""
    configs = session.run("all tables", r.db(SYSTEM_DATABASE).table("table_config").pluck("db", "name"))
    present = [TableName(config["db"], config["name"]) for config in configs]
    databases = session.run("list dbs", r.db_list())
    found = []
    for table in options.selection.choose(present, databases):
        query = r.db(table.database).table(table.table)
        for index in session.run(f"indexes of {table}", query.index_status(), **RAW_FORMATS):
            if index["index"].startswith(TEMPORARY):
                session.run(f"drop index: {table}:{index['index']}", query.index_drop(index["index"]))
            elif options.force or index["outdated"]:
                found.append(_Rebuild(table, index["index"], index["function"]))
    return found


def _is_done(session: Session, item: _Rebuild, bar: Bar) -> bool:
    status = session.run(f"progress {item}", item.query().index_status(item.temporary).nth(0))
    progress = 100 if status["ready"] else int(100 * status.get("progress", 0))
    bar.add(parts=max(progress - item.shown, 0))
    item.shown = max(progress, item.shown)
    if status["ready"]:
        session.run(f"rename {item}", item.query().index_rename(item.temporary, item.name, overwrite=True))
    return bool(status["ready"])
