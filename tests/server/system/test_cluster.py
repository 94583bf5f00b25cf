"""RethinkDB's tables on a cluster of three, one of which is away and one of which does not vote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rethinkdb import r
from twisted.internet.task import Clock

from model.catalog import Catalog
from model.errors import ReqlOpFailedError
from server.cluster.stalls import StallMeter
from server.system import Site, SystemTables
from server.system.site import Server, configured
from server.vitals.issues import Issues, table_availability_issues
from tests.reql.conftest import SmallWorld

SYSTEM = r.db("rethinkdb")
T = r.db("test").table("t")
IDS = [f"5100000{at}-0000-4000-8000-000000000000" for at in range(3)]


class Cluster(SmallWorld):
    """The servers alpha (which leads and answers), beta and gamma."""

    def __init__(self) -> None:
        super().__init__()
        self.away = {IDS[1]}
        self.paused = 0
        site = Site(IDS[0], "alpha", "host", "rethinkdb 2.4.4", 1, (), 0.0, 0.0)
        self.system = SystemTables(site, see_servers=self.see)
        issues = Issues()
        issues.add(table_availability_issues(self.system))
        self.system.add(issues.declared())
        self.make_table("t", [])

    def see(self, site: Site, catalog: Catalog) -> list[Server]:
        others = [Site(IDS[at], name, name, "", 1, (), 0.0, 0.0) for at, name in ((1, "beta"), (2, "gamma"))]
        return [
            configured(
                each,
                catalog,
                is_leader=each is site,
                is_voter=each.name != "gamma",
                is_reached=each.server_id not in self.away,
                reaches=frozenset(IDS) - self.away - {each.server_id},
            )
            for each in (site, *others)
        ]

    def pause(self, env: Any, seconds: float) -> None:
        self.paused += 1
        if self.paused == 3:
            self.away.clear()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_servers_that_answer_have_rows(cluster: Cluster) -> None:
    assert cluster.run(SYSTEM.table("server_config")["name"]) == ["alpha", "gamma"]
    status = {row["name"]: row["network"]["connected_to"] for row in cluster.run(SYSTEM.table("server_status"))}
    assert status == {"alpha": {"beta": False, "gamma": True}, "gamma": {"alpha": True, "beta": False}}


def test_every_table_is_on_every_server(cluster: Cluster) -> None:
    shard = cluster.run(T.config()["shards"][0])
    assert shard == {
        "nonvoting_replicas": ["gamma"],
        "primary_replica": "alpha",
        "replicas": ["alpha", "beta", "gamma"],
    }
    status = cluster.run(T.status())
    assert status["raft_leader"] == "alpha"
    assert status["status"]["ready_for_writes"]
    assert not status["status"]["all_replicas_ready"]
    assert status["shards"][0]["primary_replicas"] == ["alpha"]
    assert [replica["state"] for replica in status["shards"][0]["replicas"]] == ["ready", "disconnected", "ready"]
    by_id = cluster.run(SYSTEM.table("table_config", identifier_format="uuid").nth(0))
    assert by_id["shards"][0]["replicas"] == IDS


def test_a_configuration_may_be_written_back(cluster: Cluster) -> None:
    for form in ("name", "uuid"):
        table = SYSTEM.table("table_config", identifier_format=form)
        assert cluster.run(table.update({"durability": "hard"}))["unchanged"] == 1


def test_a_server_that_is_away_is_an_issue(cluster: Cluster) -> None:
    issue = cluster.run(SYSTEM.table("current_issues").nth(0))
    assert (issue["type"], issue["critical"], issue["info"]["table"]) == ("table_availability", False, "t")
    assert issue["description"].endswith("The following servers are not reachable: beta")
    cluster.away.clear()
    assert cluster.run(SYSTEM.table("current_issues").count()) == 0


def test_wait_waits_for_all_of_them(cluster: Cluster) -> None:
    assert cluster.run(T.wait(wait_for="ready_for_writes")) == {"ready": 1}
    assert cluster.paused == 0
    assert cluster.run(T.wait()) == {"ready": 1}
    assert cluster.paused == 3


def test_wait_gives_up(cluster: Cluster) -> None:
    cluster.paused = 10
    with pytest.raises(ReqlOpFailedError, match="Timed out while waiting for tables"):
        cluster.run(T.wait(timeout=1))


def test_as_many_replicas_as_servers_that_answer(cluster: Cluster) -> None:
    assert cluster.run(T.reconfigure(shards=1, replicas=2))["reconfigured"] == 1
    with pytest.raises(ReqlOpFailedError, match="there are only 2 servers with the tag `default`"):
        cluster.run(T.reconfigure(shards=1, replicas=3))


def test_names_stay_apart(cluster: Cluster) -> None:
    renamed = cluster.run(SYSTEM.table("server_config").get(IDS[0]).update({"name": "beta"}))
    assert renamed["first_error"] == ("Cannot rename server `alpha` to `beta` because server `beta` already exists.")
    assert cluster.run(SYSTEM.table("server_config").get(IDS[2]).update({"name": "delta"}))["replaced"] == 1
    assert cluster.run(T.config()["shards"][0]["nonvoting_replicas"]) == ["delta"]


def test_others_have_no_figures_here(cluster: Cluster, run: Callable[..., Any]) -> None:
    from server.vitals.rates import Ledger
    from server.vitals.stats import Stats
    from tests.server.vitals.test_monitors import Connections

    ledger = Ledger(lambda: 0.0, lambda: (0, 0))
    cluster.system.add(Stats(cluster.system, ledger, Connections(), dict, StallMeter(Clock())).declared())
    stats = SYSTEM.table("stats")
    assert cluster.run(stats.map(lambda row: row["id"][0]).distinct()) == ["cluster", "server", "table", "table_server"]
    assert cluster.run(stats.get(["server", IDS[2]])) == {
        "id": ["server", IDS[2]],
        "server": "gamma",
        "error": "Timed out. Unable to retrieve stats.",
    }
    assert cluster.run(stats.get(["server", IDS[1]])) is None
