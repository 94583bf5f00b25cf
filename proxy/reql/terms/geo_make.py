"""Terms that make geometries and turn them into each other (terms/geo.cc).

One rule: what leaves here is valid. All but `point` give what may differ in the last bit from machine to machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from model import datum as d
from model.pseudo_geometry import validated
from proxy.reql.geo import geodesy, shapes
from proxy.reql.geo import geometry as geo
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.registry import SINGLE_SERVER, fail, fail_absent, term
from proxy.reql.values import as_bool, as_datum, as_integer, as_number, as_string, check_array_size, wrong_type


@term(Term.POINT, "point", "2", takes=(as_number,))
def point(env: Any, longitude: float, latitude: float) -> dict[str, Any]:
    geo.place([longitude, latitude])
    return geo.point_of((longitude, latitude))


@term(Term.LINE, "line", "2..*", takes=(as_datum,), determinism=SINGLE_SERVER)
def line(env: Any, *points: Any) -> dict[str, Any]:
    check_array_size(env, len(points))
    return _valid(geo.line_of([geo.point_argument(datum) for datum in points]))


@term(Term.POLYGON, "polygon", "3..*", takes=(as_datum,), determinism=SINGLE_SERVER)
def polygon(env: Any, *points: Any) -> dict[str, Any]:
    check_array_size(env, len(points))
    return _valid(geo.polygon_of([geo.point_argument(datum) for datum in points]))


def _valid(geometry: dict[str, Any]) -> dict[str, Any]:
    shapes.validate(geometry)
    return geometry


@term(Term.GEOJSON, "geojson", "1", takes=(as_datum,), determinism=SINGLE_SERVER)
def geojson(env: Any, value: Any) -> dict[str, Any]:
    """A geometry from a GeoJSON object, of which a `bbox` is dropped."""
    shapes.validate(value)
    if d.PTYPE_KEY in value:
        fail("GeoJSON object already had a $reql_type$ field.")
    fields = {key: held for key, held in value.items() if key != "bbox"}
    return validated({d.PTYPE_KEY: d.GEOMETRY, **fields})


@term(Term.TO_GEOJSON, "to_geojson", "1", takes=(geo.as_geometry,))
def to_geojson(env: Any, geometry: dict[str, Any]) -> dict[str, Any]:
    if d.is_ptype(geometry, d.BINARY):
        raise wrong_type("OBJECT", geometry)
    return {key: value for key, value in geometry.items() if key != d.PTYPE_KEY}


@term(Term.FILL, "fill", "1", takes=(geo.as_geometry,), determinism=SINGLE_SERVER)
def fill(env: Any, geometry: Any) -> dict[str, Any]:
    """The polygon within a line."""
    return _valid(geo.polygon_of(geo.line_positions(geometry)))


def _as_shell(env: Any, value: Any) -> Any:
    geometry = geo.as_geometry(env, value)
    _expect_shell(geometry)
    return geometry


@term(Term.POLYGON_SUB, "polygon_sub", "2", takes=(_as_shell,), determinism=SINGLE_SERVER)
def polygon_sub(env: Any, outer: Any, inner: Any) -> dict[str, Any]:
    """A polygon with another one cut out of it."""
    if not shapes.includes(shapes.polygon_of(outer), shapes.shape_of(inner)):
        fail("The second argument to `polygon_sub` is not contained in the first one.")
    if not inner["coordinates"]:
        fail_absent("Index out of bounds: 0")
    rings = [*outer["coordinates"], inner["coordinates"][0]]
    return _valid({d.PTYPE_KEY: d.GEOMETRY, "type": "Polygon", "coordinates": rings})


def _expect_shell(geometry: Any) -> None:
    name = geo.type_of(geometry)
    if name != "Polygon":
        fail(f"Expected a Polygon but found a {name}.")
    if len(geometry["coordinates"]) > 1:
        fail("Expected a Polygon with only an outer shell.  This one has holes.")


# ---- measuring -------------------------------------------------------------------------------------------------

MEASURES: Final = {"geo_system": as_datum, "unit": as_string}
REMEMBERED_VERTICES: Final = 256


def chosen_ellipsoid(env: Any, optargs: dict[str, Any]) -> geodesy.Ellipsoid:
    """What the optarg `geo_system` names, or describes by `a` and `f`."""
    system = optargs.get("geo_system", "WGS84")
    if system.__class__ is dict and d.is_object(system):
        return _custom_ellipsoid(env, system)
    name = argument(as_string, env, system, "geo_system")
    if name == "WGS84":
        return geodesy.WGS84
    if name != "unit_sphere":
        fail(f'Unrecognized geo system "{name}" (valid options: "WGS84", "unit_sphere").', "geo_system")
    return geodesy.UNIT_SPHERE


def _custom_ellipsoid(env: Any, system: dict[str, Any]) -> geodesy.Ellipsoid:
    radius = as_number(env, geo.field(system, "a"))
    flattening = as_number(env, geo.field(system, "f"))
    if not radius > 0.0:
        fail("The equator radius `a` must be positive.", "geo_system")
    if not 0.0 <= flattening < 1.0:
        fail("The flattening `f` must be in the range [0, 1).", "geo_system")
    return geodesy.ellipsoid(float(radius), float(flattening))


def chosen_unit(optargs: dict[str, Any]) -> float:
    """The metres in the optarg `unit`."""
    return geodesy.metres_in(optargs.get("unit", "m"))


@term(Term.DISTANCE, "distance", "2", takes=(geo.as_geometry,), optargs=MEASURES, determinism=SINGLE_SERVER)
def distance(env: Any, first: Any, second: Any, **optargs: Any) -> int | float:
    """From a point to anything, either way round."""
    on = chosen_ellipsoid(env, optargs)
    unit = chosen_unit(optargs)
    if geo.type_of(first) != "Point":
        first, second = second, first
    return d.number(geodesy.distance(shapes.point_of(first), shapes.shape_of(second), on) * (1.0 / unit))


@term(
    Term.CIRCLE,
    "circle",
    "2",
    takes=(as_datum, as_number),
    optargs={**MEASURES, "fill": as_bool, "num_vertices": as_integer},
    determinism=SINGLE_SERVER,
)
def circle(env: Any, centre: Any, radius: float, **optargs: Any) -> dict[str, Any]:
    """A polygon or line that comes near to a circle."""
    vertices = optargs.get("num_vertices", 32)
    if not 0 <= vertices < 2**32:
        fail(f"Integer too large: {vertices}", "num_vertices")
    if vertices == 0:
        fail("num_vertices must be positive.", "num_vertices")
    on = chosen_ellipsoid(env, optargs)
    unit = chosen_unit(optargs)
    check_array_size(env, vertices + 1)
    middle, metres, filled = geo.point_argument(centre), radius * unit, optargs.get("fill", True)
    if vertices <= REMEMBERED_VERTICES:
        return _circle(middle, metres, vertices, on, filled)
    return _outlined(geodesy.circle(middle, metres, vertices, on, env.fibers.breathe), filled)


@lru_cache(maxsize=64)
def _circle(centre: geo.Position, radius: float, vertices: int, on: geodesy.Ellipsoid, filled: bool) -> dict[str, Any]:
    """Kept for a while, because a filter asks for the same circle with every row."""
    return _outlined(geodesy.circle(centre, radius, vertices, on), filled)


def _outlined(line: list[geo.Position], filled: bool) -> dict[str, Any]:
    return _valid(geo.polygon_of(line) if filled else geo.line_of(line))
