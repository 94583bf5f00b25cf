"""random, sample and uuid."""

from __future__ import annotations

import pytest
from rethinkdb import r

from model.errors import ReqlError


def test_whole_numbers_stay_in_their_bounds(run):
    assert {run(r.random(3)) for _ in range(60)} == {0, 1, 2}
    assert {run(r.random(-1, 1)) for _ in range(40)} == {-1, 0}


def test_numbers_without_bounds_are_between_0_and_1(run):
    assert all(0 <= run(r.random()) < 1 for _ in range(20))
    assert all(-2 <= run(r.random(-2, 3, float=True)) < 3 for _ in range(20))
    assert all(abs(run(r.random(-1e308, 1.7e308, float=True))) <= 1.7e308 for _ in range(20))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (r.random(0), "Lower bound (0) is not less than upper bound (0)."),
        (r.random(0.5), "Upper bound (0.5) could not be safely converted to an integer."),
        (r.random(1e20, 3), "Lower bound (1e+20) could not be safely converted to an integer."),
        (r.random(float=False), "Generating a random integer requires one or two bounds."),
        (r.expr([1]).sample(-1), "Number of items to sample must be non-negative, got `-1`."),
    ],
)
def test_errors(run, query, message):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert caught.value.message == message


def test_a_sample_is_part_of_the_sequence_in_random_order(run):
    numbers = list(range(10))
    samples = [run(r.expr(numbers).sample(4)) for _ in range(30)]
    assert all(len(set(sample)) == 4 and set(sample) <= set(numbers) for sample in samples)
    assert {number for sample in samples for number in sample} == set(numbers)
    assert sorted(run(r.expr(numbers).sample(99))) == numbers


def test_uuids_are_new_unless_they_have_a_name(run):
    assert run(r.uuid()) != run(r.uuid())
    assert run(r.uuid("magic")) == run(r.uuid("magic")) == "97dd10a5-4fc4-554f-86c5-0d2c2e3d5330"
