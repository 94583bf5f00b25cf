"""Opening a log after whatever may have happened to it: a prefix with all that was acknowledged, or a refusal."""

import random
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import Corrupt, SyncFailed
from tests.wal.log_session import LogSession, state_after
from tests.wal.lossy_disk import FOLDER, LossyDisk
from wal.files import OsFiles
from wal.reader import EntryReader, open_log
from wal.record import HEAD_BYTES, Kind, Record
from wal.writer import LogWriter

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5), st.integers(0, 2500)),
        st.tuples(st.just("truncate"), st.integers(1, 6), st.integers(0, 900)),
        st.tuples(st.just("restart"), st.integers(1, 9), st.integers(0, 900)),
        st.tuples(st.just("roll"), st.just(0), st.just(0)),
        st.tuples(st.just("release"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("vote"), st.integers(0, 9), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


class Life:
    """Plays steps on one session; every payload is unique, so a dead record that comes back is seen."""

    def __init__(self, session, number):
        self.session = session
        self.number = number
        self.index, self.raft_term = session.last
        self.written = 0
        self.unacknowledged = []

    def payload(self, size):
        self.written += 1
        return f"<{self.number}.{self.written}>".encode() + bytes([self.written % 256]) * size

    def entries(self, count, size):
        records = []
        for _ in range(count):
            self.index += 1
            records.append(Record(Kind.ENTRY, self.raft_term, self.index, self.payload(size)))
        return records

    def play(self, step):
        """Whether it was acknowledged."""
        action, count, size = step
        writer, records = self.session.writer, []
        if action == "append":
            records = self.entries(count, size)
        elif action == "truncate":
            keep = max(self.session.first_index - 1, self.index - count)
            if keep in self.session.entries:
                records = [Record(Kind.TRUNCATE, self.session.entries[keep][0], keep)]
                self.index = keep
                self.raft_term += 1
                records += self.entries(1, size)
        elif action == "restart":
            self.index, self.raft_term = self.index + count, self.raft_term + 1
            records = [Record(Kind.RESTART, self.raft_term, self.index), *self.entries(1, size)]
        elif action == "roll":
            writer.roll()
        elif action == "release":
            writer.release_before(self.index - count)
        records.append(Record(Kind.HARD_STATE, self.raft_term, 0, bytes(8)))
        if self.session.append(records):
            return True
        self.unacknowledged = records
        return False


def may_be(found, session, records):
    """Whether `found` holds what was acknowledged, maybe more records, maybe less what was released."""
    state = (session.first_index, session.entries)
    possible = [state, *(state := state_after(state, record) for record in records)]
    released_before, first = session.writer.segments[0].first_index if session.writer.segments else 0, found.first_index
    return any(
        first <= max(first_index, released_before) and found.entries == {i: e for i, e in entries.items() if i >= first}
        for first_index, entries in possible
    )


def play(disk, number, script, dice, fail_after):
    """One life: `script` until the disk fails, then a power cut or not; gives the disk as it is found afterwards."""
    session = LogSession(disk, dice.choice([6000, 30_000]), has_kernel=dice.random() < 0.5)
    life = Life(session, number)
    disk.fail_at = disk.operations + fail_after
    for step in script:
        if not life.play(step):
            break
    disk.fail_at = None
    has_power = dice.random() < 0.3
    session.end()
    disk = disk if has_power else disk.after_power_loss(dice)
    found = LogSession(disk)
    found.end()
    assert may_be(found, session, life.unacknowledged)
    assert found.opened.chart.last_index == max(found.entries, default=found.first_index - 1)
    disk = disk.after_power_loss(dice)  # what was found is there for good
    again = LogSession(disk)
    again.end()
    assert (again.first_index, again.entries, again.opened.broken) == (found.first_index, found.entries, [])
    return disk


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=1, max_size=3), st.integers(1, 60), st.integers(0, 10**9))
def test_a_power_cut_loses_nothing_acknowledged_and_revives_nothing(lives, cut_after, seed):
    dice = random.Random(seed)
    disk = LossyDisk(short_writes=dice.choice([None, 700]))
    for number, script in enumerate(lives):
        disk = play(disk, number, script, dice, dice.randint(1, cut_after))


SCRIPT = [
    *[("append", 5, 900)] * 7,
    ("release", 3, 0),
    ("append", 4, 2400),
    ("truncate", 3, 100),
    *[("append", 5, 700)] * 6,
    ("release", 2, 0),
    ("append", 1, 5900),
    ("append", 5, 2500),
    ("roll", 0, 0),
    ("append", 2, 10),
    ("release", 0, 0),
    ("append", 5, 1500),
]


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_at_every_operation_of_a_life_with_recycled_files(seed):
    for fail_after in range(1, 110):
        dice = random.Random(seed * 1000 + fail_after)
        disk = play(LossyDisk(), 0, SCRIPT, dice, fail_after)
        play(disk, 1, SCRIPT[:3], dice, dice.randint(1, 20))


@pytest.fixture
def log(tmp_path):
    """A small log on the real disk: (folder, entries by index, last group's first offset)."""
    folder = tmp_path / "log"
    opened = open_log(folder)
    writer = LogWriter(opened, segment_bytes=900)
    writer.start()
    for index in range(1, 21):
        writer.append([Record(Kind.ENTRY, 1, index, f"{index}.".encode() * 20)])
        writer.close() if index == 20 else wait_for(writer)
    return folder


def wait_for(writer):
    done = threading.Event()
    writer.append([], done.set)
    assert done.wait(20)


def indexes(folder):
    opened = open_log(folder)
    chart = opened.chart
    paths = {segment.number: segment.path for segment in opened.segments}
    records = EntryReader(chart.map, paths).read(chart.first_index, chart.last_index + 1, 1 << 30)
    for record in records:
        assert record.payload == f"{record.log_index}.".encode() * 20
    return [record.log_index for record in records], opened


def last_segment(folder):
    return max(folder.glob("*.wal"))


def test_a_log_cut_at_every_byte_of_its_last_segment_is_a_prefix(log):
    all_indexes, opened = indexes(log)
    last = opened.segments[-1]
    before = last.first_index - 1
    seen = set()
    for cut in range(last.end + 1):
        disk = LossyDisk.holding(log)
        del disk.files[last.path.name].now[cut:]
        session = LogSession(disk)
        assert sorted(session.entries) == all_indexes[: len(session.entries)]
        assert len(session.opened.broken) <= 1
        seen.add(len(session.entries))
        session.end()
        again = LogSession(disk)
        assert (again.entries, again.opened.broken) == (session.entries, [])
        again.end()
    assert seen == set(range(before, 21))


def test_a_torn_tail_is_kept_as_a_broken_file_and_new_entries_follow(log):
    path = last_segment(log)
    _, opened = indexes(log)
    end = opened.segments[-1].end
    with path.open("r+b") as file:
        file.truncate(end - 5)
    found, reopened = indexes(log)
    assert found == list(range(1, 20))
    assert [broken.name for broken in reopened.broken] == [
        f"{path.stem}-{reopened.segments[-1].end:08x}.broken",
    ]
    assert b"20.20." in reopened.broken[0].read_bytes()
    writer = LogWriter(reopened, segment_bytes=900)
    writer.start()
    writer.append([Record(Kind.ENTRY, 2, 20, b"20." * 20)])
    writer.close()
    assert indexes(log)[0] == list(range(1, 21))


def test_every_flipped_byte_before_the_last_group_is_refused_with_its_place(log):
    _, opened = indexes(log)
    last = opened.segments[-1]
    for segment in opened.segments:
        content = segment.path.read_bytes()
        for at in range(0, segment.end - (len(b"20." * 20) + HEAD_BYTES if segment is last else 0), 3):
            flipped = bytearray(content)
            flipped[at] ^= 0x10
            segment.path.write_bytes(flipped)
            with pytest.raises(Corrupt) as caught:
                open_log(log)
            text = str(caught.value)
            assert segment.path.name in text
            assert int(text.split("offset ")[1].split(":")[0]) <= at
            assert "restore from a backup" in text
            assert segment.path.read_bytes() == flipped  # nothing was changed
        segment.path.write_bytes(content)


def test_a_missing_segment_is_refused(log):
    names = sorted(path.name for path in log.glob("*.wal"))
    (log / names[1]).unlink()
    with pytest.raises(Corrupt, match=r"has no segment 00000002, between"):
        open_log(log)


def test_a_segment_of_another_log_is_refused(log, tmp_path):
    other = tmp_path / "other"
    writer = LogWriter(open_log(other), segment_bytes=900)
    writer.start()
    for index in range(1, 21):
        writer.append([Record(Kind.ENTRY, 1, index, f"{index}.".encode() * 20)])
    writer.close()
    name = sorted(path.name for path in log.glob("*.wal"))[1]
    for path in other.glob(f"{name[:8]}*"):
        (log / name).unlink()
        shutil.copy(path, log / path.name)
    with pytest.raises(Corrupt, match="belongs to another log"):
        open_log(log)


def test_a_truncated_middle_segment_is_refused(log):
    names = sorted(path.name for path in log.glob("*.wal"))
    with (log / names[0]).open("r+b") as file:
        file.truncate(500)
    with pytest.raises(Corrupt, match=names[0]):
        open_log(log)


def test_a_regular_end_proves_that_the_last_group_was_synced():
    """After it, damage in what was written last is not taken for a torn tail."""
    disk = LossyDisk()
    session = LogSession(disk)
    session.append([Record(Kind.ENTRY, 1, 1, b"one"), Record(Kind.HARD_STATE, 1, 1, bytes(8))])
    session.end()
    name = next(iter(disk.files))
    at = disk.contents(name).index(b"one")
    disk.files[name].now[at] ^= 1
    with pytest.raises(Corrupt):
        open_log(FOLDER, disk)


def test_a_last_segment_that_was_never_begun_is_dropped(log):
    found, _ = indexes(log)
    (log / "000000ff-0000000000000015.wal").write_bytes(b"")
    with pytest.raises(Corrupt, match="has no segment"):
        open_log(log)
    (log / "000000ff-0000000000000015.wal").unlink()
    number = int(last_segment(log).name[:8], 16) + 1
    empty = log / f"{number:08x}-0000000000000015.wal"
    empty.write_bytes(bytes(4096))
    assert indexes(log)[0] == found
    assert not empty.exists()


def test_an_unreadable_folder_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(SyncFailed):
        open_log(tmp_path / "log")


def test_the_real_files_do_what_the_port_says(tmp_path):
    files = OsFiles()
    path = tmp_path / "x"
    handle = files.open(path, writable=True, create=True)
    assert files.pwrite(handle, b"hello", 3) == 5
    files.datasync(handle)
    assert (files.size(handle), files.pread(handle, 9, 2)) == (8, b"\0hello")
    files.close(handle)
    files.rename(path, Path(tmp_path / "y"))
    files.sync_folder(tmp_path)
    assert files.names(tmp_path) == ["y"]
    files.remove(tmp_path / "y")
    assert files.names(tmp_path) == []
