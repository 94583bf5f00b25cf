"""`_debug_scratch`: a table in memory that takes whatever is written to it, for tests of system tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model.errors import ReqlResourceLimitError
from model.keys import primary_key_bytes
from proxy.reql.writing import stored_text
from server.system.site import Row
from server.system.table import Change, SystemTable

MAX_ROWS = 10_000


def scratch_table() -> SystemTable:
    """A new one, empty. Its rows are gone with the process."""
    held: dict[bytes, Row] = {}

    def rows(env: Any, form: str) -> Iterable[Row]:
        return held.values()

    def write(change: Change) -> Row | None:
        key = primary_key_bytes(change.key)
        if change.new is None:
            held.pop(key, None)
            return None
        if key not in held and len(held) >= MAX_ROWS:
            raise ReqlResourceLimitError(f"There are {MAX_ROWS} rows already.")
        stored_text(change.new)
        held[key] = change.new
        return change.new

    return SystemTable("_debug_scratch", rows, write=write, admin_only=True)
