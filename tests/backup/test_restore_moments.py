"""Invariant 6: a restore to any log index equals what a model says of that moment, row for row."""

from __future__ import annotations

import random
from pathlib import Path

import orjson
import pytest

from backup.plan import NoBaseImage, Stop, plan_restore
from backup.rebuild import rebuild
from backup.restore import plan_from
from backup.sealing import Keyring, new_key
from backup.shelf import look
from backup.timeline import parse_moment
from backup.vault import Vault
from model.effect import PUT_ROW, Effect, Kind
from model.errors import Overloaded
from model.keys import primary_key_bytes
from storage.engine import WriteSet
from storage.machine import Machine
from storage.rocks import RocksEngine
from tests.backup.past_ledger import SETTINGS, History, Model, random_history, rows_in


def restored(vault: Vault, stop: Stop, folder: Path) -> tuple[int, Machine]:
    shelf = look(vault)
    rebuilt = rebuild(vault, plan_restore(shelf.images, shelf.slices, stop, shelf.marks), folder, lambda *_: None)
    return rebuilt.log_index, Machine(RocksEngine(folder, SETTINGS))


def assert_equals(machine: Machine, model: Model) -> None:
    """Names, definitions, rows and counts."""
    expected = model.by_name()
    found = dict(rows_in(machine))
    assert found == {name: table.rows for name, table in expected.items()}
    catalog = machine.catalog
    assert set(catalog.databases) == set(model.databases.values())
    for table in catalog.tables.values():
        modelled = model.tables[table.table_id]
        assert machine.store.count(table.table_id) == len(modelled.rows)
        assert {name: index.index_id for name, index in table.indexes.items()} == modelled.indexes
        assert (table.write_hook is not None) == modelled.hook


@pytest.mark.parametrize("seed", range(6))
def test_every_kth_moment_equals_the_model(tmp_path: Path, seed: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]) if seed % 2 else None)
    history = random_history(tmp_path, vault, seed)
    oldest = min(image.log_index for image in look(vault).images)
    for index in range(oldest, history.last_index + 1, 23):
        reached, machine = restored(vault, Stop(index=index), tmp_path / f"at{index}")
        assert reached == index
        assert_equals(machine, history.states[index])
        machine.close()
    reached, machine = restored(vault, Stop(newest=True), tmp_path / "newest")
    assert machine.store.state_hash() == history.machine.store.state_hash()
    machine.close()
    with pytest.raises(NoBaseImage):
        restored(vault, Stop(index=oldest - 1), tmp_path / "before")
    history.close()


def test_numbers_of_dropped_tables_are_not_given_again(tmp_path: Path) -> None:
    """The image has no table any more, but knows which numbers there were: feeds and indexes go by them."""
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 7, "t7", "d", "orders", "id", {}), (int(Kind.DROP_TABLE), 7))
    history.image(vault)
    history.ship(vault)
    _, machine = restored(vault, Stop(newest=True), tmp_path / "newest")
    assert machine.catalog.next_id == history.machine.catalog.next_id == 8
    machine.close()
    history.close()


def test_a_ring_holds_in_every_moment(tmp_path: Path) -> None:
    """Each row points to the next; an entry swaps three links or moves money, so any cut between entries is whole."""
    nodes, dice = 12, random.Random(5)
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, dice)
    history.write((int(Kind.CREATE_DATABASE), "d", "ring"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "nodes", "id", {}))
    following = {at: (at + 1) % nodes for at in range(nodes)}
    money = dict.fromkeys(range(nodes), 100)

    def put(*changed: int) -> list[Effect]:
        return [
            (PUT_ROW, 1, primary_key_bytes(at), b'{"id":%d,"money":%d,"next":%d}' % (at, money[at], following[at]))
            for at in changed
        ]

    history.write(*put(*range(nodes)))
    for turn in range(150):
        if turn in (20, 90):
            history.ship(vault)
            history.image(vault)
        one, two = dice.sample(range(nodes), 2)
        amount = dice.randrange(50)
        money[one] -= amount
        money[two] += amount
        first = dice.randrange(nodes)
        second = following[first]
        third = following[second]
        following[first], following[second], following[third] = third, following[third], second
        history.write(*put(*{one, two, first, second, third}))
    history.ship(vault)
    for index in range(25, history.last_index + 1, 9):
        _, machine = restored(vault, Stop(index=index), tmp_path / f"at{index}")
        rows = {key: row for _, table in rows_in(machine) for key, row in table.items()}
        machine.close()
        assert_ring(rows, nodes)
    history.close()


def assert_ring(rows: dict[bytes, bytes], nodes: int) -> None:
    found = {row["id"]: row for row in map(orjson.loads, rows.values())}
    assert sum(row["money"] for row in found.values()) == 100 * nodes
    at, seen = 0, set()
    while at not in seen:
        seen.add(at)
        at = found[at]["next"]
    assert (at, len(seen)) == (0, nodes)


def test_damage_is_named_where_it_leaves_no_image(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path / "server", random.Random(1))
    history.steps(5)
    name = history.image(vault)
    assert plan_from(vault, parse_moment("latest", 0)).plan.image.image == name
    (tmp_path / "vault" / "images" / name / "manifest").write_bytes(b"nothing of the kind")
    with pytest.raises(NoBaseImage, match=f"since damaged: 1, first images/{name}/manifest"):
        plan_from(vault, parse_moment("latest", 0))
    history.close()


def test_a_restore_waits_where_the_engine_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, 3)
    write, stalls = RocksEngine.write, {0, *(image.log_index for image in look(vault).images)}

    def stalling(engine: RocksEngine, changes: WriteSet, applied_index: int) -> None:
        if applied_index not in stalls:
            stalls.add(applied_index)
            raise Overloaded("the storage engine is behind with its compactions")
        write(engine, changes, applied_index)

    monkeypatch.setattr("backup.rebuild.STALL_RETRY_S", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RocksEngine, "write", stalling)
        reached, machine = restored(vault, Stop(newest=True), tmp_path / "newest")
    assert reached == history.last_index in stalls
    assert machine.store.state_hash() == history.machine.store.state_hash()
    machine.close()
    history.close()
