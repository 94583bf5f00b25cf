"""What jobs do: take images, verify, drill, expire, copy. The heavy part of each is a child process.

One rule: whatever a job makes on this server's disk (checkpoints, scratch folders) is gone when it ends, and what an
earlier process left is gone when the server starts.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList

from backup.access import access_from
from backup.manifest import image_name
from model.catalog import Catalog
from model.errors import Overloaded, RewindError
from server.backup_children import Child, Children
from server.backup_lane import Job
from server.backup_ledger import Ledger
from server.backup_rows import VAULTS, Row

log = logging.getLogger("rewinddb.backup")

CHECKPOINT_ATTEMPTS: Final = 20
LOOK_AGAIN_S: Final = 0.25


class Source(Protocol):
    """What images are taken of: this server's data."""

    @property
    def catalog(self) -> Catalog: ...
    def count(self, table_id: int) -> int: ...
    def checkpoint(self, folder: Path) -> Deferred[int]:
        """Writes a checkpoint in a thread; the log index in it."""

    def term(self, log_index: int) -> int: ...


class Pace(Protocol):
    """Time for work that waits."""

    def pause(self, seconds: float) -> Deferred[None]: ...


class BackupWork:
    """Does the jobs of the tables `backups` and `backup_tasks`."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        children: Children,
        pace: Pace,
        in_thread: Callable[..., Deferred[Any]],
        folder: Path,
        cluster_id: str,
        version: str,
        stall_s: float,
        max_bytes_per_s: int,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._children = children
        self._pace = pace
        self._in_thread = in_thread
        self._folder = folder
        self._cluster_id = cluster_id
        self._version = version
        self._stall_s = stall_s
        self._max_bytes_per_s = max_bytes_per_s
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

    # -- images

    async def back_up(self, job: Job) -> Row:
        """An image of the checkpoint in each vault, all at once; each on its own."""
        vaults = [self.vault(name) for name in job.row["vaults"]]
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint = self._folder / f"checkpoint-{secrets.token_hex(6)}"
        try:
            log_index = await self._checkpoint(checkpoint)
            time_ms = self._ledger.now_ms()
            job.update(log_index=log_index)
            image = image_name(time_ms, log_index)
            selection = [*job.row["databases"], *job.row["tables"]]
            order = {
                "image": image,
                "cluster_id": self._cluster_id,
                "raft_term": self._source.term(log_index),
                "time_ms": time_ms,
                "server_version": self._version,
                "selection": selection,
                "max_bytes_per_s": job.row["max_bytes_per_s"] or self._max_bytes_per_s,
            }
            jobs = [
                {"job": "capture", "checkpoint": str(checkpoint), "order": order, "hold": job.row["hold"]}
                for _ in vaults
            ]
            total = len(vaults) * self._rows_of(selection)
            outcomes = await self._in_all(job, vaults, jobs, total)
        finally:
            await self._in_thread(shutil.rmtree, checkpoint, True)
        return self._sum_up(vaults, outcomes, image, log_index)

    def _sum_up(self, vaults: Sequence[Row], outcomes: Sequence[Row | RewindError], image: str, index: int) -> Row:
        images: list[Row] = []
        errors: list[str] = []
        warnings: list[str] = []
        whole: Row = {}
        for vault, outcome in zip(vaults, outcomes, strict=True):
            if isinstance(outcome, RewindError):
                text = f"in vault {vault['name']}: {outcome}"
                (errors if vault["required"] or len(vaults) == 1 else warnings).append(text)
                continue
            whole = outcome
            images.append(
                {"vault": vault["name"], "url": vault["url"], "image": image, "bytes": outcome["stored_bytes"]}
            )
            missing = vault["missing"]
            if missing is not None and not outcome["selection"] and index >= missing[1]:
                self._ledger.amend(VAULTS, vault["id"], {"missing": None})
        if errors or not images:
            good = f" (It is whole in vault {', '.join(image['vault'] for image in images)}.)" if images else ""
            raise RewindError("; ".join(errors or warnings) + good)
        return {
            "rows": whole["rows"],
            "bytes": whole["bytes"],
            "log_index": index,
            "images": images,
            "warnings": warnings,
            "tables_done": [f"{table['db']}.{table['table']}" for table in whole["tables"]],
        }

    async def _checkpoint(self, folder: Path) -> int:
        for _ in range(CHECKPOINT_ATTEMPTS):
            try:
                return await self._source.checkpoint(folder)
            except Overloaded:
                await self._pace.pause(LOOK_AGAIN_S)
        return await self._source.checkpoint(folder)

    def _rows_of(self, selection: Sequence[str]) -> int:
        """About how many rows are to be read."""
        catalog = self._source.catalog
        total = 0
        for table in catalog.tables.values():
            database = catalog.databases_by_uuid[table.database].name
            if not selection or database in selection or f"{database}.{table.name}" in selection:
                total += self._source.count(table.table_id)
        return total

    # -- tasks

    async def do_task(self, job: Job) -> Row:
        """A task on each of its vaults, one after the other; the first that fails ends it."""
        results: Row = {}
        task, asked = job.row["task"], job.row["images"]
        for name in job.row["vaults"]:
            vault = self.vault(name)
            scratch = self._folder / f"scratch-{secrets.token_hex(6)}"
            try:
                [outcome] = await self._in_all(job, [vault], [self._task(task, vault, job.row, scratch)], 0)
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

    async def _in_all(
        self, job: Job, vaults: Sequence[Row], jobs: Sequence[Row], total: int
    ) -> list[Row | RewindError]:
        """Runs a child per vault; the result or the error of each."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows, sizes = [0] * len(vaults), [0] * len(vaults)

        def hear(at: int) -> Callable[[Row], None]:
            def heard(event: Row) -> None:
                if event["event"] == "progress":
                    rows[at], sizes[at] = event["rows"], event["bytes"]
                    percent = 100 * sum(rows) / total if total else float(event.get("percent") or 0)
                    if "phase" in event:
                        job.update(phase=f"{event['phase']} of {vaults[at]['name']}")
                    job.progress(percent, max(rows), max(sizes))

            return heard

        children = [
            self._children.start({**plain, **_access(vault)}, hear(at))
            for at, (vault, plain) in enumerate(zip(vaults, jobs, strict=True))
        ]

        def cancel(why: str) -> None:
            for child in children:
                child.kill(why)

        job.on_cancel = cancel
        if job.cancelled:
            cancel(job.cancelled)
        finished: Any = DeferredList([child.done for child in children], consumeErrors=True)
        while not finished.called:
            await self._pace.pause(LOOK_AGAIN_S)
            self._end_stalled(children)
        job.on_cancel = None
        return [_outcome(done, value) for done, value in await finished]

    def _end_stalled(self, children: Sequence[Child]) -> None:
        oldest_s = self._children.seconds() - self._stall_s
        for child in children:
            if child.heard_s < oldest_s:
                child.kill(f"Nothing was heard for {self._stall_s:.0f} seconds: the vault seems to hang.")


def _access(vault: Row) -> Mapping[str, Any]:
    return {"vault": access_from(vault).as_plain(), "is_known": vault["claimed"]}


def _outcome(done: bool, value: Any) -> Row | RewindError:
    if done:
        return dict(value)
    error = value.value
    return error if isinstance(error, RewindError) else RewindError(f"{type(error).__name__}: {error}")
