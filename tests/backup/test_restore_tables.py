"""Partial restores equal the tables' rows at that moment, whatever their names were before and after."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backup.plan import NoBaseImage, Stop, plan_restore
from backup.restore import plan_from
from backup.restore_tables import NotThen, choose, narrowed, rebuild_tables, source_of, survey
from backup.selection import TableName, parse_name
from backup.shelf import look
from backup.timeline import parse_moment
from backup.vault import Vault
from model.effect import PUT_ROW, Kind
from model.errors import UnfitArchive
from model.keys import primary_key_bytes
from storage.image import Image
from tests.backup.past_ledger import History, random_history


def rows_of(folder: Path, table_id: int) -> dict[bytes, bytes]:
    with Image(folder) as image:
        return {key: row for block in image.blocks(table_id) for key, row in zip(block.keys, block.rows, strict=True)}


@pytest.mark.parametrize("seed", range(10, 14))
def test_chosen_tables_equal_the_model(tmp_path: Path, seed: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, seed, entries=400)
    shelf = look(vault)
    oldest = min(image.log_index for image in shelf.images)
    compared = 0
    for index in range(oldest, history.last_index + 1, 11):
        model = history.states[index].by_name()
        if not model:
            continue
        source = source_of(vault, plan_restore(shelf.images, shelf.slices, Stop(index=index)))
        surveyed = survey(source)
        wanted = history.dice.sample(sorted(model), history.dice.randrange(1, min(3, len(model)) + 1))
        tables = choose(surveyed, [TableName(*name) for name in wanted])
        folder = tmp_path / f"at{index}"
        rebuilt = rebuild_tables(source, surveyed, tables, folder, lambda *_: None)
        assert {tuple(table.name) for table in rebuilt} == set(wanted)
        for table in rebuilt:
            modelled = model[table.name.database, table.table.name]
            assert rows_of(folder, table.table.table_id) == modelled.rows
            assert table.rows == len(modelled.rows)
            assert set(table.table.indexes) == set(modelled.indexes)
            assert (table.table.write_hook is not None) == modelled.hook
            compared += len(modelled.rows)
    assert compared > 200
    history.close()


def test_a_whole_database_and_what_there_was_not(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.write((int(Kind.CREATE_TABLE), 2, "t2", "d", "notes", "id", {}))
    history.image(vault)
    history.write((PUT_ROW, 1, primary_key_bytes(1), b'{"id":1}'))
    history.write((int(Kind.DROP_TABLE), 1))
    history.ship(vault)
    source = source_of(vault, plan_from(vault, parse_moment("before-drop:shop.orders", 0)).plan)
    surveyed = survey(source)
    assert [table.name for table in choose(surveyed, [TableName("shop")])] == ["orders", "notes"]
    assert [table.name for table in choose(surveyed, [])] == ["orders", "notes"]
    with pytest.raises(NotThen, match=r"no table shop.late .* shop.notes, shop.orders"):
        choose(surveyed, [TableName("shop", "late")])
    with pytest.raises(NotThen, match=r"no database stock .* databases shop"):
        choose(surveyed, [TableName("stock")])
    with pytest.raises(NotThen, match=r"no table shop\.orders"):
        choose(
            survey(source_of(vault, plan_from(vault, parse_moment("latest", 0)).plan)), [TableName("shop", "orders")]
        )
    history.close()


def test_only_slices_that_touch_a_table_are_read(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.write((int(Kind.CREATE_TABLE), 2, "t2", "d", "notes", "id", {}))
    history.image(vault)
    history.write((PUT_ROW, 2, primary_key_bytes(1), b'{"id":1}'))
    for at in range(2000):
        history.write((PUT_ROW, 1, primary_key_bytes(at), b'{"id":%d}' % at))
    history.ship(vault)
    source = source_of(vault, plan_from(vault, parse_moment("latest", 0)).plan)
    surveyed = survey(source)
    assert len(source.plan.replays) > 50
    assert len(narrowed(source, surveyed, [2]).replays) < 30
    assert narrowed(source, surveyed, []).replays == ()
    rebuild_tables(source, surveyed, choose(surveyed, [TableName("shop", "notes")]), tmp_path / "notes", no_progress)
    assert rows_of(tmp_path / "notes", 2) == {primary_key_bytes(1): b'{"id":1}'}
    history.close()


def test_an_image_of_some_tables_restores_them(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.write((int(Kind.CREATE_TABLE), 2, "t2", "d", "notes", "id", {}))
    history.write((PUT_ROW, 1, primary_key_bytes(1), b'{"id":1}'), (PUT_ROW, 2, primary_key_bytes(1), b'{"id":1}'))
    name = history.image(vault, "shop.orders")
    history.write((PUT_ROW, 1, primary_key_bytes(2), b'{"id":2}'), (PUT_ROW, 2, primary_key_bytes(2), b'{"id":2}'))
    history.ship(vault)

    def restored(moment: str, *wanted: str) -> dict[str, dict[bytes, bytes]]:
        source = source_of(vault, plan_from(vault, parse_moment(moment, 0), None, wanted).plan)
        surveyed = survey(source)
        tables = choose(surveyed, [parse_name(text) for text in wanted])
        folder = tmp_path / f"{moment.replace(':', '-')}-{len(wanted)}"
        rebuild_tables(source, surveyed, tables, folder, no_progress)
        return {table.name: rows_of(folder, table.table_id) for table in tables}

    one, two = ({primary_key_bytes(n): b'{"id":%d}' % n} for n in (1, 2))
    assert restored(f"image:{name}") == {"orders": one}
    assert restored(f"image:{name}", "shop.orders") == {"orders": one}
    assert restored("latest", "shop.orders") == {"orders": one | two}
    for moment, wanted in (("latest", ()), ("latest", ("shop",)), (f"image:{name}", ("shop.notes",))):
        with pytest.raises(NoBaseImage, match="nor of all that is wanted"):
            restored(moment, *wanted)
    history.close()


@pytest.mark.parametrize(
    "row", [b"[1]", b'{"id":2}', b"{}", b'{"id":1', b'{"id":{}}', b"\xff", b"[" * 3000, b'"x"', b'{"id":null}']
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, row: bytes) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = History(tmp_path, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    history.image(vault)
    history.write((PUT_ROW, 1, primary_key_bytes(1), row))
    history.ship(vault)
    source = source_of(vault, plan_from(vault, parse_moment("latest", 0)).plan)
    surveyed = survey(source)
    with pytest.raises(UnfitArchive, match=r"shop\.orders"):
        rebuild_tables(source, surveyed, choose(surveyed, []), tmp_path / "out", no_progress)
    assert not list(tmp_path.glob("out*"))
    history.close()


def test_a_damaged_block_or_slice_leaves_nothing(tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, 20, entries=200)
    shelf = look(vault)
    source = source_of(vault, plan_restore(shelf.images, shelf.slices, Stop(newest=True)))
    surveyed = survey(source)
    chosen = choose(surveyed, [])
    ids = {table.table_id for table in chosen}
    blocks = [table.blocks[0] for table in source.plan.image.tables if table.blocks and table.table_id in ids]
    path = tmp_path / "vault" / blocks[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    with pytest.raises(UnfitArchive, match="damaged"):
        rebuild_tables(source, surveyed, chosen, tmp_path / "out", no_progress)
    assert not list(tmp_path.glob("out*"))
    history.close()


def no_progress(what: str, done: int, total: int) -> None:
    """Nobody looks."""
