"""What tasks on vaults do: verify, drill, expire, copy. The heavy part of each is a child process of this server.

One rule: whatever a task makes on this server's disk (scratch folders) is gone when it ends, and what an earlier
process left is gone when the server starts.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from backup.access import access_from
from model.errors import RewindError
from server.backups.children import Children
from server.backups.lane import Job
from server.backups.ledger import Ledger
from server.backups.rows import VAULTS, Row
from server.images.taking import LOOK_AGAIN_S, Pace, end_stalled

log = logging.getLogger("rewinddb.backup")


class BackupWork:
    """Does the jobs of the table `backup_tasks`, and knows the vaults."""

    def __init__(
        self,
        ledger: Ledger,
        children: Children,
        pace: Pace,
        in_thread: Callable[..., Deferred[Any]],
        folder: Path,
        cluster_id: str,
        version: str,
        stall_s: float,
    ) -> None:
        self._ledger = ledger
        self._children = children
        self._pace = pace
        self._in_thread = in_thread
        self._folder = folder
        self._cluster_id = cluster_id
        self._version = version
        self._stall_s = stall_s
        self.inventories: dict[str, Row] = {}  # vault id -> what it was last seen to hold

    def clean_up(self) -> None:
        """Removes what an earlier process left. Blocks."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def vault(self, name: str) -> Row:
        """A vault's document by name."""
        for document in self._ledger.documents(VAULTS).values():
            if document["name"] == name:
                return document
        raise RewindError(f"Vault `{name}` does not exist any more.")

    # -- tasks

    async def do_task(self, job: Job) -> Row:
        """A task on each of its vaults, one after the other; the first that fails ends it."""
        results: Row = {}
        task, asked = job.row["task"], job.row["images"]
        for name in job.row["vaults"]:
            vault = self.vault(name)
            scratch = self._folder / f"scratch-{secrets.token_hex(6)}"
            try:
                outcome = await self._in_child(job, vault, self._task(task, vault, job.row, scratch))
            finally:
                await self._in_thread(shutil.rmtree, scratch, True)
            if isinstance(outcome, RewindError):
                raise RewindError(f"in vault {name}: {outcome.message}", outcome.hint)
            results[name] = outcome
            job.update(result=dict(results))
            if outcome.get("problems"):
                problems = outcome["problems"]
                raise RewindError(f"in vault {name}: {len(problems)} problems, the first: {problems[0]}")
            if task != "look":
                await self.look(vault)
            else:
                self.inventories[vault["id"]] = outcome
        done = {image for result in results.values() for image in result["images"]} if asked else set()
        if not done.issuperset(asked):
            nowhere = ", ".join(image for image in asked if image not in done)
            raise RewindError(f"There is no image {nowhere} in any of the vaults {', '.join(job.row['vaults'])}.")
        return {
            "phase": None,
            "result": results,
            "rows": sum(int(result.get("rows") or 0) for result in results.values()),
        }

    def _task(self, task: str, vault: Row, row: Row, scratch: Path) -> Row:
        plain: Row = {"job": task, "scratch": str(scratch), "now_ms": self._ledger.now_ms()}
        plain |= {"depth": row["depth"], "part": row["part"], "dry_run": row["dry_run"]}
        plain |= {"images": row["images"], "is_one_of_several": len(row["vaults"]) > 1}
        plain |= {"retention": vault["retention"] or {}, "cluster_id": self._cluster_id, "version": self._version}
        if row["to"]:
            plain["to"] = access_from(self.vault(row["to"])).as_plain()
        return plain

    async def look(self, vault: Row) -> None:
        """Finds out anew what a vault holds; one that cannot be looked at keeps what was seen last."""
        child = self._children.start({"job": "look", **_access(vault)}, lambda event: None)
        try:
            self.inventories[vault["id"]] = await child.done
        except RewindError as error:
            log.warning("vault %s cannot be looked at: %s", vault["name"], error)
        self._ledger.changed()

    # -- children

    async def _in_child(self, job: Job, vault: Row, plain: Row) -> Row | RewindError:
        """Runs a child on a vault; its result or its error."""
        self._folder.mkdir(parents=True, exist_ok=True)

        def heard(event: Row) -> None:
            if event["event"] == "progress":
                if "phase" in event:
                    job.update(phase=f"{event['phase']} of {vault['name']}")
                job.progress(float(event.get("percent") or 0), event["rows"], event["bytes"])

        child = self._children.start({**plain, **_access(vault)}, heard)
        job.on_cancel = child.kill
        if job.cancelled:
            child.kill(job.cancelled)
        finished: Any = DeferredList([child.done], consumeErrors=True)
        while not finished.called:
            await self._pace.pause(LOOK_AGAIN_S)
            end_stalled([child], self._children.seconds(), self._stall_s)
        job.on_cancel = None
        [(is_done, value)] = await finished
        return _outcome(is_done, value)


def _access(vault: Row) -> Mapping[str, Any]:
    return {"vault": access_from(vault).as_plain(), "is_known": vault["claimed"]}


def _outcome(done: bool, value: Any) -> Row | RewindError:
    if done:
        return dict(value)
    error = value.value
    return error if isinstance(error, RewindError) else RewindError(f"{type(error).__name__}: {error}")
