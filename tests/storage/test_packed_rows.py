"""Packed rows in the log come to what as many single rows come to, whatever was there, and whenever it stops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from model.effect import PUT_ROWS, Effect, Kind, encode
from model.errors import Overloaded, Unfinished
from model.packed_rows import pack_rows
from storage.engine import Engine, MemoryEngine, WriteSet
from storage.image import Image
from storage.machine import PART_BYTES, PART_ROWS, Change, Machine
from storage.rocks import RocksEngine
from tests.storage.storage_ledger import (
    NEW_DATABASE,
    SMALL,
    Ledger,
    delete,
    index_function,
    new_index,
    new_table,
    put,
    row,
)

MANY = 3 * PART_ROWS + 7


def keys_of(first: int, last: int) -> list[bytes]:
    return [b"%06d" % number for number in range(first, last)]


def rows_of(first: int, last: int) -> dict[bytes, bytes]:
    return {b"%06d" % number: row(id=number, n=number % 7) for number in range(first, last)}


def packed(table_id: int, rows: dict[bytes, bytes]) -> Effect:
    return (PUT_ROWS, table_id, pack_rows(list(rows), list(rows.values())))


class Turns:
    """A clock that is always late."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_many_new_rows(ledger: Ledger) -> None:
    store = ledger.machine.store
    ledger.add(packed(1, rows_of(0, MANY)))
    ledger.add(packed(1, rows_of(MANY, MANY + 5)))
    assert dict(store.scan(1)) == rows_of(0, MANY + 5)
    assert store.count(1) == MANY + 5
    assert Machine(ledger.machine.engine).store.count(1) == MANY + 5


def test_rows_that_replace_others_are_not_counted_twice(ledger: Ledger) -> None:
    store = ledger.machine.store
    ledger.add(put(1, b"000003", id="old"), put(1, b"000004", id="old"), delete(1, b"000004"))
    ledger.add(packed(1, rows_of(0, MANY)))
    ledger.add(packed(1, rows_of(10, MANY + 10)))
    assert dict(store.scan(1)) == rows_of(0, MANY + 10) and store.count(1) == MANY + 10


def test_rows_of_the_same_call_that_are_not_written_yet_count(ledger: Ledger) -> None:
    index = ledger.machine.applied_index
    entries = [[put(1, b"000003", id="old")], [packed(1, rows_of(0, 9))], [delete(1, b"000001")]]
    entries += [[packed(1, rows_of(1, 3))], [packed(1, rows_of(20, 30))]]
    ledger.machine.apply([(index + at, encode(effects, 1)) for at, effects in enumerate(entries, 1)])
    assert dict(ledger.machine.store.scan(1)) == rows_of(0, 9) | rows_of(20, 30)
    assert ledger.machine.store.count(1) == 19


def test_keys_in_any_order_and_twice(ledger: Ledger) -> None:
    keys = [b"b", b"a", b"b"]
    ledger.add((PUT_ROWS, 1, pack_rows(keys, [row(id=1), row(id=2), row(id=3)])))
    assert dict(ledger.machine.store.scan(1)) == {b"a": row(id=2), b"b": row(id=3)}
    assert ledger.machine.store.count(1) == 2


def test_secondary_indexes_are_kept_up(ledger: Ledger) -> None:
    ledger.add(new_index(1, 2, "n"))
    ledger.build()
    ledger.add(packed(1, rows_of(0, 20)))
    assert sorted(key for _, key in ledger.machine.store.scan_index(2)) == keys_of(0, 20)


def test_who_watches_hears_of_each_row(ledger: Ledger) -> None:
    heard: list[Change] = []
    ledger.machine.watched.add(1)
    ledger.machine.on_changes = lambda log_index, time_ms, changes: heard.extend(changes)
    ledger.add(packed(1, rows_of(0, 3)))
    assert heard == [Change(1, key, None, text) for key, text in rows_of(0, 3).items()]


def test_rows_of_a_dropped_table_are_passed_over(ledger: Ledger) -> None:
    ledger.add((Kind.DROP_TABLE, 1))
    before = ledger.machine.store.state_hash()
    ledger.add(packed(1, rows_of(0, 3)))
    assert ledger.machine.store.state_hash() == before and not list(ledger.machine.store.scan(1))


def test_large_rows_go_in_small_parts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Machine(engine))
    ledger.add(NEW_DATABASE, new_table(1))
    written: list[int] = []
    write = engine.write

    def noted(changes: WriteSet, applied_index: int) -> None:
        written.append(sum(len(value or b"") for value in changes.rows.values()))
        write(changes, applied_index)

    monkeypatch.setattr(engine, "write", noted)
    rows = {key: row(text="x" * (PART_BYTES // 3)) for key in keys_of(0, 8)}
    entry = (2, encode([packed(1, rows)], 1))
    while ledger.machine.applied_index < 2:
        with suppress(Overloaded):  # its memtables are small
            ledger.machine.apply([entry])
    assert dict(ledger.machine.store.scan(1)) == rows
    assert max(written) <= PART_BYTES and len(written) >= 4


def test_others_have_turns_and_the_entry_counts_only_when_it_is_whole(engine: Engine) -> None:
    machine = Machine(engine, index_function, Turns())
    ledger = Ledger(machine)
    ledger.add(NEW_DATABASE, new_table(1))
    machine.turn_s = 0.5
    entries = [(2, encode([packed(1, rows_of(0, MANY))], 1)), (3, encode([put(1, b"x", id="x")], 1))]
    turns = 0
    while machine.applied_index < 3:
        try:
            machine.apply(entries)
        except Unfinished:
            turns += 1
            assert machine.applied_index == 1
            assert machine.store.count(1) == len(list(machine.store.scan(1)))
            assert machine.build_step()
            with pytest.raises(Overloaded):
                machine.checkpoint(Path("nowhere"))
    assert turns >= 2
    assert dict(machine.store.scan(1)) == {**rows_of(0, MANY), b"x": row(id="x")}
    assert machine.store.count(1) == MANY + 1


def test_a_checkpoint_that_has_begun_does_not_see_half_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to its lock while the entry is being written in turns: on another thread, it waits, then gives up."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("storage.rocks.WHOLE_WAIT_S", 0.01)
    engine = RocksEngine(tmp_path / "db", SMALL)
    machine = Machine(engine, index_function, Turns())
    Ledger(machine).add(NEW_DATABASE, new_table(1))
    machine.turn_s = 0.5
    entries = [(2, encode([packed(1, rows_of(0, MANY))], 1))]
    while not machine.store.count(1):
        with pytest.raises(Unfinished):
            machine.apply(entries)
    with ThreadPoolExecutor(1) as other:
        with pytest.raises(Overloaded):
            other.submit(engine.checkpoint, tmp_path / "half").result()
        assert not (tmp_path / "half").exists()
        machine.turn_s = None
        machine.apply(entries)
        assert other.submit(engine.checkpoint, tmp_path / "whole").result() == 2
    with Image(tmp_path / "whole") as image:
        assert image.count(1) == MANY
    machine.close()


@pytest.mark.parametrize("stops", range(1, 7))
def test_a_crash_between_two_parts_loses_and_doubles_nothing(tmp_path: Path, stops: int) -> None:
    """The engine may have flushed any of them: the entry is applied again over its own beginning."""
    whole = Machine(MemoryEngine(), index_function)
    Ledger(whole).add(NEW_DATABASE, new_table(1))
    entries = [(2, encode([packed(1, rows_of(0, MANY))], 1)), (3, encode([packed(1, rows_of(5000, 5010))], 1))]
    whole.apply(entries)
    machine = Machine(RocksEngine(tmp_path / "db", SMALL), index_function, Turns())
    Ledger(machine).add(NEW_DATABASE, new_table(1))
    machine.turn_s = 0.5
    for _ in range(stops):
        try:
            machine.apply(entries)
        except Unfinished:
            machine.flush()
    machine.close()
    again = Machine(RocksEngine(tmp_path / "db", SMALL), index_function)
    again.apply(entries)
    assert again.store.state_hash() == whole.store.state_hash()
    again.close()
