"""Histories of whole servers. `python -m tests.sim --seeds N` runs more of them, `--seed N` replays one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from tests.sim import __main__ as command
from tests.sim.plan import plan_of
from tests.sim.simulation import run_seed

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


def test_a_joint_configuration_at_the_end_is_left_once() -> None:
    """Thousands of requests were planned while it was looked at, which then changed the members without end."""
    outcome = run_seed(42056)
    assert not outcome.violation
    repaired = next(place for place, line in enumerate(outcome.lines) if line.endswith("everything is repaired"))
    asked = [line for line in outcome.lines[repaired:] if "is asked for" in line]
    assert 1 <= len(asked) <= 3
    assert all(line.endswith("leaving the joint configuration") for line in asked)


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
