"""One life of a log in a test: opened, written to, ended or cut off; and what it may hold afterwards.

One rule: every step waits for whoever writes, so a failing run fails again.
"""

from queue import SimpleQueue

from model.errors import RewindError
from tests.wal.lossy_disk import FOLDER
from wal.reader import EntryReader, open_log
from wal.record import FIRST_ENTRY_KIND, Kind, Record
from wal.writer import LogWriter

SEGMENT_BYTES = 6000
ANSWERED = object()


class StepKernel:
    """Syncs of a disk in memory that end when they are told to; implements `wal.syncs.Syncs`.

    `calls` is what a loop would have to call: the test is the loop.
    """

    is_here = True

    def __init__(self, files):
        self.files = files
        self.under_way = None
        self.has_room = True
        self.begun = 0
        self.calls = SimpleQueue()
        self.soon = self.calls.put

    def begin(self, handle, ended):
        assert self.under_way is None
        if not self.has_room:
            return False
        self.begun += 1
        self.under_way = handle, ended
        return True

    def wait(self):
        while self.under_way is not None:
            (handle, ended), self.under_way = self.under_way, None
            try:
                self.files.datasync(handle)
            except OSError as error:
                ended(error)
            else:
                ended(None)


class Nobody:
    """In the kernel's place where only the thread syncs."""

    def __init__(self):
        self.calls = SimpleQueue()

    def wait(self):
        pass


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
    has_kernel = False  # set by the fixture `whoever_syncs`

    def __init__(self, files, segment_bytes=SEGMENT_BYTES, has_kernel=None):
        self.files = files
        if has_kernel is not None:
            self.has_kernel = has_kernel
        self.kernel = StepKernel(files) if self.has_kernel else Nobody()
        self.opened = open_log(FOLDER, files)
        chart = self.opened.chart
        self.last = (chart.last_index, chart.last_term)
        self.first_index = chart.first_index
        self.entries = {
            record.log_index: (record.raft_term, record.payload)
            for record in self.read(chart.first_index, chart.last_index + 1)
        }
        self.failures = []
        self.writer = LogWriter(
            self.opened,
            files=files,
            segment_bytes=segment_bytes,
            spares_kept=2,
            syncs=self.kernel if self.has_kernel else None,
            on_failure=self._failed,
        )
        self.writer.start()

    def _failed(self, error):
        self.failures.append(error)
        self.kernel.calls.put(ANSWERED)

    def read(self, low, high, max_bytes=1 << 40):
        paths = {segment.number: segment.path for segment in self.opened.segments}
        return EntryReader(self.opened.chart.map, paths, self.files).read(low, high, max_bytes)

    def append(self, records):
        """Whether `records` were acknowledged."""
        try:
            self.writer.append(records, lambda: self.kernel.calls.put(ANSWERED))
        except RewindError:
            return False
        self.kernel.wait()
        while (call := self.kernel.calls.get(timeout=20)) is not ANSWERED:
            call()
            self.kernel.wait()
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
