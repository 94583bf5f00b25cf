"""Hard writes of one row share an entry: in which order it stands, and what becomes of them when it is refused."""

import pytest

from model.effect import DELETE_ROW, PUT_ROW, decode
from model.errors import NotLeader, Overloaded
from server.gathering import MAX_BYTES, MAX_ROWS
from tests.server.replica_world import ROW, Run, create, make_world


@pytest.fixture
def world():
    return make_world()


def put(key, row=b"{}"):
    return (PUT_ROW, 1, key, row)


def effects_of(log):
    return [[tuple(effect) for effect in decode(payload).effects] for payload in log.entries]


def test_hard_writes_of_one_row_share_the_entry_of_a_turn(world):
    log, head, replica = world
    gone = (DELETE_ROW, 1, b"b")
    queries = [Run(replica.commit, [effect], "hard") for effect in (put(b"a"), gone, put(b"a", b"[]"))]
    assert log.entries == []
    assert head.gathered == {(1, b"a"): b"[]", (1, b"b"): None}
    log.turn()
    assert effects_of(log) == [[put(b"a"), gone, put(b"a", b"[]")]]
    assert head.gathered == {}
    assert not any(query.ended for query in queries)
    later = Run(replica.commit, [put(b"c")], "hard")
    log.turn()
    log.apply(1)
    assert [query.result for query in queries] == [None] * 3
    assert not later.ended
    assert len(log.entries) == 2


def test_who_asks_late_how_a_shared_entry_ended_is_told(world):
    log, _, replica = world
    begin, told = replica.promise(ROW, "hard"), []
    log.turn()
    log.apply()
    begin(told.append)
    assert told == [None]


@pytest.mark.parametrize(
    "other",
    [
        lambda replica: replica.commit([put(b"soft")], "soft"),
        lambda replica: replica.commit([put(b"one"), put(b"two")], "hard"),
        lambda replica: replica.commit_later([put(b"later")]),
        lambda replica: replica.change_catalog(create("a")),
    ],
)
def test_whatever_else_is_proposed_comes_after_what_was_gathered(world, other):
    log, _, replica = world
    first = Run(replica.commit, [put(b"first")], "hard")
    Run(other, replica)
    assert effects_of(log)[0] == [put(b"first")]
    assert len(log.entries) == 2
    log.apply()
    assert first.ended
    assert len(log.entries) == 2


@pytest.mark.parametrize("wait", [lambda replica: replica.confirm(), lambda replica: replica.sync(1)])
def test_what_was_gathered_is_waited_for_like_what_was_proposed(world, wait):
    log, _, replica = world
    Run(replica.commit, ROW, "hard")
    waiting = Run(wait, replica)
    assert len(log.entries) == 1
    assert not waiting.ended
    log.apply()
    assert waiting.ended
    assert waiting.result is None


@pytest.mark.parametrize("error", [NotLeader("it moved"), Overloaded("too much"), MemoryError()])
def test_gathered_writes_that_are_refused_have_one_fate(world, error):
    log, head, replica = world
    queries = [Run(replica.commit, [put(key)], "hard") for key in (b"a", b"b")]
    late = replica.promise([put(b"c")], "hard")
    log.refusal = error
    log.turn()
    log.fibers.go_on()
    assert [query.result for query in queries] == [error, error]
    told = []
    late(told.append)
    assert told == [error]
    assert head.gathered == {}
    log.refusal = None
    again = Run(replica.commit, [put(b"a")], "hard")
    log.apply()
    assert again.ended
    assert again.result is None
    assert effects_of(log) == [[put(b"a")]]


@pytest.mark.parametrize(
    "other",
    [
        lambda replica: replica.commit([put(b"one"), put(b"two")], "hard"),
        lambda replica: replica.change_catalog(create("a")),
        lambda replica: replica.confirm(),
        lambda replica: replica.sync(1),
    ],
)
def test_who_has_seen_what_is_refused_fails_with_it(world, other):
    log, _, replica = world
    query = Run(replica.commit, ROW, "hard")
    log.refusal = Overloaded("too much")
    seen = Run(other, replica)
    log.fibers.go_on()
    assert seen.result is log.refusal
    assert query.result is log.refusal
    assert log.entries == []


def test_with_leadership_what_is_gathered_is_refused(world):
    log, head, replica = world
    query = Run(replica.commit, ROW, "hard")
    replica.drop()
    log.fibers.go_on()
    assert isinstance(query.result, NotLeader)
    assert head.gathered == {}
    log.turn()
    assert log.entries == []


def test_what_was_gathered_is_refused_where_the_server_leads_no_more_when_the_turn_begins(world):
    log, _, replica = world
    query = Run(replica.commit, ROW, "hard")
    log.can_serve = False
    log.turn()
    log.fibers.go_on()
    assert isinstance(query.result, NotLeader)
    assert log.entries == []


@pytest.mark.parametrize(("row", "count"), [(b"{}", MAX_ROWS), (bytes(MAX_BYTES // 2), 2)])
def test_an_entry_that_is_full_does_not_wait_for_the_turn(world, row, count):
    log, _, replica = world
    queries = [Run(replica.commit, [put(b"%d" % n, row)], "hard") for n in range(count + 1)]
    assert [len(effects) for effects in effects_of(log)] == [count]
    log.turn()
    assert [len(effects) for effects in effects_of(log)] == [count, 1]
    log.apply()
    assert all(query.ended for query in queries)


def test_while_the_lead_is_handed_over_each_write_is_refused_by_itself(world):
    log, head, replica = world
    log.fibers.current = "fiber"
    log.takes_proposals = False
    log.refusal = NotLeader("handed over")
    query = Run(replica.commit, ROW, "hard")
    assert query.result is log.refusal
    assert head.gathered == {}
    assert replica.writers == set()


def test_who_was_refused_has_not_written(world):
    log, _, replica = world
    for name in ("before", "only here"):
        log.fibers.current = name
        if name == "before":
            replica.commit(ROW, "soft")
        Run(replica.commit, ROW, "hard")
    assert replica.writers == {"before", "only here"}
    log.refusal = NotLeader("it moved")
    log.turn()
    assert replica.writers == {"before"}


def test_who_only_waits_for_others_writes_has_not_written(world):
    log, _, replica = world
    Run(replica.commit, ROW, "hard")
    log.fibers.current = "idle"
    assert not Run(replica.confirm).ended
    assert len(log.entries) == 1
    assert replica.writers == set()
