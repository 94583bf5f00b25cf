"""Which pieces of a line are in a polygon, and which are out of it, where its boundary crosses or meets the line.

RethinkDB asks whether there are such pieces: a line of which some are inside intersects, one with none outside is
included. A piece is what lies between two crossings, unless they are equal to the last bit; so here, too, the order
of additions is that of the S2 of 2011, where today's S2 joins what is nearly the same before it answers. One rule:
it is only asked about lines that reach the boundary, because it is slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import s2geometry as s2

from proxy.reql.geo.edges import Vector, axis_of, cross, distance2, dot, ortho, scaled_to_unit

Hit = tuple[float, Vector]
"""Where a boundary crosses an edge: the share of the edge's length before it, and the point."""


def has_piece(line: Sequence[Vector], begins_inside: bool, edges: Sequence[tuple[Vector, Vector]]) -> bool:
    """Whether clipping leaves anything of the line. `begins_inside`: its first vertex is where pieces are kept."""
    boundary = [(*edge, s2.S2Point_FromRaw(*edge[0]), s2.S2Point_FromRaw(*edge[1])) for edge in edges]
    inside = begins_inside
    for a, b in pairwise(line):
        start, end = s2.S2Point_FromRaw(*a), s2.S2Point_FromRaw(*b)
        hits: list[Hit] = []
        for c, d, from_point, to_point in boundary:
            sign = s2.CrossingSign(start, end, from_point, to_point)
            if sign > 0:
                hits.append(_crossing(a, b, c, d))
            elif sign == 0 and _crosses_at_vertex(a, b, c, d):
                hits.append((0.0, a) if a in (c, d) else (1.0, b))
        if inside:
            hits.append((0.0, a))
        inside = len(hits) % 2 == 1
        if inside:
            hits.append((1.0, b))
        hits.sort()
        if any(hits[at] != hits[at + 1] for at in range(0, len(hits), 2)):
            return True
    return False


def _crosses_at_vertex(a: Vector, b: Vector, c: Vector, d: Vector) -> bool:
    """Of two edges that share a vertex, whether a-b is further round it than c-d, counted from a fixed direction."""
    if a == b or c == d:
        return False
    if a == d:
        return _is_ordered(ortho(a), c, b, a)
    if b == c:
        return _is_ordered(ortho(b), d, a, b)
    if a == c:
        return _is_ordered(ortho(a), d, b, a)
    return _is_ordered(ortho(b), c, a, b)


def _is_ordered(a: Vector, b: Vector, c: Vector, centre: Vector) -> bool:
    """Whether b comes after a and not after c, anticlockwise round the centre."""
    return bool(s2.OrderedCCW(*(s2.S2Point_FromRaw(*vertex) for vertex in (a, b, c, centre))))


def _crossing(a: Vector, b: Vector, c: Vector, d: Vector) -> Hit:
    place = _meeting(a, b, c, d)
    before, after = _angle(place, a), _angle(place, b)
    return before / (before + after), place


def _meeting(a: Vector, b: Vector, c: Vector, d: Vector) -> Vector:
    """Where two edges meet that cross: on both, even if their great circles are nearly the same."""
    first, second = scaled_to_unit(axis_of(a, b)), scaled_to_unit(axis_of(c, d))
    place = scaled_to_unit(axis_of(first, second))
    middle = tuple((a[i] + b[i]) + (c[i] + d[i]) for i in range(3))
    if dot(place, (middle[0], middle[1], middle[2])) < 0:
        place = (-place[0], -place[1], -place[2])
    if _is_ordered(a, place, b, first) and _is_ordered(c, place, d, second):
        return place
    ends = [end for end in (a, b) if _is_ordered(c, end, d, second)]
    ends += [end for end in (c, d) if _is_ordered(a, end, b, first)]
    return min(ends, key=lambda end: (distance2(place, end), end), default=place)


def _angle(a: Vector, b: Vector) -> float:
    normal = cross(a, b)
    return math.atan2(math.sqrt(dot(normal, normal)), dot(a, b))
