"""Restores into the running server: the place where the mechanism is plugged in.

One rule: the frame (rows, states, log) is the same as for backups; the mechanism says what it may be asked, and does
it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from model.errors import BadSetting, RewindError
from server.backups.lane import Job
from server.backups.rows import Row

Check = Callable[[Row], Row]
"""From the fields that were inserted to those of the job's document; raises BadSetting."""

Restore = Callable[[Job], Coroutine[Any, Any, Row]]


class Restores:
    """Refuses everything until `plug` is called."""

    def __init__(self) -> None:
        self._check: Check | None = None
        self._restore: Restore | None = None

    def plug(self, check: Check, restore: Restore) -> None:
        self._check, self._restore = check, restore

    def check(self, asked: Row) -> Row:
        if self._check is None:
            raise BadSetting("This server takes no restores.")
        return self._check(asked)

    async def restore(self, job: Job) -> Row:
        if self._restore is None:
            raise RewindError("This server takes no restores.")
        return await self._restore(job)
