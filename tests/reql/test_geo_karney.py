"""Geodesics against GeographicLib, which rounds otherwise, and against RethinkDB's last digits."""

from __future__ import annotations

import pytest
from geographiclib.geodesic import Geodesic
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.reql.geo.karney import Geodesics

WGS84 = (6378137.0, 1 / 298.257223563)
EARTH = Geodesics(*WGS84)

longitudes = st.one_of(st.floats(-180, 180), st.sampled_from([-180, -90, 0, 90, 179.5, 180]))
latitudes = st.one_of(st.floats(-90, 90), st.sampled_from([-90, -45, 0, 45, 90]))
ellipsoids = st.sampled_from([WGS84, (1.0, 0.0), (1.0, 0.02)])


def close(found, expected, scale):
    return abs(found - expected) <= 1e-9 * scale


@given(ellipsoids, longitudes, latitudes, longitudes, latitudes)
def test_distances(ellipsoid, longitude1, latitude1, longitude2, latitude2):
    expected = Geodesic(*ellipsoid).Inverse(latitude1, longitude1, latitude2, longitude2)["s12"]
    found = Geodesics(*ellipsoid).distance(longitude1, latitude1, longitude2, latitude2)
    assert close(found, expected, ellipsoid[0])


@given(longitudes, latitudes, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_distances_near_the_antipode(longitude, latitude, east, north):
    """Where the shortest way is hardest to find."""
    there = (longitude + 180 + east + 180) % 360 - 180, max(-90, min(90, -latitude + north))
    expected = Geodesic.WGS84.Inverse(latitude, longitude, there[1], there[0])["s12"]
    assert close(EARTH.distance(longitude, latitude, *there), expected, 1000)


@given(ellipsoids, longitudes, latitudes, st.floats(-180, 180), st.floats(0, 1.5))
@example(WGS84, 0.0, 1e-266, 90.0, 0.0)
def test_places_at_a_distance(ellipsoid, longitude, latitude, azimuth, share):
    a = ellipsoid[0]
    there = Geodesics(*ellipsoid).at(longitude, latitude, azimuth, share * a)
    back = Geodesic(*ellipsoid).Inverse(latitude, longitude, there[1], there[0])["s12"]
    assert close(back, share * a, 10 * a)
    assert -180 <= there[0] < 180


@pytest.mark.parametrize(
    ("places", "metres"),
    [
        ((0, 0, 1, 0), 111319.49079327357),
        ((0, 0, 0, 1), 110574.38855779878),
        ((-122.423246, 37.779388, -117.220406, 32.719464), 734125.2496021847),
        ((0, 0, 180, 0), 20003931.458625447),
        ((0, -4e-204, -180, -2e-172), 20003931.458625447),
        ((0, 0, 179.7, 0), 19995624.889961265),
        ((0, 0, 0.0000005, 0), 0.05565974539669245),
        ((10, 20, 10, 20), 0.0),
    ],
)
def test_the_last_digit_is_that_of_rethinkdb(places, metres):
    assert EARTH.distance(*places) == metres
