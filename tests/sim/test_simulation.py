"""Histories of whole servers. `python -m tests.sim --seeds N` runs more of them, `--seed N` replays one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.sim import __main__ as command
from tests.sim.plan import plan_of
from tests.sim.simulation import LEAVE_AFTER_S, run_seed
from tests.sim.world import Planned, World

SEEDS = range(1, 1 + int(os.environ.get("REWINDDB_SIM_SEEDS", "20")))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_holds(seed: int) -> None:
    outcome = run_seed(seed)
    assert not outcome.violation, f"{outcome.violation}\nreplay: {outcome.command}"


def test_the_histories_are_worth_something() -> None:
    """Elections, operations, states that are compared, and most kinds of faults do happen."""
    outcomes = [run_seed(seed) for seed in (1, 2, 3, 4, 5, 6)]
    assert sum(outcome.elections for outcome in outcomes) > 12
    assert sum(outcome.operations for outcome in outcomes) > 1000
    assert sum(outcome.states_compared for outcome in outcomes) > 500
    assert len({fault for outcome in outcomes for fault in outcome.faults}) > 8


def test_a_joint_configuration_at_the_end_is_left_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at it planned a request, thousands in all, which went on to change the members without end."""
    planned = []
    after = World.after

    def note(world: World, delay: float, call: Callable[..., object], *arguments: Any) -> Planned:
        if delay == LEAVE_AFTER_S:
            planned.append(call)
        return after(world, delay, call, *arguments)

    monkeypatch.setattr(World, "after", note)
    assert not run_seed(187).violation
    assert 1 <= len(planned) <= 2


def test_one_seed_is_one_history() -> None:
    """Also in another process, whose hashes of text differ."""
    here = run_seed(5)
    program = "from tests.sim.simulation import run_seed; print(run_seed(5).digest, end='')"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."}
        there = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout == here.digest


def test_other_seeds_are_other_histories() -> None:
    assert len({run_seed(seed).digest for seed in (1, 2, 3)}) == 3
    assert len({plan_of(seed) for seed in range(50)}) > 40


def test_the_command_says_how_to_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seed", "1", "--tail", "5"]) == 0
    output = capsys.readouterr().out
    assert "seed 1: held" in output
    assert command.main(["--seeds", "1", "--start", "2"]) == 0
    assert "1 histories held, 0 failed" in capsys.readouterr().out


def test_processes_that_share_the_histories_find_what_one_finds(capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for jobs in ("1", "2"):
        assert command.main(["--seeds", "3", "--start", "2", "--jobs", jobs]) == 0
        counts.append(capsys.readouterr().out.rpartition(",")[0])
    assert counts[0] == counts[1]
    assert "3 histories held, 0 failed" in counts[0]


def test_a_history_leaves_nothing_behind() -> None:
    """Else twenty thousand of them fill the memory; fibers that wait for ever are not found by the collector."""
    run_seed(1)
    gc.collect()
    before = len(gc.get_objects())
    for seed in (4, 12):
        run_seed(seed)
    gc.collect()
    assert len(gc.get_objects()) < before + 1000
