"""Laws of applying: any engine, any chunking, any crash and replay come to the same state."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.effect import PUT_ROWS, Batch, Effect, Kind, decode, decode_stored, encode, unpacked, with_rows
from model.packed_rows import pack_rows
from storage.engine import Engine, MemoryEngine
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.sindex import entry_keys
from tests.storage.storage_ledger import (
    NEW_DATABASE,
    SMALL,
    delete,
    index_function,
    keys_of_text,
    new_index,
    new_table,
    put,
    row,
)

TABLES = st.integers(1, 3)
KEYS = st.sampled_from([b"%02d" % number for number in range(12)])
NUMBERS = st.one_of(st.none(), st.integers(0, 4), st.lists(st.integers(0, 3), max_size=4))
INDEXES = st.builds(lambda table, number: (table, 10 * table + number), TABLES, st.integers(0, 2))

EFFECTS: st.SearchStrategy[Effect] = st.one_of(
    st.builds(lambda table, key, n: put(table, key, id=key.decode(), n=n), TABLES, KEYS, NUMBERS),
    st.builds(lambda table, key, n: put(table, key, id=key.decode(), n=n), TABLES, KEYS, NUMBERS),
    st.builds(delete, TABLES, KEYS),
    st.one_of(
        st.builds(new_table, TABLES),
        st.builds(lambda table: (Kind.DROP_TABLE, table), st.just(3)),
        st.builds(lambda index, multi: new_index(index[0], index[1], "n", multi), INDEXES, st.booleans()),
        st.builds(lambda index, multi: new_index(index[0], index[1], "n", multi), INDEXES, st.booleans()),
        st.builds(lambda index: (Kind.DROP_INDEX, *index), INDEXES),
        st.builds(lambda index: (Kind.RENAME_INDEX, *index, f"index{index[1]}"), INDEXES),
        st.builds(lambda table, n: (Kind.ALTER_TABLE, table, {"n": n}), TABLES, st.integers(0, 3)),
        st.builds(lambda key, n: (Kind.PUT_SYSTEM, "users", key, {"n": n}), st.sampled_from("ab"), st.integers(0, 3)),
        st.builds(lambda key: (Kind.DELETE_SYSTEM, "users", key), st.sampled_from("ab")),
    ),
)
PACKED_ROWS: st.SearchStrategy[Effect] = st.builds(
    lambda table, keys, n: (PUT_ROWS, table, pack_rows(keys, [row(id=key.decode(), n=n) for key in keys])),
    TABLES,
    st.one_of(st.lists(KEYS), st.lists(KEYS, unique=True).map(sorted)),
    NUMBERS,
)
PAYLOADS = st.one_of(
    st.lists(EFFECTS, max_size=6).map(lambda effects: encode(effects, 5) if effects else b""),
    st.lists(EFFECTS, max_size=6).map(lambda effects: encode(effects, 5) if effects else b""),
    PACKED_ROWS.map(lambda effect: encode([effect], 5)),
)
HISTORIES = (
    st.integers(0, 40)
    .flatmap(lambda length: st.lists(PAYLOADS, min_size=length, max_size=length))
    .map(lambda payloads: list(enumerate([encode([NEW_DATABASE, new_table(1), new_table(2)], 1), *payloads], 1)))
)
CUTS = st.lists(st.integers(1, 9), max_size=12)
Entries = list[tuple[int, bytes]]


def feed(machine: Machine, entries: Entries, cuts: list[int]) -> None:
    at = 0
    for cut in [*cuts, len(entries)]:
        machine.apply(entries[at : at + cut])
        at += cut


def check(machine: Machine) -> None:
    """Counts are exact, and every finished index is what its rows say."""
    store = machine.store
    for table in store.catalog.tables.values():
        rows = list(store.scan(table.table_id))
        assert store.count(table.table_id) == len(rows)
        for index in table.indexes.values():
            function = index_function(table, index)
            if store.index_ready(index.index_id):
                expected = sorted(
                    (e[5:], key) for key, row in rows for e in entry_keys(b"i0000", keys_of_text(function, row), key)
                )
                assert list(store.scan_index(index.index_id)) == expected
    assert store.catalog.databases == Machine(machine.engine).catalog.databases


def state(machine: Machine) -> tuple[str, Any, int]:
    return machine.store.state_hash(), machine.catalog.databases, machine.applied_index


def on_rocks(work: Callable[[Engine], Any]) -> Any:
    folder = Path(tempfile.mkdtemp(prefix="machine-laws-"))
    engine = RocksEngine(folder / "db", SMALL)
    try:
        return work(engine)
    finally:
        engine.close()
        shutil.rmtree(folder)


@given(HISTORIES)
def test_packed_rows_are_as_many_single_rows(entries: Entries) -> None:
    packed, single = Machine(MemoryEngine(), index_function), Machine(MemoryEngine(), index_function)
    feed(packed, entries, [])
    feed(single, [(at, encode(decode(payload).effects, 5) if payload else b"") for at, payload in entries], [])
    check(packed)
    assert state(packed) == state(single)


@given(HISTORIES, CUTS, CUTS)
def test_any_chunking_gives_the_same_state(entries: Entries, cuts: list[int], other_cuts: list[int]) -> None:
    one, other = Machine(MemoryEngine(), index_function), Machine(MemoryEngine(), index_function)
    feed(one, entries, cuts)
    feed(other, entries, other_cuts)
    check(one)
    assert state(one) == state(other)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, CUTS)
def test_both_engines_give_the_same_state(entries: Entries, cuts: list[int]) -> None:
    model = Machine(MemoryEngine(), index_function)
    feed(model, entries, cuts)

    def on_disk(engine: Engine) -> tuple[str, Any, int]:
        machine = Machine(engine, index_function)
        feed(machine, entries, [1])
        check(machine)
        return state(machine)

    assert on_rocks(on_disk) == state(model)


@given(HISTORIES, st.integers(0, 41), st.integers(0, 41), CUTS)
def test_a_crash_and_a_replay_give_the_same_state(entries: Entries, flushed: int, killed: int, cuts: list[int]) -> None:
    whole = Machine(MemoryEngine(), index_function)
    feed(whole, entries, cuts)
    engine = MemoryEngine()
    machine = Machine(engine, index_function)
    machine.apply(entries[:flushed])
    machine.build_step()
    assert machine.flush() == len(entries[:flushed])
    machine.apply(entries[: max(flushed, killed)])
    machine.build_step()
    engine.crash()
    again = Machine(engine, index_function)
    assert again.applied_index == len(entries[:flushed])
    feed(again, entries, cuts)
    while again.build_step():
        pass
    check(again)
    assert state(again) == state(whole)


ROWS = st.lists(
    st.one_of(
        st.builds(lambda table, key, n: put(table, key, id=key.decode(), n=n), TABLES, KEYS, NUMBERS),
        st.builds(delete, TABLES, KEYS),
    ),
    max_size=4,
)
ROWS_OR_PACKED = st.one_of(ROWS, ROWS, PACKED_ROWS.map(lambda effect: [effect]))
PROPOSED = st.lists(st.tuples(ROWS_OR_PACKED, st.sampled_from(["came", "was replaced", "came as a copy"])), max_size=30)


@given(PROPOSED, CUTS, st.integers(0, 5))
def test_what_was_foreseen_and_what_is_decoded_give_the_same_state(
    proposed: list[tuple[list[Effect], str]], cuts: list[int], ahead: int
) -> None:
    machine, model = Machine(MemoryEngine(), index_function), Machine(MemoryEngine(), index_function)
    told: list[tuple[Machine, Any]] = []
    for one in (machine, model):
        one.watched.add(1)  # packed rows of others are put without a look at each
        one.on_changes = lambda *what, one=one: told.append((one, what))
    first = (1, encode([NEW_DATABASE, new_table(1), new_table(2), new_index(1, 7, "n")], 1))
    entries = [first]
    for index, (effects, fate) in enumerate(proposed, 2):
        payload = encode(effects, index)
        assert decode_stored(payload) == Batch(index, effects)
        made = [with_rows(effect, *unpacked(effect)) if effect[0] == PUT_ROWS else effect for effect in effects]
        machine.foresee(index, payload, Batch(index, made))
        if fate == "was replaced":  # by another leader's entry, which this server may have proposed, too
            payload = encode([put(1, b"other", id="other", n=index)], 77)
            if index % 2:
                machine.foresee(index, payload, decode(payload))
        entries.append((index, bytes(bytearray(payload)) if fate == "came as a copy" else payload))
        if index % (ahead + 1) == 0:
            machine.apply(entries)
    feed(machine, entries, cuts)
    feed(model, [(index, bytes(bytearray(payload))) for index, payload in entries], cuts)
    assert state(machine) == state(model)
    assert [what for one, what in told if one is machine] == [what for one, what in told if one is model]


def test_an_entry_that_another_leader_put_there_is_decoded() -> None:
    machine = Machine(MemoryEngine(), index_function)
    machine.apply([(1, encode([NEW_DATABASE, new_table(1)], 1))])
    mine, theirs = [put(1, b"a", id="mine")], [put(1, b"a", id="theirs")]
    machine.foresee(2, encode(mine, 2), Batch(2, mine))
    machine.foresee(3, encode(mine, 3), Batch(3, mine))
    machine.apply([(2, encode(theirs, 2)), (3, encode([], 3))])
    assert machine.store.get(1, b"a") == theirs[0][3]


class Ticks:
    """A clock that lets a slice of construction do a few rows."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@given(HISTORIES, st.lists(st.integers(0, 6), min_size=1, max_size=40))
def test_indexes_are_right_whenever_construction_works(entries: Entries, budgets: list[int]) -> None:
    machine = Machine(MemoryEngine(), index_function, Ticks())
    for number, entry in enumerate(entries):
        machine.apply([entry])
        machine.build_step(budgets[number % len(budgets)])
        check(machine)
    while machine.build_step():
        pass
    check(machine)
    assert all(
        machine.store.index_ready(i.index_id) for t in machine.catalog.tables.values() for i in t.indexes.values()
    )


@given(HISTORIES, st.integers(0, 41))
def test_a_view_does_not_move(entries: Entries, taken: int) -> None:
    machine = Machine(MemoryEngine(), index_function)
    machine.apply(entries[:taken])
    view = machine.store.view()
    before = view.state_hash(), dict(view.catalog.tables), view.applied_index
    counts = [view.count(table) for table in (1, 2, 3)]
    machine.apply(entries)
    assert (view.state_hash(), dict(view.catalog.tables), view.applied_index) == before
    assert [view.count(table) for table in (1, 2, 3)] == counts
