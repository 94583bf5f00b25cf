"""The head state: what is in flight hides what is applied, until it is applied itself or given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.effect import PUT_ROWS, Effect, Kind, encode
from model.packed_rows import pack_rows
from storage.engine import MemoryEngine
from storage.head import Head
from storage.machine import Machine
from tests.storage.storage_ledger import NEW_DATABASE, Ledger, delete, new_index, new_table, put, row


def machine_with_table() -> Machine:
    machine = Machine(MemoryEngine())
    Ledger(machine).add(NEW_DATABASE, new_table(1), put(1, b"a", id=0))
    return machine


def test_staged_rows_hide_applied_ones_until_settled() -> None:
    machine = machine_with_table()
    head = Head(machine.store)
    assert head.get(1, b"a") == row(id=0)
    head.stage(2, [put(1, b"a", id=1), put(1, b"b", id=2)])
    head.stage(3, [delete(1, b"a")])
    assert [head.staged_at(1, key) for key in (b"a", b"b", b"c")] == [3, 2, 0]
    assert head.get(1, b"a") is None and head.get(1, b"b") == row(id=2) and head.count_in_flight == 3
    machine.apply([(2, encode([put(1, b"a", id=1), put(1, b"b", id=2)], 0))])
    head.settle(2)
    assert head.get(1, b"a") is None and head.get(1, b"b") == row(id=2) and head.count_in_flight == 1
    machine.apply([(3, encode([delete(1, b"a")], 0))])
    head.settle(3)
    assert head.get(1, b"a") is None and head.count_in_flight == 0 and not head.staged_at(1, b"a")


def test_gathered_rows_lie_above_staged_ones_until_their_entry_is_staged_or_refused() -> None:
    head = Head(machine_with_table().store)
    keys = [b"a", b"b", b"c"]
    head.gathered[1, b"a"] = None
    head.gathered[1, b"b"] = row(id=2)
    assert head.get_many(1, keys) == [head.get(1, key) for key in keys] == [None, row(id=2), None]
    head.gathered.clear()
    head.stage(2, [delete(1, b"a"), put(1, b"b", id=2)])
    head.gathered[1, b"b"] = row(id=3)
    assert head.get_many(1, keys) == [head.get(1, key) for key in keys] == [None, row(id=3), None]
    head.gathered.clear()
    assert head.get_many(1, keys) == [head.get(1, key) for key in keys] == [None, row(id=2), None]
    head.gathered[1, b"b"] = None
    head.drop()
    assert head.get_many(1, keys) == [row(id=0), None, None]


def test_dropping_forgets_what_may_never_come() -> None:
    head = Head(machine_with_table().store)
    head.stage(2, [put(1, b"a", id=9), (Kind.DROP_TABLE, 1)])
    assert head.get(1, b"a") is None and head.staged_at(1, b"any row of a table that goes") == 2
    head.drop()
    assert head.get(1, b"a") == row(id=0) and head.count_in_flight == 0
    assert 1 in head.catalog.tables


def test_packed_rows_in_flight_are_seen_hidden_and_forgotten() -> None:
    machine = machine_with_table()
    head = Head(machine.store)
    rows = (PUT_ROWS, 1, pack_rows([b"a", b"b"], [row(id=1), row(id=2)]))
    head.stage(2, [rows])
    head.stage(3, [put(1, b"b", id=3)])
    assert head.staged_at(1, b"a") and head.get(1, b"a") == row(id=1) and head.get(1, b"b") == row(id=3)
    head.stage(4, [rows])
    head.stage(5, [(Kind.DROP_TABLE, 1)])
    assert head.get(1, b"a") is None and head.get(1, b"b") is None
    head.drop()
    assert head.get(1, b"a") == row(id=0) and head.count_in_flight == 0 and not head.staged_at(1, b"b")


def test_a_drop_in_flight_hides_the_rows_and_the_names() -> None:
    machine = machine_with_table()
    head = Head(machine.store)
    head.stage(2, [put(1, b"b", id=2)])
    head.stage(3, [(Kind.DROP_TABLE, 1), new_table(2, "table1")])
    assert head.get(1, b"a") is None and head.get(1, b"b") is None
    assert head.catalog.databases["test"].tables["table1"].table_id == 2 and head.catalog.next_id == 3
    assert machine.catalog.databases["test"].tables["table1"].table_id == 1
    machine.apply([(2, encode([put(1, b"b", id=2)], 0))])
    head.settle(2)
    assert head.get(1, b"b") is None
    machine.apply([(3, encode([(Kind.DROP_TABLE, 1), new_table(2, "table1")], 0))])
    assert head.catalog.databases["test"].tables["table1"].table_id == 2
    head.settle(3)
    assert head.catalog is machine.catalog


def test_a_database_drop_in_flight_hides_tables_of_the_same_entry() -> None:
    head = Head(machine_with_table().store)
    effects: list[Effect] = [new_table(2), new_index(1, 3, "n"), put(2, b"k", id=1), (Kind.DROP_DATABASE, "db-1")]
    head.stage(2, effects)
    assert head.get(2, b"k") is None and head.get(1, b"a") is None and not head.catalog.tables


WRITES = st.lists(st.tuples(st.sampled_from(b"abc"), st.integers(0, 3)), max_size=4)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["", "a", "abc"]), WRITES)))
def test_head_is_the_state_after_everything_staged(
    steps: list[tuple[bool, bool, str, list[tuple[int, int]]]],
) -> None:
    """Staging ahead, applying and settling in any rhythm shows what a machine that applied at once would show.

    Packed rows are unpacked when somebody looks, which may be after later writes were staged, or never.
    """
    late, early = machine_with_table(), machine_with_table()
    head = Head(late.store)
    waiting: list[tuple[int, bytes]] = []
    for index, (is_applied_now, is_packed, looked_at, writes) in enumerate(steps, 2):
        effects = [put(1, b"%c" % key, id=value) if value else delete(1, b"%c" % key) for key, value in writes]
        if is_packed:
            effects = [(PUT_ROWS, 1, pack_rows([b"%c" % key for key, _ in writes], [row(id=n) for _, n in writes]))]
        entry = (index, encode(effects, 0))
        early.apply([entry])
        head.stage(index, effects)
        waiting.append(entry)
        if is_applied_now:
            late.apply(waiting)
            waiting = []
            head.settle(index)
        for key in looked_at:
            assert head.get(1, key.encode()) == early.store.get(1, key.encode())
            assert head.get_many(1, [key.encode()]) == [early.store.get(1, key.encode())]
            assert head.get(1, key.encode()) == late.store.get(1, key.encode()) or head.staged_at(1, key.encode())
    late.apply(waiting)
    head.settle(len(steps) + 1)
    assert head.count_in_flight == 0 and late.store.state_hash() == early.store.state_hash()
    assert not any(head.staged_at(1, key) for key in (b"a", b"b", b"c"))


def test_many_rows_are_what_each_of_them_is() -> None:
    machine = machine_with_table()
    head = Head(machine.store)
    keys = [b"a", b"b", b"c"]
    assert head.get_many(1, keys) == [row(id=0), None, None]
    head.stage(2, [put(1, b"b", id=2), delete(1, b"a")])
    assert head.get_many(1, keys) == [head.get(1, key) for key in keys] == [None, row(id=2), None]
    head.stage(3, [(Kind.DROP_TABLE, 1)])
    assert head.get_many(1, keys) == [None, None, None]
