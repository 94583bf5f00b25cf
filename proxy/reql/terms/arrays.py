"""Terms on arrays: adding, changing and removing elements, and arrays as sets (terms/arr.cc).

One rule: no array that came in is changed. Positions between elements (insert_at, splice_at) go one further than
positions of elements (change_at, delete_at); negative ones count from the end.
"""

from __future__ import annotations

from typing import Any

from model import datum as d
from model import order
from proxy.reql.ids import Term
from proxy.reql.picking import place_in
from proxy.reql.registry import fail, fail_absent, term
from proxy.reql.streams import RowOperation, Rows, as_stream, keep, to_list
from proxy.reql.values import as_datum, check_array_size


def _array(value: Any) -> list[Any]:
    """An array; unlike `as_array`, the term is blamed for what is none, as RethinkDB does here."""
    d.expect(value, "ARRAY")
    return value  # type: ignore[no-any-return]


def _limited(env: Any, items: list[Any]) -> list[Any]:
    check_array_size(env, len(items))
    return items


# ---- elements --------------------------------------------------------------------------------------------------


@term(Term.APPEND, "append", "2", takes=(as_datum, as_datum))
def append(env: Any, array: Any, item: Any) -> list[Any]:
    return _limited(env, [*_array(array), item])


@term(Term.PREPEND, "prepend", "2", takes=(as_datum, as_datum))
def prepend(env: Any, array: Any, item: Any) -> list[Any]:
    return _limited(env, [item, *_array(array)])


def _index(value: Any) -> int:
    d.expect(value, "NUMBER")
    return d.to_int(value)


def _out_of_bounds(place: int, size: int) -> None:
    fail_absent(f"Index `{place}` out of bounds for array of size: `{size}`.")


def _space(array: Any, index: Any) -> int:
    """A position between elements."""
    place = place_in(_index(index), len(_array(array)) + 1)
    if place > len(array):
        _out_of_bounds(place, len(array))
    return place


def _element(array: Any, index: Any) -> int:
    """The position of an element that is there."""
    place = place_in(_index(index), len(_array(array)))
    if place >= len(array):
        _out_of_bounds(place, len(array))
    return place


@term(Term.INSERT_AT, "insert_at", "3", takes=(as_datum, as_datum, as_datum))
def insert_at(env: Any, array: Any, index: Any, item: Any) -> list[Any]:
    place = _space(array, index)
    return _limited(env, [*array[:place], item, *array[place:]])


@term(Term.SPLICE_AT, "splice_at", "3", takes=(as_datum, as_datum, as_datum))
def splice_at(env: Any, array: Any, index: Any, items: Any) -> list[Any]:
    place = _space(array, index)
    return _limited(env, [*array[:place], *_array(items), *array[place:]])


@term(Term.CHANGE_AT, "change_at", "3", takes=(as_datum, as_datum, as_datum))
def change_at(env: Any, array: Any, index: Any, item: Any) -> list[Any]:
    place = _element(array, index)
    return [*array[:place], item, *array[place + 1 :]]


@term(Term.DELETE_AT, "delete_at", "2..3", takes=(as_datum, as_datum, as_datum))
def delete_at(env: Any, array: Any, index: Any, *end: Any) -> list[Any]:
    """Without one element, or without those from `index` up to `end`."""
    if not end:
        place = _element(array, index)
        return [*array[:place], *array[place + 1 :]]
    size = len(_array(array))
    first, last = place_in(_index(index), size), place_in(_index(end[0]), size)
    for bound in (first, last):
        if bound > size:
            _out_of_bounds(bound, size)
    if first > last:
        fail(f"Start index `{first}` is greater than end index `{last}`.")
    return [*array[:first], *array[last:]]


# ---- arrays as sets --------------------------------------------------------------------------------------------


def _distinct(items: list[Any], seen: set[Any]) -> list[Any]:
    """The items that are not in `seen`, each once; `seen` grows by them."""
    out = []
    for item in items:
        key = order.hashable_key(item)
        if key not in seen:
            seen.add(key)
            out.append(item)
    return out


@term(Term.SET_INSERT, "set_insert", "2", takes=(as_datum, as_datum))
def set_insert(env: Any, array: Any, item: Any) -> list[Any]:
    return _limited(env, _distinct([*_array(array), item], set()))


@term(Term.SET_UNION, "set_union", "2", takes=(as_datum, as_datum))
def set_union(env: Any, left: Any, right: Any) -> list[Any]:
    return _limited(env, _distinct([*_array(left), *_array(right)], set()))


@term(Term.SET_INTERSECTION, "set_intersection", "2", takes=(as_datum, as_datum))
def set_intersection(env: Any, left: Any, right: Any) -> list[Any]:
    """The elements of both, in the order of the second."""
    common = set(map(order.hashable_key, _array(left)))
    return _distinct([item for item in _array(right) if order.hashable_key(item) in common], set())


@term(Term.SET_DIFFERENCE, "set_difference", "2", takes=(as_datum, as_datum))
def set_difference(env: Any, left: Any, right: Any) -> list[Any]:
    array = _array(left)
    return _distinct(array, set(map(order.hashable_key, _array(right))))


@term(Term.DIFFERENCE, "difference", "2", grouped="stream")
def difference(env: Any, value: Any, others: Any) -> Any:
    """The elements of a sequence that are not in another one; what comes twice stays twice."""
    stream = as_stream(env, value)
    left_out = set(map(order.hashable_key, to_list(env, as_stream(env, others))))

    def apply(env: Any, rows: Rows) -> Rows:
        return [row for row in rows if order.hashable_key(row) not in left_out]

    return keep(value, stream.add(RowOperation("filter", (), apply)), env)
