"""What the web port shows of this server: the status page's sections and the figures for Prometheus.

One rule: figures are read when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consensus.logstore import LogStore
from consensus.node import Node
from proxy.clients import Clients
from proxy.http import Pages, Section
from proxy.metrics import ClientsCollector
from server.system import Site
from storage.machine import Machine

TABLES_SHOWN: Final = 200


class Vitals:
    """Reads the rooms of one server. `site` gives what the server is at the moment."""

    def __init__(
        self, site: Callable[[], Site], data_dir: str, node: Node, store: LogStore, machine: Machine, clients: Clients
    ) -> None:
        self._site = site
        self._data_dir = data_dir
        self._node = node
        self._store = store
        self._machine = machine
        self._clients = clients

    def pages(self, *more: Collector) -> Pages:
        """For the web port; `more` figures come from rooms that this one does not know."""
        registry = CollectorRegistry()
        for collector in more:
            registry.register(collector)
        registry.register(ClientsCollector(self._clients))
        registry.register(ServerCollector(self))
        return Pages(f"RewindDB {self._site().name}", self.sections, registry)

    def figures(self) -> dict[str, tuple[str, float]]:
        """Name -> (what it is, value) of the log and the storage."""
        figures: dict[str, tuple[str, float]] = {
            "log_last_index": ("The last entry of the log.", self._node.last_index),
            "log_synced_index": ("The last entry that is on disk.", self._store.synced_index),
            "log_applied_index": ("The last entry that is applied.", self._node.applied_index),
            "log_first_index": ("The first entry that is kept.", self._store.first_index()),
            "log_queued_bytes": ("Bytes that wait to be written to the log.", self._store.queued_bytes),
            "log_segments": ("Files of the log.", len(self._store.segments)),
            "is_leader": ("Whether this server leads.", int(self._node.is_leader)),
            "indexes_in_construction": ("Secondary indexes not ready.", len(self._machine.indexes_waiting)),
        }
        for name, value in self._machine.engine.sizes().items():
            figures[f"storage_{name}"] = (f"RocksDB: {name.replace('_', ' ')}.", value)
        return figures

    def tables(self) -> Iterator[tuple[str, str, int]]:
        """(database, table, rows)."""
        catalog = self._machine.catalog
        for database in catalog.databases.values():
            for table in database.tables.values():
                yield database.name, table.name, self._machine.store.count(table.table_id)

    def sections(self) -> Iterable[Section]:
        """The status page."""
        site = self._site()
        started = datetime.fromtimestamp(site.started, UTC).isoformat(timespec="seconds")
        yield (
            "Server",
            [
                ("name", site.name),
                ("version", site.version),
                ("id", site.server_id),
                ("running since", started),
                ("data folder", self._data_dir),
                ("port for drivers", str(site.driver_port)),
                ("connections", str(len(self._clients.members))),
            ],
        )
        yield (
            "Log and storage",
            [(name.replace("_", " "), _shown(value)) for name, (_, value) in self.figures().items()],
        )
        rows = [(f"{database}.{table}", f"{count:,} rows") for database, table, count in sorted(self.tables())]
        yield f"Tables ({len(rows)})", rows[:TABLES_SHOWN]


def _shown(value: Any) -> str:
    return f"{value:,}"


class ServerCollector(Collector):
    """The figures of the log, the storage and the tables."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterable[Metric]:
        for name, (text, value) in self._vitals.figures().items():
            yield GaugeMetricFamily(f"rewinddb_{name}", text, value=value)
        rows = GaugeMetricFamily("rewinddb_table_rows", "Rows of a table.", labels=["db", "table"])
        for database, table, count in self._vitals.tables():
            rows.add_metric([database, table], count)
        yield rows
