"""Terms on arrays: adding, changing and removing elements, and arrays as sets (terms/arr.cc).

One rule: no array that came in is changed. Positions between elements (insert_at, splice_at) go one further than
positions of elements (change_at, delete_at); negative ones count from the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from model import datum as d
from model import order
from model.errors import Path, ReqlError, ReqlNonExistenceError
from proxy.reql.calling import call_runner
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, place_of
from proxy.reql.picking import place_in
from proxy.reql.registry import TermSpec, fail, fail_absent, special, term
from proxy.reql.streams import RowOperation, Rows, as_stream, grouped_value, keep, to_list
from proxy.reql.values import Grouped, as_datum, check_array_size, wrong_kind


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
    size = len(_array(array))
    place = place_in(_index(index), size + 1)
    if place > size:
        _out_of_bounds(place, size)
    return place


def _element(array: Any, index: Any) -> int:
    """The position of an element that is there."""
    size = len(_array(array))
    place = place_in(_index(index), size)
    if place >= size:
        _out_of_bounds(place, size)
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


@special(Term.DIFFERENCE, "difference", "2")
def difference(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """The elements of a sequence that are not in another one; what comes twice stays twice.

    It is a filter: the other sequence is looked at for the first row, and for none if there is none, and what is
    absent from it leaves all rows out (terms/rewrites.cc).
    """
    node = compiler.compile_call(_DIFFERENCE, raw, path)
    if all(argument.term != Term.ARGS for argument in node.arguments):
        first, second = node.arguments
        later = Node(lambda env: partial(_others, env, second, path), second.term, second.path, second.raw)
        node.run = call_runner(_DIFFERENCE, [first, later], {}, path, False)
    return node


def _others(env: Any, node: Node, path: Path) -> Any:
    value = node.run(env)
    try:
        if grouped_value(env, value) is not None:
            raise wrong_kind("DATUM", Grouped())
        return to_list(env, as_stream(env, value))
    except ReqlError as error:
        if error.path is None:
            error.path = place_of(env, node) if error.at == 0 else path
        raise


def _without(env: Any, value: Any, others: Any) -> Any:
    left_out: set[Any] = set()
    is_known = False

    def apply(env: Any, rows: Rows) -> Rows:
        nonlocal is_known
        if rows and not is_known:
            try:
                given = others() if others.__class__ is partial else to_list(env, as_stream(env, others))
            except ReqlNonExistenceError:
                return []
            left_out.update(map(order.hashable_key, given))
            is_known = True
        return [row for row in rows if order.hashable_key(row) not in left_out]

    return keep(value, as_stream(env, value).add(RowOperation("filter", (), apply)), env)


_DIFFERENCE: Final = TermSpec(Term.DIFFERENCE, "difference", 2, 2, grouped="stream", body=_without)
