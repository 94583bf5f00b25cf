"""Reading through a geospatial index: the rows that meet a geometry, and those nearest to a place.

One rule: a row found by its cells is read once, and what the index function gives for it now decides.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from model import datum as d
from model.catalog import Index
from model.errors import ReqlError, ReqlQueryLogicError, ReqlResourceLimitError
from proxy.reql.geo import geodesy, shapes
from proxy.reql.geo import geometry as geo
from proxy.reql.geo.index import KeyRange, is_alone, ranges_of, shapes_of
from proxy.reql.index_functions import compile_function, index_values
from proxy.reql.streams import MAX_CHUNK, Rows, Stream
from proxy.reql.tables import StoredTable

FIRST_RADIUS: Final = 10.0 / 6378137.0  # of get_nearest, in radii of the equator: 10 m on Earth
GROWTH: Final = 2.0
GOAL: Final = 100.0  # rows that get_nearest would like to find in one round
CORNERS: Final = 8  # of the polygon that stands for the circle of a round

OVER_LIMIT: Final = "Array size limit exceeded during geospatial index traversal."


def row_shapes(index: Index) -> Callable[[Any], list[shapes.Shape]]:
    """The function from a row to the shapes under which the index has it."""
    function = compile_function(index.definition["function"])
    multi = bool(index.definition.get("multi"))
    return lambda row: shapes_of(index_values(function, multi, row))


class _Candidates:
    """Rows by ranges of cells, each of them once however many cells it has.

    once: the ranges that are asked for do not overlap, so that a row with one cell needs no remembering.
    """

    __slots__ = ("_index_id", "_once", "_seen", "_source")

    def __init__(self, source: StoredTable, index: Index, once: bool) -> None:
        self._source = source
        self._index_id = index.index_id
        self._once = once and not index.definition.get("multi")
        self._seen: set[bytes] = set()

    def chunks(self, env: Any, ranges: list[KeyRange]) -> Iterator[list[bytes]]:
        """The rows' JSON texts, a chunk at a time."""
        for low, high in ranges:
            while True:
                self._source.prepare_read(env)
                entries, keys = env.data.scan_index_chunk(self._index_id, low, high, MAX_CHUNK)
                fresh = self._fresh(entries, keys)
                rows = env.data.get_many(self._source.table.table_id, fresh) if fresh else []
                yield [row for row in rows if row is not None]
                if len(entries) < MAX_CHUNK:
                    break
                low = entries[-1] + b"\x00"

    def _fresh(self, entries: list[bytes], keys: list[bytes]) -> list[bytes]:
        """The keys that were not given yet."""
        out = []
        seen = self._seen
        for entry, key in zip(entries, keys, strict=True):
            if self._once and is_alone(entry):
                out.append(key)
            elif key not in seen:
                seen.add(key)
                out.append(key)
        return out


class IntersectingRows(Stream):
    """get_intersecting: a row comes as often as it has shapes that meet the geometry."""

    __slots__ = ("_chunks", "_found", "geometry", "index", "source")

    def __init__(self, source: StoredTable, index: Index, geometry: Any) -> None:
        super().__init__()
        self.source = source
        self.index = index
        self.geometry = geometry
        self._chunks: Iterator[Rows] | None = None
        self._found = 0

    def source_chunk(self, env: Any) -> Rows | None:
        if self._chunks is None:
            self._chunks = self._read(env)
        rows = next(self._chunks, None)
        if rows:
            self._found += len(rows)
            if self._found > env.array_limit:
                raise ReqlResourceLimitError(OVER_LIMIT, ())
        return rows

    def _read(self, env: Any) -> Iterator[Rows]:
        copies, shape = self.matcher()
        for texts in _Candidates(self.source, self.index, once=True).chunks(env, ranges_of(shape)):
            rows = map(d.loads, texts)
            yield [row for row in rows for _ in range(copies(row))]

    def matcher(self) -> tuple[Callable[[Any], int], shapes.Shape]:
        """A function that counts a row's shapes that meet the geometry, and the geometry's shape."""
        try:
            shape = shapes.shape_of(self.geometry)
        except ReqlError as error:
            error.path = ()
            raise
        of_row = row_shapes(self.index)
        return lambda row: sum(shapes.intersects(shape, other) for other in of_row(row)), shape


class NearestSearch:
    """get_nearest: rounds of growing circles about the centre, until there are enough rows or the last one is done."""

    def __init__(
        self,
        source: StoredTable,
        index: Index,
        centre: geo.Position,
        max_distance: float,
        max_results: int,
        ellipsoid: geodesy.Ellipsoid,
    ) -> None:
        self._candidates = _Candidates(source, index, once=False)
        self._of_row = row_shapes(index)
        self._centre = centre
        self._max_distance = max_distance
        self._max_results = max_results
        self._ellipsoid = ellipsoid
        self._done = 0.0  # metres up to which everything was found
        self._radius = min(max_distance, FIRST_RADIUS * ellipsoid.equator_radius)

    def run(self, env: Any) -> list[tuple[float, Any]]:
        """(metres, row) by distance; a row comes as often as it has shapes that are near enough."""
        found: list[tuple[float, Any]] = []
        waiting: list[tuple[float, int, Any]] = []  # rows that were read but are further away than the circle
        point = shapes.Point(list(self._centre))
        read = 0
        while True:
            for texts in self._candidates.chunks(env, ranges_of(self._ring())):
                for row in map(d.loads, texts):
                    for shape in self._of_row(row):
                        read += 1
                        heapq.heappush(waiting, (geodesy.distance(point, shape, self._ellipsoid), read, row))
                env.breathe()
            before = len(found)
            while waiting and waiting[0][0] <= self._radius:
                distance, _, row = heapq.heappop(waiting)
                found.append((distance, row))
            if len(found) > env.array_limit:
                raise ReqlResourceLimitError(OVER_LIMIT)
            if not self._grow(len(found) - before) or len(found) >= self._max_results:
                return found[: self._max_results]

    def _grow(self, new: int) -> bool:
        """Widens the circle to where as many further rows as we would like should be. False: it was the last."""
        if self._radius >= self._max_distance:
            return False
        area = math.pi * (self._radius * self._radius - self._done * self._done)
        self._done = self._radius
        if new and 0.0 < area < math.inf:
            self._radius = math.sqrt(GOAL / math.pi / (new / area) + self._done * self._done)
        else:
            self._radius = self._done * GROWTH
        self._radius = min(self._radius, self._max_distance)
        return True

    def _ring(self) -> shapes.Shape:
        """All that is within the circle, but for what was searched before."""
        try:
            outer = geodesy.polygon_around(self._centre, self._radius, CORNERS, self._ellipsoid)
            if self._done > 0.0:
                hole = geodesy.ring_within(self._centre, self._done, CORNERS, self._ellipsoid)
                outer["coordinates"].append(hole)
        except ReqlQueryLogicError as error:
            raise ReqlQueryLogicError(
                "The distance has become too large for continuing the indexed nearest traversal.  Consider specifying "
                f"a smaller `max_dist` parameter.  ({error.message})"
            ) from error
        return shapes.shape_of(outer)
