"""The queries of monitoring tools, and what they do with the answers.

Datadog's check, Telegraf's plugin and the Prometheus exporters ask system tables in their own ways; a field that is
missing or of another type makes them fail. The queries are theirs in meaning, asked as their drivers ask them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from rethinkdb import r
from twisted.internet.task import Clock

from server.cluster.stalls import StallMeter
from server.vitals.issues import Issue, Issues
from server.vitals.jobs import Jobs
from server.vitals.logs import RecentLog, logs_table
from server.vitals.rates import Ledger
from server.vitals.stats import Stats
from tests.reql.conftest import SmallWorld
from tests.server.vitals.test_jobs import Queries

SYSTEM = r.db("rethinkdb")
STATS = SYSTEM.table("stats")
KINDS = {"cluster": 1, "server": 2, "table": 2, "table_server": 3}


class Connections:
    """Three drivers, one of which is busy."""

    queries_total = 0
    members = (1, 2, 3)
    active = 1


class Watched(SmallWorld):
    """A world with all tables that monitors read, two user tables, an index, and some traffic."""

    def __init__(self) -> None:
        super().__init__()
        self.clock_s = 0.0
        ledger = Ledger(lambda: self.clock_s, lambda: (int(self.clock_s * 1000), int(self.clock_s * 500)))
        self.traffic = ledger.traffic
        connections = Connections()
        sizes = {"cache_bytes": 1 << 20, "memtable_bytes": 0, "live_bytes": 5000, "file_bytes": 7000}
        issues = Issues()
        issues.add(lambda env, form: [Issue("table_availability", "t", True, "It is gone.", {})])
        issues.add(lambda env, form: [Issue("memory_error", "m", False, "It swaps.", {})])
        self.system.site = replace(
            self.system.site, driver_port=28015, cluster_port=29015, addresses=("small.example", "127.0.0.1")
        )
        self.system.add(
            Stats(self.system, ledger, connections, lambda: sizes, StallMeter(Clock())).declared(),
            Jobs(self.system, [Queries()], lambda: sizes, lambda: self.clock_s).declared(),
            issues.declared(),
            logs_table(self.system, RecentLog()),
        )
        self.make_table("t", [{"id": at, "a": at} for at in range(30)])
        self.make_table("u", [])
        self.run(r.table("t").index_create("a"))
        ledger.tick(0, self.machine.catalog.tables)
        assert len(self.run(r.table("t"))) == 30
        assert self.run(r.table("u").insert([{"id": at} for at in range(10)]))["inserted"] == 10
        self.clock_s = 2.0
        connections.queries_total = 50
        ledger.tick(connections.queries_total, self.machine.catalog.tables)


@pytest.fixture(scope="module")
def world() -> Watched:
    return Watched()


def test_datadog_versions_and_configuration(world: Watched) -> None:
    version = world.run(SYSTEM.table("server_status").get(world.server_uuid))["process"]["version"]
    assert re.match(r"rethinkdb \d+\.\d+\.\d+", version)
    summary = {"servers": SYSTEM.table("server_config").count(), "databases": SYSTEM.table("db_config").count()}
    assert world.run(r.expr(summary)) == {"servers": 1, "databases": 1}
    grouped = world.run(SYSTEM.table("table_config").group("db").count())
    assert grouped["data"] == [["test", 2]]
    indexes = (
        SYSTEM.table("table_config")
        .pluck("name", "indexes")
        .concat_map(lambda row: row["indexes"].map(lambda _: {"table": row["name"]}))
        .group("table")
        .count()
    )
    assert world.run(indexes)["data"] == [["t", 1]]


def test_datadog_servers_and_tables(world: Watched) -> None:
    kind, key = r.row["id"].nth(0), r.row["id"].nth(1)
    servers = world.run(STATS.filter(kind == "server").eq_join(key, SYSTEM.table("server_config")))
    assert [row["right"]["tags"] for row in servers] == [["default"]]
    assert servers[0]["left"]["query_engine"] == {
        "client_connections": 3,
        "clients_active": 1,
        "queries_per_sec": 25,
        "queries_total": 50,
        "read_docs_per_sec": 15,
        "read_docs_total": 30,
        "written_docs_per_sec": 5,
        "written_docs_total": 10,
    }
    tables = world.run(STATS.filter(kind == "table").eq_join(key, SYSTEM.table("table_config")))
    told = {row["right"]["name"]: row["left"]["query_engine"] for row in tables}
    assert told == {
        "t": {"read_docs_per_sec": 15, "written_docs_per_sec": 0},
        "u": {"read_docs_per_sec": 0, "written_docs_per_sec": 5},
    }


def test_datadog_replicas(world: Watched) -> None:
    server_config, table_config = SYSTEM.table("server_config"), SYSTEM.table("table_config")
    query = (
        SYSTEM.table("table_status", identifier_format="uuid")
        .pluck("id", {"shards": ["replicas"]})
        .merge({"table": r.row["id"]})
        .without("id")
        .concat_map(lambda row: row["shards"].map(lambda shard: row.merge(shard.pluck("replicas"))))
        .without("shards")
        .concat_map(
            lambda row: row["replicas"].map(lambda replica: row.merge({"replica": replica.pluck("server", "state")}))
        )
        .without("replicas")
        .merge({"table": table_config.get(r.row["table"]).pluck("id", "db", "name")})
        .merge({"server": server_config.get(r.row["replica"]["server"])})
        .filter(r.row["server"])
        .merge({"server": r.row["server"].pluck("id", "name", "tags")})
        .merge(
            {
                "stats": STATS.get(["table_server", r.row["table"]["id"], r.row["server"]["id"]]).pluck(
                    "query_engine", "storage_engine"
                )
            }
        )
    )
    rows = world.run(query)
    assert sorted((row["table"]["name"], row["server"]["name"], row["replica"]["state"]) for row in rows) == [
        ("t", "small", "ready"),
        ("u", "small", "ready"),
    ]
    assert all({"query_engine", "storage_engine"} == row["stats"].keys() for row in rows)


def test_datadog_jobs_and_issues(world: Watched) -> None:
    known = {"query", "disk_compaction", "index_construction", "backfill"}
    assert {job["type"] for job in world.run(SYSTEM.table("jobs"))} <= known
    issues = SYSTEM.table("current_issues").pluck("type", "critical")
    assert world.run(issues.group("type").count())["data"] == [["memory_error", 1], ["table_availability", 1]]
    assert world.run(issues.filter(r.row["critical"]).group("type").count())["data"] == [["table_availability", 1]]


@pytest.mark.parametrize("host", ["127.0.0.1", "small.example"])
def test_telegraf_finds_the_server_it_is_connected_to(world: Watched, host: str) -> None:
    found = [
        status
        for status in world.run(SYSTEM.table("server_status"))
        for address in status["network"]["canonical_addresses"]
        if address["host"] == host and status["network"]["reql_port"] == 28015
    ]
    assert len(found) == 1
    assert re.search(r"\d.\d.\d", found[0]["process"]["version"])
    assert found[0]["network"]["hostname"] == "host"


def whole(row: Any, *path: str) -> int:
    """A figure that a Go program reads into an integer."""
    for name in path:
        row = row[name]
    assert isinstance(row, int), path
    return row


def test_telegraf_reads_figures(world: Watched) -> None:
    server_id = world.server_uuid
    engine = world.run(STATS.get(["server", server_id]))["query_engine"]
    for name in ("client_connections", "clients_active", "queries_total", "read_docs_total", "written_docs_total"):
        whole(engine, name)
    assert world.run(STATS.get(["cluster"]))["query_engine"]["queries_per_sec"] == 25
    for table in world.run(SYSTEM.table("table_status")):
        row = world.run(STATS.get(["table_server", table["id"], server_id]))
        storage = row["storage_engine"]
        whole(storage, "cache", "in_use_bytes")
        for name in ("read_bytes_per_sec", "read_bytes_total", "written_bytes_per_sec", "written_bytes_total"):
            whole(storage, "disk", name)
        for name in ("data_bytes", "garbage_bytes", "metadata_bytes", "preallocated_bytes"):
            whole(storage, "disk", "space_usage", name)


def test_bytes_are_told_in_shares(world: Watched) -> None:
    rows = {
        row["table"]: row["storage_engine"] for row in world.run(STATS.filter(r.row["id"].nth(0) == "table_server"))
    }
    assert rows["t"]["disk"]["read_bytes_total"] == 2000  # all that was read was read from there
    assert rows["u"]["disk"]["written_bytes_total"] == 1000
    assert sum(row["disk"]["space_usage"]["data_bytes"] for row in rows.values()) == 5000
    assert sum(row["disk"]["space_usage"]["garbage_bytes"] for row in rows.values()) == 2000


def test_the_prometheus_exporter_reads_all_rows(world: Watched) -> None:
    rows = world.run(STATS)
    assert len(rows) == 6
    for row in rows:
        kind, *ids = row["id"]
        assert len(ids) + 1 == KINDS[kind]
        engine = row["query_engine"]
        assert {"read_docs_per_sec", "written_docs_per_sec"} <= engine.keys()
        if kind in ("cluster", "server"):
            assert {"client_connections", "queries_per_sec"} <= engine.keys()
        if kind in ("table", "table_server"):
            assert sum(world.run(r.db(row["db"]).table(row["table"]).info())["doc_count_estimates"]) >= 10
        if kind in ("server", "table_server"):
            assert row["server"] == "small"


@pytest.mark.parametrize(
    "key",
    ["x", [], ["cluster", "x"], ["server", "x"], ["table", "00000000-0000-4000-8000-0000000000ff"], ["bogus"], 5],
)
def test_rows_that_there_are_not(world: Watched, key: Any) -> None:
    assert world.run(STATS.get(key)) is None


def test_stalls_of_the_reactor_are_told(world: Watched) -> None:
    stats = SYSTEM.table("stats")
    row = world.run(stats.get(["reactor", world.server_uuid]))
    assert row == {
        "id": ["reactor", world.server_uuid],
        "server": world.server_name,
        "longest_stall_ms": 0,
        "stalls_over_50_ms": 0,
    }
    assert world.run(stats.filter(lambda row: row["id"][0] == "reactor").count()) == 0  # RethinkDB has no such row
    assert world.run(stats.get(["reactor", "71000000-0000-4000-8000-000000000000"])) is None
