"""Distances and circles on an ellipsoid, and units.

One rule: lengths are in metres inside; they are converted where they come in and where they go out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from proxy.reql.geo import geometry as geo
from proxy.reql.geo import shapes
from proxy.reql.geo.karney import Geodesics
from proxy.reql.registry import fail

METRES: Final = {"m": 1.0, "km": 1000.0, "mi": 1609.344, "nm": 1852.0, "ft": 0.3048}
NO_NUMBER: Final = "Non-finite number: nan"  # what comes of places and ellipsoids at the ends of what doubles can hold
VERTICES_A_BREATH: Final = 32
INRADIUS_LEEWAY: Final = 1.01
EXRADIUS_LEEWAY: Final = 0.99


class Ellipsoid:
    """A reference ellipsoid: its equator's radius in metres and its flattening."""

    __slots__ = ("_geodesics", "equator_radius", "poles_radius")

    def __init__(self, equator_radius: float, flattening: float) -> None:
        self._geodesics = Geodesics(equator_radius, flattening)
        self.equator_radius = equator_radius
        self.poles_radius = (1.0 - flattening) * equator_radius

    def distance(self, a: geo.Position, b: geo.Position) -> float:
        """Metres along the surface."""
        try:
            return self._geodesics.distance(*a, *b)
        except (ArithmeticError, ValueError):
            fail(NO_NUMBER)

    def at(self, start: geo.Position, distance: float, azimuth: float) -> geo.Position:
        """The place so many metres from `start` in a direction (degrees from north)."""
        try:
            return self._geodesics.at(*start, azimuth, distance)
        except (ArithmeticError, ValueError):
            fail(NO_NUMBER)


WGS84: Final = Ellipsoid(6378137.0, 1.0 / 298.257223563)
UNIT_SPHERE: Final = Ellipsoid(1.0, 0.0)


@lru_cache(maxsize=64)
def ellipsoid(equator_radius: float, flattening: float) -> Ellipsoid:
    return Ellipsoid(equator_radius, flattening)


def metres_in(unit: str) -> float:
    """How long a unit is; raises RethinkDB's error for an unknown one."""
    if unit not in METRES:
        fail(f"Unrecognized distance unit `{unit}`.")
    return METRES[unit]


def distance(point: shapes.Point, other: shapes.Shape, on: Ellipsoid) -> float:
    """Metres from a point to the nearest place of a shape.

    As in RethinkDB that place is found on the sphere, and only the way to it is measured on the ellipsoid.
    """
    if isinstance(other, shapes.Point):
        return on.distance(point.position, other.position)
    nearest = shapes.nearest(point, other)
    return 0.0 if nearest is None else on.distance(point.position, nearest)


def circle(
    centre: geo.Position, radius: float, vertices: int, on: Ellipsoid, breathe: Callable[[], None] = lambda: None
) -> list[geo.Position]:
    """A closed line of so many vertices, all `radius` metres from the centre. A vertex may take 50 µs."""
    if radius <= 0.0:
        fail("Radius must be positive")
    largest = 0.5 * math.pi * min(on.equator_radius, on.poles_radius)
    if radius >= largest:
        fail(
            "Radius must be smaller than a quarter of the circumference along the minor axis of the reference "
            f"ellipsoid.  Got {geo.exact(radius)}m, but must be smaller than {geo.exact(largest)}m."
        )
    line = []
    for number in range(vertices):
        line.append(on.at(centre, radius, -180.0 + (360.0 / vertices * number)))
        if number % VERTICES_A_BREATH == VERTICES_A_BREATH - 1:
            breathe()
    return [*line, line[0]]


def polygon_around(centre: geo.Position, inradius: float, vertices: int, on: Ellipsoid) -> dict[str, Any]:
    """A polygon that holds all places up to `inradius` metres from the centre."""
    larger, smaller = max(on.equator_radius, on.poles_radius), min(on.equator_radius, on.poles_radius)
    distortion = larger / smaller if smaller else math.inf
    radius = inradius * INRADIUS_LEEWAY / math.cos(math.pi / vertices) * distortion
    return geo.polygon_of(circle(centre, radius, vertices, on))


def ring_within(centre: geo.Position, exradius: float, vertices: int, on: Ellipsoid) -> list[Any]:
    """A ring that holds no place more than `exradius` metres from the centre, as coordinates."""
    inner = geo.polygon_of(circle(centre, exradius * EXRADIUS_LEEWAY, vertices, on))
    ring: list[Any] = inner["coordinates"][0]
    return ring
