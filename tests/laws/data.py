"""Random data for the laws: every kind of datum, in canonical form."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from model.datum import canonical, number
from model.kinds import MAXVAL, MINVAL
from model.pseudo_binary import make_binary
from model.pseudo_time import make_time

numbers = st.one_of(
    st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, -0.0, 1, 1.5])
).map(number)
strings = st.one_of(st.text(max_size=8), st.text("ab\x00\x01\x02é\U0001f600", max_size=5))
zones = st.sampled_from(["+00:00", "-08:00", "+05:30"])
times = st.builds(make_time, st.floats(-1e10, 1e10), zones)
binaries = st.one_of(st.binary(max_size=8), st.binary(min_size=50, max_size=130)).map(make_binary)
scalars = st.one_of(st.none(), st.booleans(), numbers, strings, times, binaries)
points = st.tuples(numbers, numbers).map(
    lambda at: {"$reql_type$": "GEOMETRY", "type": "Point", "coordinates": list(at)},
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.text("abcé\x00", max_size=3), inner, max_size=4)
    return st.one_of(st.lists(inner, max_size=4), fields)


data = st.recursive(st.one_of(scalars, points), _containers, max_leaves=12).map(canonical)

key_scalars = st.one_of(st.booleans(), numbers, strings, times, binaries)
keys = st.recursive(key_scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
bounds = st.recursive(
    st.one_of(key_scalars, st.sampled_from([MINVAL, MAXVAL])), lambda inner: st.lists(inner, max_size=4), max_leaves=8
)
