"""Secondary indexes: entries follow rows at every moment, also while the index is being constructed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from model.catalog import Index, Table
from model.effect import Kind
from model.index_function import Decode, Fields, IndexFunction, Rows
from storage import sindex as sindex_module
from storage.engine import Engine
from storage.machine import Machine
from storage.sindex import TAGS, entry_keys
from tests.storage.storage_ledger import Ledger, delete, index_function, keys_of_text, new_index, put


class Clock:
    """A clock that goes on by a second whenever it is read."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def entries(ledger: Ledger, index_id: int = 2) -> list[tuple[bytes, bytes]]:
    return list(ledger.machine.store.scan_index(index_id))


def expected(ledger: Ledger, index_id: int = 2) -> list[tuple[bytes, bytes]]:
    """The entries worked out from the rows."""
    store = ledger.machine.store
    table = store.catalog.tables[1]
    index = next(index for index in table.indexes.values() if index.index_id == index_id)
    function = index_function(table, index)
    return sorted(
        (entry[5:], key)
        for key, row in store.scan(1)
        for entry in entry_keys(b"i0000", keys_of_text(function, row), key)
    )


def test_entries_follow_rows(ledger: Ledger) -> None:
    ledger.add(new_index(1, 2, "n"))
    ledger.build()
    ledger.add(put(1, b"a", id="a", n=5), put(1, b"b", id="b"), put(1, b"c", id="c", n=1))
    assert entries(ledger) == [(b"N00000001\0c", b"c"), (b"N00000005\0a", b"a")]
    ledger.add(put(1, b"a", id="a", n=0), put(1, b"b", id="b", n=9), delete(1, b"c"))
    assert entries(ledger) == [(b"N00000000\0a", b"a"), (b"N00000009\0b", b"b")]
    low, high = b"N00000005", b"N00000010"
    assert ledger.machine.store.scan_index_chunk(2, low, high, 10) == ([b"N00000009\0b"], [b"b"])
    assert list(ledger.machine.store.scan_index(2, reverse=True)) == entries(ledger)[::-1]


def test_a_multi_index_holds_a_row_once_for_each_equal_key(ledger: Ledger) -> None:
    ledger.add(new_index(1, 2, "n", multi=True))
    ledger.build()
    ledger.add(put(1, b"a", id="a", n=[3, 3, 1, 3]))
    assert [key for key, _ in entries(ledger)] == [
        b"N00000001\0a",
        b"N00000003\0a",
        b"N00000003\0a\0\1",
        b"N00000003\0a\0\2",
    ]
    ledger.add(put(1, b"a", id="a", n=[3, 3]), put(1, b"b", id="b", n=[3]))
    assert [key for key, _ in entries(ledger)] == [b"N00000003\0a", b"N00000003\0a\0\1", b"N00000003\0b"]


def test_equal_keys_beyond_the_tags_are_not_told_apart() -> None:
    assert len(entry_keys(b"i0000", [b"k"] * (TAGS + 5), b"pk")) == TAGS


def test_construction_goes_in_slices_while_rows_change(engine: Engine) -> None:
    clock = Clock()
    machine = Machine(engine, index_function, clock)
    ledger = Ledger(machine)
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(*(put(1, b"%04d" % n, id=n, n=n % 10) for n in range(0, 200, 2)))
    ready: list[int] = []
    machine.on_index_ready = ready.append
    ledger.add(new_index(1, 2, "n"))
    store = machine.store
    progress = [store.index_progress(2)]
    number = 0
    while machine.build_step(1.0):
        assert not store.index_ready(2) and machine.indexes_waiting == [2]
        progress.append(store.index_progress(2))
        number += 1
        at_cursor = max((key for _, key in entries(ledger)), default=b"9999")
        ledger.add(
            put(1, at_cursor, id=0, n=79),
            put(1, b"%04d" % number, id=number, n=77),  # before the cursor
            put(1, b"%04d" % (200 - number), id=-number, n=78),  # after it
            delete(1, b"%04d" % (number * 2)),
            delete(1, b"%04d" % (200 - 4 * number)),
        )
    assert len(progress) > 5 and progress == sorted(progress) and progress[0] == 0.0
    assert ready == [2] and store.index_ready(2) and store.index_progress(2) == 1.0
    assert entries(ledger) == expected(ledger)


def test_construction_begins_again_after_a_restart(engine: Engine) -> None:
    ledger = Ledger(Machine(engine, index_function, Clock()))
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(*(put(1, b"%04d" % n, id=n, n=n % 10) for n in range(50)), new_index(1, 2, "n"))
    assert ledger.machine.build_step(1.0)
    assert entries(ledger)
    ledger.machine = Machine(engine, index_function)
    assert not ledger.machine.store.index_ready(2)
    ledger.add(delete(1, b"0000"))
    ledger.build()
    assert entries(ledger) == expected(ledger)
    assert Machine(engine, index_function).store.index_ready(2)


def test_dropping_while_constructing(engine: Engine) -> None:
    ledger = Ledger(Machine(engine, index_function, Clock()))
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(*(put(1, b"%04d" % n, id=n, n=n % 10) for n in range(50)), new_index(1, 2, "n"), new_index(1, 3, "id"))
    assert ledger.machine.build_step(1.0)
    ledger.add((Kind.DROP_INDEX, 1, 2))
    assert entries(ledger) == [] and ledger.machine.indexes_waiting == [3]
    assert ledger.machine.build_step(1.0)
    ledger.add((Kind.DROP_TABLE, 1))
    assert not ledger.machine.build_step()
    assert entries(ledger, 3) == []


def test_without_a_port_indexes_wait(engine: Engine) -> None:
    """As when a restore loads rows first: nothing is built, and a ready index is not left wrong."""
    ledger = Ledger(Machine(engine, index_function))
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(put(1, b"a", id=1, n=1), new_index(1, 2, "n"))
    ledger.build()
    ledger.machine = Machine(engine)
    assert ledger.machine.store.index_ready(2)
    ledger.add(put(1, b"a", id=1, n=2), put(1, b"b", id=2, n=2))
    assert not ledger.machine.store.index_ready(2)
    assert not ledger.machine.build_step()
    ledger.machine = Machine(engine, index_function)
    assert ledger.machine.indexes_waiting == [2]
    ledger.build()
    assert entries(ledger) == expected(ledger) and len(entries(ledger)) == 2


def test_renaming_leaves_entries_alone(ledger: Ledger) -> None:
    ledger.add(put(1, b"a", id=1, n=1), new_index(1, 2, "n"))
    ledger.build()
    before = entries(ledger)
    ledger.add((Kind.RENAME_INDEX, 1, 2, "other"))
    assert entries(ledger) == before and ledger.machine.store.index_ready(2)
    assert ledger.machine.store.index_progress(99) == 0.0


@pytest.mark.parametrize("rows", [0, 256, 512])
def test_tables_that_fill_slices_exactly(ledger: Ledger, rows: int) -> None:
    ledger.add(*(put(1, b"%04d" % n, id=n, n=n) for n in range(rows)))
    ledger.add(new_index(1, 2, "n"))
    ledger.build()
    assert len(entries(ledger)) == rows and ledger.machine.store.index_ready(2)


def test_an_index_is_asked_only_about_rows_whose_change_touches_its_fields(engine: Engine) -> None:
    asked: list[int] = []

    def counting(table: Table, index: Index) -> IndexFunction:
        function = index_function(table, index)

        def note(rows: Rows) -> list[list[bytes]]:
            asked.extend(index.index_id for _ in rows)
            return function.keys_of(rows)

        return function._replace(keys_of=note, fields=None if index.index_id == 4 else function.fields)

    ledger = Ledger(Machine(engine, counting))
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(new_index(1, 2, "n"), new_index(1, 3, "m"))
    ledger.build()
    ledger.add(put(1, b"a", id=1, n=1, m=1, other=1))
    asked.clear()
    ledger.add(put(1, b"a", id=1, n=1, m=1, other=2))
    assert not asked
    ledger.add(put(1, b"a", id=1, n=1, m=2, other=2))
    assert set(asked) == {3} and entries(ledger, 3) == expected(ledger, 3) != []
    ledger.add(new_index(1, 4, "other"))  # of which nobody says what it looks at
    ledger.build()
    asked.clear()
    ledger.add(put(1, b"a", id=1, n=1, m=2, other=3))
    assert set(asked) == {4} and entries(ledger, 4) == expected(ledger, 4) != []
    ledger.add((Kind.DROP_INDEX, 1, 3))
    asked.clear()
    ledger.add(put(1, b"a", id=1, n=2, m=3, other=3), delete(1, b"b"))
    assert set(asked) == {2, 4} and entries(ledger) == expected(ledger) != []
    ledger.add(delete(1, b"a"))
    assert entries(ledger) == entries(ledger, 4) == []


class Reads:
    """Counts the rows that index functions have decoded."""

    rows = 0

    def function(self, table: Table, index: Index) -> IndexFunction:
        function = index_function(table, index)

        def decoder(fields: Fields | None) -> Decode:
            decode = function.decoder(fields)

            def counting(texts: Sequence[bytes]) -> Rows:
                self.rows += len(texts)
                return decode(texts)

            return counting

        return function._replace(decoder=decoder)


def table_of_rows(machine: Machine, rows: int) -> Ledger:
    ledger = Ledger(machine)
    ledger.add((Kind.CREATE_DATABASE, "db-1", "test"), (Kind.CREATE_TABLE, 1, "u", "db-1", "t", "id", {}))
    ledger.add(*(put(1, b"%04d" % n, id=n, n=n % 10, m=n % 7, tags=[n % 3, n % 5]) for n in range(rows)))
    return ledger


def test_indexes_created_at_once_are_constructed_out_of_one_reading(engine: Engine) -> None:
    reads = Reads()
    ledger = table_of_rows(Machine(engine, reads.function, Clock()), 400)
    ledger.add(new_index(1, 2, "n"))
    assert ledger.machine.build_step(1.0)  # the first one has begun when the others come
    ahead = ledger.machine.store.index_progress(2) * 400
    ledger.add(new_index(1, 3, "m"), new_index(1, 4, "tags", multi=True))
    while ledger.machine.build_step(1.0):
        if ledger.machine.store.index_progress(3) * 400 <= ahead:
            assert ledger.machine.store.index_progress(2) * 400 == ahead
        else:
            assert ledger.machine.store.index_progress(2) == ledger.machine.store.index_progress(3)
    assert reads.rows == 400 + ahead < 2 * 400
    for index_id in (2, 3, 4):
        assert entries(ledger, index_id) == expected(ledger, index_id) != [] and ledger.machine.store.index_ready(
            index_id
        )
    reads.rows = 0
    ledger.add(put(1, b"0000", id=0, n=9, m=9, tags=[9]))
    assert reads.rows == 2, "the old row and the new one, for all three indexes"


def test_an_index_that_is_far_ahead_does_not_wait(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sindex_module, "CATCH_UP_ROWS", 30)
    ledger = table_of_rows(Machine(engine, index_function, Clock()), 200)
    ledger.add(new_index(1, 2, "n"))
    while ledger.machine.store.index_progress(2) * 200 <= 30:
        assert ledger.machine.build_step(1.0)
    ledger.add(new_index(1, 3, "m"), new_index(1, 4, "n"))
    while not ledger.machine.store.index_ready(2):
        assert ledger.machine.store.index_progress(3) == 0.0
        assert ledger.machine.build_step(1.0)
    ledger.build()
    for index_id in (2, 3, 4):
        assert entries(ledger, index_id) == expected(ledger, index_id) != []


@pytest.mark.parametrize("seed", range(20))
def test_indexes_that_come_at_any_time_agree_with_the_rows_that_they_have_passed(engine: Engine, seed: int) -> None:
    dice = random.Random(seed)
    machine = Machine(engine, index_function, Clock())
    ledger = table_of_rows(machine, 150)
    index_id = 1
    while index_id < 6 or machine.indexes_waiting:
        if index_id < 6 and dice.random() < 0.4:
            index_id += 1
            field = dice.choice(["n", "m", "tags"])
            ledger.add(new_index(1, index_id, field, multi=field == "tags"))
        if dice.random() < 0.05 and machine.indexes_waiting:
            ledger.add((Kind.DROP_INDEX, 1, dice.choice(machine.indexes_waiting)))
        for _ in range(dice.randrange(4)):
            key = dice.randrange(160)
            if dice.random() < 0.3:
                ledger.add(delete(1, b"%04d" % key))
            else:
                ledger.add(put(1, b"%04d" % key, id=key, n=dice.randrange(10), m=dice.randrange(9), tags=[key % 4]))
        machine.build_step(float(dice.randrange(1, 9)))
        waiting = machine.indexes_waiting
        for index in machine.catalog.tables[1].indexes.values():
            sindex = machine._sindexes[index.index_id]
            passed = [
                (e, key) for e, key in expected(ledger, index.index_id) if sindex.is_ready or key <= sindex.cursor
            ]
            assert entries(ledger, index.index_id) == passed
            assert sindex.is_ready == (index.index_id not in waiting)
