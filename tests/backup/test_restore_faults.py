"""What a restore comes to when its vault fails at any point, and when the clock that the log tells of made steps."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backup.plan import Stop, plan_restore
from backup.rebuild import rebuild
from backup.restore_tables import choose, rebuild_tables, source_of, survey
from backup.selection import TableName
from backup.shelf import look
from backup.vault import Vault
from model.errors import RewindError
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine
from tests.backup.faults import READS, Fault, Killed, at_operation, make_faulty
from tests.backup.past_ledger import SETTINGS, History, random_history, rows_in


def nothing(*_: object) -> None:
    """Nobody wants to know how far it is."""


def rows_at(folder: Path) -> dict[tuple[str, str], dict[bytes, bytes]]:
    machine = Machine(RocksEngine(folder, SETTINGS))
    try:
        return dict(rows_in(machine))
    finally:
        machine.close()


def failures(url: str, kind: str, restore: Callable[[Vault], None], folder: Path) -> int:
    """Restores with a fault at the first read, at the second, and so on; how many restores failed of it.

    What fails leaves nothing; `restore` checks what comes through in spite of it, as when another image will do.
    """
    names = ("cat_file",) if kind == "flip" else READS
    failed = 0
    for number in range(1, 500):
        struck: list[str] = []
        fault = at_operation(number, kind, names)

        def noted(name: str, fault: Fault = fault, struck: list[str] = struck) -> str | None:
            struck.extend(filter(None, [outcome := fault(name)]))
            return outcome

        try:
            restore(make_faulty(Vault(url), noted))
        except (RewindError, Killed):
            assert not folder.exists()
            failed += 1
            continue
        shutil.rmtree(folder)
        if not struck:
            return failed
    pytest.fail("it never came through")


@pytest.mark.parametrize("kind", ["before", "flip", "kill"])
def test_a_fault_at_any_read_leaves_nothing_of_a_whole_restore(tmp_path: Path, kind: str) -> None:
    vault, folder = Vault(f"file://{tmp_path}/vault"), tmp_path / "back"
    history = random_history(tmp_path / "server", vault, 3, entries=120)

    def restore(faulty: Vault) -> None:
        shelf = look(faulty)
        rebuild(faulty, plan_restore(shelf.images, shelf.slices, Stop(index=history.last_index)), folder, nothing)
        assert rows_at(folder) == {name: table.rows for name, table in history.model.by_name().items()}

    assert failures(vault.url, kind, restore, folder) > 2
    history.close()


@pytest.mark.parametrize("kind", ["before", "flip", "kill"])
def test_a_fault_at_any_read_leaves_nothing_of_a_restore_of_tables(tmp_path: Path, kind: str) -> None:
    vault, folder = Vault(f"file://{tmp_path}/vault"), tmp_path / "back"
    history = random_history(tmp_path / "server", vault, 4, entries=120)
    wanted = max(history.model.by_name(), key=lambda name: len(history.model.by_name()[name].rows))

    def restore(faulty: Vault) -> None:
        shelf = look(faulty)
        source = source_of(faulty, plan_restore(shelf.images, shelf.slices, Stop(index=history.last_index)))
        surveyed = survey(source)
        [back] = rebuild_tables(source, surveyed, choose(surveyed, [TableName(*wanted)]), folder, nothing)
        with Image(folder) as image:
            found = {
                key: row for block in image.blocks(back.table.table_id) for key, row in zip(*block[1:], strict=True)
            }
        assert found == history.model.by_name()[wanted].rows

    assert failures(vault.url, kind, restore, folder) > 2
    history.close()


class Stepping(History):
    """Its clock goes an hour ahead for a while, and once 20 s back."""

    def time_ms(self, index: int) -> int:
        ahead = 3_600_000 if 40 <= index < 60 else 0
        return 1_000_000 + index * 1000 + ahead - (20_000 if index >= 90 else 0)


def test_a_time_is_never_exceeded_whatever_the_clock_did(tmp_path: Path) -> None:
    """What comes back is a whole state of the past, with nothing in it that was written later than asked for."""
    vault = Vault(f"file://{tmp_path}/vault")
    history = Stepping(tmp_path / "server", random.Random(8))
    history.write(*history.create_database())
    history.write(*history.create_table())
    for stop in (20, 50, 75, 100, 130):
        while history.last_index < stop:
            history.write(*history.rows())
        history.ship(vault)
        if stop < 130:
            history.image(vault)
    shelf = look(vault)
    times = {history.time_ms(index) + late for index in range(20, 131, 5) for late in (0, 500)}
    last_ms = history.time_ms(history.last_index)
    reached = set()
    for time_ms in sorted(time_ms for time_ms in times if time_ms <= last_ms):
        plan = plan_restore(shelf.images, shelf.slices, Stop(time_ms=time_ms))
        folder = tmp_path / f"at{time_ms}"
        index = rebuild(vault, plan, folder, nothing).log_index
        reached.add(index)
        assert history.time_ms(index) <= time_ms
        assert index == history.last_index or history.time_ms(index + 1) > time_ms
        assert rows_at(folder) == {name: table.rows for name, table in history.states[index].by_name().items()}
    assert len(reached) > 10
    history.close()
