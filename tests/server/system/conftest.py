"""The small world of the terms' tests, for tests of system tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rethinkdb import r

from tests.reql.conftest import SmallWorld

SYSTEM = r.db("rethinkdb")


@pytest.fixture
def world() -> SmallWorld:
    return SmallWorld()


@pytest.fixture
def run(world: SmallWorld) -> Callable[..., Any]:
    """run(query) -> the query's value."""
    return world.run


@pytest.fixture
def complaint(world: SmallWorld) -> Callable[[Any], str]:
    """complaint(write) -> the first error of a write that must fail, which must not change anything."""

    def find(write: Any) -> str:
        before = world.machine.catalog.revision
        result = world.run(write)
        assert result["errors"] == 1, result
        assert world.machine.catalog.revision == before
        return str(result["first_error"])

    return find
