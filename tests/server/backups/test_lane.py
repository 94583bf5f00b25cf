"""Jobs one after the other; a crash, a lost lead or a cancellation never makes a success; schedules run once."""

import pytest
from twisted.internet.defer import Deferred, succeed

from model.catalog import Catalog
from model.errors import NotLeader, RewindError
from server.backups.alarms import Alarms, Thresholds
from server.backups.lane import LOST_LEAD, ORPHANED, Lane
from server.backups.ledger import KEPT_JOBS, KEPT_LOG_ROWS, Ledger
from server.backups.rows import (
    BACKUPS,
    FAILED,
    LOG,
    QUEUED,
    RUNNING,
    SCHEDULES,
    SUCCESSFUL,
    TASKS,
    VAULTS,
    job_fields,
    new_task,
    schedule_document,
    time_at,
    vault_document,
)
from server.backups.schedules import Schedules
from server.backups.service import told_backup

HOUR_MS = 3_600_000


class World:
    """A catalog that effects change at once, and a clock."""

    def __init__(self):
        self.catalog = Catalog()
        self.now_ms = 1_000_000_000_000
        self.leads = True
        self.ledger = Ledger(lambda: self.catalog, self.propose, lambda: self.leads, lambda: self.now_ms, self.poke)
        self.pokes = 0

    def propose(self, effects):
        if not self.leads:
            raise NotLeader("no")
        for effect in effects:
            self.catalog.apply(effect)
        return succeed(None)

    def poke(self):
        self.pokes += 1

    def put(self, collection, document):
        self.ledger.put(collection, document["id"], document)

    def rows(self, collection):
        return dict(self.ledger.documents(collection))

    def log(self):
        return [row["event"] for _, row in sorted(self.rows(LOG).items())]


@pytest.fixture
def world():
    return World()


def backup(name, state=QUEUED, at_ms=0):
    asked = {"databases": [], "tables": [], "vaults": ["main"], "images": []}
    return {**job_fields(name, name, at_ms, "admin"), **asked, "state": state}


class Work:
    """Work that is done when the test says so."""

    def __init__(self):
        self.begun = []

    async def __call__(self, job):
        outcome = Deferred()
        self.begun.append((job, outcome))
        return await outcome


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def lane(world, work):
    return Lane(BACKUPS, world.ledger, lambda: world.now_ms / 1000, work, told_backup)


def test_jobs_run_one_after_the_other_and_are_told(world, lane, work):
    world.put(BACKUPS, backup("b", at_ms=2))
    world.put(BACKUPS, backup("a", at_ms=1))
    heard = []
    lane.when_done("b", lambda error, row=None: heard.append((error, row["state"])))
    assert [job.id for job, _ in work.begun] == ["a"]
    assert world.rows(BACKUPS)["a"]["state"] == RUNNING
    job, outcome = work.begun[0]
    job.progress(40.0, 10, 100)
    assert [row["percent"] for row in lane.rows() if row["id"] == "a"] == [40.0]
    outcome.callback({"rows": 20, "bytes": 200})
    assert world.rows(BACKUPS)["a"]["state"] == SUCCESSFUL
    assert [job.id for job, _ in work.begun] == ["a", "b"]
    work.begun[1][1].errback(RewindError("the vault is full"))
    row = world.rows(BACKUPS)["b"]
    assert (row["state"], row["error"]) == (FAILED, "the vault is full")
    assert world.log() == ["backup successful", "backup failed"]
    assert heard == [(None, FAILED)]
    lane.when_done("a", lambda error, row=None: heard.append((error, row["state"])))
    assert heard[1:] == [(None, SUCCESSFUL)]


def test_what_ran_when_the_server_ended_has_failed(world, lane, work):
    world.put(BACKUPS, backup("old", RUNNING))
    lane.tick()
    row = world.rows(BACKUPS)["old"]
    assert (row["state"], row["error"]) == (FAILED, ORPHANED)
    assert row["finished"] is not None and world.log() == ["backup failed"]
    assert not work.begun


def test_nothing_begins_where_nobody_leads_and_an_unkept_end_is_no_success(world, lane, work):
    world.put(BACKUPS, backup("a"))
    world.leads = False
    lane.tick()
    assert not work.begun
    world.leads = True
    lane.tick()
    world.leads = False
    work.begun[0][1].callback({"rows": 1, "bytes": 1})
    assert world.rows(BACKUPS)["a"]["state"] == RUNNING
    world.leads = True
    lane.tick()
    assert world.rows(BACKUPS)["a"]["state"] == FAILED


def test_a_server_that_lost_the_lead_ends_what_it_had_begun(world, lane, work):
    world.put(BACKUPS, backup("a"))
    lane.tick()
    job, outcome = work.begun[0]
    heard = []
    job.on_cancel = heard.append
    world.leads = False
    lane.tick()
    lane.tick()
    assert heard == [LOST_LEAD]
    outcome.callback({"rows": 1, "bytes": 1})
    world.leads = True  # another one, in truth
    lane.tick()
    assert world.rows(BACKUPS)["a"]["error"] == ORPHANED
    assert world.log() == ["backup failed"]


def test_a_cancelled_job_has_failed_even_if_its_work_came_through(world, lane, work):
    world.put(BACKUPS, backup("a"))
    lane.tick()
    assert lane.cancel("a", "enough") and not lane.cancel("b", "enough")
    work.begun[0][1].callback({"rows": 1, "bytes": 1})
    assert world.rows(BACKUPS)["a"]["error"] == "enough"


def test_a_row_that_was_deleted_does_not_come_back(world, lane, work):
    world.put(BACKUPS, backup("a"))
    lane.tick()
    world.ledger.commit([(41, BACKUPS, "a")])
    work.begun[0][1].callback({"rows": 1, "bytes": 1, "log_index": 1, "images": []})
    assert world.rows(BACKUPS) == {}
    assert world.log() == ["backup successful"]


def test_an_unforeseen_error_is_a_failure_with_its_text(world, lane, work):
    world.put(BACKUPS, backup("a"))
    lane.tick()
    work.begun[0][1].errback(KeyError("odd"))
    assert "odd" in world.rows(BACKUPS)["a"]["error"]


def test_what_is_remembered_is_bounded(world):
    for number in range(KEPT_JOBS + 5):
        world.put(BACKUPS, backup(f"{number:05d}", SUCCESSFUL, at_ms=number))
    world.ledger.commit(world.ledger.old_jobs(BACKUPS))
    assert len(world.rows(BACKUPS)) == KEPT_JOBS - 1
    assert min(world.rows(BACKUPS)) == "00006"
    for number in range(KEPT_LOG_ROWS + 20):
        world.now_ms += 1
        world.ledger.commit(world.ledger.entry("event", str(number), {}))
    assert len(world.rows(LOG)) == KEPT_LOG_ROWS
    assert max(world.rows(LOG).items())[1]["message"] == str(KEPT_LOG_ROWS + 19)


# -- schedules


def schedule(world, **fields):
    if not world.rows(VAULTS):
        world.put(VAULTS, vault_document("main", {"id": "main", "url": "file:///x"}, 0))
    row = {"id": "s", "name": "s", "cron": "0 * * * *", **fields}
    world.put(SCHEDULES, schedule_document("s", row, world.catalog, world.now_ms))
    return Schedules(world.ledger)


def test_a_schedule_makes_a_job_each_time_it_is_due(world):
    schedules = schedule(world)
    for hour in range(1, 4):
        for _ in range(3600):
            world.now_ms += 1000
            schedules.tick()
            if len(world.rows(BACKUPS)) == hour:
                break
        for key, row in world.rows(BACKUPS).items():
            world.ledger.amend(BACKUPS, key, {"state": SUCCESSFUL, "finished": row["requested"]})
        schedules.tick()
        assert len(world.rows(BACKUPS)) == hour
    assert world.now_ms % HOUR_MS == 0


def test_steps_of_the_clock_neither_repeat_nor_pile_up(world):
    schedules = schedule(world)
    world.now_ms += 50 * HOUR_MS  # forward, or the server was down: once
    schedules.tick()
    schedules.tick()
    assert len(world.rows(BACKUPS)) == 1
    [row] = world.rows(BACKUPS).values()
    world.ledger.amend(BACKUPS, row["id"], {"state": SUCCESSFUL})
    world.now_ms -= 20 * HOUR_MS  # backward: what was due was run
    for _ in range(19):
        world.now_ms += HOUR_MS
        schedules.tick()
    assert len(world.rows(BACKUPS)) == 1
    world.now_ms += 2 * HOUR_MS
    schedules.tick()
    assert len(world.rows(BACKUPS)) == 2


def test_a_schedule_does_not_overtake_itself(world):
    schedules = schedule(world)
    for _ in range(3):
        world.now_ms += HOUR_MS
        schedules.tick()
    assert len(world.rows(BACKUPS)) == 1
    assert world.log().count("schedule skipped") == 2


def test_nightly_parts_go_round(world):
    schedules = schedule(world, action="verify", parts=3, depth="files")
    parts = []
    for _ in range(4):
        world.now_ms += HOUR_MS
        schedules.tick()
        [row] = [row for row in world.rows(TASKS).values() if row["state"] == QUEUED]
        parts.append(row["part"])
        world.ledger.amend(TASKS, row["id"], {"state": SUCCESSFUL})
    assert parts == [[1, 3], [2, 3], [3, 3], [1, 3]]


def test_a_disabled_schedule_rests(world):
    schedules = schedule(world, enabled=False)
    world.now_ms += 5 * HOUR_MS
    schedules.tick()
    assert world.rows(BACKUPS) == {}
    [row] = schedules.rows()
    assert row["next_run"] is None


# -- alarms


class NoVaults:
    def __init__(self):
        self.shippings = {}


def kinds(world, age_s=HOUR_MS / 1000):
    return [issue.kind for issue in Alarms(NoVaults(), world.ledger, Thresholds(60.0, age_s)).issues()]


def test_alarms_say_what_is_wrong_now(world):
    assert kinds(world) == []
    schedule(world)
    assert kinds(world) == ["backup_too_old"]
    done = {**backup("a", SUCCESSFUL), "finished": time_at(world.now_ms)}
    world.put(BACKUPS, done)
    assert kinds(world) == []
    world.now_ms += 2 * HOUR_MS
    assert kinds(world) == ["backup_too_old"]
    assert kinds(world, age_s=0) == []
    world.put(BACKUPS, {**backup("b", FAILED), "finished": time_at(world.now_ms), "error": "full"})
    drill = new_task("drill", ["main"], world.now_ms, "admin")
    world.put(TASKS, {**drill, "state": FAILED, "finished": time_at(world.now_ms), "error": "other rows"})
    assert kinds(world, age_s=0) == ["backup_drill_failed", "backup_failed"]
    world.leads = False
    assert kinds(world) == []
