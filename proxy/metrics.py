"""What Prometheus is told of drivers and queries. Other rooms' figures come through collectors of their own.

One rule: figures are read when they are asked for; nothing is counted twice to be shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.clients import Clients


class ClientsCollector(Collector):
    """Connections and queries of one server."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def collect(self) -> Iterable[Metric]:
        clients = self._clients
        gauges = (
            ("client_connections", "Open connections of drivers.", len(clients.members)),
            ("clients_active", "Connections that have a query running.", clients.active),
            ("clients_unauthenticated", "Connections that have not logged in yet.", clients.unauthenticated),
            ("receiving_bytes", "Received bytes of queries that have come in part.", clients.receiving_bytes),
            ("fibers_waiting_for_a_turn", "Queries that used up a time slice.", clients.fibers.waiting_for_a_turn),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"rewinddb_{name}", text, value=value)
        yield CounterMetricFamily("rewinddb_queries", "Queries and batches run.", value=clients.queries_total)
        yield CounterMetricFamily(
            "rewinddb_client_connections_opened", "Connections ever made.", value=clients.connections_total
        )
