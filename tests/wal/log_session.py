"""One life of a log in a test: opened, written to, ended or cut off; and what it may hold afterwards.

One rule: every step waits for the writer's thread, so a failing run fails again.
"""

import threading

from model.errors import RewindError
from tests.wal.lossy_disk import FOLDER
from wal.reader import EntryReader, open_log
from wal.record import FIRST_ENTRY_KIND, Kind, Record
from wal.writer import LogWriter

SEGMENT_BYTES = 6000


def state_after(state, record):
    """What counts after one more record; a state: the first index, and (raft_term, payload) by index."""
    first_index, entries = state
    if record.kind == Kind.RESTART:
        return record.log_index + 1, {}
    if record.kind == Kind.TRUNCATE:
        return first_index, {index: entry for index, entry in entries.items() if index <= record.log_index}
    if record.kind >= FIRST_ENTRY_KIND:
        return first_index, {**entries, record.log_index: (record.raft_term, record.payload)}
    return state


class LogSession:
    def __init__(self, files, segment_bytes=SEGMENT_BYTES):
        self.files = files
        self.opened = open_log(FOLDER, files)
        chart = self.opened.chart
        self.last = (chart.last_index, chart.last_term)
        self.first_index = chart.first_index
        self.entries = {
            record.log_index: (record.raft_term, record.payload)
            for record in self.read(chart.first_index, chart.last_index + 1)
        }
        self.failures = []
        self.answered = threading.Event()
        self.writer = LogWriter(
            self.opened, files=files, segment_bytes=segment_bytes, spares_kept=2, on_failure=self._failed
        )
        self.writer.start()

    def _failed(self, error):
        self.failures.append(error)
        self.answered.set()

    def read(self, low, high, max_bytes=1 << 40):
        paths = {segment.number: segment.path for segment in self.opened.segments}
        return EntryReader(self.opened.chart.map, paths, self.files).read(low, high, max_bytes)

    def append(self, records):
        """Whether `records` were acknowledged."""
        self.answered.clear()
        try:
            self.writer.append(records, self.answered.set)
        except RewindError:
            return False
        assert self.answered.wait(20)
        if self.failures:
            return False
        for record in records:
            self.first_index, self.entries = state_after((self.first_index, self.entries), record)
        return True

    def settle(self):
        """Waits until the writer has done all it was told."""
        return self.append([Record(Kind.HARD_STATE, 1, 0, bytes(8))])

    def end(self):
        self.writer.close()
        return self.failures
