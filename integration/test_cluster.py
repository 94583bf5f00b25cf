"""Several real servers: they join, agree whatever fails, and are replaced while they run."""

import time

import pytest
from rethinkdb import r

from integration.cluster_clients import prepare, run_clients
from integration.cluster_kit import Cluster, Faults, wait_until


@pytest.fixture
def cluster_of(tmp_path):
    """Makes clusters; shows what their servers printed, and leaves none behind."""
    made = []

    def make(count, *flags, **options):
        cluster = Cluster(tmp_path, *flags)
        made.append(cluster)
        return cluster.grow(count, **options)

    yield make
    for cluster in made:
        print(cluster.output())  # noqa: T201
        cluster.close()


@pytest.mark.timeout(4000)
def test_histories_are_linearizable_whatever_fails(cluster_of, rng, request):
    seconds = request.config.getoption("--cluster-seconds")
    cluster = cluster_of(request.config.getoption("--cluster-members"))
    with cluster.leader().connect() as conn:
        prepare(conn)
    books, end = run_clients(6, cluster.members, rng.random())
    faults = Faults(cluster, rng)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not books.problems:
        faults.one()
        wait_until(lambda before=books.done: books.done > before + 20, "work going on after a fault", 20)
    end()
    cluster.heal()
    with cluster.leader().connect() as conn:
        books.check(conn)
    print(books, faults.done)  # noqa: T201
    assert books.done > 20 * len(faults.done)
    wait_until(lambda: len({state_of(member) for member in cluster.members}) == 1, "equal states on all members")


def state_of(member):
    """What a server holds itself, whoever leads."""
    with member.connect() as conn:
        tables = [r.table(name, read_mode="outdated").order_by("id") for name in ("registers", "counters", "sets")]
        return str([list(table.run(conn)) for table in tables])
