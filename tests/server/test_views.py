"""Views: fixed moments, few of them, and none left open for ever."""

import pytest

from model.effect import PUT_ROW, Kind, encode
from model.errors import ReqlOpFailedError, ReqlResourceLimitError
from server.views import IDLE_S, MAX_VIEWS, Views
from storage.engine import MemoryEngine
from storage.machine import Machine


class Now:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


@pytest.fixture
def machine():
    machine = Machine(MemoryEngine())
    effects = [(Kind.CREATE_DATABASE, "d", "db"), (Kind.CREATE_TABLE, 1, "t", "d", "table", "id", {})]
    machine.apply([(1, encode([*effects, (PUT_ROW, 1, b"a", b"1")], 0))])
    return machine


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def views(machine, now):
    return Views(machine.store.view, now)


def test_a_view_stays_as_it_was(machine, views):
    views.open("v")
    machine.apply([(2, encode([(PUT_ROW, 1, b"a", b"2"), (Kind.DROP_DATABASE, "d")], 0))])
    data = views.data("v")
    assert (data.get(1, b"a"), data.count(1), list(data.catalog.databases)) == (b"1", 1, ["db"])
    assert data.scan_rows(1, None, None, 10) == ([b"1"], b"")
    assert data.applied_index == 1
    assert machine.store.get(1, b"a") is None


def test_a_view_cannot_be_written_to(views):
    views.open("v")
    data = views.data("v")
    for attempt in (lambda: data.commit([], "hard"), lambda: data.change_catalog(None), data.view):
        with pytest.raises(ReqlOpFailedError):
            attempt()


def test_a_view_that_was_let_go_is_gone(views):
    views.open("v")
    views.close("v")
    views.close("v")
    with pytest.raises(ReqlOpFailedError, match="View `v` does not exist"):
        views.data("v")
    assert views.rows() == []


def test_there_are_only_so_many(views):
    for number in range(MAX_VIEWS):
        views.open(number)
    with pytest.raises(ReqlResourceLimitError):
        views.open("one more")
    views.close(0)
    views.open("one more")
    assert len(views.rows()) == MAX_VIEWS


def test_an_idle_view_is_let_go_and_a_used_one_stays(views, now):
    views.open("used")
    views.open("idle")
    data = views.data("used")
    now.s += IDLE_S
    data.scan_rows(1, None, None, 10)
    now.s += 1
    views.drop_idle()
    assert [row["id"] for row in views.rows()] == ["used"]


def test_rows_say_what_a_view_is_of(views):
    views.open("v")
    (row,) = views.rows()
    assert (row["id"], row["log_index"], row["opened"]["epoch_time"]) == ("v", 1, 1000)
