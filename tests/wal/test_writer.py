"""The writer's thread: groups, segments, recycled files, readers beside it, and failures that are final."""

import errno
import threading

import pytest

from model.errors import DiskFull, SyncFailed
from tests.wal.log_session import SEGMENT_BYTES, LogSession
from tests.wal.lossy_disk import FOLDER, PAGE, LossyDisk
from wal.reader import open_log
from wal.record import Kind, Record
from wal.segment import is_spare
from wal.writer import LogWriter

pytestmark = pytest.mark.usefixtures("whoever_syncs")


def entries(first, count, raft_term=1, size=100):
    return [Record(Kind.ENTRY, raft_term, index, f"{index}:".encode() * size) for index in range(first, first + count)]


def test_what_is_queued_before_the_thread_runs_is_one_group_in_order():
    disk = LossyDisk()
    opened = open_log(FOLDER, disk)
    writer = LogWriter(opened, files=disk)
    order, done = [], threading.Event()
    for index in range(1, 51):
        writer.append(entries(index, 1), lambda index=index: order.append(index))
    writer.append(entries(51, 1), done.set)
    writer.start()
    assert done.wait(20)
    assert order == list(range(1, 51))
    assert writer.synced_groups == 2  # the segment's head, and all entries
    assert writer.queued_bytes == 0
    writer.close()
    assert [record.log_index for record in writer.reader().read(1, 52, 1 << 30)] == list(range(1, 52))


def test_a_log_grows_over_segments_and_reads_back():
    session = LogSession(LossyDisk(short_writes=1000))
    for index in range(1, 60):
        assert session.append(entries(index, 1))
    assert len(session.writer.segments) > 3
    assert all(segment.end <= SEGMENT_BYTES for segment in session.writer.segments)
    session.end()
    again = LogSession(session.files)
    assert again.entries == session.entries
    assert again.opened.broken == []
    assert [segment.is_sealed for segment in again.opened.segments][-2:] == [True, False]
    again.end()


def test_an_entry_larger_than_a_segment_has_one_to_itself():
    session = LogSession(LossyDisk())
    assert session.append([*entries(1, 1), *entries(2, 1, size=9000), *entries(3, 1)])
    assert [segment.first_index for segment in session.writer.segments] == [1, 2, 3]
    session.end()
    assert LogSession(session.files).entries == session.entries


def test_a_released_file_is_used_again_and_its_old_records_stay_dead():
    session = LogSession(LossyDisk())
    for index in range(1, 40):
        session.append(entries(index, 1, size=200))
    session.writer.release_before(30)
    session.settle()
    kept = session.writer.segments[0].first_index
    assert kept > 10
    assert sorted(map(is_spare, session.files.files)) == [False] * len(session.writer.segments) + [True, True]
    for index in range(40, 46):
        session.append(entries(index, 1, size=300))
    session.end()
    again = LogSession(session.files)
    assert min(again.entries) == again.opened.chart.first_index == kept
    assert max(again.entries) == 45
    assert again.opened.broken == []
    again.end()


def test_a_recycled_file_is_overwritten_in_whole_pages():
    """Half a page would have to be read from the disk first."""
    session = LogSession(LossyDisk())
    writes = []
    pwrite = session.files.pwrite

    def noting(handle, data, offset):
        writes.append(offset + len(data))
        return pwrite(handle, data, offset)

    session.files.pwrite = noting
    for index in range(1, 40):
        session.append(entries(index, 1, size=30))
    session.end()
    assert writes
    assert all(end % PAGE == 0 or end == SEGMENT_BYTES for end in writes)


def test_release_keeps_what_is_asked_for_and_the_open_segment():
    session = LogSession(LossyDisk())
    for index in range(1, 40):
        session.append(entries(index, 1))
    third = session.writer.segments[2]
    session.writer.release_before(third.first_index - 1)
    session.settle()
    assert session.writer.segments[0].number == third.number - 1
    session.writer.release_before(10_000)
    session.settle()
    assert len(session.writer.segments) == 1
    session.end()


def test_roll_begins_a_segment_unless_the_open_one_is_empty():
    session = LogSession(LossyDisk())
    session.append(entries(1, 1))
    session.writer.roll()
    session.writer.roll()
    session.append(entries(2, 1))
    assert [segment.first_index for segment in session.writer.segments] == [1, 2]
    session.end()


def test_void_entries_are_not_read_back():
    session = LogSession(LossyDisk(), segment_bytes=100_000)
    session.append(entries(1, 10))
    session.writer.truncate_after(4, 1)
    assert session.append(entries(5, 2, raft_term=2))
    found = session.writer.reader().read(1, 7, 1 << 30)
    assert [(record.log_index, record.raft_term) for record in found] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 2),
        (6, 2),
    ]
    session.end()
    chart = open_log(FOLDER, session.files).chart
    assert (chart.last_index, chart.last_term, chart.terms.term(4), chart.terms.term(5)) == (6, 2, 1, 2)


def test_a_range_is_read_up_to_a_size_but_at_least_one_entry():
    session = LogSession(LossyDisk())
    session.append(entries(1, 20))
    reader = session.writer.reader()
    assert [record.log_index for record in reader.read(3, 9, 1)] == [3]
    assert [record.log_index for record in reader.read(3, 9, 450)] == [3, 4]
    assert [record.log_index for record in reader.read(3, 9, 1 << 20)] == [3, 4, 5, 6, 7, 8]
    session.end()


def test_another_thread_reads_while_the_log_is_written():
    session = LogSession(LossyDisk())
    reader, problems, stop = session.writer.reader(), [], threading.Event()
    session.append(entries(1, 20))

    def read():
        while not stop.is_set():
            found = reader.read(1, 21, 1 << 30)
            if [record.log_index for record in found] != list(range(1, 21)):
                problems.append(found)

    thread = threading.Thread(target=read)
    thread.start()
    for index in range(21, 150):
        assert session.append(entries(index, 1, size=10))
    stop.set()
    thread.join()
    assert problems == []
    session.end()


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        ("sync", errno.EIO, SyncFailed),
        ("write", errno.EIO, SyncFailed),
        ("write", errno.ENOSPC, DiskFull),
        ("sync", errno.EDQUOT, DiskFull),
        ("create", errno.EROFS, DiskFull),
        ("sync folder", errno.EIO, SyncFailed),
    ],
)
def test_a_failure_is_final_and_told_once(kind, code, error):
    disk = LossyDisk()
    disk.only, disk.fail_with = kind, code
    session = LogSession(disk)
    session.append(entries(1, 3))
    disk.fail_at = disk.operations + 1
    index = 4
    while session.append(entries(index, 1)):
        index += 1
    assert [type(failure) for failure in session.failures] == [error]
    assert session.failures[0].hint
    operations = disk.operations
    assert not session.append(entries(index, 1))
    assert session.writer.failed is session.failures[0]
    session.end()
    assert disk.operations == operations  # nothing was retried
    disk.fail_at = None
    assert {n: e for n, e in LogSession(disk).entries.items() if n < index} == session.entries


def test_a_mistake_in_the_thread_stops_it_like_a_failed_sync():
    session = LogSession(LossyDisk())
    assert not session.append([Record(Kind.ENTRY, 1, -5)])
    assert isinstance(session.failures[0], SyncFailed)
    session.end()
