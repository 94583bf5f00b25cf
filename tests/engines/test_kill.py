"""A process killed in the middle of applying: the log brings the engine to the state it would have had."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from model.effect import Effect, Kind, encode
from storage.engine import MemoryEngine
from storage.machine import Machine
from storage.rocks import RocksEngine
from tests.storage.storage_ledger import SMALL, delete, index_function, new_index, new_table, put

ENTRIES = 6_000


def history(seed: int) -> list[tuple[int, bytes]]:
    """A log as any process would make it again from the same seed."""
    dice = Random(seed)
    first: list[Effect] = [(Kind.CREATE_DATABASE, "db-1", "test"), new_table(1), new_table(2), new_index(1, 3, "n")]
    log = [(1, encode(first, 1))]
    for index in range(2, ENTRIES):
        effects: list[Effect] = []
        for _ in range(dice.choice((1, 1, 1, 3, 40))):
            table, key = dice.randint(1, 2), b"%05d" % dice.randrange(3000)
            if dice.random() < 0.2:
                effects.append(delete(table, key))
            else:
                effects.append(put(table, key, id=key.decode(), n=dice.randrange(50), text="x" * dice.randrange(200)))
        if dice.random() < 0.001:
            effects += [(Kind.DROP_INDEX, 1, index - 1), (Kind.DROP_TABLE, 2), new_table(2)]
        log.append((index, encode(effects, index)))
    return log


def child(folder: str, seed: str) -> None:
    """Applies the whole history with flushes and construction in between, and says how far it is."""
    machine = Machine(RocksEngine(Path(folder), SMALL), index_function)
    log = history(int(seed))
    for start in range(0, ENTRIES, 20):
        machine.apply(log[start : start + 20])
        machine.build_step(0.001)
        if start % 500 == 0:
            machine.flush()
        sys.stdout.write(f"{machine.applied_index}\n")
        sys.stdout.flush()


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_and_replay(tmp_path: Path, seed: int) -> None:
    code = f"from tests.engines.test_kill import child; child({str(tmp_path / 'db')!r}, '{seed}')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    reached = 0
    kill_at = Random(seed).randrange(500, 4_000)
    while reached < kill_at:
        reached = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    log = history(seed)
    engine = RocksEngine(tmp_path / "db", SMALL)
    machine = Machine(engine, index_function)
    assert 0 < machine.applied_index <= reached + 100
    whole = Machine(MemoryEngine(), index_function)
    whole.apply(log[: machine.applied_index])
    assert machine.store.state_hash() == whole.store.state_hash()
    assert [machine.store.count(table) for table in (1, 2)] == [whole.store.count(table) for table in (1, 2)]

    end = kill_at + 1_000
    machine.apply(log[:end])
    whole.apply(log[:end])
    for one in (machine, whole):
        while one.build_step(1.0):
            pass
    assert machine.store.state_hash() == whole.store.state_hash()
    assert list(machine.store.scan_index(3)) == list(whole.store.scan_index(3))
    assert [machine.store.count(table) for table in (1, 2)] == [len(list(whole.store.scan(table))) for table in (1, 2)]
    engine.close()
