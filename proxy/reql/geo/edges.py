"""The point of a chain of edges that is nearest to a place, in plain double arithmetic.

RethinkDB takes a place to be on a line if the nearest point of the line is exactly that place, to the last bit. So
near a boundary its answer hangs on the order of additions, and this file keeps to that order (the S2 of 2011);
today's S2 rounds otherwise. One rule: it is only asked about places that touch a boundary, because it is slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def _minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def distance2(a: Vector, b: Vector) -> float:
    """The square of the straight distance."""
    way = _minus(a, b)
    return dot(way, way)


def scaled_to_unit(a: Vector) -> Vector:
    scale = 1.0 / math.sqrt(dot(a, a))
    return a[0] * scale, a[1] * scale, a[2] * scale


def ortho(a: Vector) -> Vector:
    """A fixed direction at right angles to `a`: that from which S2 counts round a vertex."""
    largest = max(range(2, -1, -1), key=lambda axis: abs(a[axis]))
    other = [0.012, 0.0053, 0.00457]
    other[largest - 1] = 1.0
    return scaled_to_unit(cross(a, (other[0], other[1], other[2])))


def _turns_left(a: Vector, b: Vector, c: Vector) -> bool:
    return dot(cross(c, a), b) > 0


def axis_of(a: Vector, b: Vector) -> Vector:
    """At right angles to the great circle through a and b; of any length."""
    axis = cross((b[0] + a[0], b[1] + a[1], b[2] + a[2]), _minus(b, a))
    return ortho(a) if axis == (0.0, 0.0, 0.0) else axis


def _is_beside(x: Vector, a: Vector, b: Vector, axis: Vector) -> bool:
    """Whether the perpendicular from x meets the great circle between a and b."""
    return _turns_left(axis, a, x) and _turns_left(x, b, axis)


def _distance(x: Vector, a: Vector, b: Vector, axis: Vector) -> float:
    """Radians from x to the edge."""
    if _is_beside(x, a, b, axis):
        return math.asin(min(1.0, abs(dot(x, axis)) / math.sqrt(dot(axis, axis))))
    return 2 * math.asin(min(1.0, 0.5 * math.sqrt(min(distance2(x, a), distance2(x, b)))))


def _nearest_of_edge(x: Vector, a: Vector, b: Vector) -> Vector:
    axis = axis_of(a, b)
    share = dot(x, axis) / dot(axis, axis)
    foot = _minus(x, (axis[0] * share, axis[1] * share, axis[2] * share))
    if _is_beside(foot, a, b, axis):
        return scaled_to_unit(foot)
    return a if distance2(x, a) <= distance2(x, b) else b


def nearest_of(x: Vector, edges: Sequence[tuple[Vector, Vector]]) -> Vector:
    """The nearest point of the nearest edge; of several at the same distance, the first counts."""
    a, b = min(edges, key=lambda edge: _distance(x, edge[0], edge[1], axis_of(*edge)))
    return _nearest_of_edge(x, a, b)
