"""Geometry terms, against RethinkDB 2.4.4's answers."""

from __future__ import annotations

import pytest
from rethinkdb import r

SQUARE = r.polygon([0, 0], [4, 0], [4, 4], [0, 4])
INNER = r.polygon([1, 1], [2, 1], [2, 2])
BRITTLE = "Invalid LinearRing.  Are there antipodal or duplicate vertices? Is it self-intersecting?"


def shape(type_name, coordinates):
    return {"$reql_type$": "GEOMETRY", "type": type_name, "coordinates": coordinates}


def raw(type_name, coordinates):
    """A geometry that no term looked at."""
    return r.expr(shape(type_name, coordinates))


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.point(-122.4, 37.7), shape("Point", [-122.4, 37.7])),
        (r.line([0, 0], r.point(1, 1)), shape("LineString", [[0, 0], [1, 1]])),
        (r.polygon([0, 0], [1, 0], [1, 1]), shape("Polygon", [[[0, 0], [1, 0], [1, 1], [0, 0]]])),
        (r.polygon([0, 0], [1, 0], [1, 1], [0, 0]), shape("Polygon", [[[0, 0], [1, 0], [1, 1], [0, 0]]])),
        (r.geojson({"type": "Point", "coordinates": [1, 2], "bbox": [1]}), shape("Point", [1, 2])),
        (r.geojson({"type": "Polygon", "coordinates": []}), shape("Polygon", [])),
        (r.point(1, 2).to_geojson(), {"type": "Point", "coordinates": [1, 2]}),
        (r.line([0, 0], [4, 0], [4, 4]).fill(), shape("Polygon", [[[0, 0], [4, 0], [4, 4], [0, 0]]])),
        (
            SQUARE.polygon_sub(INNER),
            shape("Polygon", [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]], [[1, 1], [2, 1], [2, 2], [1, 1]]]),
        ),
        (
            r.circle([0, 0], 1, num_vertices=3),
            shape(
                "Polygon",
                [
                    [
                        [0, -9.04369477050382e-06],
                        [-7.779638566553426e-06, 4.5218473852518965e-06],
                        [7.779638566553426e-06, 4.5218473852518965e-06],
                        [0, -9.04369477050382e-06],
                    ]
                ],
            ),
        ),
    ],
)
def test_making(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (r.point(0, 0).distance(r.point(1, 0)), 111319.49079327357),
        (r.point(0, 0).distance(r.point(1, 0), unit="km"), 111.31949079327358),
        (r.point(0, 0).distance(r.point(1, 0), geo_system="unit_sphere"), 0.017453292519943295),
        (r.point(0, 0).distance(r.point(1, 0), geo_system={"a": 1, "f": 0.5}), 0.017453292519943295),
        (r.point(0, 0).distance(r.line([1, 0], [1, 1])), 111319.4907932736),
        (r.line([1, 0], [1, 1]).distance(r.point(0, 0)), 111319.4907932736),
        (r.point(1, 1).distance(SQUARE), 0),
        (r.point(0, 0).distance(r.point(180, 0)), 20003931.458625447),
        (r.circle([0, 0], 1000, fill=False).to_geojson()["coordinates"].count(), 33),
    ],
)
def test_measures(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (SQUARE.intersects(r.point(0, 0)), True),
        (SQUARE.intersects(r.point(5, 5)), False),
        (SQUARE.intersects(r.line([1, 1], [9, 9])), True),
        (SQUARE.intersects(r.line([5, 5], [9, 9])), False),
        (SQUARE.intersects(r.polygon([3, 3], [6, 3], [6, 6])), True),
        (SQUARE.intersects(r.polygon([5, 5], [6, 5], [6, 6])), False),
        (SQUARE.intersects(r.line([4, 2], [6, 2])), False),  # it only touches the edge
        (r.line([0, 0], [2, 2]).intersects(r.line([0, 2], [2, 0])), True),
        (r.line([0, 0], [2, 0]).intersects(r.point(1, 0)), True),
        (r.line([0, 4], [2, 3]).intersects(r.point(2, 3)), False),  # for want of the last bit
        (r.point(1, 1).intersects(r.point(1, 1)), True),
        (r.point(180, 0).intersects(r.point(-180, 0)), True),
        (SQUARE.includes(r.point(1, 1)), True),
        (SQUARE.includes(r.line([1, 1], [2, 2])), True),
        (SQUARE.includes(r.line([1, 1], [5, 5])), False),
        (SQUARE.includes(INNER), True),
        (SQUARE.polygon_sub(INNER).includes(r.point(1.8, 1.2)), False),
        (SQUARE.includes(SQUARE), True),
        (raw("Polygon", []).intersects(r.point(1, 1)), False),
        (r.expr([r.point(0, 0), r.point(3, 3)]).intersects(r.point(3, 3)), [shape("Point", [3, 3])]),
        (r.expr([SQUARE, r.polygon([5, 5], [6, 5], [6, 6])]).includes(r.point(5.8, 5.2)).count(), 1),
    ],
)
def test_relations(run, query, value):
    assert run(query) == value


@pytest.mark.parametrize(
    ("rings", "inside", "outside"),
    [
        # A hole that shares an edge with the shell is a notch; one outside is another shell.
        ([[[0, 0], [1, 0], [4, 0], [4, 4], [0, 4], [0, 0]], [[0, 0], [1, 0], [1, 1], [0, 0]]], [3, 3], [0.5, 0.2]),
        ([[[0, 0], [1, 0], [1, 1], [0, 0]], [[5, 5], [6, 5], [6, 6], [5, 5]]], [5.8, 5.2], [3, 3]),
    ],
)
def test_polygons_of_several_rings(run, rings, inside, outside):
    polygon = r.geojson({"type": "Polygon", "coordinates": rings})
    found = run(r.expr([polygon.includes(r.point(*inside)), polygon.includes(r.point(*outside))]))
    assert found == [True, False]


@pytest.mark.parametrize(
    ("query", "message", "path"),
    [
        (r.point(181, 0), "Longitude must be between -180 and 180.  Got 181.", []),
        (r.point(0, 90.1), "Latitude must be between -90 and 90.  Got 90.099999999999994316.", []),
        (r.point("a", 1), "Expected type NUMBER but found STRING.", [0]),
        (r.line([0, 0], [0, 0]), "Invalid LineString.  Are there antipodal or duplicate vertices?", []),
        (
            r.line([0], [1, 1]),
            "Expected point coordinate pair.  Got 1 element array instead of a 2 element one.",
            [],
        ),
        (r.polygon([0, 0], [1, 1], [1, 0], [0, 1]), BRITTLE, []),
        (r.polygon([0, 0], [0, 0], [0, 0]), "GeoJSON LinearRing must have at least four positions.", []),
        (r.circle([0, 0], 0), "Radius must be positive", []),
        (r.circle([0, 0], 1, num_vertices=0), "num_vertices must be positive.", ["num_vertices"]),
        (r.circle([0, 0], 1, num_vertices=-1), "Integer too large: -1", ["num_vertices"]),
        (
            r.circle([0, 0], 2, geo_system="unit_sphere"),
            "Radius must be smaller than a quarter of the circumference along the minor axis of the reference "
            "ellipsoid.  Got 2m, but must be smaller than 1.570796326794896558m.",
            [],
        ),
        (r.circle([0, 0], 1, unit="bogus"), "Unrecognized distance unit `bogus`.", []),
        (
            r.circle([0, 0], 1, geo_system="bogus"),
            'Unrecognized geo system "bogus" (valid options: "WGS84", "unit_sphere").',
            ["geo_system"],
        ),
        (
            r.point(0, 0).distance(r.point(0, 1), geo_system={"a": 0, "f": 0}),
            "The equator radius `a` must be positive.",
            ["geo_system"],
        ),
        (
            r.point(0, 0).distance(r.point(0, 1), geo_system={"a": 1, "f": 1}),
            "The flattening `f` must be in the range [0, 1).",
            ["geo_system"],
        ),
        (r.point(0, 0).distance(5), "Not a GEOMETRY pseudotype: `5`.", [1]),
        (
            r.line([0, 0], [1, 1]).distance(SQUARE),
            "Expected geometry of type `Point` but found `Polygon`.",
            [],
        ),
        (r.point(0, 0).distance(raw("Polygon", [])), "An empty polygon is at no distance.", []),
        (r.geojson({"type": "Feature", "coordinates": []}), "GeoJSON type `Feature` is not supported.", []),
        (r.geojson({"type": "Nope", "coordinates": []}), "Unrecognized GeoJSON type `Nope`.", []),
        (r.geojson(r.point(1, 2)), "GeoJSON object already had a $reql_type$ field.", []),
        (
            r.geojson({"type": "Point", "coordinates": [1, 2, 3]}),
            "A third altitude coordinate in GeoJSON positions was found, but is not supported.",
            [],
        ),
        (
            r.geojson({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [2, 2]]]}),
            "First and last vertex of GeoJSON LinearRing must be identical.",
            [],
        ),
        (
            r.geojson(
                {
                    "type": "Polygon",
                    "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]], [[3, 1], [5, 1], [5, 2], [3, 1]]],
                }
            ),
            "Some edges in GeoJSON polygon could not be used.  Are they intersecting?",
            [],
        ),
        (
            raw("$reql_LatLngRect$", [0, 1, 0, 1]).intersects(r.point(0, 0)),
            "LatLngRect cannot be generated by a user query.  The `$reql_LatLngRect$` type is reserved for "
            "internal use.",
            [],
        ),
        (
            SQUARE.polygon_sub(r.polygon([3, 3], [6, 3], [6, 6])),
            "The second argument to `polygon_sub` is not contained in the first one.",
            [],
        ),
        (SQUARE.polygon_sub(r.point(1, 1)), "Expected a Polygon but found a Point.", [1]),
        (
            SQUARE.polygon_sub(INNER).polygon_sub(INNER),
            "Expected a Polygon with only an outer shell.  This one has holes.",
            [0],
        ),
        (r.point(0, 0).includes(r.point(0, 0)), "Expected geometry of type `Polygon` but found `Point`.", []),
        (r.expr(5).intersects(r.point(0, 0)), "Cannot perform intersects on a non-object non-sequence `5`.", [0]),
        (r.point(0, 0).intersects(5), "Not a GEOMETRY pseudotype: `5`.", [1]),
    ],
)
def test_errors(failure, query, message, path):
    kind, said, at = failure(query)
    assert (said, at) == (message, path)
    assert kind == "ReqlQueryLogicError"


def test_what_lacks_a_field_does_not_exist(failure):
    assert failure(r.geojson({"coordinates": [1, 2]}))[:2] == (
        "ReqlNonExistenceError",
        "No attribute `type` in object:",
    )


def test_a_circle_too_long_for_an_array_is_refused(failure):
    kind, message, _ = failure(r.circle([0, 0], 1, num_vertices=1000), array_limit=100)
    assert kind == "ReqlResourceLimitError"
    assert message.startswith("Array over size limit `100`.")


def test_only_points_are_the_same_on_every_server(failure, run, table):
    table("t", [])
    run(r.table("t").index_create("p", lambda row: r.point(row["x"], row["y"]), geo=True))
    message = failure(r.table("t").index_create("l", lambda row: r.line(row["a"], row["b"]), geo=True))[1]
    assert message == "Could not prove function deterministic.  Index functions must be deterministic."


def test_a_circle_of_many_vertices_lets_others_work_in_between(world, monkeypatch):
    breaths = []
    monkeypatch.setattr(world.fibers, "breathe", lambda: breaths.append(1), raising=False)
    points = world.run(r.circle([5, 5], 1000, num_vertices=3200).to_geojson()["coordinates"][0])
    assert (len(points), points[0]) == (3201, points[-1])
    assert len(breaths) >= 100
    assert points[0] == world.run(r.circle([5, 5], 1000, num_vertices=32).to_geojson()["coordinates"][0][0])
