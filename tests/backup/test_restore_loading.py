"""Images are loaded by threads or by processes to the same rows; what does not add up is refused by both."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from backup import image_loading
from backup.image_loading import Loading, runs_of
from backup.manifest import Block
from backup.plan import Plan
from backup.rebuild import image_catalog
from backup.sealing import Keyring, new_key
from backup.shelf import look
from backup.vault import Vault
from model.errors import Corrupt, UnfitArchive
from storage.bulk import BulkLoad, write_sorted
from storage.image import Image
from storage.layout import table_prefix
from tests.backup.past_ledger import SETTINGS, random_history


def no_progress(what: str, done: int, total: int) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("workers", [0, 2])
def test_threads_and_processes_load_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(image_loading, "APART_ROWS", 1)
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]))
    history = random_history(tmp_path, vault, 70, entries=200)
    image = look(vault).images[-1]
    load = BulkLoad(tmp_path / "loaded", SETTINGS)
    seen = []
    Loading(vault, workers, SETTINGS).load(image.tables, load, lambda what, done, total: seen.append((done, total)))
    load.finish(image_catalog(Plan(image, (), None)), image.log_index)
    assert seen[-1] == (image.rows, image.rows)
    state = history.states[image.log_index]
    with Image(tmp_path / "loaded") as found:
        for table_id, table in state.tables.items():
            rows = {key: row for part in found.blocks(table_id) for key, row in zip(part.keys, part.rows, strict=True)}
            assert rows == table.rows
            assert found.count(table_id) == len(table.rows)
    history.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_table_that_does_not_add_up_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(image_loading, "APART_ROWS", 1)
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, 71, entries=150)
    image = look(vault).images[-1]
    table = max(image.tables, key=lambda table: table.rows)
    for wrong in (replace(table, rows=table.rows + 1), replace(table, blocks=())):
        load = BulkLoad(tmp_path / "loaded", SETTINGS)
        with pytest.raises(UnfitArchive, match="does not come back"):
            Loading(vault, workers, SETTINGS).load([wrong], load, no_progress)
        load.cancel()
    path = tmp_path / "vault" / table.blocks[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    load = BulkLoad(tmp_path / "loaded", SETTINGS)
    with pytest.raises(UnfitArchive, match="damaged"):
        Loading(vault, workers, SETTINGS).load([table], load, no_progress)
    load.cancel()
    history.close()


def test_runs_keep_the_order_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_loading, "RUN_BYTES", 100)
    dice = random.Random(1)
    for _ in range(50):
        blocks = [Block(f"b{at}", 1, dice.randrange(80), 0, "") for at in range(dice.randrange(12))]
        runs = list(runs_of(blocks))
        assert [block for run in runs for block in run] == blocks
        assert all(sum(block.row_bytes for block in run) >= 100 for run in runs[:-1])


def test_files_made_elsewhere_are_adopted_in_order_only(tmp_path: Path) -> None:
    load = BulkLoad(tmp_path / "loaded", SETTINGS)
    files = []
    for part in ((b"a", b"b"), (b"c",), (b"b",)):
        file = write_sorted(load.new_file(), 1, [(list(part), [b"{}"] * len(part))], SETTINGS)
        assert file is not None and file.first_key == table_prefix(1) + part[0]
        files.append(file)
    assert write_sorted(load.new_file(), 1, [([], [])], SETTINGS) is None
    load.adopt(files[0])
    load.adopt(files[1])
    with pytest.raises(Corrupt, match="key order"):
        load.adopt(files[2])
    with pytest.raises(Corrupt, match="key order"):
        write_sorted(load.new_file(), 1, [([b"b", b"a"], [b"{}", b"{}"])], SETTINGS)
    assert load.counts == {1: 3}
    load.cancel()
