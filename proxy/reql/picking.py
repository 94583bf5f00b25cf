"""Picking by position: one element or a slice of an array, string, binary or stream (terms/arr.cc).

One rule: negative positions count from the end, which only things with a known end have.
"""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.errors import ReqlNonExistenceError
from model.pseudo_binary import binary_bytes, make_binary
from proxy.reql.nodes import argument
from proxy.reql.registry import fail, fail_absent
from proxy.reql.streams import Stream, as_selection, as_stream, grouped_value, is_selection, is_sequence, over_groups
from proxy.reql.values import PLAIN, SingleSelection, Table, as_integer


def as_small_integer(env: Any, value: Any) -> int:
    """A whole number that fits 32 bits."""
    number = as_integer(env, value)
    if not -(2**31) <= number < 2**31:
        fail(f"Integer too large: {number}")
    return number


def place_in(index: int, size: int) -> int:
    """The position that `index` means in something of this size; it may lie beyond the end."""
    if index >= 0:
        return index
    if -index > size:
        fail_absent(f"Index out of bounds: {index}")
    return size + index


def nth(env: Any, value: Any, index: Any) -> Any:
    """Element `index` of an array or of a stream; of each group of a grouped one."""
    grouped = grouped_value(env, value)
    if grouped is not None:
        return over_groups(env, grouped, lambda held: nth(env, held, index))
    if value.__class__ in PLAIN and value.__class__ is not list:
        as_stream(env, value)  # raises the error for what is no sequence
    number = argument(as_small_integer, env, index, 1)
    if is_sequence(value):
        return _nth_of_stream(env, value, number)
    if value.__class__ is SingleSelection:
        d.expect(value.datum(), "ARRAY")
    if value.__class__ is not list:
        as_stream(env, value)  # raises the error for what is no sequence
    place = place_in(number, len(value))
    if place >= len(value):
        fail_absent(f"Index out of bounds: {number}")
    return value[place]


def _nth_of_stream(env: Any, value: Any, number: int) -> Any:
    table: Table | None = None
    if is_selection(value):
        selection = as_selection(env, value)
        table, stream = selection.table, selection.stream
    else:
        stream = as_stream(env, value)
    if number < -1:
        fail(f"Cannot use an index < -1 ({number}) on a stream.")
    found, row = _row_at(env, stream, number)
    if not found:
        raise ReqlNonExistenceError(f"Index out of bounds: {number}")
    if table is None:
        return row
    return SingleSelection(table, row[table.source.primary_key], d.dumps(row), ("nth", value, number))


def _row_at(env: Any, stream: Stream, number: int) -> tuple[bool, Any]:
    """(whether there is one, the row); -1 is the last."""
    last: list[Any] = []
    passed = 0
    try:
        for rows in stream.chunks(env):
            if number >= 0 and passed + len(rows) > number:
                return True, rows[number - passed]
            passed += len(rows)
            last = rows or last
    finally:
        stream.close()
    return (True, last[-1]) if number == -1 and last else (False, None)


def _bounds(size: int, left: int, left_open: bool, right: int, right_open: bool) -> tuple[int, int]:
    """[low, high) of a slice; a negative bound beyond the beginning is the beginning, whether open or not."""
    low, low_fits = (left, True) if left >= 0 else (size + left, True) if -left <= size else (0, False)
    high, high_fits = (right, True) if right >= 0 else (size + right, True) if -right <= size else (0, False)
    if left_open and low_fits:
        low += 1
    if not right_open and high_fits:
        high += 1
    return low, high


def slice_datum(value: Any, left: int, left_open: bool, right: int, right_open: bool) -> Any:
    """The part of an array, of a binary's bytes or of a string's characters."""
    if value.__class__ is list or value.__class__ is str:
        low, high = _bounds(len(value), left, left_open, right, right_open)
        return value[low : max(low, high)]
    if d.is_ptype(value, d.BINARY):
        raw = binary_bytes(value)
        low, high = _bounds(len(raw), left, left_open, right, right_open)
        return make_binary(raw[low : max(low, high)])
    fail(f"Expected ARRAY, BINARY, or STRING, but found {d.type_name(value)}.", 0)
