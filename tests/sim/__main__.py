"""python -m tests.sim --seed N                one history, with its events
python -m tests.sim --seeds N [--jobs J]    N histories; each that fails with the command that replays it
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.sim.simulation import Outcome, run_seed

TOLD_EVERY = 500
"""After how many histories a long run says how far it is."""


class _Result(NamedTuple):
    """What a run of many histories keeps of each one."""

    seed: int
    violation: str
    command: str
    events: int
    operations: int


def main(arguments: list[str]) -> int:
    """Run histories; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated histories of a cluster.")
    parser.add_argument("--seed", type=int, help="replay one history")
    parser.add_argument("--seeds", type=int, default=20, help="how many histories (20)")
    parser.add_argument("--start", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes share the histories (1)")
    parser.add_argument("--tail", type=int, default=200, help="how many events of a replayed history to show (200)")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = run_seed(options.seed)
        sys.stdout.write("\n".join(outcome.lines[-options.tail :]) + "\n" + _summary(outcome) + "\n")
        return 1 if outcome.violation else 0
    return _run_many(range(options.start, options.start + options.seeds), options.jobs)


def _run_many(seeds: range, jobs: int) -> int:
    began = time.monotonic()
    done = failed = events = operations = 0
    for result in _results(seeds, jobs):
        done += 1
        events += result.events
        operations += result.operations
        if result.violation:
            failed += 1
            sys.stdout.write(f"seed {result.seed}: {result.violation}\n  replay: {result.command}\n")
        if done % TOLD_EVERY == 0 and done < len(seeds):
            sys.stdout.write(f"{done} of {len(seeds)} histories, {failed} failed\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{done - failed} histories held, {failed} failed"
        f" ({events} events, {operations} operations, {time.monotonic() - began:.1f} s)\n"
    )
    return 1 if failed else 0


def _results(seeds: range, jobs: int) -> Iterator[_Result]:
    if jobs == 1:
        yield from map(_result, seeds)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            yield from pool.map(_result, seeds, chunksize=10)


def _result(seed: int) -> _Result:
    outcome = run_seed(seed)
    return _Result(seed, outcome.violation, outcome.command, outcome.events, outcome.operations)


def _summary(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed}: {outcome.violation or 'held'} ({outcome.events} events, {outcome.operations} operations,"
        f" {outcome.elections} elections, {outcome.committed} entries committed,"
        f" {outcome.states_compared} states compared, digest {outcome.digest})\nfaults: {outcome.faults}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
