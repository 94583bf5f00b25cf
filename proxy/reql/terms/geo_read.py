"""Terms that read through a geospatial index: get_intersecting and get_nearest (terms/geo.cc)."""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.catalog import Index
from model.errors import ReqlError, ReqlOpFailedError
from proxy.reql.geo import geometry as geo
from proxy.reql.geo.reads import IntersectingRows, NearestSearch
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.registry import SINGLE_SERVER, fail, term
from proxy.reql.tables import StoredTable, UnreadableRows
from proxy.reql.terms.geo_make import MEASURES, chosen_ellipsoid, chosen_unit
from proxy.reql.values import Selection, Table, as_datum, as_integer, as_number, as_string, as_table, check_array_size


def _check_index(table: Table, name: str | None, term_name: str) -> str:
    if name is None:
        fail(f"{term_name} requires an index argument.")
    if name == table.source.primary_key:
        fail(f"{term_name} cannot use the primary index.")
    return name


def _index(env: Any, table: Table, name: str, term_name: str) -> tuple[StoredTable, Index]:
    """The geospatial index of that name."""
    source = table.source
    if not isinstance(source, StoredTable):
        raise ReqlOpFailedError(f"Index `{name}` was not found on table `{table.db.name}.{table.name}`.")
    index = source.index(env, name)
    if not index.definition.get("geo"):
        fail(
            f"Index `{name}` is not a geospatial index.  {term_name} can only be used with a geospatial index.",
        )
    return source, index


@term(
    Term.GET_INTERSECTING,
    "get_intersecting",
    "2",
    takes=(as_table, None),
    optargs={"index": as_string},
    determinism=SINGLE_SERVER,
)
def get_intersecting(env: Any, table: Table, geometry: Any, index: str | None = None) -> Selection:
    name = _check_index(table, index, "get_intersecting")
    geometry = argument(geo.as_geometry, env, geometry, 1)
    try:
        source, found = _index(env, table, name, "get_intersecting")
    except ReqlError as error:
        return Selection(table, UnreadableRows(error))
    return Selection(table, IntersectingRows(source, found, geometry))


@term(
    Term.GET_NEAREST,
    "get_nearest",
    "2",
    takes=(as_table, None),
    optargs={"index": as_string, "max_results": as_integer, "max_dist": as_number, **MEASURES},
    determinism=SINGLE_SERVER,
)
def get_nearest(env: Any, table: Table, centre: Any, index: str | None = None, **optargs: Any) -> list[dict[str, Any]]:
    name = _check_index(table, index, "get_nearest")
    place = geo.point_argument(argument(as_datum, env, centre, 1))
    ellipsoid = chosen_ellipsoid(env, optargs)
    unit = chosen_unit(optargs)
    max_distance = optargs["max_dist"] * unit if "max_dist" in optargs else 100_000.0
    if not max_distance > 0.0:
        fail("max_dist must be positive.", "max_dist")
    max_results = optargs.get("max_results", 100)
    if max_results <= 0:
        fail("max_results must be positive.", "max_results")
    try:
        source, found = _index(env, table, name, "get_nearest")
    except ReqlError as error:
        error.path = ()  # found out by the reading, which is no term
        raise
    rows = NearestSearch(source, found, place, max_distance, max_results, ellipsoid).run(env)
    check_array_size(env, len(rows))
    return [{"dist": d.number(distance * (1.0 / unit)), "doc": row} for distance, row in rows]
