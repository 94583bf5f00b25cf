"""Compactions wait while they are held, and nobody waits for them in vain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from model.errors import Overloaded
from storage.compactions import COMPACTIONS, NICENESS, THREAD
from storage.engine import WriteSet
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

SMALL = RocksSettings(cache_bytes=8 << 20, memtable_bytes=4 << 20)
FILES = 9  # of level 0: RocksDB compacts four


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """They are all engines' of this process, those of other tests as well."""
    yield
    COMPACTIONS.let_go()


def write_files(engine: RocksEngine, files: int) -> None:
    """Files of level 0 with the same keys."""
    for index in range(1, files + 1):
        changes = WriteSet()
        for number in range(100):
            changes.put(b"r%06d" % number, os.urandom(100))
        engine.write(changes, index)
        engine.flush()


def files_of_level_0(engine: RocksEngine) -> int:
    return int(engine._db.property_value("rocksdb.num-files-at-level0"))


def nicenesses() -> list[int]:
    tasks = [task for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text().strip() == THREAD]
    return [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks]


def test_files_pile_up_until_they_are_let_go(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", SMALL)
    COMPACTIONS.hold()
    write_files(engine, FILES)
    assert files_of_level_0(engine) == FILES
    COMPACTIONS.let_go()
    assert set(nicenesses()) == {NICENESS}
    while files_of_level_0(engine) == FILES:
        engine.flush()
    COMPACTIONS.let_go()
    engine.close()


def test_an_engine_is_closed_though_they_are_held(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", SMALL)
    COMPACTIONS.hold()
    write_files(engine, FILES)
    engine.close()
    again = RocksEngine(tmp_path / "db", SMALL)
    assert again.applied_index == FILES
    again.close()


def test_an_engine_that_stalls_lets_them_go(tmp_path: Path) -> None:
    tiny = RocksSettings(cache_bytes=1 << 20, memtable_bytes=64 << 10, memtables=2)
    engine = RocksEngine(tmp_path / "db", tiny, lambda pause_s: None)
    COMPACTIONS.hold()
    changes = WriteSet()
    for number in range(900):
        changes.put(b"r%06d" % number, os.urandom(200))
    written = 0
    with suppress(Overloaded):
        while COMPACTIONS.are_held and written < 2000:
            written += 1
            engine.write(changes, written)
    assert not COMPACTIONS.are_held and written > 1
    engine.close()
