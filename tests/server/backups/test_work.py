"""Tasks on vaults: what their rows show while they run, and what ends them."""

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from model.catalog import Catalog
from model.effect import Kind
from model.errors import RewindError
from server.backups.lane import Job
from server.backups.ledger import Ledger
from server.backups.rows import VAULTS, new_task, vault_document
from server.backups.service import Pauses
from server.backups.work import BackupWork


class Child:
    def __init__(self, job, hear):
        self.job = job
        self.hear = hear
        self.done = Deferred()
        self.heard_s = 0.0

    def kill(self, why):
        if not self.done.called:
            self.done.errback(RewindError(why))


class Server:
    def __init__(self, folder):
        self.clock = Clock()
        self.seconds = self.clock.seconds
        self.started = []
        self.catalog = Catalog()
        for name in ("main", "far"):
            document = vault_document(name, {"id": name, "url": f"file:///{name}"}, 0)
            self.catalog.apply((int(Kind.PUT_SYSTEM), VAULTS, name, document))
        ledger = Ledger(lambda: self.catalog, None, lambda: True, lambda: 5, lambda: None)
        in_thread = lambda call, *args: succeed(call(*args))  # noqa: E731
        self.work = BackupWork(ledger, self, Pauses(self.clock), in_thread, folder, "c", "1.0", 60.0)

    def start(self, job, hear):
        self.started.append(Child(job, hear))
        return self.started[-1]

    def told(self):
        pass

    def task(self, task, *vaults, **fields):
        job = Job({**new_task(task, list(vaults), 5, "admin"), **fields}, self, 0.0)
        return job, ensureDeferred(self.work.do_task(job))

    def pass_time(self, seconds):
        self.clock.pump([0.25] * int(seconds * 4))


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path / "backup")


def step(phase, percent):
    return {"event": "progress", "what": phase, "phase": phase, "rows": 0, "bytes": 0, "percent": percent}


def test_a_tasks_row_shows_the_phase_and_how_much_of_it_is_done(server):
    job, done = server.task("verify", "main", "far", depth="rows")
    shown = []
    for phase, percent in (("files", 10.0), ("files", 99.99), ("rows", 0.0), ("rows", 40.0), ("log", 5.0)):
        server.started[0].hear(step(phase, percent))
        shown.append((job.row["phase"], job.row["percent"]))
    assert shown == [
        ("files of main", 10.0),
        ("files of main", 99.9),  # 100 is said of what has ended
        ("rows of main", 0.0),
        ("rows of main", 40.0),
        ("log of main", 5.0),
    ]
    server.started[0].done.callback({"rows": 7, "problems": []})
    server.pass_time(1)
    looking = server.started[1]
    assert looking.job["job"] == "look"
    looking.done.callback({"images": []})
    server.pass_time(1)
    server.started[2].hear(step("files", 50.0))
    assert (job.row["phase"], job.row["percent"]) == ("files of far", 50.0)
    assert list(job.row["result"]) == ["main"]
    server.started[2].done.callback({"rows": 1, "problems": []})
    server.pass_time(1)
    server.started[3].done.callback({"images": []})
    assert (done.result["phase"], done.result["rows"]) == (None, 8)


def test_every_task_begins_without_a_phase(server):
    job, _ = server.task("drill", "main")
    assert (job.row["phase"], job.row["percent"], job.row["state"]) == (None, 0, "queued")
    assert new_task("expire", ["main"], 5, "admin")["phase"] is None


def test_what_was_found_wrong_fails_the_task_at_that_vault(server):
    _, done = server.task("verify", "main", "far")
    server.started[0].done.callback({"problems": ["block 3 is damaged", "and another"]})
    server.pass_time(1)
    done.addErrback(lambda failure: str(failure.value))
    assert done.result == "in vault main: 2 problems, the first: block 3 is damaged"
    assert [child.job["job"] for child in server.started] == ["verify"]


def test_a_task_whose_child_says_nothing_is_ended(server):
    job, done = server.task("verify", "main")
    server.pass_time(61)
    done.addErrback(lambda failure: str(failure.value))
    assert "vault seems to hang" in done.result
    job, done = server.task("verify", "main")
    job.cancel("enough")
    server.pass_time(1)
    done.addErrback(lambda failure: str(failure.value))
    assert done.result == "in vault main: enough"
