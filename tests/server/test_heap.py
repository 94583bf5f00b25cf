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


PIECES = """
from pathlib import Path
from server.heap import give_back, share_one_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

share_one_heap()
pieces = [bytes(1000) for _ in range(50_000)]
last = bytes(1000)
pieces.clear()
before = resident()
give_back()
print(before - resident())
"""


def test_what_is_free_in_pieces_is_given_back_where_the_c_library_can():
    told = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) > 20_000_000 or platform.libc_ver()[0] != "glibc"
