"""Terms that make geometries (terms/geo.cc)."""

from __future__ import annotations

from typing import Any

from proxy.reql import geometry as geo
from proxy.reql.ids import Term
from proxy.reql.registry import term
from proxy.reql.values import as_number


@term(Term.POINT, "point", "2", takes=(as_number,))
def point(env: Any, longitude: float, latitude: float) -> dict[str, Any]:
    geo.place([longitude, latitude])
    return geo.point_of((longitude, latitude))
