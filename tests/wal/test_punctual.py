"""The writer's thread may be woken in time, and no other thread is."""

import threading
from pathlib import Path

import pytest

from tests.wal.lossy_disk import FOLDER, LossyDisk
from wal.punctual import SLACK_NS
from wal.reader import open_log
from wal.record import Kind, Record
from wal.writer import LogWriter


def slack_file(thread_id: int) -> Path:
    return Path(f"/proc/{thread_id}/timerslack_ns")


def is_known() -> bool:
    """Whether this system lets a thread see and say how late its waits may end."""
    file = slack_file(threading.get_native_id())
    try:
        file.write_text(file.read_text())
    except OSError:
        return False
    return True


@pytest.mark.skipif(not is_known(), reason="threads cannot be told how late they may be")
def test_the_writers_thread_is_punctual():
    disk = LossyDisk()
    writer = LogWriter(open_log(FOLDER, disk), files=disk)
    found, done = [], threading.Event()

    def look():
        found.append(int(slack_file(threading.get_native_id()).read_text()))
        done.set()

    before = int(slack_file(threading.get_native_id()).read_text())
    writer.append([Record(Kind.ENTRY, 1, 1, b"x")], look)
    writer.start()
    assert done.wait(20)
    writer.close()
    assert found == [SLACK_NS] and before != SLACK_NS
    assert int(slack_file(threading.get_native_id()).read_text()) == before
