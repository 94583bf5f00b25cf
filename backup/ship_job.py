"""The child process that ships the log to one vault for as long as the server runs.

One rule: it never gives up by itself; it says what is wrong and tries again, less and less often. What cannot get
better by itself (another cluster's vault, a wrong key) ends it, and the server says so.

    in    {"first_index", "last_index", "terms": [[first entry, raft_term], ...], "quiet_ms": time or null}
    out   ready, shipped, missed (entries that were released too early), error, merged
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backup.access import access_from, open_vault
from backup.child import Line
from backup.log_tail import EntriesGone, Known, LogTail
from backup.shipping import Shipper
from backup.vault import VaultUnavailable

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
MARK_EVERY_S: Final = 10.0
MERGE_EVERY_S: Final = 60.0


def ship(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Ships until standard input ends. Fields: vault, log (folder), cluster_id, is_known, start_after."""
    return _Shipping(job, line).run()


class _Shipping:
    def __init__(self, job: Mapping[str, Any], line: Line) -> None:
        self._job = job
        self._line = line
        self._access = access_from(job["vault"])
        self._tail = LogTail(Path(job["log"]))
        self._shipper: Shipper | None = None
        self._pause_s = FIRST_PAUSE_S
        self._marked_s = 0.0
        self._merged_s = time.monotonic()

    def run(self) -> dict[str, Any]:
        known, quiet_ms = Known(1, 0, ()), None
        while True:
            order = self._line.newest_order(timeout_s=60)
            if order is None:
                continue
            terms = [(int(first), int(term)) for first, term in order["terms"]]
            known, quiet_ms = Known(order["first_index"], order["last_index"], terms), order["quiet_ms"]
            try:
                self._step(known, quiet_ms)
                self._pause_s = FIRST_PAUSE_S
            except (VaultUnavailable, OSError) as error:
                self._line.tell("error", message=str(error), retry_s=self._pause_s)
                time.sleep(self._pause_s)
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def _step(self, known: Known, quiet_ms: int | None) -> None:
        if self._shipper is None:
            self._begin(known)
        shipper = self._shipper
        assert shipper is not None
        try:
            while shipped := shipper.ship(known):
                self._line.tell(
                    "shipped", index=shipped.last_index, time_ms=shipped.last_ms, bytes=shipped.stored_bytes
                )
        except EntriesGone as error:
            if shipper.shipped_index + 1 >= known.first_index:
                self._line.tell("error", message=str(error), retry_s=1.0)  # a file was released just now: look again
                return
            self._line.tell("missed", first=shipper.shipped_index + 1, last=known.first_index - 1)
            shipper.skip_to(known.first_index)
            return
        now_s = time.monotonic()
        if quiet_ms is not None and now_s - self._marked_s >= MARK_EVERY_S and shipper.shipped_index:
            shipper.mark(known.last_index, quiet_ms)
            self._marked_s = now_s
        if now_s - self._merged_s >= MERGE_EVERY_S:
            self._merged_s = now_s
            merged = shipper.merge()
            if merged is not None:
                self._line.tell("merged", first=merged.first_index, last=merged.last_index)

    def _begin(self, known: Known) -> None:
        vault = open_vault(self._access)
        vault.sweep("log")
        shipper = Shipper(vault, self._tail, self._job["cluster_id"], _now_ms, time.monotonic)
        shipper.begin(bool(self._job.get("is_known")), int(self._job["start_after"]), known)
        self._shipper = shipper
        self._line.tell("ready", index=shipper.shipped_index, time_ms=shipper.shipped_ms, label=vault.label())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
