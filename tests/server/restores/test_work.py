"""A restore holds up compactions while rows come, and never longer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from model.catalog import Catalog
from model.effect import Kind
from model.errors import RewindError
from proxy.reql.evaluator import ReqlEvaluator  # noqa: F401  (fills the registry before functions are compiled)
from server.backups.children import ChildFailed
from server.backups.ledger import Ledger
from server.backups.rows import BACKUPS, VAULTS, vault_document
from server.restores.work import HELD_BYTES, RestoreWork

TABLE = {
    "table_id": 7,
    "uuid": "u7",
    "db": "shop",
    "db_uuid": "d7",
    "table": "orders",
    "primary_key": "id",
    "options": {},
    "write_hook": None,
    "indexes": [],
}
RESULT = {"log_index": 5, "time_ms": 1000, "tables": []}


class Job:
    cancelled = ""
    on_cancel = None

    def __init__(self, **asked: Any) -> None:
        affixes = dict.fromkeys(("db_prefix", "db_suffix", "table_prefix", "table_suffix"), "")
        self.row: dict[str, Any] = {
            "to": "latest",
            "image": None,
            "databases": [],
            "tables": ["shop.orders"],
            "as": {},
            **affixes,
            "keys": None,
            "replace": False,
            "dry_run": False,
            "percent": 0,
            "vault": {"url": "file:///v"},
            **asked,
        }

    def update(self, **fields: Any) -> None:
        self.row = {**self.row, **fields}

    def progress(self, percent: float, rows: int, size: int) -> None:
        self.update(percent=percent, rows=rows, bytes=size)


class Server:
    """Children, fibers and compactions, as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.catalog = Catalog()
        self.are_held = False
        self.asked: list[str] = []
        self.writing: Deferred[Any] = Deferred()
        self.done: Deferred[Any] = Deferred()
        self.shippings = {"v1": SimpleNamespace(shipped_index=9)}
        self.archivable_index = 0
        self.folder = "/log"
        ledger = Ledger(lambda: self.catalog, None, lambda: True, lambda: 5, lambda: None)
        ports = (self, self, ledger, self, self, self, None, self.in_thread)
        self.work = RestoreWork(*ports, folder, lambda: True, self)

    async def in_thread(self, work, *arguments):
        work(*arguments)

    def seconds(self):
        return 0.0

    def start(self, job, on_event):
        self.hears = on_event
        self.job = job
        self.done = Deferred()
        return self

    def kill(self, why):
        self.killed = why

    def errand(self, work):
        self.written = work.__self__
        return self.writing

    def hold(self):
        self.are_held = True
        self.asked.append("hold")

    def let_go(self):
        self.are_held = False
        self.asked.append("let go")

    def begin(self, **asked: Any) -> list[Any]:
        ended: list[Any] = []
        running = ensureDeferred(self.work.restore(Job(**asked)))
        running.addCallbacks(ended.append, lambda failure: ended.append(failure.value))
        return ended

    def survey(self) -> None:
        self.hears({"event": "surveyed", "plan": {}, "lines": [], "tables": [TABLE]})


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_compactions_wait_from_the_first_row_to_the_last(server: Server) -> None:
    ended = server.begin()
    assert not server.are_held
    server.survey()
    assert server.are_held
    server.done.callback(RESULT)
    assert not server.are_held and not ended
    server.writing.callback((3, 30))
    assert ended[0]["rows"] == 3


def test_they_go_on_when_many_rows_are_written(server: Server) -> None:
    server.begin()
    server.survey()
    server.hears({"event": "counted", "rows": 20})
    server.written._on_rows(10, HELD_BYTES)
    assert server.are_held
    server.written._on_rows(20, HELD_BYTES + 1)
    assert not server.are_held


def test_they_go_on_when_the_child_fails(server: Server) -> None:
    ended = server.begin()
    server.survey()
    server.writing.callback(None)
    server.done.errback(ChildFailed("a block is damaged"))
    assert not server.are_held
    assert isinstance(ended[0], RewindError) and "damaged" in str(ended[0])


def test_they_go_on_when_rows_cannot_be_written(server: Server) -> None:
    ended = server.begin()
    server.survey()
    server.writing.errback(RewindError("the disk is full"))
    server.done.errback(ChildFailed(server.killed))
    assert not server.are_held
    assert "disk is full" in str(ended[0])


def test_a_child_hears_which_images_this_cluster_took(server: Server) -> None:
    taken = {"vault": "main", "image": "i1", "manifest_sha256": "m1"}
    others = [{**taken, "vault": "far"}, {**taken, "image": "i2", "manifest_sha256": None}]
    earlier = {"vault": "main", "image": "i3"}  # of a version that did not note it
    document = vault_document("main", {"id": "v1", "url": "file:///v"}, 0)
    server.catalog.apply((int(Kind.PUT_SYSTEM), VAULTS, "v1", document))
    server.catalog.apply((int(Kind.PUT_SYSTEM), BACKUPS, "b1", {"images": [taken, *others, earlier]}))
    server.begin(vault=None)
    assert server.job["own_images"] == {"i1": "m1"}
    server.done.callback(RESULT)
    server.begin(vault={"url": "file:///v"})
    assert "own_images" not in server.job, "of a vault that is not this cluster's nothing is known"


def test_what_writes_no_rows_holds_nothing(server: Server) -> None:
    ended = server.begin(dry_run=True)
    server.survey()
    server.done.callback(RESULT)
    assert "hold" not in server.asked and ended[0]["phase"] == "planned"
