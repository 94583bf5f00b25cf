"""Short groups: written by the caller, synced by the kernel; one at a time, in order, and the thread for the rest."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.wal.log_session import StepKernel
from tests.wal.lossy_disk import FOLDER, LossyDisk
from tests.wal.test_writer import entries
from wal.reader import open_log
from wal.record import Kind, Record
from wal.syncs import _error_of, kernel_syncs
from wal.writer import SHORT_BYTES, LogWriter


class Log:
    """A writer whose thread has already opened a segment and has nothing to do."""

    def __init__(self, disk=None):
        self.disk = disk or LossyDisk()
        self.kernel = StepKernel(self.disk)
        self.told = []
        self.writer = LogWriter(open_log(FOLDER, self.disk), files=self.disk, syncs=self.kernel)
        self.writer.start()
        self.append(1)
        self.thread_rests()

    def append(self, index, size=100):
        self.writer.append(entries(index, 1, size=size), lambda: self.told.append((index, threading.get_ident())))

    def thread_rests(self):
        """Waits for the thread by another command behind its work."""
        rested = threading.Event()
        self.writer._give(([], rested.set))
        assert rested.wait(20)
        while self.writer._given != self.writer._finished or self.writer._held or self.kernel.under_way:
            if self.kernel.under_way:
                self.kernel.wait()
            elif self.writer._held:
                self.kernel.calls.get(timeout=20)()

    def slow_thread(self):
        """From now on the thread's syncs wait for the second event, and set the first."""
        begun, goes_on = threading.Event(), threading.Event()
        datasync = self.disk.datasync

        def slow(handle):
            if threading.current_thread() is self.writer._thread:
                begun.set()
                assert goes_on.wait(20)
            datasync(handle)

        self.disk.datasync = slow
        return begun, goes_on

    def on_disk(self):
        found = open_log(FOLDER, LossyDisk.after_power_loss(self.disk, NeverKept()))
        return found.chart.last_index


class NeverKept:
    """Dice of a power cut that keeps nothing that was not synced."""

    def choice(self, options):
        return options[0]

    def random(self):
        return 0.5


def test_a_short_group_is_written_at_once_and_told_when_the_kernel_has_synced_it():
    log = Log()
    log.append(2)
    assert log.kernel.under_way is not None
    assert [index for index, _ in log.told] == [1]
    assert log.on_disk() == 1
    log.kernel.wait()
    assert log.told[-1] == (2, threading.get_ident())
    assert log.on_disk() == 2
    assert log.writer.queued_bytes == 0
    assert [record.log_index for record in log.writer.reader().read(1, 3, 1 << 20)] == [1, 2]
    log.writer.close()


def test_what_comes_while_a_sync_is_under_way_is_the_next_group():
    log = Log()
    for index in (2, 3, 4):
        log.append(index)
    groups = log.writer.synced_groups
    handle, ended = log.kernel.under_way
    log.kernel.under_way = None
    log.disk.datasync(handle)
    ended(None)
    assert [index for index, _ in log.told] == [1, 2]
    assert log.on_disk() == 2  # the next group is written, not synced
    log.kernel.wait()
    assert [index for index, _ in log.told] == [1, 2, 3, 4]
    assert log.writer.synced_groups == groups + 2
    assert log.kernel.begun == 2
    log.writer.close()


@pytest.mark.parametrize("size", [SHORT_BYTES // 2 + 1, SHORT_BYTES])
def test_a_long_group_and_what_follows_it_are_the_threads_until_it_rests(size):
    log = Log()
    log.append(2, size=size)
    assert log.kernel.under_way is None
    log.append(3)
    log.thread_rests()
    assert [index for index, _ in log.told] == [1, 2, 3]
    assert log.told[1][1] != threading.get_ident()
    log.append(4)
    log.kernel.wait()
    assert log.told[-1] == (4, threading.get_ident())
    log.writer.close()


def test_what_comes_while_the_thread_writes_does_not_keep_it_writing():
    """Else it would go on for as long as there is always more, and short groups would never be the kernel's again."""
    log = Log()
    thread_writes, goes_on = log.slow_thread()
    log.append(2, size=SHORT_BYTES)
    assert thread_writes.wait(20)
    for index in (3, 4):
        log.append(index)
    log.append(5, size=SHORT_BYTES)  # nor may it overtake them
    log.append(6)
    goes_on.set()
    log.kernel.calls.get(timeout=20)()
    assert log.kernel.begun == 0  # with a long one among them, what was held is the thread's, in order
    log.thread_rests()
    assert [index for index, _ in log.told] == [1, 2, 3, 4, 5, 6]
    log.append(7)
    assert log.kernel.begun >= 1
    log.writer.close()
    assert [index for index, _ in log.told] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_held_while_the_thread_writes_is_one_short_group_afterwards():
    log = Log()
    thread_writes, goes_on = log.slow_thread()
    log.writer._give((entries(2, 1), None))
    assert thread_writes.wait(20)
    for index in (3, 4, 5):
        log.append(index)
    goes_on.set()
    log.kernel.calls.get(timeout=20)()
    assert log.kernel.begun == 1
    log.kernel.wait()
    assert [index for index, _ in log.told] == [1, 3, 4, 5]
    log.writer.close()


def test_a_sync_that_the_kernel_has_no_room_for_is_made_by_the_thread():
    log = Log()
    log.kernel.has_room = False
    log.append(2)
    log.append(3)
    log.thread_rests()
    assert [index for index, _ in log.told] == [1, 2, 3]
    assert log.on_disk() == 3
    log.writer.close()
    assert log.kernel.begun == 0


def test_void_entries_rolls_and_releases_wait_for_the_sync_under_way():
    log = Log()
    log.append(2)
    log.writer.truncate_after(1, 1)
    log.writer.append(entries(2, 1, raft_term=2))
    log.writer.roll()
    assert len(log.writer.segments) == 1
    log.kernel.wait()
    log.thread_rests()
    assert len(log.writer.segments) == 2
    assert [(r.log_index, r.raft_term) for r in log.writer.reader().read(1, 3, 1 << 20)] == [(1, 1), (2, 2)]
    log.writer.release_before(3)
    log.thread_rests()
    assert len(log.writer.segments) == 1
    log.writer.close()


def test_closing_waits_for_the_sync_under_way_and_for_what_is_held():
    log = Log()
    log.append(2)
    log.append(3)
    log.writer.close()
    assert [index for index, _ in log.told] == [1, 2, 3]
    assert open_log(FOLDER, log.disk).chart.last_index == 3


def test_a_mistake_in_what_is_held_ends_the_log():
    failures = []
    log = Log()
    log.writer._on_failure = failures.append
    log.append(2)
    log.writer.append([Record(Kind.ENTRY, 1, -5)])
    log.kernel.wait()
    assert [index for index, _ in log.told] == [1, 2]
    assert [type(failure).__name__ for failure in failures] == ["SyncFailed"]
    with pytest.raises(type(failures[0])):
        log.append(3)
    log.writer.close()


def test_the_kernels_own_syncs_are_told_on_the_loop(tmp_path):
    """On a thread of its own, since a loop may run on the test's."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(append_on_a_loop, tmp_path).result()


def append_on_a_loop(path):
    loop = asyncio.new_event_loop()
    syncs = kernel_syncs(path, loop)
    if syncs is None:  # a system without them: the thread does it all, which other tests show
        loop.close()
        return
    folder = path / "log"
    writer = LogWriter(open_log(folder), syncs=syncs)
    writer.start()
    threads = []

    async def append(index):
        done = loop.create_future()

        def told():
            threads.append(threading.get_ident())
            loop.call_soon_threadsafe(done.set_result, None)

        writer.append(entries(index, 1), told)
        await done

    async def run():
        for index in range(1, 50):
            await append(index)
        await asyncio.gather(*[append(index) for index in range(50, 100)])

    loop.run_until_complete(run())
    assert threads.count(threading.get_ident()) > 90
    writer.append(entries(100, 1))
    writer.close()
    loop.close()
    assert open_log(folder).chart.last_index == 100


def test_a_sync_that_fails_in_the_kernel_says_why(tmp_path):
    loop = asyncio.new_event_loop()
    syncs = kernel_syncs(tmp_path, loop)
    if syncs is None:
        loop.close()
        return
    answers = []
    reading, writing = os.pipe()
    assert not syncs.begin(reading, answers.append)  # a pipe has nothing to sync
    os.close(reading)
    os.close(writing)
    with (tmp_path / "file").open("wb") as file:
        assert syncs.begin(file.fileno(), answers.append)
        syncs.wait()
    assert answers == [None]
    loop.close()


def test_an_error_of_the_kernel_is_an_oserror():
    error = _error_of((1 << 64) - 5)
    assert (error.errno, error.strerror) == (5, os.strerror(5))
