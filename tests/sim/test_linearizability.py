"""The checker against small histories known by hand, and against every order tried one by one."""

from __future__ import annotations

from itertools import permutations
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.linearizability import Act, Operation, Value, check


def read(called: float, returned: float, result: Value) -> Operation:
    return Operation(Act.READ, called, returned=returned, result=result)


def write(called: float, returned: float, value: int) -> Operation:
    return Operation(Act.WRITE, called, value=value, returned=returned)


def cas(called: float, returned: float, expected: Value, value: int, result: bool | None = None) -> Operation:
    return Operation(Act.CAS, called, value=value, expected=expected, returned=returned, result=result)


def test_a_read_sees_the_write_before_it() -> None:
    assert check([write(0, 1, 7), read(2, 3, 7)]).is_linearizable
    assert not check([write(0, 1, 7), read(2, 3, None)]).is_linearizable


def test_a_read_beside_a_write_sees_either() -> None:
    for result in (None, 7):
        assert check([write(0, 3, 7), read(1, 2, result)]).is_linearizable


def test_once_seen_a_write_is_not_unseen() -> None:
    assert not check([write(0, 9, 7), read(1, 2, 7), read(3, 4, None)]).is_linearizable


def test_an_unknown_write_may_happen_late_or_never() -> None:
    assert check([write(0, inf, 7), read(1, 2, None), read(3, 4, 7)]).is_linearizable
    assert check([write(0, inf, 7), read(1, 2, None)]).is_linearizable
    assert not check([write(0, inf, 7), read(1, 2, 7), read(3, 4, None)]).is_linearizable


def test_one_of_two_equal_compare_and_sets_wins() -> None:
    start = write(0, 1, 1)
    assert check([start, cas(2, 5, 1, 2, True), cas(2, 5, 1, 3, False)]).is_linearizable
    assert not check([start, cas(2, 5, 1, 2, True), cas(2, 5, 1, 3, True)]).is_linearizable


def test_reads_that_wait_for_long_beside_many_writes_are_no_riddle() -> None:
    history: list[Operation] = []
    for number in range(200):
        history += [write(number, number + 0.5, number), read(number + 0.7, number + 60, number)]
    assert check(history).is_linearizable
    assert not check([*history, read(250, 251, 17)]).is_linearizable


def change(act: Act, called: float, returned: float, value: int, result: int = 0) -> Operation:
    return Operation(act, called, value=value, returned=returned, result=result)


def test_an_insertion_that_would_change_nothing_can_come_after_a_deletion() -> None:
    begin = change(Act.INSERT, 0, 1, 1, 1)
    both = [change(Act.INSERT, 2, 4, 1, 1), change(Act.DELETE, 2, 3, 1, 0)]
    assert check([begin, *both, read(5, 6, 1)]).is_linearizable
    assert check([begin, *both, read(5, 6, 0)]).is_linearizable


def test_a_counter_counts_each_addition_once() -> None:
    both = [change(Act.ADD, 0, 5, 1, 2), change(Act.ADD, 0, 5, 1, 1)]
    assert check([*both, read(6, 7, 2)]).is_linearizable
    assert not check([*both, read(6, 7, 1)]).is_linearizable
    assert not check([change(Act.ADD, 0, 5, 1, 1), change(Act.ADD, 0, 5, 1, 1)]).is_linearizable


def test_an_addition_of_unknown_outcome_counts_once_or_never() -> None:
    unknown = change(Act.ADD, 0, inf, 1)
    assert check([unknown, read(1, 2, None), read(3, 4, 1)]).is_linearizable
    assert check([unknown, change(Act.ADD, 1, 2, 1, 1)]).is_linearizable
    assert not check([unknown, read(1, 2, 1), read(3, 4, 2)]).is_linearizable
    assert not check([unknown, read(1, 2, 1), change(Act.ADD, 3, 4, 1, 1)]).is_linearizable


def test_a_set_holds_what_was_inserted_and_not_deleted() -> None:
    insert = change(Act.INSERT, 0, 1, 0b100, 0b100)
    assert check([insert, change(Act.INSERT, 2, 3, 0b1, 0b101), change(Act.DELETE, 4, 5, 0b100, 0b1)]).is_linearizable
    assert not check([insert, change(Act.INSERT, 2, 3, 0b1, 0b1)]).is_linearizable
    late = change(Act.DELETE, 2, inf, 0b100)
    assert check([insert, late, read(3, 4, 0b100), read(5, 6, 0)]).is_linearizable
    assert not check([insert, late, read(3, 4, 0), read(5, 6, 0b100)]).is_linearizable


def test_a_refusal_names_what_does_not_fit() -> None:
    verdict = check([write(0, 1, 7), read(2, 3, 8)])
    assert "read = 8" in str(verdict)


def brute_force(history: list[Operation]) -> bool:
    """Every order of every choice of unknown operations."""
    known = [each for each in history if each.is_known]
    unknown = [each for each in history if not each.is_known]
    for choice in range(1 << len(unknown)):
        chosen = known + [each for at, each in enumerate(unknown) if choice >> at & 1]
        for order in permutations(chosen):
            if any(
                order[late].returned < order[early].called
                for early in range(len(order))
                for late in range(early, len(order))
            ):
                continue
            state, fits = None, True
            for each in order:
                fits, state = each.apply(state)
                if not fits:
                    break
            if fits:
                return True
    return False


@st.composite
def operations(draw: st.DrawFn, acts: list[Act]) -> Operation:
    called = draw(st.integers(0, 8))
    returned = draw(st.one_of(st.just(inf), st.integers(0, 6).map(lambda length: called + 0.5 + length)))
    act = draw(st.sampled_from(acts))
    values = st.sampled_from([None, 1, 2])
    if act is Act.READ:
        return read(called, returned, draw(values))
    if act is Act.WRITE:
        return write(called, returned, draw(st.sampled_from([1, 2])))
    if act is not Act.CAS:
        return change(act, called, returned, draw(st.sampled_from([1, 2])), draw(st.integers(0, 3)))
    return cas(called, returned, draw(values), draw(st.sampled_from([1, 2])), draw(st.booleans()))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [list(Act), [Act.READ, Act.WRITE, Act.CAS], [Act.READ, Act.ADD], [Act.READ, Act.INSERT, Act.DELETE]]
    ).flatmap(lambda acts: st.lists(operations(acts), max_size=5))
)
def test_the_search_agrees_with_trying_everything(history: list[Operation]) -> None:
    assert check(history).is_linearizable == brute_force(history)
