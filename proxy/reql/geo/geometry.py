"""Geometries as data: putting them together, taking coordinates out, and RethinkDB's messages for wrong ones.

One rule: everything here is about numbers in GeoJSON; what they mean on a sphere is told in `shapes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from model import datum as d
from model.errors import ReqlQueryLogicError
from proxy.reql.absent import NoAttribute
from proxy.reql.registry import fail
from proxy.reql.values import as_datum

Position = tuple[float, float]
"""Longitude and latitude in degrees."""

RECTANGLE: Final = "$reql_LatLngRect$"
UNSUPPORTED: Final = frozenset(
    {"MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection", "Feature", "FeatureCollection"}
)


def as_geometry(env: Any, value: Any) -> dict[str, Any]:
    """A geometry. As in RethinkDB any pseudo-type gets past here; others lack the fields and fail there."""
    value = as_datum(env, value)
    if not d.is_ptype(value):
        raise ReqlQueryLogicError(f"Not a GEOMETRY pseudotype: `{d.trunc_print(value)}`.")
    return value  # type: ignore[no-any-return]


def as_geometry_at(value: Any, at: int) -> dict[str, Any]:
    """`as_geometry` of a datum; what is none blames argument `at`."""
    try:
        return as_geometry(None, value)
    except ReqlQueryLogicError as error:
        error.at = at
        raise


def exact(value: float) -> str:
    """A number as RethinkDB prints it where every bit counts."""
    return f"{value:.20g}"


# ---- putting together ------------------------------------------------------------------------------------------


def _geometry(type_name: str, coordinates: list[Any]) -> dict[str, Any]:
    return {"$reql_type$": d.GEOMETRY, "type": type_name, "coordinates": coordinates}


def _pair(position: Sequence[float]) -> list[int | float]:
    return [d.number(position[0]), d.number(position[1])]


def point_of(position: Position) -> dict[str, Any]:
    return _geometry("Point", _pair(position))


def line_of(positions: Sequence[Position]) -> dict[str, Any]:
    return _geometry("LineString", [_pair(position) for position in positions])


def polygon_of(shell: Sequence[Position]) -> dict[str, Any]:
    """The polygon within a line, which is closed if it is not."""
    ring = [_pair(position) for position in shell]
    if ring and ring[0] != ring[-1]:
        ring.append(ring[0])
    return _geometry("Polygon", [ring])


# ---- taking apart ----------------------------------------------------------------------------------------------


def field(geometry: Any, name: str) -> Any:
    """A field of a geometry or of GeoJSON; raises RethinkDB's errors if there is none."""
    d.expect(geometry, "OBJECT")
    if name not in geometry:
        raise NoAttribute(name, geometry)
    return geometry[name]


def type_of(geometry: Any) -> str:
    """`Point`, `LineString`, `Polygon` or what else is written there."""
    name = field(geometry, "type")
    d.expect(name, "STRING")
    return name  # type: ignore[no-any-return]


def items(array: Any) -> list[Any]:
    d.expect(array, "ARRAY")
    return array  # type: ignore[no-any-return]


def _number(value: Any) -> float:
    d.expect(value, "NUMBER")
    return float(value)


def position(coordinates: Any) -> Position:
    """A GeoJSON position, of which the range is not looked at."""
    count = len(items(coordinates))
    if count < 2:
        fail("Too few coordinates.  Need at least longitude and latitude.")
    if count > 3:
        fail(f"Too many coordinates.  GeoJSON position should have no more than three coordinates, but got {count}.")
    if count == 3:
        fail("A third altitude coordinate in GeoJSON positions was found, but is not supported.")
    return _number(coordinates[0]), _number(coordinates[1])


def place(coordinates: Any) -> Position:
    """A GeoJSON position that is somewhere on the globe."""
    longitude, latitude = position(coordinates)
    if not -180.0 <= longitude <= 180.0:
        fail(f"Longitude must be between -180 and 180.  Got {exact(longitude)}.")
    if not -90.0 <= latitude <= 90.0:
        fail(f"Latitude must be between -90 and 90.  Got {exact(latitude)}.")
    return longitude, latitude


def expect_type(geometry: Any, wanted: str) -> Any:
    """The coordinates of a geometry of the wanted type."""
    name = type_of(geometry)
    coordinates = field(geometry, "coordinates")
    if name != wanted:
        fail(f"Expected geometry of type `{wanted}` but found `{name}`.")
    return coordinates


def point_argument(datum: Any) -> Position:
    """A place given as a point or as an array of two numbers; its range is not looked at."""
    if d.is_ptype(datum, d.GEOMETRY):
        return position(expect_type(datum, "Point"))
    count = len(items(datum))
    if count != 2:
        fail(f"Expected point coordinate pair.  Got {count} element array instead of a 2 element one.")
    return _number(datum[0]), _number(datum[1])


def line_positions(geometry: Any) -> list[Position]:
    return [position(item) for item in items(expect_type(geometry, "LineString"))]


def expect_default_coordinates(geojson: Any) -> None:
    """Raises an error for a coordinate reference system that is named."""
    d.expect(geojson, "OBJECT")
    if geojson.get("crs") is not None:
        fail(
            "Non-default coordinate reference systems are not supported in GeoJSON objects.  "
            "Make sure the `crs` field of the geometry is null or non-existent."
        )
