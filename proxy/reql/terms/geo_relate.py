"""Terms that say how geometries lie to each other: intersects and includes, also on sequences (terms/geo.cc)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.reql.geo import geometry as geo
from proxy.reql.geo import shapes
from proxy.reql.ids import Term
from proxy.reql.registry import SINGLE_SERVER
from proxy.reql.terms.obj_or_seq import FILTER, obj_or_seq
from proxy.reql.values import as_datum

GEOMETRIES = frozenset({"GEOMETRY"})


class _Other:
    """The second argument, made into a shape when it is first needed and kept for all objects of a sequence."""

    __slots__ = ("_geometry", "_shape")

    def __init__(self, geometry: Any) -> None:
        self._geometry = geometry
        self._shape: shapes.Shape | None = None

    def shape(self) -> shapes.Shape:
        if self._shape is None:
            self._shape = shapes.kept_shape_of(geo.as_geometry_at(self._geometry, 1))
        return self._shape


@obj_or_seq(
    Term.INTERSECTS,
    "intersects",
    "2",
    poly=FILTER,
    takes=(as_datum,),
    ptypes=GEOMETRIES,
    determinism=SINGLE_SERVER,
)
def intersects(env: Any, geometry: Any) -> Callable[[dict[str, Any]], bool]:
    other = _Other(geometry)
    return lambda obj: shapes.intersects(shapes.shape_of(_geometry(obj)), other.shape())


@obj_or_seq(
    Term.INCLUDES,
    "includes",
    "2",
    poly=FILTER,
    takes=(as_datum,),
    ptypes=GEOMETRIES,
    determinism=SINGLE_SERVER,
)
def includes(env: Any, geometry: Any) -> Callable[[dict[str, Any]], bool]:
    other = _Other(geometry)
    return lambda obj: shapes.includes(shapes.polygon_of(_geometry(obj)), other.shape())


def _geometry(obj: dict[str, Any]) -> Any:
    return geo.as_geometry_at(obj, 0)
