"""What a command shows of its work: a bar with rate and remaining time on a terminal, nothing otherwise.

One rule: it writes to standard error, so that standard output stays the summary's or the archive's.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_REFRESH_S = 0.2


class Bar:
    """Counts rows and parts done, from any thread. `parts` is what the bar's length is measured in.

    show: False for --quiet; without a terminal nothing is shown either.
    """

    def __init__(self, title: str, total_parts: int | None, show: bool = True) -> None:
        self.rows = 0
        self.parts = 0
        self._total_parts = total_parts
        self._title = title
        self._by_rows = False
        self._lock = threading.Lock()
        self._began = self._shown = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if show and sys.stderr.isatty():
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=5, transient=True)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._total_parts, rows=0, rate=0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._show()
            self._progress.stop()

    def add(self, rows: int = 0, parts: int = 0) -> None:
        """Counts; shows now and then."""
        with self._lock:
            self.rows += rows
            self.parts += parts
            if self._progress is not None and time.monotonic() - self._shown > _REFRESH_S:
                self._show()

    def measure_by_rows(self, total: int) -> None:
        """From now on the bar's length is rows done of so many."""
        with self._lock:
            self._by_rows = True
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, total=max(total, 1))

    def retitle(self, title: str, total_parts: int | None) -> None:
        """Starts over with another piece of work."""
        with self._lock:
            self.parts = 0
            self._by_rows = False
            if self._progress is not None and self._task is not None:
                self._progress.reset(self._task, total=total_parts, description=title)

    def _show(self) -> None:
        self._shown = time.monotonic()
        seconds = max(self._shown - self._began, 0.001)
        if self._progress is not None and self._task is not None:
            done = self.rows if self._by_rows else self.parts
            self._progress.update(self._task, completed=done, rows=self.rows, rate=self.rows / seconds)


def plural(count: int, one: str, more: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {one if count == 1 else more}"
