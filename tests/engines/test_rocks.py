"""What rocksdict gets wrong, what a crash and a damaged file do: facts that the engine's rules rest on."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from model.errors import Corrupt, FolderInUse, Overloaded
from storage.engine import WriteSet
from storage.rocks import RocksEngine, RocksReader, fault
from storage.rocks_options import RocksSettings

SMALL = RocksSettings(cache_bytes=8 << 20, memtable_bytes=4 << 20)


def rows_of(count: int, value: bytes = b"v" * 100) -> WriteSet:
    changes = WriteSet()
    for number in range(count):
        changes.put(b"r%06d" % number, value)
    return changes


@pytest.fixture
def engine(tmp_path: Path) -> RocksEngine:
    return RocksEngine(tmp_path / "db", SMALL)


def test_view_stays_at_its_moment_for_gets_and_scans(engine: RocksEngine) -> None:
    engine.write(rows_of(100, b"old"), 1)
    view = engine.view()
    changes = rows_of(50, b"new")
    changes.delete(b"r000099")
    changes.put(b"r000200", b"new")
    changes.delete_range(b"r000060", b"r000070")
    engine.write(changes, 2)
    engine.flush()
    keys, values = view.scan_chunk(b"r", b"s", 1000)
    assert len(keys) == 100 and set(values) == {b"old"}
    assert view.get(b"r000001") == b"old" and view.get(b"r000200") is None
    assert view.get_many([b"r000099", b"r000065"]) == [b"old", b"old"]
    assert view.applied_index == 1 and engine.applied_index == 2
    view.close()
    with pytest.raises(RuntimeError):
        view.get(b"r000001")


@pytest.mark.parametrize("limit", [1, 7, 31, 32, 33, 64, 65, 1000])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_put_together_are_the_range(engine: RocksEngine, limit: int, reverse: bool) -> None:
    engine.write(rows_of(100), 1)
    low, high = b"r000010", b"r000075"
    found: list[bytes] = []
    at_low, at_high = low, high
    while True:
        keys, values = engine.scan_chunk(at_low, at_high, limit, reverse)
        assert len(keys) == len(values)
        assert engine.scan_values(at_low, at_high, limit, reverse) == (values, keys[-1] if len(keys) == limit else b"")
        found += keys
        if len(keys) < limit:
            break
        if reverse:
            at_high = keys[-1]
        else:
            at_low = keys[-1] + b"\0"
    expected = [b"r%06d" % number for number in range(10, 75)]
    assert found == (expected[::-1] if reverse else expected)


def test_unflushed_writes_are_lost_together_with_the_applied_index(tmp_path: Path) -> None:
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", CRASHING, str(tmp_path / "db")])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    engine = RocksEngine(tmp_path / "db", SMALL)
    assert engine.applied_index == 5
    assert engine.get(b"r000001") == b"kept"
    assert engine.get(b"r000099") is None


CRASHING = """
import os, sys
from pathlib import Path
from storage.engine import WriteSet
from storage.rocks import RocksEngine
engine = RocksEngine(Path(sys.argv[1]))
first = WriteSet(); first.put(b"r000001", b"kept"); engine.write(first, 5)
assert engine.flush() == 5
second = WriteSet(); second.put(b"r000001", b"lost"); second.put(b"r000099", b"lost"); engine.write(second, 6)
os._exit(7)
"""


def test_a_damaged_file_is_reported_by_scans_of_every_kind(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", SMALL)
    for start in range(20):
        changes = WriteSet()
        for number in range(start * 1000, start * 1000 + 1000):
            changes.put(b"r%06d" % number, os.urandom(100))
        engine.write(changes, start)
    engine.close()
    files = sorted((tmp_path / "db").glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(files[-1].read_bytes())
    data[len(data) // 2] ^= 0xFF
    files[-1].write_bytes(data)
    reader = RocksReader(tmp_path / "db", SMALL)
    for reverse in (False, True):
        with pytest.raises(Corrupt):
            reader.scan_chunk(b"r", b"s", 30_000, reverse)
    with pytest.raises(Corrupt):
        reader.get_many([b"r%06d" % number for number in range(20_000)])


def test_a_folder_has_one_writer(tmp_path: Path, engine: RocksEngine) -> None:
    with pytest.raises(FolderInUse):
        RocksEngine(tmp_path / "db", SMALL)


def test_checkpoint_opens_read_only_at_its_index(tmp_path: Path, engine: RocksEngine) -> None:
    engine.write(rows_of(10), 41)
    assert engine.checkpoint(tmp_path / "copy") == 41
    engine.write(rows_of(20), 42)
    reader = RocksReader(tmp_path / "copy", SMALL)
    assert reader.applied_index == 41
    assert len(reader.scan_chunk(b"r", b"s", 100)[0]) == 10
    reader.close()
    assert engine.sizes()["keys"] > 0


def test_a_stall_is_tried_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    pauses: list[float] = []
    tiny = RocksSettings(cache_bytes=1 << 20, memtable_bytes=64 << 10, memtables=2, background_jobs=1)
    engine = RocksEngine(tmp_path / "db", tiny, pauses.append)
    stalls = 0
    for index in range(1, 2000):
        try:
            engine.write(rows_of(900, os.urandom(200)), index)
        except Overloaded:
            stalls += 1
            assert engine.applied_index < index
            break
    assert stalls == 1 and len(pauses) >= 3
    while True:  # the pause does nothing here, so wait by flushing, which frees memtables
        engine.flush()
        try:
            engine.write(rows_of(1), 5000)
            break
        except Overloaded:
            continue
    assert engine.applied_index == 5000


def test_memtables_are_a_part_of_the_cache(tmp_path: Path) -> None:
    settings = RocksSettings(cache_bytes=48 << 20)
    assert settings.write_buffer_bytes * settings.memtables <= settings.cache_bytes // 2
    engine = RocksEngine(tmp_path / "db", settings)
    engine.write(rows_of(4, bytes(1 << 20)), 1)
    sizes = engine.sizes()
    assert 4 << 20 <= sizes["memtable_bytes"] <= sizes["cache_bytes"] <= settings.cache_bytes


def test_faults_are_told_apart() -> None:
    assert isinstance(fault(Exception("Incomplete: Write stall")), Overloaded)
    assert type(fault(Exception("IO error: No space left on device: x"))).__name__ == "DiskFull"
    assert isinstance(fault(Exception("Corruption: block checksum mismatch")), Corrupt)


@pytest.mark.parametrize("kind", [RocksEngine, RocksReader])
def test_a_folder_that_is_there_already_is_opened_with_the_settings_of_now(
    tmp_path: Path, kind: type[RocksReader]
) -> None:
    RocksEngine(tmp_path / "db", SMALL).close()
    settings = RocksSettings(cache_bytes=48 << 20)
    opened = kind(tmp_path / "db", settings)
    capacity = opened._db.property_int_value("rocksdb.block-cache-capacity")
    assert capacity == settings.block_cache_bytes
    opened.close()


def test_compactions_yield_to_what_somebody_waits_for(engine: RocksEngine) -> None:
    niceness = {
        (task / "comm").read_text().strip(): os.getpriority(os.PRIO_PROCESS, int(task.name))
        for task in Path("/proc/self/task").glob("*")
    }
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert (
        niceness.get("rocksdb:low", 10) >= 10 and niceness.get("rocksdb:high", own) == own
    )  # elsewhere: no threads seen


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_rows_are_packed_as_set_once_they_are_where_they_stay(tmp_path: Path, compression: str) -> None:
    dice = random.Random(5)
    words = [b"%x" % dice.getrandbits(40) for _ in range(300)]
    engine = RocksEngine(tmp_path / "db", RocksSettings(cache_bytes=8 << 20, compression=compression))
    rows = {b"r%06d" % number: b" ".join(dice.choices(words, k=60)) for number in range(3000)}
    for half in (0, 1):  # a file that overlaps no other would only be moved
        changes = WriteSet()
        changes.rows.update(list(rows.items())[half::2])
        engine.write(changes, half + 1)
        engine.flush()
    engine._db.compact_range(b"a", b"z")
    packed = sum(file.stat().st_size for file in (tmp_path / "db").glob("*.sst")) / sum(map(len, rows.values()))
    assert (0.2 < packed < 0.35) if compression == "zstd" else (0.35 < packed < 0.5)
    assert engine.scan_chunk(b"r", b"s", 5000)[1] == list(rows.values())
    engine.close()
