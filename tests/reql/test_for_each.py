"""`for_each`: the results of writes are added up, and what is no result is refused (writes.cc, foreach_term_t)."""

import pytest
from rethinkdb import r

T = r.table("t")
EXPECTS = "FOR_EACH expects one or more basic write queries."


@pytest.fixture(autouse=True)
def _rows(table):
    table("t", [{"id": 1}])


@pytest.mark.parametrize(
    ("writes", "total"),
    [
        (lambda id: T.insert({"id": id}), {"inserted": 2, "errors": 1, "skipped": 0}),
        (lambda id: [T.insert({"id": id}), T.get(id).update({"a": 1})], {"inserted": 2, "errors": 1, "replaced": 3}),
        (lambda id: T.get(id).delete(), {"deleted": 1, "skipped": 2}),
    ],
)
def test_results_are_added_up(run, writes, total):
    answer = run(r.expr([1, 2, 3]).for_each(writes))
    assert {name: answer[name] for name in total} == total


@pytest.mark.parametrize(
    ("body", "more", "frames"),
    [
        (lambda row: T, "", [1, 1]),  # no datum: nothing more is said
        (lambda row: T.filter({}), "", [1, 1]),
        (lambda row: r.db("test"), "", [1, 1]),
        (lambda row: row, "  Expected type ARRAY but found NUMBER.", [1, 1]),
        (lambda row: [row], "  Expected type OBJECT but found NUMBER.", [1, 1]),
        (1, "  Expected type ARRAY but found NUMBER.", [1]),
    ],
)
def test_what_is_no_result_of_a_write_is_refused(failure, body, more, frames):
    assert failure(r.expr([1]).for_each(body)) == ("ReqlQueryLogicError", EXPECTS + more, frames)
