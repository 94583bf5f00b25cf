"""Images by any member: who is asked, what passes between the two, and what happens when one of them is lost."""

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from model.catalog import Catalog
from model.errors import Overloaded, RewindError
from server.backups.lane import Job
from server.backups.ledger import Ledger
from server.backups.rows import BACKUPS, RUNNING, VAULTS, job_fields, vault_document
from server.backups.service import Pauses
from server.images.choice import MAX_LAG_ENTRIES, Candidate, in_order
from server.images.messages import (
    ORDER,
    REPORT,
    Asked,
    Order,
    Outcome,
    Report,
    VaultAsked,
    decode_order,
    decode_report,
    encode_order,
    encode_report,
)
from server.images.orders import PATIENCE_S, ImageOrders
from server.images.places import LOST_S, Here, PlaceLost, There
from server.images.taking import CATCH_UP_S, ENTER_S, LOOK_AGAIN_S, ImageTaker
from server.images.work import LABEL_PATIENCE_S, ImageWork

LABEL = {"format": 1, "id": "a place", "cluster_id": "c", "created_ms": 1}
LEADER, FOLLOWER = 1, 2


def candidate(member_id, **more):
    seen = {"is_able": True, "is_learner": False, "lag_entries": 0, "is_disk_low": False, "indexes_waiting": 0}
    return Candidate(member_id, f"s{member_id}", **{**seen, **more})


def test_the_least_busy_member_is_asked_first():
    members = [
        candidate(2, lag_entries=5),
        candidate(3, lag_entries=1),
        candidate(4, lag_entries=1, is_learner=True),
        candidate(5, indexes_waiting=1),
        candidate(6, is_disk_low=True),
        candidate(7, is_able=False),
        candidate(8, lag_entries=MAX_LAG_ENTRIES + 1),
    ]
    assert [one.member_id for one in in_order(members)] == [4, 3, 2, 5]
    assert in_order([]) == []


def test_messages_come_out_as_they_went_in():
    asked = Asked([VaultAsked({"name": "v"}, True, LABEL)], ["shop"], 5, True, 9)
    order = Order("x", asked)
    report = Report("x", "done", 7, 3, 2, 1, [Outcome(rows=1, tables=["a.b"])])
    assert encode_order(order).startswith(ORDER) and encode_report(report).startswith(REPORT)
    assert decode_order(encode_order(order)) == order
    assert decode_report(encode_report(report)) == report


# -- a server's data and its children


class Child:
    """A child process that does what the test says."""

    def __init__(self, job, hear):
        self.job = job
        self.hear = hear
        self.done = Deferred()
        self.orders = []
        self.heard_s = 0.0

    def send(self, order):
        self.orders.append(order)

    def enter(self):
        self.hear({"event": "entered", "label": LABEL})

    def progress(self, rows):
        self.hear({"event": "progress", "rows": rows, "bytes": 10 * rows})

    def finish(self, rows):
        tables = [{"db": "shop", "table": "orders"}]
        result = {
            "rows": rows,
            "bytes": 10 * rows,
            "stored_bytes": rows,
            "tables": tables,
            "selection": [],
            "manifest_sha256": "m1",
        }
        self.done.callback(result)

    def kill(self, why):
        if not self.done.called:
            self.done.errback(RewindError(why))


class Server:
    """One server's part: data at some log index, children, checkpoints in a folder."""

    def __init__(self, clock, folder, applied_index=100):
        self.clock = clock
        self.catalog = Catalog()
        self.applied_index = applied_index
        self.folder = folder
        self.started = []
        self.overloaded = 0
        self.seconds = clock.seconds
        self.taker = ImageTaker(
            self, self, Pauses(clock), lambda call, *args: succeed(call(*args)), folder, "c", "1.0", 60.0, 0
        )

    def count(self, table_id):
        return 0

    def term(self, log_index):
        return 3

    def checkpoint(self, folder):
        if self.overloaded:
            self.overloaded -= 1
            raise Overloaded("busy")
        folder.mkdir()
        return succeed(self.applied_index)

    @property
    def checkpoints(self):
        return list(self.folder.iterdir()) if self.folder.exists() else []

    def start(self, job, hear):
        child = Child(job, hear)
        self.started.append(child)
        return child


def asked_for(*names, from_index=100):
    return Asked([VaultAsked({"name": name}, True, LABEL) for name in names or ("main",)], [], 0, False, from_index)


class Line:
    """The link between the two, which can be cut."""

    def __init__(self, clock, follower):
        self.is_cut = False
        self.leader_id = LEADER
        self.orders = ImageOrders(follower.taker, self.to_leader, lambda: self.leader_id, clock.seconds)
        self.there = There("s2", self.to_follower, Pauses(clock), clock.seconds)

    def to_follower(self, order):
        if not self.is_cut:
            self.orders.receive(LEADER, encode_order(order))

    def to_leader(self, member, message):
        assert member == LEADER
        if not self.is_cut:
            self.there.heard(decode_report(message))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def follower(clock, tmp_path):
    return Server(clock, tmp_path / "follower")


@pytest.fixture
def line(clock, follower):
    return Line(clock, follower)


def pass_time(clock, line, seconds):
    for _ in range(int(seconds * 4)):
        clock.advance(0.25)
        if clock.seconds() % 1 == 0:
            line.orders.tick()


def outcome_of(deferred):
    """What a Deferred fired with; None if it did not yet."""
    found = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def begun(line, asked):
    return ensureDeferred(line.there.prepare(asked))


def test_a_follower_takes_an_image_step_by_step(clock, follower, line):
    follower.applied_index = 97
    prepared = begun(line, asked_for("main", "other"))
    pass_time(clock, line, 1)
    assert [child.job["label"] for child in follower.started] == [LABEL, LABEL]
    for child in follower.started:
        child.enter()
    pass_time(clock, line, 2)
    assert not prepared.called and not follower.checkpoints  # it lacks what was written before the backup was asked for
    follower.applied_index = 104
    pass_time(clock, line, 1)
    assert outcome_of(prepared) == 104
    [checkpoint] = follower.checkpoints
    told = []
    taken = ensureDeferred(line.there.take("an-image", 5_000, lambda *figures: told.append(figures)))
    pass_time(clock, line, 1)
    for child in follower.started:
        [wanted] = child.orders
        assert wanted["checkpoint"] == str(checkpoint)
        order = wanted["order"]
        assert (order["image"], order["time_ms"], order["raft_term"]) == ("an-image", 5_000, 3)
    follower.started[0].progress(30)
    follower.started[1].progress(20)
    pass_time(clock, line, 2)
    assert told[-1] == (50, 30, 300)
    follower.started[0].finish(40)
    pass_time(clock, line, 1)
    assert not taken.called
    follower.started[1].kill("the vault is full")
    pass_time(clock, line, 1)
    first, second = outcome_of(taken)
    assert (first.rows, first.tables, first.error) == (40, ["shop.orders"], "")
    assert second.error == "the vault is full"
    assert not follower.checkpoints


def test_a_follower_that_cannot_enter_a_vault_says_so_before_anything_is_written(clock, follower, line):
    prepared = begun(line, asked_for("main", "other"))
    pass_time(clock, line, 1)
    follower.started[0].enter()
    follower.started[1].kill("it is another place here")
    pass_time(clock, line, 1)
    failure = outcome_of(prepared)
    assert failure.check(PlaceLost) and "vault other: it is another place here" in str(failure.value)
    assert follower.started[0].done.called and not follower.checkpoints


@pytest.mark.parametrize(("lag", "seconds", "words"), [(0, ENTER_S, "did not answer"), (9, CATCH_UP_S, "9 entries")])
def test_a_follower_does_not_wait_for_ever(clock, follower, line, lag, seconds, words):
    follower.applied_index -= lag
    prepared = begun(line, asked_for())
    if lag:
        follower.started[0].enter()
    pass_time(clock, line, seconds + 2)
    assert words in str(outcome_of(prepared).value)


def test_a_checkpoint_is_tried_again_while_the_store_is_busy(clock, follower, line):
    follower.overloaded = 3
    prepared = begun(line, asked_for())
    follower.started[0].enter()
    pass_time(clock, line, 3)
    assert outcome_of(prepared) == 100


def test_a_follower_that_is_silent_is_lost(clock, line):
    line.is_cut = True
    prepared = begun(line, asked_for())
    pass_time(clock, line, LOST_S - 1)
    assert not prepared.called
    pass_time(clock, line, 2)
    assert outcome_of(prepared).check(PlaceLost)


def test_the_next_member_in_turn_has_not_been_silent_before_it_was_asked(clock, follower, line):
    clock.advance(10 * LOST_S)
    prepared = begun(line, asked_for())
    follower.started[0].enter()
    pass_time(clock, line, 1)
    assert outcome_of(prepared) == 100


def ready(clock, follower, line):
    """Goes on to where the image is being written; the Deferred of its outcomes."""
    prepared = begun(line, asked_for())
    follower.started[-1].enter()
    pass_time(clock, line, 1)
    assert outcome_of(prepared) == 100
    taken = ensureDeferred(line.there.take("an-image", 5_000, lambda *figures: None))
    pass_time(clock, line, 1)
    assert len(follower.started[-1].orders) == 1
    return taken


def test_a_follower_that_is_cut_off_gives_up_before_the_leader_takes_it_for_lost(clock, follower, line):
    taken = ready(clock, follower, line)
    line.is_cut = True
    pass_time(clock, line, PATIENCE_S + 2)
    assert follower.started[0].done.called and not follower.checkpoints
    assert not taken.called
    pass_time(clock, line, LOST_S - PATIENCE_S)
    assert outcome_of(taken).check(PlaceLost)


def test_a_follower_that_started_anew_does_not_know_the_image(clock, follower, line, tmp_path):
    taken = ready(clock, follower, line)
    reborn = Server(clock, tmp_path / "reborn")
    line.orders = ImageOrders(reborn.taker, line.to_leader, lambda: LEADER, clock.seconds)
    pass_time(clock, line, 2)
    assert outcome_of(taken).check(PlaceLost)
    assert not reborn.started


def test_a_follower_ends_its_work_for_who_does_not_lead_any_more(clock, follower, line):
    taken = ready(clock, follower, line)
    line.leader_id = 3
    pass_time(clock, line, 2)
    assert follower.started[0].done.called and not follower.checkpoints
    pass_time(clock, line, LOST_S)
    assert outcome_of(taken).check(PlaceLost)
    assert len(follower.started) == 1


def test_a_cancelled_image_ends_on_both_sides(clock, follower, line):
    taken = ready(clock, follower, line)
    line.there.cancel("it was cancelled")
    pass_time(clock, line, 1)
    failure = outcome_of(taken)
    assert str(failure.value) == "it was cancelled" and not failure.check(PlaceLost)
    assert follower.started[0].done.called and not follower.checkpoints


def test_a_new_order_takes_the_place_of_one_before(clock, follower, line):
    ready(clock, follower, line)
    line.there = There("s2", line.to_follower, Pauses(clock), clock.seconds)
    prepared = begun(line, asked_for())
    assert follower.started[0].done.called
    follower.started[1].enter()
    pass_time(clock, line, 1)
    assert outcome_of(prepared) == 100


def test_lost_messages_change_nothing(clock, follower, line):
    line.is_cut = True
    prepared = begun(line, asked_for())
    pass_time(clock, line, 3)
    line.is_cut = False
    pass_time(clock, line, 2)
    follower.started[0].enter()
    line.is_cut = True
    pass_time(clock, line, 3)  # "ready" is lost
    line.is_cut = False
    pass_time(clock, line, 2)
    assert outcome_of(prepared) == 100 and len(follower.started) == 1


def test_a_server_that_stops_leaves_nothing(clock, follower, line):
    ready(clock, follower, line)
    line.orders.stop()
    pass_time(clock, line, 1)
    assert follower.started[0].done.called and not follower.checkpoints


# -- the leader's job


class Remote:
    """Another place, scripted: an index or an error for `prepare`, outcomes or an error for `take`."""

    def __init__(self, name, prepared, taken=None):
        self.name = name
        self.asked = None
        self.is_ended = False
        self._prepared = prepared
        self._taken = taken

    async def prepare(self, asked):
        self.asked = asked
        return _given(self._prepared)

    async def take(self, image, time_ms, progress):
        progress(5, 5, 50)
        return _given(self._taken)

    def cancel(self, why):
        pass

    async def end(self):
        self.is_ended = True


def _given(value):
    if isinstance(value, Exception):
        raise value
    return value


class Leader:
    """The leader's own part of backups."""

    def __init__(self, clock, folder):
        self.clock = clock
        self.server = Server(clock, folder)
        self.labels = {"main": LABEL}
        self.catalog = self.server.catalog
        self.ledger = Ledger(lambda: self.catalog, self.propose, lambda: True, lambda: 77_000, lambda: None)
        self.ledger.put(VAULTS, "main", vault_document("main", {"id": "main", "url": f"file://{folder}/v"}, 0))
        self.work = ImageWork(self.server.taker, self.ledger, self, lambda name: self.ledger.documents(VAULTS)[name])
        self.others = []
        self.work.plug(lambda: "s1", lambda: self.others)
        fields = {"databases": [], "tables": [], "vaults": ["main"], "max_bytes_per_s": 0, "hold": False}
        row = {**job_fields("b", "b", 0, "admin"), **fields, "state": RUNNING, "server": None, "images": []}
        self.ledger.put(BACKUPS, "b", row)
        self.job = Job(row, self, 0.0)

    def propose(self, effects):
        for effect in effects:
            self.catalog.apply(effect)
        return succeed(None)

    def seconds(self):
        return self.clock.seconds()

    def told(self):
        pass

    def label(self, vault_id):
        return self.labels.get(vault_id)

    def note_label(self, vault_id, label):
        self.labels[vault_id] = label

    def run(self):
        return ensureDeferred(self.work.back_up(self.job))


@pytest.fixture
def leader(clock, tmp_path):
    return Leader(clock, tmp_path / "leader")


WHOLE = [Outcome(rows=5, bytes=50, stored_bytes=20, tables=["a.b"], manifest_sha256="m2")]


def test_the_first_member_that_can_takes_the_image(leader):
    leader.others = [
        Remote("s2", PlaceLost("nothing was heard of it")),
        Remote("s3", 120, WHOLE),
        Remote("s4", AssertionError("is not asked")),
    ]
    row = outcome_of(leader.run())
    assert (row["rows"], row["bytes"], row["log_index"]) == (5, 50, 120)
    [image] = row["images"]
    assert image["vault"] == "main" and "-120-" in image["image"]
    assert image["manifest_sha256"] == "m2"
    assert row["warnings"] == ["not taken by s2: nothing was heard of it"]
    assert leader.job.row["server"] == "s3"
    assert [other.is_ended for other in leader.others] == [True, True, False]
    [vault] = leader.others[1].asked.vaults
    assert vault.label == LABEL and vault.access["name"] == "main"
    assert not leader.server.started


def test_a_member_lost_in_the_middle_is_followed_by_the_leader_from_the_start(clock, leader):
    leader.others = [Remote("s2", 120, PlaceLost("nothing was heard of it"))]
    done = leader.run()
    clock.advance(0.25)
    [child] = leader.server.started
    assert child.job["label"] is None
    assert leader.job.row["server"] == "s1"
    assert leader.job.row["rows"] == 0
    [order] = child.orders
    child.enter()
    child.finish(6)
    clock.advance(0.25)
    row = outcome_of(done)
    assert (row["rows"], row["log_index"]) == (6, 100)
    assert order["order"]["time_ms"] == 77_000
    assert not leader.server.checkpoints


def test_a_vault_that_fails_a_member_in_the_middle_fails_the_backup(leader):
    leader.others = [Remote("s2", 120, [Outcome("the vault is full")])]
    failure = outcome_of(leader.run())
    assert str(failure.value) == "in vault main: the vault is full"
    assert not leader.server.started


def test_without_knowing_a_vaults_label_the_leader_takes_the_image_itself(clock, leader):
    leader.labels.clear()
    leader.others = [Remote("s2", AssertionError("is not asked"))]
    done = leader.run()
    clock.pump([LOOK_AGAIN_S] * int(LABEL_PATIENCE_S / LOOK_AGAIN_S + 2))
    [child] = leader.server.started
    child.enter()
    child.finish(6)
    clock.advance(0.25)
    assert outcome_of(done)["rows"] == 6
    assert leader.labels == {"main": LABEL}  # from now on others can be asked


def test_a_label_that_comes_soon_is_waited_for(clock, leader):
    leader.labels.clear()
    leader.others = [Remote("s2", 120, WHOLE)]
    done = leader.run()
    clock.advance(0.25)
    leader.labels["main"] = LABEL
    clock.advance(0.25)
    assert outcome_of(done)["rows"] == 5 and leader.job.row["server"] == "s2"


def test_a_cancelled_job_is_not_given_to_the_next_server(leader):
    class Cancelled(Remote):
        async def prepare(self, asked):
            leader.job.cancel("enough")
            raise PlaceLost("it is over")

    leader.others = [Cancelled("s2", 0), Remote("s3", AssertionError("is not asked"))]
    assert str(outcome_of(leader.run()).value) == "enough"


def test_here_ends_its_children_when_it_is_cancelled(clock, leader):
    done = leader.run()
    clock.advance(0.25)
    leader.job.cancel("enough")
    clock.advance(0.25)
    assert "enough" in str(outcome_of(done).value)
    assert not leader.server.checkpoints


def test_what_stalls_here_is_ended(clock, leader):
    place = Here("s1", leader.server.taker, lambda name, label: None)
    assert outcome_of(ensureDeferred(place.prepare(asked_for()))) == 100
    taken = ensureDeferred(place.take("i", 1, lambda *figures: None))
    clock.pump([0.25] * 250)
    [outcome] = outcome_of(taken)
    assert "vault seems to hang" in outcome.error
