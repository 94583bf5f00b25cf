"""`rewinddb`, but every sync of its log fails once a file of the given name exists.

python -m integration.failing_sync TRIGGER serve ...
"""

import errno
import os
import sys
from pathlib import Path

from wal.files import OsFiles
from wal.syncs import KernelSyncs


def fail_when(trigger):
    sync, begin = OsFiles.datasync, KernelSyncs.begin
    failure = OSError(errno.EIO, os.strerror(errno.EIO))

    def datasync(self, handle):
        if trigger.exists():
            raise failure
        sync(self, handle)

    def beginning(self, handle, ended):
        return begin(self, handle, lambda error: ended(failure if trigger.exists() else error))

    OsFiles.datasync, KernelSyncs.begin = datasync, beginning


if __name__ == "__main__":
    fail_when(Path(sys.argv.pop(1)))
    from server.cli import main

    main()
