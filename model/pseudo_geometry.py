"""Geometries: `{"$reql_type$": "GEOMETRY", "type", "coordinates", "crs"?}`.

One rule: only the shape of the object is checked here; whether the coordinates make sense is
checked where a geometry is made or used.
"""

from __future__ import annotations

from typing import Any

from model.errors import ReqlNonExistenceError, ReqlQueryLogicError
from model.kinds import PTYPE_KEY, expect


def validated(datum: dict[str, Any]) -> dict[str, Any]:
    """The same geometry; raises RethinkDB's errors for missing, extra or mistyped fields."""
    for key in sorted(datum):
        if key == "coordinates":
            expect(datum[key], "ARRAY")
        elif key == "type":
            expect(datum[key], "STRING")
        elif key not in ("crs", PTYPE_KEY):
            raise ReqlQueryLogicError(f"Unrecognized field `{key}` found in geometry object.")
    for key in ("type", "coordinates"):
        if key not in datum:
            raise ReqlNonExistenceError(f"Field `{key}` not found in geometry object.")
    return datum
