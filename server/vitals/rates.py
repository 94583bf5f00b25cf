"""Totals of each table, and once a second what they grew by.

Bytes on disk are read and written for all tables together, so each table is told its share: by the rows that were
read from it, or written to it, in the same second. One rule: `tick` costs one step per table that is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

from proxy.reql.traffic import Traffic

_IO: Final = Path("/proc/self/io")  # of Linux: what this process read from and wrote to disks


def disk_totals() -> tuple[int, int]:
    """(bytes read, bytes written) by this process, on disk. Zeros where the system does not tell."""
    try:
        lines = dict(line.split(": ") for line in _IO.read_text(encoding="ascii").splitlines())
        return int(lines["read_bytes"]), int(lines["write_bytes"])
    except (OSError, KeyError, ValueError):
        return 0, 0


class TableRates(Traffic):
    """One table: totals since the start, and per second in the last whole second."""

    __slots__ = (
        "disk_read", "disk_read_per_s", "disk_written", "disk_written_per_s", "last_read", "last_written", "read_per_s",
        "written_per_s",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.last_read = self.last_written = 0
        self.read_per_s = self.written_per_s = 0.0
        self.disk_read = self.disk_written = 0.0
        self.disk_read_per_s = self.disk_written_per_s = 0.0


NO_TRAFFIC: Final = TableRates()


class Ledger:
    """All tables of a server, and its queries. seconds: a monotonic clock; totals: as `disk_totals`."""

    def __init__(self, seconds: Callable[[], float], totals: Callable[[], tuple[int, int]] = disk_totals) -> None:
        self._seconds = seconds
        self._totals = totals
        self._disk = totals()
        self._ticked_s = seconds()
        self._tables: dict[int, TableRates] = {}
        self._queries = 0
        self.queries_per_s = 0.0

    def traffic(self, table_id: int) -> Traffic:
        """Where the queries of a table are to be counted."""
        rates = self._tables.get(table_id)
        if rates is None:
            rates = self._tables[table_id] = TableRates()
        return rates

    def rates(self, table_id: int) -> TableRates:
        """What is known of a table's traffic."""
        return self._tables.get(table_id, NO_TRAFFIC)

    def all(self) -> list[TableRates]:
        return list(self._tables.values())

    def tick(self, queries_total: int, tables: Container[int]) -> None:
        """To be called every second. `tables`: those that exist; others are forgotten."""
        now_s = self._seconds()
        elapsed_s = now_s - self._ticked_s
        if elapsed_s <= 0:
            return
        self._ticked_s = now_s
        self.queries_per_s = (queries_total - self._queries) / elapsed_s
        self._queries = queries_total
        for table_id in [table_id for table_id in self._tables if table_id not in tables]:
            del self._tables[table_id]
        disk = self._totals()
        self._share(elapsed_s, disk[0] - self._disk[0], disk[1] - self._disk[1])
        self._disk = disk

    def _share(self, elapsed_s: float, disk_read: int, disk_written: int) -> None:
        tables = self._tables.values()
        read = sum(table.read - table.last_read for table in tables)
        written = sum(table.written - table.last_written for table in tables)
        for table in tables:
            rows_read, rows_written = table.read - table.last_read, table.written - table.last_written
            table.last_read, table.last_written = table.read, table.written
            table.read_per_s, table.written_per_s = rows_read / elapsed_s, rows_written / elapsed_s
            bytes_read = disk_read * rows_read / read if read else 0.0
            bytes_written = disk_written * rows_written / written if written else 0.0
            table.disk_read += bytes_read
            table.disk_written += bytes_written
            table.disk_read_per_s, table.disk_written_per_s = bytes_read / elapsed_s, bytes_written / elapsed_s
