"""A thread that is back from the disk and wants the interpreter says so in time.

One rule: nothing depends on it but how soon that is.

A thread that finds the interpreter taken waits for a while (`sys.setswitchinterval`) before it asks for it, and Linux
may let such a wait last 50 µs longer than that. A busy reactor gives the interpreter away for a moment with each system
call of its loop, every 40 µs, which begins the wait anew: so it is never over, and each time the thread wakes in vain.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

SLACK_NS: Final = 1000


def be_punctual() -> None:
    """Waits of this thread may end at most SLACK_NS too late, if the system lets itself be told."""
    with suppress(OSError):
        Path(f"/proc/{threading.get_native_id()}/timerslack_ns").write_text(str(SLACK_NS))
