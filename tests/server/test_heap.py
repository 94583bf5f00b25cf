"""The heap is set as it should be where the C library knows of it."""

import platform
import subprocess
import sys

THREADS = """
import ctypes, threading
from server.heap import share_one_heap

is_shared = share_one_heap()
libc = ctypes.CDLL(None)
threads = [threading.Thread(target=lambda: libc.malloc(5000)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if is_shared:
    libc.malloc_stats()
"""


def test_all_threads_share_one_heap_where_there_may_be_several():
    told = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60)
    assert told.stderr.count("Arena ") == (platform.libc_ver()[0] == "glibc")
