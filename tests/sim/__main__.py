"""python -m tests.sim --seed N        one history, with its events
python -m tests.sim --seeds N       N histories; each that fails with the command that replays it
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.simulation import Outcome, run_seed


def main(arguments: list[str]) -> int:
    """Run histories; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated histories of a cluster.")
    parser.add_argument("--seed", type=int, help="replay one history")
    parser.add_argument("--seeds", type=int, default=20, help="how many histories")
    parser.add_argument("--start", type=int, default=1, help="the first seed")
    parser.add_argument("--tail", type=int, default=200, help="how many events of a replayed history to show")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = run_seed(options.seed)
        sys.stdout.write("\n".join(outcome.lines[-options.tail :]) + "\n" + _summary(outcome) + "\n")
        return 1 if outcome.violation else 0
    began, failed, events, operations = time.monotonic(), 0, 0, 0
    for seed in range(options.start, options.start + options.seeds):
        outcome = run_seed(seed)
        events += outcome.events
        operations += outcome.operations
        if outcome.violation:
            failed += 1
            sys.stdout.write(f"seed {seed}: {outcome.violation}\n  replay: {outcome.command}\n")
            sys.stdout.flush()
    took = time.monotonic() - began
    sys.stdout.write(
        f"{options.seeds - failed} histories held, {failed} failed"
        f" ({events} events, {operations} operations, {took:.1f} s)\n"
    )
    return 1 if failed else 0


def _summary(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed}: {outcome.violation or 'held'} ({outcome.events} events, {outcome.operations} operations,"
        f" {outcome.elections} elections, {outcome.committed} entries committed,"
        f" {outcome.states_compared} states compared, digest {outcome.digest})\nfaults: {outcome.faults}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
