"""What applying entries does to rows, counts, the catalog and the listeners, on both engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.effect import Kind, encode
from model.errors import Corrupt, Overloaded
from storage.engine import MemoryEngine, WriteSet
from storage.machine import Change, Machine
from tests.storage.storage_ledger import NEW_DATABASE, Ledger, delete, index_function, new_index, new_table, put, row


def test_rows_and_counts(ledger: Ledger) -> None:
    store = ledger.machine.store
    ledger.add(put(1, b"a", id="a"), put(1, b"b", id="b"), put(1, b"a", id="a", n=1))
    assert store.count(1) == 2
    assert store.get(1, b"a") == row(id="a", n=1)
    ledger.add(delete(1, b"a"), delete(1, b"never"), delete(1, b"a"))
    assert store.count(1) == 1
    assert store.get_many(1, [b"b", b"a"]) == [row(id="b"), None]
    assert list(store.scan(1)) == [(b"b", row(id="b"))]
    assert store.applied_index == 3


def test_an_entry_is_applied_once(ledger: Ledger) -> None:
    first = ledger.add(put(1, b"a", id="a"))
    ledger.add(delete(1, b"a"))
    ledger.machine.apply([(first, encode([put(1, b"a", id="again")], 1))])
    assert ledger.machine.store.get(1, b"a") is None


def test_a_gap_in_the_log_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Corrupt, match="5 came to storage after entry 1"):
        ledger.machine.apply([(5, b"")])


def test_an_empty_payload_only_counts(ledger: Ledger) -> None:
    before = ledger.machine.store.state_hash()
    ledger.machine.apply([(2, b""), (3, b"")])
    assert ledger.machine.applied_index == 3
    assert ledger.machine.store.state_hash() == before


def test_rows_of_a_dropped_table_are_gone_and_later_ones_ignored(ledger: Ledger) -> None:
    ledger.add(new_table(2), new_index(1, 3, "n"), put(2, b"k", id=1), put(1, b"k", id=1, n=1))
    ledger.build()
    ledger.add(put(1, b"l", id=2, n=1), (Kind.DROP_TABLE, 1), put(1, b"m", id=3), new_index(1, 9, "n"))
    ledger.add(put(1, b"n", id=4), (Kind.DROP_TABLE, 1), (Kind.DROP_INDEX, 1, 3))
    store = ledger.machine.store
    assert list(store.scan(1)) == [] and store.count(1) == 0 and store.get(1, b"k") is None
    assert list(store.scan_index(3)) == [] and not store.index_ready(3)
    assert list(store.scan(2)) == [(b"k", row(id=1))]
    assert 1 not in store.catalog.tables


def test_dropping_a_database_drops_its_tables(ledger: Ledger) -> None:
    ledger.add(put(1, b"k", id=1))
    ledger.add((Kind.DROP_DATABASE, "db-1"))
    assert list(ledger.machine.store.scan(1)) == []
    assert not ledger.machine.catalog.databases and not ledger.machine.catalog.tables


def test_the_catalog_is_there_again_after_opening(ledger: Ledger) -> None:
    ledger.add(new_table(2), new_table(7), new_index(2, 5, "n"), (Kind.CREATE_DATABASE, "db-2", "other"))
    ledger.add((Kind.ALTER_TABLE, 2, {"name": "renamed", "database": "db-2", "durability": "soft"}))
    ledger.add((Kind.SET_WRITE_HOOK, 2, {"function": [1, [2]]}), (Kind.RENAME_INDEX, 2, 5, "newer"))
    ledger.add((Kind.PUT_SYSTEM, "users", "admin", {"salt": b"x", "n": [1]}), (Kind.PUT_SYSTEM, "users", "bob", {}))
    ledger.add((Kind.DELETE_SYSTEM, "users", "bob"), (Kind.RENAME_DATABASE, "db-1", "first"), (Kind.DROP_TABLE, 7))
    ledger.add(put(2, b"k", id=1))
    machine = ledger.machine
    again = Machine(machine.engine, index_function)
    assert again.catalog.databases == machine.catalog.databases
    assert again.catalog.tables == machine.catalog.tables
    assert again.catalog.system == machine.catalog.system
    assert again.catalog.next_id == machine.catalog.next_id == 8
    assert again.catalog.tables[2].indexes["newer"].index_id == 5
    assert again.store.count(2) == 1
    assert again.store.state_hash() == machine.store.state_hash()


def test_numbers_are_not_given_again_after_a_drop(ledger: Ledger) -> None:
    ledger.add(new_table(9))
    ledger.machine.store.view().close()
    ledger.add((Kind.DROP_TABLE, 9))
    assert Machine(ledger.machine.engine).catalog.next_id == 10
    view = ledger.machine.store.view()
    assert view.catalog.next_id == 10 and 9 not in view.catalog.tables
    view.close()


def test_repeated_catalog_effects_change_nothing(ledger: Ledger) -> None:
    ledger.add(new_index(1, 3, "n"), put(1, b"k", id=1, n=1))
    ledger.build()
    before = ledger.machine.store.state_hash()
    ledger.add(NEW_DATABASE, new_table(1), new_index(1, 3, "n"))
    assert ledger.machine.store.state_hash() == before
    assert ledger.machine.store.index_ready(3)


def test_an_unknown_effect_stops_the_machine(ledger: Ledger) -> None:
    with pytest.raises(Corrupt, match="unknown kind 99"):
        ledger.add((99, 1))


def test_listeners_hear_of_watched_tables_after_the_fact(ledger: Ledger) -> None:
    machine = ledger.machine
    ledger.add(new_table(2), put(1, b"a", id="a"))
    heard: list[object] = []

    def on_changes(log_index: int, time_ms: int, changes: list[Change]) -> None:
        assert machine.applied_index >= log_index
        heard.append((log_index, time_ms, changes))

    machine.on_changes = on_changes
    machine.on_catalog = heard.append
    machine.watched.add(1)
    index = ledger.add(put(1, b"a", id="A"), put(1, b"a", id="A"), put(2, b"x", id=1), delete(1, b"b"))
    ledger.add((Kind.DROP_TABLE, 2), (Kind.DROP_TABLE, 2))
    assert heard == [
        (index, 1000 + index, [Change(1, b"a", row(id="a"), row(id="A"))]),
        (Kind.DROP_TABLE, 2),
    ]


def test_a_large_entry_goes_in_parts_and_is_right_after_a_crash_between_them(tmp_path: Path) -> None:
    class Crashing(MemoryEngine):
        writes = 0

        def write(self, changes: WriteSet, applied_index: int) -> None:
            assert len(changes.rows) <= 1000
            super().write(changes, applied_index)
            self.writes += 1
            if self.writes == 4:
                self.flush()

    engine = Crashing()
    ledger = Ledger(Machine(engine, index_function))
    ledger.add(NEW_DATABASE, new_table(1), new_index(1, 2, "n"))
    ledger.build()
    ledger.add(*(put(1, b"%05d" % n, id=n, n=n % 7) for n in range(5000)))
    assert engine.writes > 5
    whole = ledger.machine.store
    engine_hash, count = whole.state_hash(), whole.count(1)
    entries = list(whole.scan_index(2))
    engine.crash()
    again = Machine(engine, index_function)
    assert again.applied_index == 1 and 0 < again.store.count(1) < 5000
    again.apply(ledger.entries)
    assert (again.store.state_hash(), again.store.count(1)) == (engine_hash, count)
    assert list(again.store.scan_index(2)) == entries


def test_what_is_staged_is_seen_by_later_effects(ledger: Ledger) -> None:
    """Across the parts of one entry, and behind a drop that is not written yet."""
    many = [put(1, b"%04d" % n, id=n) for n in range(2000)]
    ledger.add(*many, *many, *(delete(1, b"%04d" % n) for n in range(1999)))
    assert ledger.machine.store.count(1) == 1 == len(list(ledger.machine.store.scan(1)))
    ledger.add((Kind.DROP_TABLE, 1), new_table(1), put(1, b"1999", id=1999))
    assert ledger.machine.store.count(1) == 1 == len(list(ledger.machine.store.scan(1)))


def test_courtesy_is_shown_between_the_steps_of_an_entry(ledger: Ledger) -> None:
    steps: list[int] = []
    ledger.machine.courtesy = lambda: steps.append(ledger.machine.applied_index)
    log_index = ledger.add(*(put(1, b"%04d" % n, id=n) for n in range(2000)))
    assert len(steps) >= 6, "before it is decoded, read for, worked out, and before each of three writes"
    assert set(steps) == {log_index - 1}
    assert ledger.machine.store.count(1) == 2000


def test_a_stall_loses_nothing() -> None:
    class Stalling(MemoryEngine):
        stalls = 0

        def write(self, changes: WriteSet, applied_index: int) -> None:
            if self.stalls:
                self.stalls -= 1
                raise Overloaded("stalled")
            super().write(changes, applied_index)

    engine = Stalling()
    machine = Machine(engine, index_function)
    ledger = Ledger(machine)
    ledger.add(NEW_DATABASE, new_table(1))
    heard: list[int] = []
    machine.watched.add(1)
    machine.on_changes = lambda log_index, time_ms, changes: heard.append(log_index)
    entries = [(n, encode([put(1, b"%d" % n, id=n)], n)) for n in range(2, 10)]
    engine.stalls = 2
    for _ in range(2):
        with pytest.raises(Overloaded):
            machine.apply(entries[:4])
        assert machine.applied_index == 1 and machine.store.count(1) == 0 and not heard
        assert machine.build_step()
        with pytest.raises(Overloaded):
            machine.checkpoint(Path("nowhere"))
    machine.apply(entries)
    assert machine.applied_index == 9 and machine.store.count(1) == 8
    assert heard == list(range(2, 10))


def test_views_stay_at_their_moment(ledger: Ledger) -> None:
    ledger.add(put(1, b"a", id=1), new_index(1, 2, "n"))
    view = ledger.machine.store.view()
    ledger.add(put(1, b"a", id=2), put(1, b"b", id=3), new_table(5), (Kind.DROP_INDEX, 1, 2))
    assert list(view.scan(1)) == [(b"a", row(id=1))]
    assert view.count(1) == 1 and 5 not in view.catalog.tables and "index2" in view.catalog.tables[1].indexes
    assert view.applied_index == 2 and view.view() is view
    view.close()


def test_flush_says_what_it_covers(ledger: Ledger) -> None:
    index = ledger.add(put(1, b"a", id=1))
    assert ledger.machine.flush() == index


def test_hashes_ignore_history_and_see_rows(ledger: Ledger) -> None:
    store = ledger.machine.store
    ledger.add(put(1, b"a", id=1), put(1, b"b", id=2), new_table(2))
    first = store.table_hash(1)
    ledger.add(put(2, b"b", id=2))
    ledger.add(put(2, b"a", id=7))
    ledger.add(put(2, b"a", id=1))
    assert store.table_hash(2) == first
    ledger.add(delete(2, b"a"))
    assert store.table_hash(2) != first
