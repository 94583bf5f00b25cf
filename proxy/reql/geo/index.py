"""Geospatial indexes: a geometry is indexed under the cells of S2's grid that cover it.

A key is the letter G, the cell's number, so that a cell's own parts are the range of numbers around it, and 0 if it
is the geometry's only cell, else 1. One rule: keys only narrow the search down. Whoever looks something up tests the
rows that are found, so that coverings may differ from one version of S2 to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import s2geometry as s2

from model import datum as d
from model.errors import ReqlError
from proxy.reql.geo import shapes

INDEX_CELLS: Final = 8
QUERY_CELLS: Final = 16
ALONE: Final = b"\x00"
SHARED: Final = b"\x01"
FACE_BIT: Final = 1 << 60  # the lowest bit of the six largest cells

KeyRange = tuple[bytes, bytes]


def index_keys_of(values: Iterable[Any]) -> list[bytes]:
    """The keys of a row by its indexed values: what is no geometry is left out, a wrong geometry hides the row."""
    try:
        coverings = [
            _covering(shapes.shape_of(value), INDEX_CELLS) for value in values if d.is_ptype(value, d.GEOMETRY)
        ]
    except ReqlError:
        return []
    return [_key(number) + (ALONE if len(cells) == 1 else SHARED) for cells in coverings for number in cells]


def shapes_of(values: Iterable[Any]) -> list[shapes.Shape]:
    """The shapes among a row's indexed values, by the same rule."""
    try:
        return [shapes.shape_of(value) for value in values if d.is_ptype(value, d.GEOMETRY)]
    except ReqlError:
        return []


def ranges_of(shape: shapes.Shape) -> list[KeyRange]:
    """[low, high) of the keys of all cells that have a place in common with a covering of the shape, in order.

    Those are the parts of a covering cell and the cells that it is a part of. A cell's lowest bit that is set tells
    its level: the cell is in the middle of its parts' numbers, four times as many with each level.
    """
    ranges = set()
    above = set()
    for number in _covering(shape, QUERY_CELLS):
        bit = number & -number
        ranges.add((_key(number - bit + 1), _key(number + bit)))
        while bit < FACE_BIT:
            bit <<= 2
            above.add(number & -bit | bit)
    ranges.update((_key(number), _key(number + 1)) for number in above)
    return sorted(ranges)


def is_alone(entry: bytes) -> bool:
    """Whether an index entry is the only one of its geometry."""
    return entry[9] == ALONE[0]


def _key(number: int) -> bytes:
    return b"G" + number.to_bytes(8, "big")


def _covering(shape: shapes.Shape, cells: int) -> list[int]:
    """The numbers of at most so many cells (a few more at the corners of the grid); of one for a point."""
    if isinstance(shape, shapes.Point):
        return [s2.S2CellId(shape.point).id()]
    coverer = s2.S2RegionCoverer()
    coverer.set_max_cells(cells)
    region = shape.line if isinstance(shape, shapes.Line) else shape.polygon
    return [cell.id() for cell in coverer.GetCovering(region)]
