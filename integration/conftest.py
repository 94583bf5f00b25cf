"""Real server processes on free ports, each with a folder of its own, and none left behind."""

import os
import random
import shutil
import subprocess

import pytest
from rethinkdb import r

from integration.small_disk import can_be_made
from server.child import ServerProcess

# The drivers of npm are tested where npm is and reaches its packages.
collect_ignore = []
if shutil.which("npm") is None or subprocess.run(["npm", "ping"], capture_output=True, check=False).returncode:
    collect_ignore.append("test_drivers_js.py")
if shutil.which("node") is None:
    collect_ignore.append("test_explorer.py")


def pytest_collection_modifyitems(config, items):
    """Tests of full disks run where a file system can be mounted without further rights."""
    if not can_be_made():
        gone = [item for item in items if "small_disk" in item.fixturenames]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, default=20, help="how often the crash tests kill the server")
    parser.addoption("--cluster-seconds", type=int, default=60, help="how long faults go on in the cluster test")
    parser.addoption("--cluster-members", type=int, default=5, help="how many servers the cluster test has")
    parser.addoption("--seed", type=int, default=None, help="replays the choices of an earlier run")


@pytest.fixture
def rng(request):
    """Seeded dice; a failing test's output names the seed that replays it. In CI they fall the same each time."""
    seed = request.config.getoption("--seed")
    if seed is None:
        seed = 1 if os.environ.get("CI") else random.randrange(1 << 32)
    print(f"replay the same choices with --seed {seed}")  # noqa: T201
    return random.Random(seed)


@pytest.fixture
def rounds(request):
    return request.config.getoption("--rounds")


@pytest.fixture
def start(tmp_path):
    """Starts servers; what is still running at the end of the test is killed."""
    servers = []

    def start(*flags, data_dir=tmp_path / "data", **options):
        server = ServerProcess(data_dir, *flags, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def lasting(tmp_path_factory):
    """Holds the server that serves one test after the other."""
    held = []
    yield held
    for server in held:
        server.kill()


@pytest.fixture
def server(lasting, tmp_path_factory):
    """A server as good as new, which saves a start: for tests that neither stop it nor look at its folder."""
    if not lasting or not lasting[-1].is_running:
        lasting.append(ServerProcess(tmp_path_factory.mktemp("lasting") / "data"))
        return lasting[-1]
    with lasting[-1].connect() as conn:
        system = r.db("rethinkdb")
        r.db_list().set_difference(["rethinkdb"]).for_each(lambda name: r.db_drop(name)).run(conn)
        system.table("users").filter(r.row["id"] != "admin").delete().run(conn)
        system.table("permissions").filter(r.row["user"] != "admin").delete().run(conn)
        r.db_create("test").run(conn)
    return lasting[-1]


@pytest.fixture
def conn(server):
    connection = server.connect()
    yield connection
    if server.is_running:
        connection.close(noreply_wait=False)
