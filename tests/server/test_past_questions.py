"""Questions about the past go to the vaults, the best one first, and then to the server's own log."""

import pytest
from twisted.internet.defer import fail, succeed

from model.catalog import Catalog
from model.effect import Kind
from server.backups.children import ChildFailed
from server.backups.ledger import Ledger
from server.backups.rows import VAULTS, vault_document
from server.restores.work import RestoreWork


class Shipping:
    def __init__(self, shipped_index):
        self.shipped_index = shipped_index


class Server:
    """Children that answer as told, per vault, and what is known of the vaults and the log."""

    folder = "/log"
    archivable_index = 9

    def __init__(self):
        self.catalog = Catalog()
        self.answers = {}
        self.asked = []
        self.shippings = {"near": Shipping(3), "far": Shipping(8)}
        for name in (*self.shippings, "new"):
            document = vault_document(name, {"id": name, "url": f"file:///{name}"}, 0)
            self.catalog.apply((int(Kind.PUT_SYSTEM), VAULTS, name, document))
        ledger = Ledger(lambda: self.catalog, None, lambda: True, lambda: 5, lambda: None)
        self.work = RestoreWork(self, None, ledger, self, self, self, None, None, None, None, None)

    def start(self, job, on_event):
        vault = job.get("vault")
        name = vault["name"] if vault else "log"
        self.asked.append((name, job))
        self.done = self.answers.get(name, fail(ChildFailed(f"{name} is gone", kind="VaultUnavailable")))
        return self


@pytest.fixture
def server():
    return Server()


def ask_both(server):
    """What comes of the two questions: their results, or the failures' texts."""
    found = []
    for question in (
        lambda: server.work.versions("a.b", 1),
        lambda: server.work.differences("index:1", "latest", [], None),
    ):
        question().addCallbacks(found.append, lambda failure: found.append(str(failure.value)))
    return found


def test_the_vault_with_most_of_the_log_is_asked(server):
    server.answers["far"] = succeed({"rows": 1})
    assert server.work.versions("a.b", 1).result == {"rows": 1}
    [(name, job)] = server.asked
    assert name == "far" and job["log"]["folder"] == "/log"


@pytest.mark.parametrize("kind", ["VaultUnavailable", "UnfitArchive", "BadSetting"])
def test_a_vault_that_fails_is_followed_by_the_next_one(server, kind):
    server.answers["far"] = fail(ChildFailed("it is damaged", kind=kind))
    server.answers["near"] = succeed({"rows": 2})
    assert server.work.differences("index:1", "latest", [], 5).result == {"rows": 2}
    assert [name for name, _ in server.asked] == ["far", "near"]
    assert all("log" not in job for _, job in server.asked)


def test_the_own_log_is_the_last_that_is_asked(server):
    server.answers["log"] = succeed({"rows": 3})
    assert server.work.versions("a.b", 1).result == {"rows": 3}
    assert [name for name, _ in server.asked] == ["far", "near", "new", "log"]
    server.asked.clear()
    server.answers["log"] = succeed({"rows": 3})
    assert server.work.differences("index:1", "latest", [], 5).result == {"rows": 3}
    assert [name for name, _ in server.asked] == ["far", "near", "new", "log"]
    assert server.asked[-1][1]["log"]["last_index"] == 9


def test_if_nobody_can_tell_the_best_vaults_failure_is_told(server):
    assert ask_both(server) == ["far is gone", "far is gone"]
