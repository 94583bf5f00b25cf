"""Takes images of this server's own data, whoever asked for them: a checkpoint, and a child process per vault.

One rule: the checkpoint is gone when a taking has ended, and so are its children.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from model.catalog import Catalog
from model.errors import Overloaded, RewindError
from server.backups.children import Child, Children
from server.backups.rows import Row
from server.images.messages import Asked, Outcome

CHECKPOINT_ATTEMPTS: Final = 100
LOOK_AGAIN_S: Final = 0.05
ENTER_S: Final = 20.0  # so long a vault may take to answer a server that is asked first
CATCH_UP_S: Final = 15.0


class Source(Protocol):
    """What images are taken of: this server's data."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def applied_index(self) -> int: ...
    def count(self, table_id: int) -> int: ...
    def checkpoint(self, folder: Path) -> Deferred[int]:
        """Writes a checkpoint in a thread; the log index in it."""

    def term(self, log_index: int) -> int: ...


class Pace(Protocol):
    """Time for work that waits."""

    def pause(self, seconds: float) -> Deferred[None]: ...


class ImageTaker:
    """What takings on this server have in common."""

    def __init__(
        self,
        source: Source,
        children: Children,
        pace: Pace,
        in_thread: Callable[..., Deferred[Any]],
        folder: Path,
        cluster_id: str,
        version: str,
        stall_s: float,
        max_bytes_per_s: int,
    ) -> None:
        """folder: for checkpoints, on the disk of the data. max_bytes_per_s: where none was asked for; 0: no limit."""
        self.source = source
        self.children = children
        self.pace = pace
        self.in_thread = in_thread
        self.folder = folder
        self.cluster_id = cluster_id
        self.version = version
        self.stall_s = stall_s
        self.max_bytes_per_s = max_bytes_per_s

    def begin(self, asked: Asked) -> Taking:
        """Starts the children: they enter their vaults, and wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Taking(self, asked)


class Taking:
    """One image on its way. `end` is to be called whatever happens."""

    def __init__(self, taker: ImageTaker, asked: Asked) -> None:
        self._taker = taker
        self._asked = asked
        self._checkpoint = taker.folder / f"checkpoint-{secrets.token_hex(6)}"
        self._raft_term = 0
        self.log_index = 0
        count = len(asked.vaults)
        self.rows, self.bytes = [0] * count, [0] * count  # per vault
        self.labels: list[dict[str, Any] | None] = [None] * count  # what the vaults that were entered say of themselves
        self._entered = [False] * count
        self._outcomes: list[Outcome | None] = [None] * count
        self._children = [self._start(at) for at in range(count)]

    def _start(self, at: int) -> Child:
        vault, taker = self._asked.vaults[at], self._taker
        job = {"job": "capture", "vault": vault.access, "is_known": vault.is_known, "label": vault.label}
        job["cluster_id"] = taker.cluster_id

        def heard(event: Row) -> None:
            if event["event"] == "entered":
                self._entered[at], self.labels[at] = True, event["label"]
            elif event["event"] == "progress":
                self.rows[at], self.bytes[at] = event["rows"], event["bytes"]

        def over(result: Any) -> None:
            self._outcomes[at] = outcome_of(result)

        child = taker.children.start(job, heard)
        child.done.addBoth(over)
        return child

    # -- one after the other

    async def entered(self) -> None:
        """Waits until all vaults were entered. Raises RewindError if one was not, or not soon."""
        began_s = self._taker.children.seconds()
        while True:
            for vault, outcome in zip(self._asked.vaults, self._outcomes, strict=True):
                if outcome is not None:
                    raise RewindError(f"vault {vault.access.get('name')}: {outcome.error}")
            if all(self._entered):
                return
            if self._taker.children.seconds() - began_s > ENTER_S:
                raise RewindError(f"A vault did not answer for {ENTER_S:.0f} seconds.")
            await self._taker.pace.pause(LOOK_AGAIN_S)

    async def checkpoint(self) -> int:
        """Takes the checkpoint, once all that was asked for is applied here; the log index in it."""
        source, pace = self._taker.source, self._taker.pace
        began_s = self._taker.children.seconds()
        while source.applied_index < self._asked.from_index:
            if self._taker.children.seconds() - began_s > CATCH_UP_S:
                behind = self._asked.from_index - source.applied_index
                raise RewindError(f"It is {behind} entries of the log behind and does not catch up.")
            await pace.pause(LOOK_AGAIN_S)
        for attempt in range(1, CHECKPOINT_ATTEMPTS + 1):
            try:
                self.log_index = await source.checkpoint(self._checkpoint)
                break
            except Overloaded:
                if attempt == CHECKPOINT_ATTEMPTS:
                    raise
                await pace.pause(LOOK_AGAIN_S)
        self._raft_term = source.term(self.log_index)
        return self.log_index

    async def capture(self, image: str, time_ms: int, tell: Callable[[Taking], None]) -> list[Outcome]:
        """Has the image written into each vault; `tell` is called now and then meanwhile."""
        order = {
            "image": image,
            "cluster_id": self._taker.cluster_id,
            "raft_term": self._raft_term,
            "time_ms": time_ms,
            "server_version": self._taker.version,
            "selection": list(self._asked.selection),
            "max_bytes_per_s": self._asked.max_bytes_per_s or self._taker.max_bytes_per_s,
        }
        for child in self._children:
            child.heard_s = self._taker.children.seconds()
            child.send({"checkpoint": str(self._checkpoint), "order": order, "hold": self._asked.hold})
        while True:
            known = [outcome for outcome in self._outcomes if outcome is not None]
            if len(known) == len(self._outcomes):
                return known
            await self._taker.pace.pause(LOOK_AGAIN_S)
            end_stalled(self._children, self._taker.children.seconds(), self._taker.stall_s)
            tell(self)

    # -- at any time

    def cancel(self, why: str) -> None:
        """Ends the children: what is still under way fails with `why`."""
        for child in self._children:
            child.kill(why)

    async def end(self) -> None:
        """Nothing of it stays here."""
        self.cancel("It is not wanted any more.")
        await self._taker.in_thread(shutil.rmtree, self._checkpoint, True)


def end_stalled(children: list[Child], now_s: float, stall_s: float) -> None:
    """Kills those of whom nothing was heard for so long."""
    for child in children:
        if child.heard_s < now_s - stall_s:
            child.kill(f"Nothing was heard for {stall_s:.0f} seconds: the vault seems to hang.")


def outcome_of(result: Any) -> Outcome:
    """From what a child's `done` fires with: a manifest as plain JSON, or a Failure."""
    if not isinstance(result, Mapping):
        error = result.value
        return Outcome(str(error) if isinstance(error, RewindError) else f"{type(error).__name__}: {error}")
    return Outcome(
        rows=result["rows"],
        bytes=result["bytes"],
        stored_bytes=result["stored_bytes"],
        tables=[f"{table['db']}.{table['table']}" for table in result["tables"]],
        selection=list(result["selection"]),
        manifest_sha256=result["manifest_sha256"],
    )
