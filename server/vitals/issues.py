"""`current_issues`: what somebody should look after (clustering/administration/issues).

One rule: an issue is there as long as what caused it is; its id is the same all the while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from server.system import Row, SystemTable, SystemTables
from server.system.site import database_of
from server.system.statuses import table_status_of
from server.vitals.logs import RecentLog

ISSUES: Final = UUID("c9b12f02-7d0d-44b7-a1d3-7d1f1ea1c8c2")


@dataclass(frozen=True, slots=True)
class Issue:
    """kind: RethinkDB's types are known to monitors. about: tells issues of one kind apart."""

    kind: str
    about: str
    is_critical: bool
    description: str
    info: Row


FindIssues = Callable[[Any, str], Iterable[Issue]]
"""(env, identifier_format) -> the issues that there are now."""


class Issues:
    """The table `current_issues`. Whoever knows of issues adds a function that finds them."""

    def __init__(self) -> None:
        self._finders: list[FindIssues] = []

    def add(self, find: FindIssues) -> None:
        self._finders.append(find)

    def declared(self) -> SystemTable:
        return SystemTable("current_issues", self._rows, is_listed=True)

    def _rows(self, env: Any, form: str) -> Iterator[Row]:
        for find in self._finders:
            for issue in find(env, form):
                yield {
                    "critical": issue.is_critical,
                    "description": issue.description,
                    "id": str(uuid5(ISSUES, f"{issue.kind} {issue.about}")),
                    "info": issue.info,
                    "type": issue.kind,
                }


def log_write_issues(system: SystemTables, recent: RecentLog) -> FindIssues:
    """The issue of a log that cannot be written."""

    def find(env: Any, form: str) -> Iterator[Issue]:
        message = recent.write_error
        if message is not None:
            server = system.own(env.data.catalog)
            yield Issue(
                "log_write_error",
                message,
                False,
                "The following server encountered an error while writing log statements: "
                f"{server.name}.\n\nThe error message reported is: {message}\n\nPlease fix "
                "the problem that is preventing the server from writing to their log file. This issue will go away "
                "the next time the server successfully writes to the log file.",
                {"message": message, "servers": [server.named(form)]},
            )

    return find


def table_availability_issues(system: SystemTables) -> FindIssues:
    """An issue for each table as long as servers are missing. Who can ask at all can read and write all tables."""

    def find(env: Any, form: str) -> Iterator[Issue]:
        catalog = env.data.catalog
        servers = system.all_servers(catalog)
        missing = [server.name for server in servers if not server.is_reached]
        if not missing:
            return
        for table in catalog.tables.values():
            name = f"{database_of(catalog, table, 'name')}.{table.name}"
            yield Issue(
                "table_availability",
                table.uuid,
                False,
                f"Table `{name}` is available for all operations, but some replicas are not ready. The following "
                f"servers are not reachable: {', '.join(missing)}",
                {
                    "db": database_of(catalog, table, form),
                    "table": table.uuid if form == "uuid" else table.name,
                    **table_status_of(servers, table, form),
                },
            )

    return find
