"""`rewinddb`, but every sync of its log fails once a file of the given name exists.

python -m integration.failing_sync TRIGGER serve ...
"""

import errno
import os
import sys
from pathlib import Path

from wal.files import OsFiles


def fail_when(trigger):
    sync = OsFiles.datasync

    def datasync(self, handle):
        if trigger.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(self, handle)

    OsFiles.datasync = datasync


if __name__ == "__main__":
    fail_when(Path(sys.argv.pop(1)))
    from server.cli import main

    main()
