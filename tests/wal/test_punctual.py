"""The writer's thread is woken in time, and no other thread is; where the system cannot be told, it works as well."""

import threading
from pathlib import Path

from tests.wal.lossy_disk import FOLDER, LossyDisk
from wal.punctual import SLACK_NS
from wal.reader import open_log
from wal.record import Kind, Record
from wal.writer import LogWriter


def slack_ns() -> int | None:
    """How late a wait of this thread may end; None if a thread of this system cannot know or say it."""
    file = Path(f"/proc/{threading.get_native_id()}/timerslack_ns")
    try:
        found = file.read_text()
        file.write_text(found)
    except OSError:
        return None
    return int(found)


def test_the_writers_thread_is_punctual():
    disk = LossyDisk()
    writer = LogWriter(open_log(FOLDER, disk), files=disk)
    found, done = [], threading.Event()

    def look():
        found.append(slack_ns())
        done.set()

    before = slack_ns()
    writer.append([Record(Kind.ENTRY, 1, 1, b"x")], look)
    writer.start()
    assert done.wait(20)
    writer.close()
    assert found == [None if before is None else SLACK_NS]
    assert slack_ns() == before != SLACK_NS
