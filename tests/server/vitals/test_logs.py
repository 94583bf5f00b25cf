"""The newest log lines: bounded, each with a time of its own, and told when a log cannot be written."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from rethinkdb import r

from server.vitals.issues import Issues, log_write_issues
from server.vitals.logs import MAX_LINE_CHARACTERS, MAX_LINES, RecentLog, logs_table, time_text
from tests.reql.conftest import SmallWorld

LOGS = r.db("rethinkdb").table("logs")
ISSUES = r.db("rethinkdb").table("current_issues")


class Tape(io.StringIO):
    """A log file whose disk may be full."""

    is_full = False

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture
def recent(tape: Tape) -> Iterator[RecentLog]:
    handler = logging.StreamHandler(tape)
    logger = logging.getLogger("rewinddb")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    recent = RecentLog(now_ns=lambda: 1_000_000_000_123_456_789, started_s=1_000_000_000 - 5)
    recent.attach()
    yield recent
    recent.detach()
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def world(recent: RecentLog) -> SmallWorld:
    world = SmallWorld()
    issues = Issues()
    issues.add(log_write_issues(world.system, recent))
    world.system.add(logs_table(world.system, recent), issues.declared())
    return world


def test_a_line_is_a_row(world: SmallWorld) -> None:
    logging.getLogger("rewinddb.test").warning("disk %s", "slow", extra={"took_ms": 5})
    assert world.run(LOGS, time_format="raw") == [
        {
            "id": ["2001-09-09T01:46:40.123456789", world.system.site.server_id],
            "level": "warn",
            "message": "disk slow took_ms=5",
            "server": "small",
            "timestamp": {"$reql_type$": "TIME", "epoch_time": 1000000000.123, "timezone": "+00:00"},
            "uptime": pytest.approx(5.123, abs=0.01),
        }
    ]


def test_lines_at_one_moment_have_times_of_their_own(world: SmallWorld, recent: RecentLog) -> None:
    for number in range(MAX_LINES + 5):
        logging.getLogger("rewinddb.test").info("line %d", number)
    assert len(recent.lines) == MAX_LINES
    assert world.run(LOGS["id"].distinct().count()) == MAX_LINES
    assert world.run(LOGS.order_by(index=r.desc("id")).limit(1)["message"]) == [f"line {MAX_LINES + 4}"]


def test_what_is_printed_is_a_notice(world: SmallWorld, recent: RecentLog) -> None:
    recent.note('Server ready, "small" 1')
    assert world.run(LOGS.pluck("level", "message")) == [{"level": "notice", "message": 'Server ready, "small" 1'}]


def test_a_new_name_of_a_server_is_logged(world: SmallWorld) -> None:
    answer = world.run(r.db("rethinkdb").table("server_config").update({"name": "xyz"}, return_changes=True))
    assert (answer["replaced"], answer["changes"][0]["new_val"]["name"]) == (1, "xyz")
    line = world.run(LOGS.order_by("timestamp").nth(-1).pluck("level", "message", "server"))
    assert line == {"level": "info", "message": "Changed server's name from `small` to `xyz`.", "server": "xyz"}
    world.run(r.db("rethinkdb").table("server_config").update({"tags": ["default", "a"]}))
    assert world.run(LOGS.count()) == 1


def test_a_long_line_is_cut(recent: RecentLog) -> None:
    logging.getLogger("rewinddb.test").error("x" * 100_000)
    assert len(recent.lines[-1].message) == MAX_LINE_CHARACTERS


def test_an_issue_as_long_as_the_log_cannot_be_written(world: SmallWorld, tape: Tape) -> None:
    logger = logging.getLogger("rewinddb.test")
    logger.info("fine")
    assert world.run(ISSUES.count()) == 0
    tape.is_full = True
    logger.info("lost")
    issue = world.run(ISSUES.nth(0))
    assert (issue["type"], issue["critical"]) == ("log_write_error", False)
    assert issue["info"] == {"message": "[Errno 28] No space left on device", "servers": ["small"]}
    assert world.run(ISSUES.get(issue["id"])) == issue
    tape.is_full = False
    logger.info("fine again")
    assert world.run(ISSUES.count()) == 0
    assert world.run(LOGS["message"]) == ["fine", "lost", "fine again"]


def test_time_as_an_id() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000000000"
