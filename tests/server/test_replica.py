"""The data port of queries: what waits for what, and in which order."""

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import given
from hypothesis import strategies as st

from model.catalog import Catalog
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Kind, decode, decode_stored, with_rows
from model.errors import LeadershipLost, NotLeader, Overloaded
from model.packed_rows import pack_rows
from server.gathering import MAX_BYTES, MAX_ROWS
from server.replica import SOFT_WAITING_BYTES, Replica


class SlowLog:
    """A log whose entries are applied when the test says so."""

    def __init__(self, catalog, fibers):
        self.catalog = catalog
        self.fibers = fibers
        self.applied_index = 0
        self.can_serve = self.has_lease = self.takes_proposals = True
        self.entries = []
        self.waiting = []
        self.reads = []
        self.refusal = None  # of proposals
        self.turn_begins = lambda: None

    def propose(self, payload):
        if self.refusal is not None:
            raise self.refusal
        self.entries.append(payload)
        return len(self.entries), 1

    def before_turn(self, call):
        self.turn_begins = call

    def turn(self):
        call, self.turn_begins = self.turn_begins, lambda: None
        call()

    def when_applied(self, log_index, raft_term, done):
        if log_index <= self.applied_index:
            done(None)
        else:
            self.waiting.append((log_index, done))

    def read_index(self, done):
        self.reads.append(done)

    def apply(self, up_to=None, error=None):
        self.turn()
        for index in range(self.applied_index + 1, (up_to or len(self.entries)) + 1):
            for effect in decode(self.entries[index - 1]).effects:
                if effect[0] >= Kind.CREATE_DATABASE:
                    self.catalog.apply(effect)
            self.applied_index = index
        self.on_applied(self.applied_index)
        ready = [done for index, done in self.waiting if index <= self.applied_index]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.applied_index]
        for done in ready:
            done(error)
        self.fibers.go_on()


class NoRows:
    """An applied state with a catalog and nothing else."""

    def __init__(self):
        self.catalog = Catalog()
        self.get = self.get_many = self.scan_rows = self.scan_index_chunk = self.scan_index_rows = None
        self.count = self.index_ready = self.index_progress = None


class Head:
    def __init__(self):
        self.staged = []
        self.gathered = {}
        self.get = self.get_many = None

    def stage(self, log_index, effects):
        assert not self.gathered
        self.staged.append((log_index, effects))

    def staged_at(self, table_id, key):
        return max(
            (at for at, effects in self.staged for effect in effects if effect[1:3] == (table_id, key)), default=0
        )

    def settle(self, applied_index):
        self.staged = [staged for staged in self.staged if staged[0] > applied_index]

    def drop(self):
        self.staged = []
        self.gathered.clear()


class Switching:
    """`wait_for` for greenlets of the test. What may go on goes on at `go_on`, as on a reactor's next turn."""

    def __init__(self):
        self.ready = []
        self.current = None

    def wait_for(self, begin, timeout_s=None):
        me, result = getcurrent(), []

        def done(error, value=None):
            result.append((error, value))
            self.ready.append(me)

        begin(done)
        while not result:
            me.parent.switch()
        error, value = result[0]
        if error:
            raise error
        return value

    def go_on(self):
        while self.ready:
            query = self.ready.pop(0)
            if not query.dead:
                query.switch()


class Run(greenlet):
    """A query: runs until it waits; `result` once it has ended."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.ended = False
        self.result = None
        self._work = (function, arguments)
        self.switch()

    def run(self):
        function, arguments = self._work
        try:
            self.result = function(*arguments)
        except Exception as error:
            self.result = error
        self.ended = True


@pytest.fixture
def world():
    return make_world()


def make_world():
    rows, head, fibers = NoRows(), Head(), Switching()
    log = SlowLog(rows.catalog, fibers)
    replica = Replica(log, rows, head, fibers, lambda: 1000)
    log.on_applied = replica.settle
    return log, head, replica


ROW = [(PUT_ROW, 1, b"k", b"{}")]


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


def create(name):
    def change(catalog, unused):
        if name in catalog.databases:
            raise KeyError(name)
        return [(Kind.CREATE_DATABASE, f"uuid-{name}", name)], unused()

    return change


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


# -- writes that share an entry


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
