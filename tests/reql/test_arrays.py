"""Array terms, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import pytest
from rethinkdb import r

from model.errors import ReqlError

A = r.expr([1, 2, 3])


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (A.append(4), [1, 2, 3, 4]),
        (A.prepend(0), [0, 1, 2, 3]),
        (A.insert_at(3, "x"), [1, 2, 3, "x"]),
        (A.insert_at(-1, "x"), [1, 2, 3, "x"]),
        (A.splice_at(1, ["x", "y"]), [1, "x", "y", 2, 3]),
        (A.change_at(-1, "x"), [1, 2, "x"]),
        (A.delete_at(0), [2, 3]),
        (A.delete_at(1, 3), [1]),
        (A.delete_at(3, 3), [1, 2, 3]),
        (r.expr([1, 1, 2]).set_insert(2), [1, 2]),
        (r.expr([1, 1, 2]).set_insert(1.5), [1, 2, 1.5]),
        (r.expr([2, 1]).set_union([1, 3, True]), [2, 1, 3, True]),
        (r.expr([1, 2]).set_intersection([3, 2, 2, 1]), [2, 1]),
        (r.expr([1, 1, 2, 3]).set_difference([2]), [1, 3]),
        (r.expr([1, 1, 2, [3]]).difference([2, [3]]), [1, 1]),
    ],
)
def test_values(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.expr(1).append(2), "Expected type ARRAY but found NUMBER.", ()),
        (A.insert_at(4, 0), "Index `4` out of bounds for array of size: `3`.", ()),
        (A.insert_at(-5, 0), "Index out of bounds: -5", ()),
        (A.change_at(3, 0), "Index `3` out of bounds for array of size: `3`.", ()),
        (A.delete_at(2, 1), "Start index `2` is greater than end index `1`.", ()),
        (A.delete_at(0, 4), "Index `4` out of bounds for array of size: `3`.", ()),
        (A.change_at(0.5, 0), "Number not an integer: 0.5", ()),
        (A.splice_at(0, 1), "Expected type ARRAY but found NUMBER.", ()),
    ],
)
def test_errors(run, query, message, path):
    with pytest.raises(ReqlError) as caught:
        run(query)
    assert (caught.value.message, caught.value.path) == (message, path)


def test_arrays_may_not_outgrow_the_limit(run):
    with pytest.raises(ReqlError, match=r"^Array over size limit `3`\.  To raise the number of allowed elements"):
        run(A.append(4), array_limit=3)
