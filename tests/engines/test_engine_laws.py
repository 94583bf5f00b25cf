"""The disk engine does what the reference model does, under any mix of operations."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.keys import after_prefix
from storage import gaps, rocks
from storage.engine import MemoryEngine, Reader, View, WriteSet, scan
from storage.rocks import RocksEngine, RocksReader
from storage.rocks_options import RocksSettings

SCATTERED = st.binary(min_size=1, max_size=3).map(lambda tail: b"r" + tail)
OF_A_TABLE = st.text("ab", max_size=4).map(lambda tail: b"r0001" + tail.encode())
ROWS = st.one_of(SCATTERED, OF_A_TABLE)
ENTRIES = st.text("ab", max_size=4).map(lambda tail: b"i0001" + tail.encode())  # of an index
KEYS = st.one_of(ROWS, ENTRIES)
RANGES = st.one_of(
    st.tuples(ROWS, ROWS), st.tuples(OF_A_TABLE, OF_A_TABLE), st.tuples(ENTRIES, ENTRIES)
)  # what lies between the two is the engine's
VALUES = st.one_of(st.none(), st.binary(max_size=40))
LOWEST, HIGHEST = b"r", b"s"


def everything(reader: Reader) -> list[tuple[bytes, bytes]]:
    """All rows and entries."""
    return [*scan(reader, b"i", b"j"), *scan(reader, LOWEST, HIGHEST)]


class RowsInRing(RocksSettings):
    """A tiny cache set up as a large one: what has no room among the rows read of late is in the ring."""

    recent_bytes = 20_000
    has_rows_in_ring = True


class Engines(RuleBasedStateMachine):
    """One model and one database side by side."""

    settings_class = RocksSettings

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="engine-laws-"))
        self.settings = self.settings_class(cache_bytes=1 << 20, memtable_bytes=64 << 10)
        self.model = MemoryEngine()
        self.disk = RocksEngine(self.folder / "db", self.settings)
        self.views: list[tuple[View, View]] = []
        self.copies = 0

    @rule(rows=st.dictionaries(KEYS, VALUES, max_size=30), ranges=st.lists(RANGES, max_size=2))
    def write(self, rows: dict[bytes, bytes | None], ranges: list[tuple[bytes, bytes]]) -> None:
        for engine in (self.model, self.disk):
            changes = WriteSet()
            for key, value in rows.items():
                changes.rows[key] = value
            for low, high in ranges:
                if low < high:
                    changes.delete_range(low, high)
            engine.write(changes, self.model.applied_index + (engine is self.model))

    @rule(count=st.integers(1, 300), size=st.integers(0, 300))
    def write_many(self, count: int, size: int) -> None:
        for engine in (self.model, self.disk):
            changes = WriteSet()
            for number in range(count):
                changes.put(b"r%03d" % number, b"%d" % count * (size // 3))
            engine.write(changes, self.model.applied_index + (engine is self.model))

    @rule(keys=st.lists(KEYS, max_size=10))
    def get(self, keys: list[bytes]) -> None:
        assert self.disk.get_many(keys) == self.model.get_many(keys) == [self.disk.get(key) for key in keys]

    @rule()
    def get_what_is_there(self) -> None:
        """Most of it twice: what was read before comes from memory, until there is too much of it."""
        keys, values = self.model.scan_chunk(LOWEST, HIGHEST, 1000)
        for _ in range(2):
            assert [self.disk.get(key) for key in keys] == values
            for at in range(0, len(keys), 50):
                assert self.disk.get_many(keys[at : at + 50]) == values[at : at + 50]

    @rule(bounds=RANGES, limit=st.integers(0, 40), reverse=st.booleans(), skip=st.integers(0, 2))
    def chunk(self, bounds: tuple[bytes, bytes], limit: int, reverse: bool, skip: int) -> None:
        low, high = bounds
        expected = self.model.scan_chunk(low, high, limit, reverse, skip)
        assert self.disk.scan_chunk(low, high, limit, reverse, skip) == expected

    @rule(bounds=RANGES, limit=st.integers(0, 40), reverse=st.booleans())
    def values(self, bounds: tuple[bytes, bytes], limit: int, reverse: bool) -> None:
        low, high = bounds
        assert self.disk.scan_values(low, high, limit, reverse) == self.model.scan_values(low, high, limit, reverse)

    @rule()
    def flush(self) -> None:
        assert self.disk.flush() == self.model.flush()

    @rule()
    def reopen(self) -> None:
        self.close_views()
        self.disk.close()
        self.disk = RocksEngine(self.folder / "db", self.settings)

    @rule()
    @precondition(lambda self: len(self.views) < 3)
    def take_view(self) -> None:
        self.views.append((self.model.view(), self.disk.view()))

    @rule()
    @precondition(lambda self: self.copies < 3)
    def checkpoint(self) -> None:
        self.copies += 1
        copy = self.folder / f"copy{self.copies}"
        assert self.disk.checkpoint(copy) == self.model.applied_index
        reader = RocksReader(copy, self.settings)
        assert everything(reader) == everything(self.model)
        assert reader.applied_index == self.model.applied_index
        reader.close()

    @rule()
    @precondition(lambda self: bool(self.views))
    def close_a_view(self) -> None:
        for view in self.views.pop(0):
            view.close()

    def close_views(self) -> None:
        while self.views:
            self.close_a_view()

    @invariant()
    def views_and_engines_agree(self) -> None:
        assert self.disk.applied_index == self.model.applied_index
        for one, other in [(self.model, self.disk), *self.views]:
            assert everything(one) == everything(other)
        for one, other in self.views:
            assert one.applied_index == other.applied_index
            assert one.scan_chunk(b"r0", b"r1", 9, True) == other.scan_chunk(b"r0", b"r1", 9, True)
            assert one.get(b"r001") == other.get(b"r001")

    @invariant()
    def lookups_agree(self) -> None:
        """Those of the step before may be in memory."""
        for under in (b"i0001", b"i0001a", b"i0001b", b"i0001aa"):
            expected = self.model.scan_values(under, after_prefix(under), 9)
            assert self.disk.scan_values(under, after_prefix(under), 9) == expected

    @invariant()
    def tables_and_indexes_agree(self) -> None:
        """What the step before has passed over may be remembered."""
        for prefix in (b"i0001", b"r0001"):
            for reverse in (False, True):
                expected = self.model.scan_chunk(prefix, after_prefix(prefix), 50, reverse)
                assert self.disk.scan_chunk(prefix, after_prefix(prefix), 50, reverse) == expected

    def teardown(self) -> None:
        self.close_views()
        self.disk.close()
        shutil.rmtree(self.folder)


class EnginesWithRowsInRing(Engines):
    settings_class = RowsInRing


class EnginesThatRememberGaps(Engines):
    """Every step of a scan is slow here, so that all that is passed over is remembered."""

    def __init__(self) -> None:
        self._slowness = pytest.MonkeyPatch()
        self._slowness.setattr(gaps, "SLOW_STEP_S", -1.0)
        for name in ("SLOW_SCAN_S", "SLOW_ROW_S"):
            self._slowness.setattr(rocks, name, -1.0)
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self._slowness.undo()


TestEngines = Engines.TestCase
TestEngines.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestEnginesWithRowsInRing = EnginesWithRowsInRing.TestCase
TestEnginesWithRowsInRing.settings = TestEngines.settings
TestEnginesThatRememberGaps = EnginesThatRememberGaps.TestCase
TestEnginesThatRememberGaps.settings = TestEngines.settings
