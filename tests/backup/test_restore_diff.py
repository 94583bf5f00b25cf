"""A comparison of two moments says what the model says, table by table and key by key."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from backup.diff import CHANGED, DELETED, INSERTED, Difference, compare
from backup.history import find_rows
from backup.plan import Stop
from backup.restore import read_entries
from backup.restore_tables import NotThen
from backup.selection import TableName
from backup.shelf import look
from backup.vault import Vault
from model.effect import PUT_ROW, Kind
from model.errors import BadSetting
from model.keys import primary_key_bytes
from tests.backup.past_ledger import History, Model, random_history


def difference(vault: Vault, first: int, second: int, *names: TableName) -> Difference:
    def find(image, table, keys):
        return find_rows(vault, table, keys)

    shelf = look(vault)
    return compare(shelf, Stop(index=first), Stop(index=second), partial(read_entries, vault), find, names)


def expected(before: Model, after: Model):
    """{(old name, new name): {key: change} or, for a table that is gone, how many rows it had}"""
    out = {}
    names = [
        {at: name for name, table in model.by_name().items() for at in [_id(model, table)]} for model in (before, after)
    ]
    for at in {*before.tables, *after.tables}:
        old, new = before.tables.get(at), after.tables.get(at)
        pair = (names[0].get(at), names[1].get(at))
        if new is None:
            out[pair] = len(old.rows)
            continue
        was = old.rows if old else {}
        changes = dict.fromkeys(new.rows.keys() - was.keys(), INSERTED)
        changes |= dict.fromkeys(was.keys() - new.rows.keys(), DELETED)
        changes |= {key: CHANGED for key in was.keys() & new.rows.keys() if was[key] != new.rows[key]}
        if changes or pair[0] != pair[1]:
            out[pair] = changes
    return out


def _id(model: Model, wanted) -> int:
    return next(at for at, table in model.tables.items() if table is wanted)


@pytest.mark.parametrize("seed", range(60, 64))
def test_differences_are_those_of_the_model(tmp_path: Path, seed: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, seed, entries=300)
    oldest = min(image.log_index for image in look(vault).images)
    for _ in range(12):
        first, second = sorted(history.dice.choices(range(oldest, history.last_index + 1), k=2))
        found = difference(vault, first, second)
        told = {}
        for table in found.tables:
            pair = (table.before and tuple(table.before), table.after and tuple(table.after))
            told[pair] = table.deleted if table.after is None else dict(table.keys)
            if table.after is not None:
                counts = [list(told[pair].values()).count(change) for change in (INSERTED, DELETED, CHANGED)]
                assert [table.inserted, table.deleted, table.changed] == counts
        assert told == expected(history.states[first], history.states[second])
    history.close()


def test_what_is_shown(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.image(vault)
    for number in range(3):
        history.write((PUT_ROW, 1, primary_key_bytes(number), b'{"id":%d}' % number))
    history.ship(vault)
    shown = difference(vault, 3, 5).as_plain(1)
    assert shown == {
        "from": {"log_index": 3, "time": "1970-01-01T00:00:03.000Z"},
        "to": {"log_index": 5, "time": "1970-01-01T00:00:05.000Z"},
        "tables": [
            {
                "before": "shop.orders",
                "after": "shop.orders",
                "inserted": 2,
                "deleted": 0,
                "changed": 0,
                "keys": [{"key": 1, "change": "inserted"}],
                "more_keys": 1,
            }
        ],
    }
    assert difference(vault, 5, 5).tables == ()
    assert difference(vault, 3, 5, TableName("shop")).tables[0].inserted == 2
    with pytest.raises(NotThen, match=r"no table shop\.notes"):
        difference(vault, 3, 5, TableName("shop", "notes"))
    with pytest.raises(BadSetting, match="before the first"):
        difference(vault, 5, 4)
    history.close()
