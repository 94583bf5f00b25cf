"""Drives the construction of secondary indexes: a slice of work per turn of the reactor, until none is left."""

from __future__ import annotations

import logging
from typing import Any, Protocol

log = logging.getLogger("rewinddb.server")

PAUSE_S = 0.0  # between slices: everything else that is due gets its turn


class Builds(Protocol):
    """What constructs indexes (`storage.machine.Machine`)."""

    def build_step(self, budget_s: float = 0.002) -> bool: ...


class IndexBuilding:
    """Calls `build_step` as long as it says that there is more to do."""

    def __init__(self, machine: Builds, reactor: Any) -> None:
        self._machine = machine
        self._reactor = reactor
        self._call: Any = None
        self._is_stopped = False

    def wake(self) -> None:
        """There may be something to build."""
        if self._call is None and not self._is_stopped:
            self._call = self._reactor.callLater(PAUSE_S, self._step)

    def stop(self) -> None:
        """Builds no more; an index that is not ready begins anew at the next start."""
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _step(self) -> None:
        self._call = None
        if self._machine.build_step():
            self.wake()
