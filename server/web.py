"""What the web port shows of this server: the status page's sections and the figures for Prometheus.

One rule: figures are read when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consensus.logstore import LogStore
from consensus.node import Node
from proxy.clients import Clients
from proxy.metrics import ClientsCollector
from proxy.pages import Pages, Section
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

    def pages(self, sections: Callable[[], Iterable[Section]], *more: Collector) -> Pages:
        """For the web port; further sections and `more` figures come from rooms that this one does not know."""
        registry = CollectorRegistry()
        for collector in more:
            registry.register(collector)
        registry.register(ClientsCollector(self._clients))
        registry.register(ServerCollector(self))

        def status() -> Iterator[Section]:
            yield self.server()
            yield self.tables_section()
            figures = [(_words(name), _shown(name, value)) for name, (_, value) in self.figures().items()]
            yield Section("Log and storage", figures)
            yield from sections()

        return Pages(f"RewindDB {self._site().name}", status, registry)

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

    def server(self) -> Section:
        """What this server is."""
        site = self._site()
        started = datetime.fromtimestamp(site.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        rows = [
            ("name", site.name),
            ("version", site.version),
            ("id", site.server_id),
            ("running since", started),
            ("data folder", self._data_dir),
            ("port for drivers", str(site.driver_port)),
            ("connections", f"{len(self._clients.members):,}"),
            ("queries so far", f"{self._clients.queries_total:,}"),
        ]
        return Section("Server", rows)

    def tables_section(self) -> Section:
        """The tables by name, and how many rows they have."""
        rows = [(f"{database}.{table}", f"{count:,} rows") for database, table, count in sorted(self.tables())]
        return Section(f"Tables ({len(rows)})", rows[:TABLES_SHOWN] or [("There is none yet.", "")])


def _words(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _shown(name: str, value: float) -> str:
    """A figure for people: sizes in the unit that fits."""
    if not name.endswith("_bytes"):
        return f"{value:,}"
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


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
