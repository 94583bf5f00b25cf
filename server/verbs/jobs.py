"""Asks a server for a job and follows it to its end: what `backup`, `restore -c`, `verify`, `drill` and others do.

One rule: the server does the work. If the connection is lost, it goes on, and is found again by its id; Ctrl-C
cancels it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from uuid import uuid4

from backup.driver_link import RAW_FORMATS, Session, Target, r
from backup.progress import Bar
from model.errors import ToolFailed

POLL_S: Final = 0.05
BAR_PARTS: Final = 1000
SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"
OFFSET_LENGTH: Final = 6  # of "+01:00"


class Jobs:
    """A server's tables of jobs and settings, over one connection. As a context manager it is closed at the end."""

    def __init__(self, target: Target) -> None:
        self._session = Session(target, dict(RAW_FORMATS))

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table of `rethinkdb` by name, times as text."""
        found = self._session.run(f"read {table}", _table(table).coerce_to("array"))
        return sorted((plain(row) for row in found), key=lambda row: str(row.get("name", "")))

    def row(self, table: str, key: Any) -> dict[str, Any] | None:
        """One row, times as text."""
        found = self._session.run(f"read {table}", _table(table).get(r.expr(key)))
        return None if found is None else dict(plain(found))

    def named(self, table: str, name: str) -> dict[str, Any]:
        """The row with that `name`. Raises ToolFailed."""
        for row in self.rows(table):
            if row["name"] == name:
                return row
        raise ToolFailed(f"There is no `{name}` in `{table}`.")

    def write(self, what: str, query: Any) -> dict[str, Any]:
        """Runs a write on one of the tables; what the server refuses raises ToolFailed."""
        answer = self._session.run(what, query)
        if answer.get("errors"):
            raise ToolFailed(str(answer["first_error"]))
        return dict(answer)

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Inserts a row whose id is given. If the connection was lost meanwhile, it may be there already."""
        try:
            self.write(f"insert into {table}", _table(table).insert(r.expr(dict(row))))
        except ToolFailed as error:
            if "Duplicate primary key" not in error.message:
                raise

    def update(self, table: str, key: str, changes: Mapping[str, Any]) -> None:
        self.write(f"update {table}", _table(table).get(key).update(dict(changes)))

    def delete(self, table: str, key: str) -> None:
        self.write(f"delete from {table}", _table(table).get(key).delete())

    def do(self, table: str, asked: Mapping[str, Any], title: str, show_bar: bool) -> dict[str, Any]:
        """Starts a job and waits for its end; its row. Raises ToolFailed if it failed."""
        job_id = str(uuid4())
        self.insert(table, {**asked, "id": job_id})
        try:
            row = self._follow(table, job_id, title, show_bar)
        except KeyboardInterrupt:
            self.delete(table, job_id)
            raise ToolFailed("Cancelled.") from None
        if row["state"] != SUCCESSFUL:
            raise ToolFailed(str(row["error"]))
        return row

    def _follow(self, table: str, job_id: str, title: str, show_bar: bool) -> dict[str, Any]:
        phase = None
        with Bar(title, BAR_PARTS, show_bar) as bar:
            while True:
                row = self.row(table, job_id)
                if row is None:
                    raise ToolFailed("The job was cancelled.")
                if row.get("phase") not in (None, phase):
                    phase = row["phase"]
                    bar.retitle(f"{title}: {phase}", BAR_PARTS)
                bar.add(
                    rows=max(int(row["rows"]) - bar.rows, 0),
                    parts=max(int(row["percent"] * BAR_PARTS / 100) - bar.parts, 0),
                )
                if row["state"] in (SUCCESSFUL, FAILED):
                    return row
                time.sleep(POLL_S)


def _table(name: str) -> Any:
    return r.db("rethinkdb").table(name)


def table(name: str) -> Any:
    """A table of the database `rethinkdb`, for queries."""
    return _table(name)


def plain(value: Any) -> Any:
    """A datum in raw format with its times as ISO 8601."""
    if isinstance(value, dict):
        if value.get("$reql_type$") == "TIME":
            return iso(value["epoch_time"], str(value.get("timezone", "+00:00")))
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def iso(epoch_s: float, zone: str = "+00:00") -> str:
    """A time as ISO 8601, to the millisecond; UTC as Z."""
    place: Any = UTC
    if zone not in ("+00:00", "Z") and len(zone) == OFFSET_LENGTH:
        sign = -1 if zone[0] == "-" else 1
        place = timezone(sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:])))
    return datetime.fromtimestamp(epoch_s, place).isoformat(timespec="milliseconds").replace("+00:00", "Z")
