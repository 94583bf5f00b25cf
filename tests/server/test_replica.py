"""The data port of queries: what waits for what, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.effect import PUT_ROW, PUT_ROWS, decode, decode_stored, with_rows
from model.errors import LeadershipLost, NotLeader
from model.packed_rows import pack_rows
from server.replica import SOFT_WAITING_BYTES, Replica
from tests.server.replica_world import ROW, Head, NoRows, Run, SlowLog, Switching, create, make_world


@pytest.fixture
def world():
    return make_world()


def test_a_hard_write_waits_until_it_is_applied(world):
    log, head, replica = world
    query = Run(replica.commit, ROW, "hard")
    log.turn()
    assert head.staged == [(1, ROW)]
    assert not query.ended
    log.apply()
    assert query.ended
    assert query.result is None
    assert head.staged == []
    assert decode(log.entries[0]).time_ms == 1000


def test_the_end_of_a_commit_can_be_waited_for_later(world):
    log, head, replica = world
    first, second = Run(replica.commit_later, ROW), Run(replica.commit_later, ROW)
    assert first.ended
    assert second.ended
    assert len(head.staged) == 2
    waiting = Run(first.result)
    assert not waiting.ended
    log.apply(1)
    assert waiting.ended
    assert waiting.result is None
    log.apply(2, error=LeadershipLost("gone"))
    late = Run(second.result)
    assert late.ended
    assert isinstance(late.result, LeadershipLost)


def test_what_is_at_hand_goes_to_who_applies_it_and_not_into_the_log():
    rows, head, fibers = NoRows(), Head(), Switching()
    foreseen = []
    log = SlowLog(rows.catalog, fibers)
    replica = Replica(log, rows, head, fibers, lambda: 1000, foresee=lambda *what: foreseen.append(what))
    effects = [(PUT_ROWS, 1, pack_rows([b"k"], [b"{}"]))]
    made = [with_rows(effects[0], [b"k"], [b"{}"])]
    Run(replica.commit_later, effects, made)
    assert head.staged == [(1, effects)]
    assert foreseen == [(1, log.entries[0], (1000, made))]
    assert decode_stored(log.entries[0]).effects == effects
    assert decode(log.entries[0]).effects == [(PUT_ROW, 1, b"k", b"{}")]


def test_what_a_write_would_wait_for_can_be_had_instead(world):
    log, head, replica = world
    begin = replica.promise(ROW, "hard")
    log.turn()
    assert head.staged == [(1, ROW)]
    told = []
    begin(told.append)
    assert told == []
    log.apply()
    assert told == [None]


def test_a_soft_write_promises_nothing_until_too_much_waits_for_the_disk(world):
    log, _, replica = world
    assert replica.promise(ROW, "soft") is None
    reader = Run(replica.prepare_read, "single")
    assert not reader.ended
    log.apply()
    assert reader.ended
    assert replica.promise([(PUT_ROW, 1, b"k", bytes(SOFT_WAITING_BYTES))], "soft") is not None


def test_a_soft_write_does_not_wait_but_later_reads_do(world):
    log, _, replica = world
    assert Run(replica.commit, ROW, "soft").ended
    single, majority, outdated = (Run(replica.prepare_read, mode) for mode in ("single", "majority", "outdated"))
    assert [single.ended, majority.ended, outdated.ended] == [False, False, True]
    log.reads[0](None)
    log.fibers.go_on()
    assert not majority.ended
    log.apply()
    assert single.ended
    assert majority.ended
    assert Run(replica.prepare_read, "single").ended


def test_soft_writes_wait_when_too_much_waits_for_the_disk(world):
    log, _, replica = world
    big = [(PUT_ROW, 1, b"k", bytes(SOFT_WAITING_BYTES))]
    waiting = Run(replica.commit, big, "soft")
    assert not waiting.ended
    log.apply()
    assert waiting.ended
    assert Run(replica.commit, ROW, "soft").ended


def test_soft_writes_lost_with_their_leader_do_not_block_reads(world):
    log, _, replica = world
    Run(replica.commit, ROW, "soft")
    reader = Run(replica.prepare_read, "single")
    log.apply(error=LeadershipLost("gone"))
    assert (reader.ended, reader.result) == (True, None)


def test_a_get_waits_for_soft_writes_of_its_own_row_only(world):
    log, _, replica = world
    assert Run(replica.prepare_get, "single", 1, b"other").result is True
    Run(replica.commit, [(PUT_ROW, 1, b"k", b"{}")], "soft")
    assert Run(replica.prepare_get, "single", 1, b"other").result is False
    assert Run(replica.prepare_get, "single", 2, b"k").result is False
    assert Run(replica.prepare_get, "outdated", 1, b"k").result is True
    own = Run(replica.prepare_get, "single", 1, b"k")
    assert not own.ended
    log.apply()
    assert own.result is True
    log.can_serve = False
    assert isinstance(Run(replica.prepare_get, "single", 1, b"other").result, NotLeader)


def test_a_get_waits_for_no_soft_write_after_that_of_its_row(world):
    log, _, replica = world
    for key in (b"k", b"other", b"k2"):
        Run(replica.commit, [(PUT_ROW, 1, key, b"{}")], "soft")
    own, last = (Run(replica.prepare_get, "single", 1, key) for key in (b"k", b"k2"))
    log.apply(1)
    assert own.result is False and not last.ended
    log.apply()
    assert last.result is True


def test_with_leadership_everything_in_flight_is_forgotten(world):
    _, head, replica = world
    Run(replica.commit, [(PUT_ROW, 1, b"k", bytes(SOFT_WAITING_BYTES))], "soft")
    replica.drop()
    assert head.staged == []
    assert Run(replica.commit, ROW, "soft").ended


def test_a_server_that_may_not_serve_refuses_reads_but_outdated_ones(world):
    log, _, replica = world
    log.can_serve = False
    assert isinstance(Run(replica.prepare_read, "single").result, NotLeader)
    assert Run(replica.prepare_read, "outdated").result is None


def test_sync_waits_for_everything_proposed(world):
    log, _, replica = world
    assert Run(replica.sync, 1).ended
    Run(replica.commit, ROW, "soft")
    query = Run(replica.sync, 1)
    assert not query.ended
    log.apply()
    assert query.ended


def test_catalog_changes_take_turns_and_see_each_other(world):
    log, _, replica = world
    first, second, third = (Run(replica.change_catalog, create(name)) for name in ("a", "a", "b"))
    assert len(log.entries) == 1
    log.apply()
    assert first.result == 1
    assert isinstance(second.result, KeyError)
    assert len(log.entries) == 2
    log.apply()
    assert third.result == 1
    assert set(replica.catalog.databases) == {"a", "b"}


def test_a_change_without_effects_writes_nothing(world):
    log, _, replica = world
    assert Run(replica.change_catalog, lambda catalog, unused: ([], "same")).result == "same"
    assert log.entries == []


def test_numbers_are_unused_and_differ(world):
    _, _, replica = world
    replica.catalog.next_id = 7
    assert Run(replica.change_catalog, lambda catalog, unused: ([], [unused(), unused()])).result == [7, 8]


@given(st.lists(st.booleans(), max_size=8))
def test_a_query_that_ends_early_never_keeps_its_turn(killed):
    log, _, replica = make_world()
    queries = [Run(replica.change_catalog, create(f"d{n}")) for n in range(len(killed))]
    for query, is_killed in zip(queries, killed, strict=True):
        if is_killed and not query.ended:
            query.throw(RuntimeError("killed"))
    log.apply()
    while log.applied_index < len(log.entries):
        log.apply()
    last = Run(replica.change_catalog, create("last"))
    log.apply()
    assert last.ended
    assert isinstance(last.result, int)


def test_without_a_lease_a_quorum_is_asked_before_each_read(world):
    log, _, replica = world
    log.has_lease = False
    reader = Run(lambda: replica.prepare_read("single"))
    assert not reader.ended
    log.reads.pop()(None)
    log.fibers.go_on()
    assert reader.ended


def test_a_lease_is_looked_at_anew_after_a_moment_and_after_the_lead_was_lost():
    rows, head, fibers = NoRows(), Head(), Switching()
    log, now = SlowLog(rows.catalog, fibers), [0.0]
    replica = Replica(log, rows, head, fibers, lambda: 1000, lambda: now[0])
    replica.prepare_read("single")
    log.has_lease = False
    now[0] = 0.019
    replica.prepare_read("single")
    now[0] = 0.021
    assert not Run(lambda: replica.prepare_read("single")).ended
    log.has_lease = True
    replica.prepare_read("single")
    log.has_lease = False
    replica.drop()
    assert not Run(lambda: replica.prepare_read("single")).ended


def test_who_has_written_is_known(world):
    log, _, replica = world
    log.fibers.current = "fiber"
    replica.commit(ROW, "soft")
    assert replica.writers == {"fiber"}


def test_a_write_that_finds_nothing_to_do_waits_until_what_it_saw_is_there(world):
    log, _, replica = world
    writer = Run(lambda: replica.commit(ROW, "hard"))
    idle = Run(replica.confirm)
    assert not idle.ended
    log.apply()
    assert writer.ended
    assert idle.ended
    assert idle.result is None


def test_a_write_that_saw_what_was_lost_was_not_done(world):
    log, _, replica = world
    log.fibers.current = "another"
    replica.commit(ROW, "soft")
    log.fibers.current = "this one"
    idle = Run(replica.confirm)
    log.apply(error=LeadershipLost("gone"))
    assert isinstance(idle.result, NotLeader)


def test_a_write_that_finds_nothing_to_do_needs_the_lease_too(world):
    log, _, replica = world
    log.has_lease = False
    idle = Run(replica.confirm)
    assert not idle.ended
    log.reads.pop()(None)
    log.fibers.go_on()
    assert idle.ended
