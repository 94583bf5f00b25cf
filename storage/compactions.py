"""When compactions get the processor: after queries, flushes and the children that somebody waits for, and not at all
for as long as a restore is held up by them.

RocksDB has one thread for the compactions of all engines of a process, so there is one `COMPACTIONS` as well.
One rule: who holds them lets them go; an engine that stalls, or is closed, does not wait for that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from rocksdict import Env

THREAD: Final = "rocksdb:low"
THREADS: Final = 1  # as RocksDB makes of two background jobs, of which the other one is for flushes
NICENESS: Final = 10


class Compactions:
    """Those of this process. All methods on the thread that writes."""

    def __init__(self) -> None:
        self._env = Env()
        self.are_held = False

    def hold(self) -> None:
        """None begins from now on; one that is under way goes on. Meanwhile files of level 0 pile up.

        The rows of a restore are put off just once more: to compact them takes a fifth of the processor's time that
        the restore takes in all.
        """
        self.are_held = True
        self._env.set_low_priority_background_threads(0)

    def let_go(self) -> None:
        """They go on if they were held."""
        if self.are_held:
            self.are_held = False
            self._env.set_low_priority_background_threads(THREADS)
            yield_to_others()


def yield_to_others() -> None:
    """To be called when RocksDB has started its threads.

    At this niceness compactions have a tenth of a core where others want all of it, which is enough for 20,000 rows of
    1 KB per second.
    """
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread may end, and other systems have no such folder
            if (task / "comm").read_text().strip() == THREAD:
                os.setpriority(os.PRIO_PROCESS, int(task.name), NICENESS)


COMPACTIONS: Final = Compactions()
