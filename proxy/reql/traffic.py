"""What is read from and written to each table, counted as it happens. Pure.

One rule: counting costs one addition per read or chunk; who wants rates looks twice.
"""

from __future__ import annotations


class Traffic:
    """The rows of one table that queries have read and written since the server started."""

    __slots__ = ("read", "written")

    def __init__(self) -> None:
        self.read = 0
        self.written = 0
