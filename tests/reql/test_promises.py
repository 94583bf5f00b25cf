"""Writes whose waiting is left to whoever sends the answer: which ones, and that all others wait themselves."""

import pytest
from rethinkdb import r

from proxy.answers import Promised


@pytest.fixture
def promised(world, table):
    """promised(query, **optargs): whether its answer is a promise; the answer must be right in any case."""
    table("t", [{"id": 1, "n": 1}, {"id": 2, "n": 2}])
    table("u", [{"id": 1}])
    waited = []
    world.data.commit = lambda effects, durability: waited.append(world.data.promise(effects, durability))

    def ask(query, **optargs):
        waited.clear()
        answer = world.start(query, takes_promises=True, **optargs)
        if type(answer) is Promised:
            assert waited == []
            told = []
            answer.begin(lambda error, value=None: told.append(error))
            assert told == [None]
        return type(answer) is Promised

    return ask


T, U = r.table("t"), r.table("u")


@pytest.mark.parametrize(
    "query",
    [
        T.insert({"id": 3}),
        T.insert({"id": 1, "n": 5}, conflict="update"),
        T.get(1).update({"n": 2}),
        T.get(1).update({"n": r.row["n"] + 1}, return_changes=True),
        T.get(1).replace({"id": 1}),
        T.get(1).delete(),
        T.insert(U.get(1).merge({"id": 9})),
    ],
)
def test_one_write_to_one_row_promises(promised, query):
    assert promised(query)


@pytest.mark.parametrize(
    "query",
    [
        T.get(1),
        T.update({"n": 5}),  # how many batches that takes shows only at its end
        T.get(1).update({"n": 2})["replaced"],
        r.table(r.do(U.insert({"id": 7}), "t")).insert({"id": 5}),
        r.table(r.do(U.get(1).delete(), "t")).get(1).update({"n": 7}),
        r.expr([3, 4]).for_each(lambda id: T.insert({"id": id})),
        T.get(1).update({"n": 1}),  # nothing changes
        T.insert({"id": 6}, durability="soft"),
        r.do(T.insert({"id": 8}), lambda done: T.get(8)),
    ],
)
def test_everything_else_does_its_waiting_itself(promised, query):
    assert not promised(query)


def test_a_profiled_write_waits_so_that_its_time_counts(promised):
    assert not promised(T.get(1).update({"n": 2}), profile=True)


def test_nobody_is_promised_anything_who_did_not_ask(world, table):
    table("t", [])
    assert type(world.start(T.insert({"id": 1}))) is not Promised
