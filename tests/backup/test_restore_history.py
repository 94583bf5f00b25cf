"""Every version of a document is told, once, with its entry of the log; single documents come back by key."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.history import (
    CHANGED,
    CREATED,
    DELETED,
    DROPPED,
    STOOD,
    Era,
    documents_at,
    eras_of,
    find_rows,
    versions,
    with_own_log,
)
from backup.manifest import Block, TableImage
from backup.own_log import own_log
from backup.plan import Stop, plan_restore
from backup.restore import read_entries
from backup.restore_tables import NotThen, choose, source_of, survey
from backup.selection import TableName
from backup.shelf import look
from backup.timeline import chain_from
from backup.vault import Vault
from consensus.logstore import LogStore
from consensus.messages import ConfState, Entry
from model.effect import DELETE_ROW, PUT_ROW, Kind
from model.keys import primary_key_bytes
from tests.backup.past_ledger import History, random_history


def eras(vault: Vault) -> list[Era]:
    return eras_of(look(vault), partial(read_entries, vault))


def finder(vault: Vault):
    return lambda image, table, keys: find_rows(vault, table, keys)


@pytest.mark.parametrize("seed", range(30, 33))
def test_versions_are_those_of_the_model(tmp_path: Path, seed: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, seed, entries=400)
    known = eras(vault)
    assert len(known) == 1
    oldest = known[0].plan.image.log_index
    names = {name for state in history.states.values() for name in state.by_name()}
    told = 0
    for name in sorted(names)[:6]:
        for number in (0, 7, 13):
            key = primary_key_bytes(number)
            found = [
                (version.log_index, version.table_id, version.row)
                for version in versions(known, TableName(*name), key, finder(vault))
                if version.change != STOOD
            ]
            by_entry = sorted(found, key=lambda version: version[:2])  # tables that one entry writes come in any order
            assert by_entry == expected_versions(history, oldest, name, key)
            assert [version[0] for version in found] == [version[0] for version in by_entry]
            told += len(found)
    assert told > 20
    history.close()


def expected_versions(history: History, oldest: int, name: tuple[str, str], key: bytes):
    bearers: set[int] = set()
    for index in range(oldest, history.last_index + 1):
        state = history.states[index]
        bearers |= {at for at, table in state.tables.items() if (state.databases[table.database], table.name) == name}
    changes = []
    for index in range(oldest + 1, history.last_index + 1):
        before, after = history.states[index - 1].tables, history.states[index].tables
        for table_id in sorted(bearers):
            old = before[table_id].rows.get(key) if table_id in before else None
            new = after[table_id].rows.get(key) if table_id in after else None
            if old != new:
                changes.append((index, table_id, new))
    return changes


def small_history(folder: Path, vault: Vault) -> History:
    history = History(folder, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":1}'))
    history.image(vault)
    return history


def test_the_story_of_one_document(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = small_history(tmp_path, vault)
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":2}'))
    history.write((PUT_ROW, 1, primary_key_bytes(8), b'{"id":8}'))
    history.write((DELETE_ROW, 1, primary_key_bytes(7)))
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":3}'))
    history.write((int(Kind.DROP_TABLE), 1), (int(Kind.DROP_DATABASE), "d"))
    history.ship(vault)
    told = versions(eras(vault), TableName("shop", "orders"), primary_key_bytes(7), finder(vault))
    assert [(version.log_index, version.change) for version in told] == [
        (3, STOOD),
        (4, CHANGED),
        (6, DELETED),
        (7, CREATED),
        (8, DROPPED),
    ]
    assert told[1].as_plain() == {
        "log_index": 4,
        "time": "1970-01-01T00:00:04.000Z",
        "change": "changed",
        "table": "shop.orders",
        "row": {"id": 7, "v": 2},
        "gap": False,
    }
    assert versions(eras(vault), TableName("shop", "orders"), primary_key_bytes(70), finder(vault)) == []
    with pytest.raises(NotThen, match=r"no table shop\.notes"):
        versions(eras(vault), TableName("shop", "notes"), primary_key_bytes(7), finder(vault))
    history.close()


def test_what_a_gap_hides_is_said(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = small_history(tmp_path, vault)
    history.write((PUT_ROW, 1, primary_key_bytes(8), b'{"id":8}'))
    history.ship(vault)
    history.write((DELETE_ROW, 1, primary_key_bytes(7)))
    history._shipped = history.last_index
    history.image(vault)
    history.write((PUT_ROW, 1, primary_key_bytes(8), b'{"id":8,"v":1}'))
    history.ship(vault)
    known = eras(vault)
    assert len(known) == 2
    seven = versions(known, TableName("shop", "orders"), primary_key_bytes(7), finder(vault))
    assert [(v.log_index, v.change, v.gap) for v in seven] == [(3, STOOD, False), (5, DELETED, True)]
    eight = versions(known, TableName("shop", "orders"), primary_key_bytes(8), finder(vault))
    assert [(v.log_index, v.change, v.gap) for v in eight] == [(4, CREATED, False), (6, CHANGED, True)]
    history.close()


def test_since_leaves_out_what_is_before(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, 40, entries=200)
    shelf = look(vault)
    newest = max(image.log_index for image in shelf.images)
    [era] = eras_of(shelf, partial(read_entries, vault), Stop(index=newest + 1))
    assert era.plan.image.log_index == newest
    [era] = eras_of(shelf, partial(read_entries, vault), Stop(index=1))
    assert era.plan.image.log_index == min(image.log_index for image in shelf.images)
    history.close()


def test_a_servers_own_log_goes_on_where_the_vault_ends(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = small_history(tmp_path, vault)
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":2}'))
    history.ship(vault)
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":3}'))
    history.write((PUT_ROW, 1, primary_key_bytes(7), b'{"id":7,"v":4}'))
    store = LogStore(tmp_path / "log")
    store.bootstrap(ConfState(voters=(1,)))
    store.append([Entry(index, term, data=payload) for index, term, _, payload in history.log], None, None)
    store.close()
    shelf, read = own_log(tmp_path / "log", history.last_index - 1, [("d", "shop")], 10_000)
    own = Era(chain_from(shelf.images[0], shelf.slices), read)
    name = TableName("shop", "orders")
    joined = versions(with_own_log(eras(vault), own), name, primary_key_bytes(7), finder(vault))
    assert [(v.log_index, v.change) for v in joined] == [(3, CREATED), (4, CHANGED), (5, CHANGED)]
    history.image(vault)
    late = eras_of(look(vault), partial(read_entries, vault), Stop(newest=True))
    assert [era.plan.image.log_index for era in late] == [6]
    both = versions(with_own_log(late, own), name, primary_key_bytes(7), finder(vault))
    assert [(v.log_index, v.change, v.gap) for v in both] == [
        (3, CREATED, False),
        (4, CHANGED, False),
        (5, CHANGED, False),
        (6, STOOD, True),
    ]
    alone = versions([own], name, primary_key_bytes(7), finder(vault))
    assert [(v.log_index, v.change) for v in alone] == [(3, CREATED), (4, CHANGED), (5, CHANGED)]
    history.close()


@pytest.mark.parametrize("seed", range(50, 52))
def test_single_documents_equal_the_model(tmp_path: Path, seed: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, seed, entries=300)
    shelf = look(vault)
    oldest = min(image.log_index for image in shelf.images)
    keys = [primary_key_bytes(number) for number in range(0, 40, 3)]
    for index in range(oldest, history.last_index + 1, 19):
        source = source_of(vault, plan_restore(shelf.images, shelf.slices, Stop(index=index)))
        surveyed = survey(source)
        for table in choose(surveyed, []):
            rows = history.states[index].tables[table.table_id].rows
            found = documents_at(source, surveyed, table, keys, finder(vault))
            assert found == {key: rows.get(key) for key in keys}
    history.close()


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=6), max_size=12),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_rows_are_found_in_any_blocks(blocks: list[list[int]], wanted: list[int]) -> None:
    vault = Vault("memory://found")
    numbers = sorted({number for block in blocks for number in block})
    parts, at = [], 0
    for block in blocks:
        parts.append(numbers[at : at + len(block)])
        at += len(block)
    stored = []
    for place, part in enumerate(part for part in parts if part):
        keys = [primary_key_bytes(number) for number in part]
        rows = [b'{"id":%d}' % number for number in part]
        name = f"images/x/{place}"
        vault.delete(name)
        sha256, size = vault.put(name, msgspec.msgpack.encode((keys, rows)))
        stored.append(Block(name, len(rows), 0, size, sha256))
    table = TableImage(1, "t1", "shop", "orders", len(numbers), 0, "", tuple(stored))
    found = find_rows(vault, table, {primary_key_bytes(number) for number in wanted})
    assert found == {primary_key_bytes(n): b'{"id":%d}' % n for n in wanted if n in numbers}
