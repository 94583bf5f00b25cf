"""Who gets which part of the log, how far behind a vault is, and for whom the log is kept."""

import pytest
from twisted.internet.defer import Deferred

from model.errors import ReqlOpFailedError, RewindError
from server.backups.archiver import BROKEN, OK, REFUSED, RESTART_S, UNAVAILABLE, Archiver, vault_rows
from server.backups.rows import vault_document


class Clock:
    def __init__(self):
        self.s = 100.0

    def ms(self):
        return int(self.s * 1000)


class State:
    """A log of which 1000 bytes are written per entry."""

    def __init__(self):
        self.first_index = 1
        self.archivable_index = 10
        self.is_quiet = True
        self.folder = "/log"

    def terms(self, low, high):
        return [(low, 1)]

    def bytes_from(self, index):
        return 1000 * max(self.archivable_index + 1 - index, 0)


class Child:
    def __init__(self, job, hear):
        self.job = job
        self.hear = hear
        self.done = Deferred()
        self.orders = []
        self.is_killed = False

    def send(self, order):
        self.orders.append(order)

    def kill(self, why):
        self.is_killed = True
        self.done.errback(RewindError(why))


class Children:
    def __init__(self, clock):
        self.started = []
        self.seconds = lambda: clock.s

    def start(self, job, hear):
        child = Child(job, hear)
        self.started.append(child)
        return child


class World:
    def __init__(self, max_log_bytes=50_000):
        self.clock = Clock()
        self.state = State()
        self.children = Children(self.clock)
        self.documents = {}
        self.archiver = Archiver(
            self.state, self.children, lambda: self.documents, self.amend, "c1", self.clock.ms, max_log_bytes
        )

    def amend(self, vault_id, changes):
        self.documents[vault_id] = {**self.documents[vault_id], **changes}

    def add(self, name, **fields):
        self.documents[name] = vault_document(
            name, {"id": name, "url": f"file:///{name}", **fields}, self.state.archivable_index
        )

    def tick(self, entries=0):
        self.clock.s += 1
        self.state.archivable_index += entries
        self.archiver.tick()

    def child(self, name):
        return next(child for child in reversed(self.children.started) if child.job["vault"]["name"] == name)

    def ready(self, name, index=10):
        self.tick()
        self.child(name).hear({"event": "ready", "index": index, "time_ms": 5})

    def ship(self, name, index):
        self.child(name).hear({"event": "shipped", "index": index, "time_ms": 5, "bytes": 7})

    def row(self, name):
        [row] = [row for row in vault_rows(self.archiver, self.documents, {}) if row["name"] == name]
        return row


@pytest.fixture
def world():
    world = World()
    world.add("a")
    return world


def test_a_child_per_vault_is_told_each_second(world):
    world.add("b")
    world.tick()
    assert [child.job["vault"]["name"] for child in world.children.started] == ["a", "b"]
    assert world.child("a").job["start_after"] == 10 and not world.child("a").job["is_known"]
    world.tick(entries=5)
    [order] = world.child("a").orders
    assert (order["last_index"], order["terms"], order["quiet_ms"]) == (15, [(1, 1)], world.clock.ms())
    world.child("a").hear({"event": "ready", "index": 10, "time_ms": 5})
    assert world.documents["a"]["claimed"] and not world.documents["b"]["claimed"]
    world.tick()
    assert world.child("a").orders[-1]["terms"] == [(10, 1)]


def test_the_gap_counts_from_when_the_vault_was_last_complete(world):
    world.ready("a")
    for _ in range(30):
        world.tick()  # a quiet log is no gap, however long
    assert world.row("a")["gap"] == 0
    world.tick(entries=3)
    assert world.row("a")["gap"] == 1
    world.tick(entries=3)
    world.tick()
    assert world.row("a")["gap"] == 3
    world.ship("a", 13)
    assert world.row("a")["gap"] == 2
    world.ship("a", 16)
    assert world.row("a")["gap"] == 0


def test_troubles_are_states_and_go_away(world):
    world.ready("a")
    assert world.row("a")["state"] == OK
    world.child("a").hear({"event": "error", "message": "no route"})
    assert (world.row("a")["state"], world.row("a")["error"]) == (UNAVAILABLE, "no route")
    world.ship("a", 10)
    assert (world.row("a")["state"], world.row("a")["error"]) == (OK, None)
    world.child("a").hear({"event": "missed", "first": 3, "last": 5})
    world.tick()
    assert world.row("a")["state"] == BROKEN
    assert world.documents["a"]["missing"] == [3, 5]


def test_a_child_that_ended_is_started_again_after_a_while(world):
    world.ready("a")
    world.child("a").done.errback(RewindError("another cluster's vault"))
    assert world.row("a")["state"] == REFUSED
    for _ in range(int(RESTART_S) - 1):
        world.tick()
    assert len(world.children.started) == 1
    world.tick()
    assert len(world.children.started) == 2


def test_changes_of_a_vault_are_followed(world):
    world.ready("a")
    first = world.child("a")
    world.amend("a", {"retention": {"keep_images": 3}})
    world.tick()
    assert not first.is_killed
    world.amend("a", {"url": "file:///elsewhere"})
    world.tick()
    assert first.is_killed and world.child("a").job["vault"]["url"] == "file:///elsewhere"
    world.amend("a", {"pause": True})
    world.tick()
    world.tick()
    assert world.child("a").is_killed and world.row("a")["state"] == "paused"
    del world.documents["a"]
    world.tick()
    assert world.archiver.shippings == {}


def test_the_log_is_kept_for_required_vaults_up_to_a_limit(world):
    assert world.archiver.keep_from() == 11
    world.add("b", required=False)
    world.ready("a", 8)
    assert world.archiver.keep_from() == 9
    world.tick(entries=30)
    assert world.archiver.keep_from() == 9
    world.ship("a", 20)
    assert world.archiver.keep_from() == 21
    world.tick(entries=60)
    assert world.archiver.keep_from() is None
    assert world.archiver.shippings["a"].is_let_go
    world.amend("a", {"required": False})
    world.tick()
    assert world.archiver.keep_from() is None


def test_what_a_vault_has_is_noted_now_and_then_for_the_other_members(world):
    world.ready("a")
    world.ship("a", 100)
    assert world.documents["a"]["noted_index"] == 10
    world.ship("a", 6000)
    assert world.documents["a"]["noted_index"] == 6000
    other = World()
    other.documents = world.documents
    assert other.archiver.keep_from() is None or other.archiver.keep_from() == 6001


def test_an_impossible_vault_is_never_made(world):
    with pytest.raises(ReqlOpFailedError, match="URL"):
        world.add("x", url="nowhere")
