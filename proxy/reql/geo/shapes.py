"""Geometries on the sphere, where edges are great circles: Google's S2, which RethinkDB uses too.

One rule: S2 is named here and in `index` only, and every shape that leaves `shape_of` is valid. How S2's
answers are turned into RethinkDB's is told at each predicate.
"""

from __future__ import annotations

import math
from itertools import pairwise
from operator import sub
from typing import Any, Final, NoReturn

import s2geometry as s2

from proxy.reql.geo import geometry as geo
from proxy.reql.geo.clip import has_piece
from proxy.reql.geo.edges import nearest_of
from proxy.reql.registry import fail

TOUCHING: Final = 1e-14  # what is nearer than so much of the sphere's radius may be the same place
MOST_KEPT: Final = 32
MANY_EDGES: Final = 1000  # for more of them, the nearest place is not worked out to the last bit

Raw = tuple[float, float, float]
"""A point of the unit sphere as numbers, which can be compared and looked up."""


class Point:
    """A place. `raw` is it on the unit sphere, by which places are compared; `position` what that is in degrees."""

    __slots__ = ("point", "position", "raw")

    def __init__(self, coordinates: Any) -> None:
        self.point = s2_point(geo.place(coordinates))
        self.raw: Raw = s2.S2Point_ToRaw(self.point)
        self.position = _degrees(self.raw)


class Line:
    """A line of at least two vertices."""

    __slots__ = ("line",)

    def __init__(self, coordinates: Any) -> None:
        positions = geo.items(coordinates)
        if len(positions) < 2:
            fail("GeoJSON LineString must have at least two positions.")
        self.line = s2.S2Polyline()
        self.line.InitFromS2Points([s2_point(geo.place(position)) for position in positions])
        if not self.line.IsValid():
            fail("Invalid LineString.  Are there antipodal or duplicate vertices?")

    def vertices(self) -> list[Raw]:
        return [s2.S2Point_ToRaw(self.line.vertex(at)) for at in range(self.line.num_vertices())]

    def edges(self) -> list[tuple[Raw, Raw]]:
        return list(pairwise(self.vertices()))


class Polygon:
    """A shell with holes; without any ring, nothing at all."""

    __slots__ = ("_outlines", "polygon")

    def __init__(self, coordinates: Any) -> None:
        self._outlines: list[Any] | None = None
        loops = [_loop(ring) for ring in geo.items(coordinates)]
        if len(loops) == 1:
            self.polygon = s2.S2Polygon(loops[0])
            return
        self.polygon = _nested(loops)
        if not self.polygon.IsValid():
            self.polygon = _assembled(loops)

    @property
    def is_empty(self) -> bool:
        return bool(self.polygon.num_vertices() == 0)

    def rings(self) -> list[list[Any]]:
        """The vertices of each loop, the first again at the end. They live as long as the polygon."""
        loops = [self.polygon.loop(at) for at in range(self.polygon.num_loops())]
        return [[loop.vertex(at) for at in range(loop.num_vertices() + 1)] for loop in loops]

    def outlines(self) -> list[Any]:
        """Each loop as a line."""
        if self._outlines is None:
            self._outlines = []
            for ring in self.rings():
                line = s2.S2Polyline()
                line.InitFromS2Points(ring)
                self._outlines.append(line)
        return self._outlines

    def edges(self) -> list[tuple[Raw, Raw]]:
        """In the order in which RethinkDB looks at them: a shell from its second vertex on, a hole from its last."""
        out: list[tuple[Raw, Raw]] = []
        for number, ring in enumerate(self.rings()):
            edges = list(pairwise(map(s2.S2Point_ToRaw, ring)))
            first = -1 if number else 1
            out += edges[first:] + edges[:first]
        return out


Shape = Point | Line | Polygon

_KEPT: dict[int, tuple[Any, Shape]] = {}  # by the identity of the geometry, which is kept so that it stays its own


def shape_of(geometry: Any) -> Shape:
    """The shape of a geometry or GeoJSON object; raises RethinkDB's errors for what does not make one."""
    name = geo.type_of(geometry)
    coordinates = geo.field(geometry, "coordinates")
    if name == "Point":
        return Point(coordinates)
    if name == "LineString":
        return Line(coordinates)
    if name == "Polygon":
        return Polygon(coordinates)
    if name == geo.RECTANGLE:
        _refuse_rectangle(coordinates)
    if name in geo.UNSUPPORTED:
        fail(f"GeoJSON type `{name}` is not supported.")
    fail(f"Unrecognized GeoJSON type `{name}`.")


def kept_shape_of(geometry: Any) -> Shape:
    """`shape_of` for a geometry that is likely to be asked for again, such as a constant of a query: kept a while."""
    kept = _KEPT.get(id(geometry))
    if kept is not None and kept[0] is geometry:
        return kept[1]
    shape = shape_of(geometry)
    if isinstance(shape, Polygon) and shape.polygon.num_vertices() <= MANY_EDGES:
        if len(_KEPT) >= MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[id(geometry)] = geometry, shape
    return shape


def polygon_of(geometry: Any) -> Polygon:
    """The shape of what must be a polygon."""
    return Polygon(geo.expect_type(geometry, "Polygon"))


def point_of(geometry: Any) -> Point:
    """The shape of what must be a point."""
    return Point(geo.expect_type(geometry, "Point"))


def validate(geojson: Any) -> None:
    """Raises RethinkDB's error unless the GeoJSON object stands for a valid shape in the default coordinates."""
    geo.expect_default_coordinates(geojson)
    shape_of(geojson)


def s2_point(position: geo.Position) -> Any:
    """The point of the unit sphere at a longitude and latitude; 180 degrees west and east are one place."""
    longitude, latitude = position
    return s2.S2LatLng.FromDegrees(latitude, -180.0 if longitude == 180.0 else longitude).ToPoint()


def _degrees(raw: Raw) -> geo.Position:
    """The longitude and latitude of a point of the unit sphere."""
    x, y, z = raw
    longitude, latitude = math.atan2(y, x), math.atan2(z, math.sqrt(x * x + y * y))
    return 180 / math.pi * longitude, 180 / math.pi * latitude


def _refuse_rectangle(coordinates: Any) -> NoReturn:
    """RethinkDB's internal shape, which no query can have made."""
    if len(geo.items(coordinates)) != 4:
        fail("LatLngRect must have four angles in its coordinates field.")
    fail("LatLngRect cannot be generated by a user query.  The `$reql_LatLngRect$` type is reserved for internal use.")


# ---- polygons from rings ---------------------------------------------------------------------------------------


def _loop(ring: Any) -> Any:
    """The loop of a ring, with its inside on the left whichever way round it was given."""
    positions = geo.items(ring)
    if len(positions) < 4:
        fail("GeoJSON LinearRing must have at least four positions.")
    points = [s2_point(geo.place(position)) for position in positions]
    if s2.S2Point_ToRaw(points[0]) != s2.S2Point_ToRaw(points[-1]):
        fail("First and last vertex of GeoJSON LinearRing must be identical.")
    loop = s2.S2Loop(points[:-1])
    if not loop.IsValid():
        fail("Invalid LinearRing.  Are there antipodal or duplicate vertices? Is it self-intersecting?")
    loop.Normalize()
    return loop


def _nested(loops: list[Any]) -> Any:
    polygon = s2.S2Polygon()
    polygon.InitNested(loops)
    return polygon


def _assembled(loops: list[Any]) -> Any:
    """The polygon of rings that share edges or vertices: see `_joined`."""
    polygon = _nested(_joined(loops))
    if not polygon.IsValid():
        fail("Some edges in GeoJSON polygon could not be used.  Are they intersecting?")
    return polygon


def _joined(loops: list[Any]) -> list[Any]:
    """Loops anew from the edges of a shell and its holes, which run the other way round.

    An edge of a hole on an edge of the shell cancels it: the hole becomes a notch. At a vertex with several ways
    out the leftmost is taken, so that loops that touch stay apart.
    """
    points: dict[Raw, Any] = {}
    ways: dict[Raw, list[Raw]] = {}
    for number, loop in enumerate(loops):
        ring = [loop.vertex(at) for at in range(loop.num_vertices())]
        if number:
            ring.reverse()
        keys = [s2.S2Point_ToRaw(point) for point in ring]
        points.update(zip(keys, ring, strict=True))
        for start, end in zip(keys, keys[1:] + keys[:1], strict=True):
            if start in ways.get(end, ()):
                ways[end].remove(start)
            else:
                ways.setdefault(start, []).append(end)
    found = []
    for start in ways:
        while ways[start]:
            found.append(_walk(points, ways, start))
    parts = [s2.S2Loop([points[key] for key in keys]) for keys in found]
    for part in parts:
        part.Normalize()
    return parts


def _walk(points: dict[Raw, Any], ways: dict[Raw, list[Raw]], start: Raw) -> list[Raw]:
    """The first loop that comes up on a walk from `start`; its edges are taken away."""
    path = [start, ways[start][0]]
    while path[-1] not in path[:-1]:
        before, here = path[-2:]
        ahead = ways[here]
        best = ahead[0]
        for other in ahead[1:]:
            if best == before or s2.OrderedCCW(points[before], points[other], points[best], points[here]):
                best = other
        path.append(best)
    loop = path[path.index(path[-1]) : -1]
    for begin, end in zip(loop, loop[1:] + loop[:1], strict=True):
        ways[begin].remove(end)
    return loop


# ---- predicates ------------------------------------------------------------------------------------------------


def intersects(first: Shape, second: Shape) -> bool:
    """Whether two shapes have a place in common."""
    if isinstance(first, Point):
        return _touches(first, second)
    if isinstance(second, Point):
        return _touches(second, first)
    if isinstance(first, Line):
        if isinstance(second, Line):
            return bool(second.line.Intersects(first.line))
        return not second.is_empty and _pieces(first, second, inside=True)
    if isinstance(second, Line):
        return not first.is_empty and _pieces(second, first, inside=True)
    return not first.is_empty and not second.is_empty and bool(second.polygon.Intersects(first.polygon))


def _touches(point: Point, other: Shape) -> bool:
    """A point is on or in what its nearest point in is itself."""
    if isinstance(other, Point):
        return bool(point.raw == other.raw)
    if isinstance(other, Polygon) and other.is_empty:
        return False
    gap = max(map(abs, map(sub, s2.S2Point_ToRaw(_projected(point, other)), point.raw)))
    return gap <= TOUCHING and nearest(point, other) is None


def _pieces(line: Line, polygon: Polygon, inside: bool) -> bool:
    """Whether any piece of the line is inside (or else outside) the polygon."""
    begins = bool(polygon.polygon.Contains(line.line.vertex(0))) is inside
    if not any(ring.Intersects(line.line) for ring in polygon.outlines()):
        return begins
    return has_piece(line.vertices(), begins, polygon.edges())


def includes(polygon: Polygon, other: Shape) -> bool:
    """Whether all of `other` is within the polygon."""
    if isinstance(other, Point):
        return _touches(other, polygon)
    if isinstance(other, Line):
        return not _pieces(other, polygon, inside=False)
    return bool(polygon.polygon.Contains(other.polygon))


def nearest(point: Point, other: Line | Polygon) -> geo.Position | None:
    """The place on a line or polygon that is nearest on the sphere, in degrees; None if it is the point itself."""
    if isinstance(other, Polygon) and other.polygon.Contains(point.point):
        return None
    edges = other.edges()
    if not edges:
        fail("An empty polygon is at no distance.")
    raw = nearest_of(point.raw, edges) if len(edges) <= MANY_EDGES else s2.S2Point_ToRaw(_projected(point, other))
    return None if raw == point.raw else _degrees(raw)


def _projected(point: Point, other: Line | Polygon) -> Any:
    """S2's own nearest point, which it finds fast among any number of edges."""
    return other.line.Project(point.point)[0] if isinstance(other, Line) else other.polygon.Project(point.point)
