"""The engines that the same tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.engine import Engine, MemoryEngine
from storage.machine import Machine
from storage.rocks import RocksEngine
from tests.storage.storage_ledger import NEW_DATABASE, SMALL, Ledger, index_function, new_table


@pytest.fixture(params=["memory", "rocks"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = MemoryEngine() if request.param == "memory" else RocksEngine(tmp_path / "db", SMALL)
    yield made
    made.close()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    machine = Machine(engine, index_function)
    made = Ledger(machine)
    made.add(NEW_DATABASE, new_table(1))
    return made
