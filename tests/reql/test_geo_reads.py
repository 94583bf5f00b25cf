"""get_intersecting and get_nearest, and the law behind them: an index never changes what is found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rethinkdb import r

from model.errors import ReqlError

T = r.table("t")
WHERE = "Index `{}` is not a geospatial index.  {} can only be used with a geospatial index."
POINT = {"$reql_type$": "GEOMETRY", "type": "Point"}


@pytest.fixture
def rows(run, table):
    """RethinkDB's own rows for its tests of geospatial indexes."""
    table("t", [])
    run(
        T.insert(
            [
                {"id": 0, "g": r.point(10, 10), "m": [r.point(0, 0), r.point(1, 0), r.point(2, 0), 5]},
                {"id": 1, "g": r.polygon([0, 0], [0, 1], [1, 1], [1, 0])},
                {"id": 2, "g": r.line([0.000002, -1], [-0.000001, 1])},
                {"id": 3, "g": "not a geometry"},
                {"id": 4, "g": {**POINT, "coordinates": [500, 0]}},
            ]
        )
    )
    run(T.index_create("g", geo=True))
    run(T.index_create("m", geo=True, multi=True))
    run(T.index_create("other"))
    run(T.index_wait())


def test_intersecting(rows, run):
    def ids(geometry, index="g"):
        return sorted(run(T.get_intersecting(geometry, index=index)["id"]))

    assert ids(r.point(0, 0)) == [1]
    assert ids(r.point(20, 20)) == []
    assert ids(r.line([0, 0], [10, 10])) == [0, 1, 2]
    assert ids(r.polygon([0, 0], [1, 0], [1, 1], [0, 1]), "m") == [0, 0]  # once for each match
    assert run(T.get_intersecting(r.point(0, 0), index="g").type_of()) == "SELECTION<STREAM>"
    assert run(T.get_intersecting(r.point(0, 0), index="g").delete())["deleted"] == 1
    assert ids(r.point(0, 0)) == []


def test_nearest(rows, run):
    def near(place, **optargs):
        found = run(T.get_nearest(place, index="g", **optargs))
        return [(row["doc"]["id"], row["dist"]) for row in found]

    assert near(r.point(0, 0)) == [(1, 0), (2, 0.055659745396754216)]
    assert near([0, 0], max_dist=1566, unit="km")[2] == (0, 1565.1090992178897)
    assert near([0, 0], max_dist=1, geo_system="unit_sphere")[2] == (0, 0.24619691677893205)
    assert near([0, 0], max_dist=1565110, max_results=1) == [(1, 0)]
    assert near([50, 50]) == []
    assert [row["dist"] for row in run(T.get_nearest([0, 0], index="m", max_dist=300_000))] == [
        0,
        111319.49079327357,
        222638.98158654713,
    ]


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (T.get_intersecting(r.point(0, 0)), "get_intersecting requires an index argument.", []),
        (T.get_intersecting(r.point(0, 0), index="id"), "get_intersecting cannot use the primary index.", []),
        (T.get_intersecting(r.point(0, 0), index="other"), WHERE.format("other", "get_intersecting"), []),
        (T.get_intersecting(5, index="g"), "Not a GEOMETRY pseudotype: `5`.", [1]),
        (T.get_nearest([0, 0]), "get_nearest requires an index argument.", []),
        (T.get_nearest([0, 0], index="id"), "get_nearest cannot use the primary index.", []),
        (T.get_nearest([0, 0], index="other"), WHERE.format("other", "get_nearest"), []),
        (T.get_nearest([0, 0], index="g", max_dist=0), "max_dist must be positive.", ["max_dist"]),
        (T.get_nearest([0, 0], index="g", max_results=0), "max_results must be positive.", ["max_results"]),
        (T.get_nearest([0, 91], index="g"), "Latitude must be between -90 and 90.  Got 91.", []),
        (
            T.get_nearest([0, 0], index="g", max_dist=10_000_000),
            "The distance has become too large for continuing the indexed nearest traversal.  Consider specifying a "
            "smaller `max_dist` parameter.  (Radius must be smaller than a quarter of the circumference along the "
            "minor axis of the reference ellipsoid.  Got 10968937.995244588703m, but must be smaller than "
            "9985163.1855612862855m.)",
            [],
        ),
        (
            T.between(0, 1, index="g"),
            "Index `g` is a geospatial index.  Only get_nearest and get_intersecting can use a geospatial index.",
            [],
        ),
        (T.get_intersecting({**POINT, "coordinates": [500, 0]}, index="g").count(), "Longitude must be between", []),
    ],
)
def test_errors(rows, failure, query, message, path):
    kind, said, at = failure(query)
    assert kind == "ReqlQueryLogicError"
    assert said.startswith(message)
    assert at == path


def test_more_than_the_array_limit_is_refused(rows, failure, run):
    run(T.insert([{"g": r.point(i / 100, 0)} for i in range(20)]))
    everywhere = T.get_intersecting(r.polygon([-1, -1], [1, -1], [1, 1], [-1, 1]), index="g")
    for query in (everywhere, everywhere.count(), T.get_nearest([0, 0], index="g", max_dist=100_000)):
        kind, message, _ = failure(query, array_limit=10)
        assert (kind, message) == (
            "ReqlResourceLimitError",
            "Array size limit exceeded during geospatial index traversal.",
        )


# ---- the law ---------------------------------------------------------------------------------------------------

degrees = st.one_of(st.integers(-4, 4), st.floats(-4, 4))
places = st.tuples(degrees, degrees).map(list)
points = places.map(lambda place: {**POINT, "coordinates": place})
lines = st.lists(places, min_size=2, max_size=4).map(lambda c: {**POINT, "type": "LineString", "coordinates": c})
triangles = st.lists(places, min_size=3, max_size=4).map(
    lambda ring: {**POINT, "type": "Polygon", "coordinates": [[*ring, ring[0]]]}
)
geometries = st.one_of(points, lines, triangles)


@settings(max_examples=40, deadline=None)
@given(st.lists(geometries, max_size=8), geometries)
def test_an_index_finds_what_a_look_at_every_row_finds(world_of_module, stored, wanted):
    """Invalid geometries are in no index, and cannot be looked for."""
    world = world_of_module
    if "t" not in world.run(r.table_list()):
        world.make_table("t", [])
        world.run(T.index_create("g", geo=True))
    if not is_valid(world, wanted):
        return
    world.run(T.delete())
    world.run(T.insert([{"id": at, "g": geometry} for at, geometry in enumerate(stored)]))
    by_row = [
        at
        for at, geometry in enumerate(stored)
        if is_valid(world, geometry) and world.run(r.expr(geometry).intersects(wanted))
    ]
    assert sorted(world.run(T.get_intersecting(wanted, index="g")["id"])) == by_row


def is_valid(world, geometry):
    plain = {key: value for key, value in geometry.items() if key != "$reql_type$"}
    try:
        world.run(r.geojson(plain))
    except ReqlError:
        return False
    return True
