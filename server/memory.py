"""How much memory the cache of rows takes where the settings leave that to the machine.

One rule: RethinkDB's own (`--cache-size`, "auto"). Half of what is available when the server starts, less 1 GiB for the
server and its queries, and never less than 100 MiB. A container's limit counts as the machine's memory.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import psutil

log = logging.getLogger("rewinddb.server")

GIB: Final = 1 << 30
LEAST_BYTES: Final = 100 << 20
LEFT_BYTES: Final = 1 * GIB
V2: Final = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
V1: Final = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def cache_size(wanted: int | str) -> int:
    """The cache's bytes: `wanted`, or what fits this machine where that is "auto". Warns of sizes that do not fit."""
    available = available_bytes()
    size = wanted if isinstance(wanted, int) else max(LEAST_BYTES, (available - LEFT_BYTES) // 2)
    if size > available:
        log.warning("The cache may grow to %d MB; only %d MB of memory are available", size >> 20, available >> 20)
    elif size + LEFT_BYTES > available:
        log.warning(
            "A cache of %d MB leaves little memory for the server and its queries (available: %d MB)",
            size >> 20,
            available >> 20,
        )
    return size


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process could take now without others being pushed out: the machine's, or what the tightest of
    its control groups leaves. root: where the folders of Linux are."""
    available: int = psutil.virtual_memory().available
    return min([available, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> list[int]:
    """What each control group with a limit that this process is in has left. None on other systems than Linux."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, used, reclaimable = V1 if controllers else V2
        folder = root / top / group.lstrip("/")
        while True:  # a group is bound by those that it is a part of, too; a container sees its own as the top
            left = _left(folder, limit, used, reclaimable)
            if left is not None:
                found.append(left)
            if folder == root / top or root / top not in folder.parents:
                break
            folder = folder.parent
    return found


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """What a group's limit leaves, with pages of files that nobody used of late; None without a limit."""
    try:
        most = (folder / limit).read_text().strip()
        if not most.isdigit():  # "max"
            return None
        taken = int((folder / used).read_text())
        words = (folder / "memory.stat").read_text().split()
    except OSError:
        return None
    if reclaimable in words:
        taken -= int(words[words.index(reclaimable) + 1])
    return max(0, int(most) - taken)
