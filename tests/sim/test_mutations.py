"""Each bug put into the core on purpose is found by some history."""

from __future__ import annotations

import pytest

from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.simulation import Outcome, run_seed

MOST_SEEDS = 40


def found(mutation: Mutation) -> Outcome | None:
    """The first history that shows the bug, the one known to show it first of all."""
    for seed in (mutation.seed, *range(1, MOST_SEEDS)):
        with mutation.applied():
            outcome = run_seed(seed)
        if outcome.violation:
            return outcome
    return None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_bug_is_found(mutation: Mutation) -> None:
    outcome = found(mutation)
    assert outcome is not None, f"not found: {mutation.text}"


def test_without_the_bug_the_same_history_holds() -> None:
    for mutation in MUTATIONS[:5]:
        assert not run_seed(mutation.seed).violation


def test_there_are_enough_of_them() -> None:
    assert len(MUTATIONS) >= 10
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
