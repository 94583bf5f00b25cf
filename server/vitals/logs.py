"""`logs`: the newest lines of the server's log, kept in memory (logs/logs_backend.cc).

One rule: it is bounded, and every line has a time of its own, since the time is its id.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from model.pseudo_time import make_time
from server.logs import message_of
from server.system import Row, SystemTable, SystemTables
from server.system.table import refuse_writes

MAX_LINES: Final = 1000  # as many as RethinkDB shows of each server
MAX_LINE_CHARACTERS: Final = 4096
LOGGERS: Final = ("rewinddb", "twisted", "asyncio")
LEVELS: Final = {"WARNING": "warn", "CRITICAL": "error"}


class Line(NamedTuple):
    """time_ns: since 1970. uptime_s: how long the server had been running."""

    time_ns: int
    uptime_s: float
    level: str
    message: str


class RecentLog(logging.Handler):
    """Keeps the newest lines of all loggers of the server, and notices when a log cannot be written."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns, started_s: float | None = None) -> None:
        super().__init__()
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self.write_error: str | None = None  # of the last line that could not be written, until one could
        self._failed: logging.LogRecord | None = None
        self._now_ns = now_ns
        self._started_s = now_ns() / 1e9 if started_s is None else started_s
        self._last_ns = 0

    def attach(self) -> None:
        """Listens from now on."""
        for name in LOGGERS:
            logger = logging.getLogger(name)
            for handler in logger.handlers:
                if not isinstance(handler, RecentLog):
                    handler.handleError = self._note_failure  # type: ignore[method-assign]
            logger.addHandler(self)

    def detach(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line. The handlers that write it have had their turn."""
        if self._failed is not record:
            self.write_error = None
        self._keep(LEVELS.get(record.levelname, record.levelname.lower()), message_of(record))

    def note(self, message: str) -> None:
        """Keeps a line that the server prints, which RethinkDB's log has as a notice."""
        self._keep("notice", message)

    def _keep(self, level: str, message: str) -> None:
        now_ns = max(self._now_ns(), self._last_ns + 1)
        self._last_ns = now_ns
        uptime_s = max(0.0, now_ns / 1e9 - self._started_s)
        self.lines.append(Line(now_ns, uptime_s, level, message[:MAX_LINE_CHARACTERS]))

    def _note_failure(self, record: logging.LogRecord) -> None:
        import sys

        self._failed = record
        self.write_error = str(sys.exc_info()[1])


def logs_table(system: SystemTables, recent: RecentLog) -> SystemTable:
    def rows(env: Any, form: str) -> Iterator[Row]:
        server_id = system.site.server_id
        server = system.own(env.data.catalog).named(form)
        for line in list(recent.lines):
            yield {
                "id": [time_text(line.time_ns), server_id],
                "level": line.level,
                "message": line.message,
                "server": server,
                "timestamp": make_time(line.time_ns / 1e9),
                "uptime": line.uptime_s,
            }

    return SystemTable("logs", rows, write=refuse_writes("logs", "system table"), is_listed=True, only_grows=True)


def time_text(time_ns: int) -> str:
    """`2026-03-01T12:00:00.123456789`, in UTC."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}"
