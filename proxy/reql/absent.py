"""The error for a field that a row does not have.

One rule: its text shows the whole row, so it is only written when somebody reads it; a filter over a million rows
without the field raises it a million times and reads it never.
"""

from __future__ import annotations

from typing import Any

from model.datum import print_datum
from model.errors import Frame, Path, ReqlNonExistenceError


class NoAttribute(ReqlNonExistenceError):
    """`No attribute ... in object`, with the object."""

    def __init__(self, key: str, row: dict[str, Any]) -> None:
        super().__init__("")
        self._key = key
        self._row = row

    @property
    def message(self) -> str:
        return f"No attribute `{self._key}` in object:\n{print_datum(self._row)}"

    @message.setter
    def message(self, text: str) -> None:
        """ReqlError sets it; there is nothing to keep."""

    def reworded(self, message: str, path: Path | None = None, at: Frame | None = None) -> ReqlNonExistenceError:
        """Which shows no row of its own any more."""
        return ReqlNonExistenceError(message, path, at)

    def __str__(self) -> str:
        return self.message
