"""Restores into the running server: jobs of the table `restores`.

    asked (server/restores/asking) ──► a child reads the past (backup/restore_jobs) ──► rows through the log
                                              pieces (server/restores/arrival)          (server/restores/writing)

One rule: the past is read from the first source that has all of it: the vaults, the best one first, then this
server's own log. Rows are written while the next are read; what a source that failed on the way brought is dropped
before the next one is asked.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from backup.access import access_from
from backup.timeline import format_time, parse_moment
from model.catalog import Catalog
from model.errors import BadSetting, ReqlError, RewindError
from model.keys import primary_key_bytes
from proxy.answers import Fibers
from server.backups.archiver import Archiver, LogState
from server.backups.children import ChildFailed, Children
from server.backups.lane import Job
from server.backups.ledger import Ledger
from server.backups.rows import BACKUPS, VAULTS, Row
from server.restores.arrival import Arrivals
from server.restores.asking import (
    Target,
    check_definitions,
    check_free,
    restore_fields,
    targets_of,
)
from server.restores.writing import Store, TableRestore, drop_effects, put_documents, scratch_databases

log = logging.getLogger("rewinddb.backup")

SHIPPING_WAIT_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.05
HELD_BYTES: Final = 1 << 30  # of rows, for which compactions wait: 16 files of level 0, and writes slow down at 30
READ_SHARE: Final = 40  # per cent of a restore that reading the past is taken for
OTHER_SOURCE_KINDS: Final = ("VaultUnavailable", "NotInVault", "NoBaseImage", "LogGap", "EndsEarly", "NeverDropped")
"""What a child failed with that another source may make good."""


class Errands(Fibers, Protocol):
    """What of the fiber pool is needed."""

    def errand(self, work: Callable[[], Any]) -> Deferred[Any]: ...


class Pace(Protocol):
    def pause(self, seconds: float) -> Deferred[None]: ...


class Compactions(Protocol):
    """Of the storage engine (`storage.compactions.Compactions`)."""

    def hold(self) -> None: ...
    def let_go(self) -> None: ...


class RestoreWork:
    """Does the jobs of one server. folder: for scratch folders, removed when the server starts."""

    def __init__(
        self,
        data: Store,
        fibers: Errands,
        ledger: Ledger,
        children: Children,
        archiver: Archiver,
        state: LogState,
        pace: Pace,
        in_thread: Callable[..., Deferred[Any]],
        folder: Path,
        may_pack: Callable[[], bool],
        compactions: Compactions,
    ) -> None:
        self._data = data
        self._fibers = fibers
        self._ledger = ledger
        self._children = children
        self._archiver = archiver
        self._state = state
        self._pace = pace
        self._in_thread = in_thread
        self._folder = folder
        self._may_pack = may_pack
        self._compactions = compactions
        self._at_work: TableRestore | None = None
        self._has_swept = False

    # -- for the tables

    def check(self, asked: Row) -> Row:
        """From an inserted row to the fields of its document (server/backups/restore.Check)."""
        names = [document["name"] for document in self._ledger.documents(VAULTS).values()]
        return restore_fields(asked, names, self._ledger.now_ms())

    async def restore(self, job: Job) -> Row:
        """Does a restore and gives the fields of its row that are then known."""
        scratch = self._folder / f"restore-{secrets.token_hex(6)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return await self._restore(job, scratch)
        finally:
            await self._in_thread(shutil.rmtree, scratch, True)

    def tick(self) -> None:
        """Once per second: a new leader drops what an unfinished restore left."""
        if not self._ledger.is_leader():
            self._has_swept = False
            return
        if self._has_swept:
            return
        self._has_swept = True
        if self._leftovers(self._data.catalog):
            self._fibers.errand(lambda: self._data.change_catalog(self._sweep)).addErrback(self._not_swept)

    # -- questions about the past

    def versions(self, table: str, key: Any) -> Deferred[Row]:
        """The versions of a document, as backup/restore_jobs.tell_versions says them."""
        order = {"job": "tell_versions", "table": table, "key": key, "log": self.own_log()}
        return Deferred.fromCoroutine(self._ask_each(order, [*self._vaults(), {"vault": None}]))

    def differences(self, first: str, second: str, names: Sequence[str], most_keys: int | None) -> Deferred[Row]:
        """What changed between two moments, as backup/restore_jobs.compare_moments says it."""
        order = {"job": "compare_moments", "from": first, "to": second, "names": list(names), "most_keys": most_keys}
        order["now_ms"] = self._ledger.now_ms()
        return Deferred.fromCoroutine(self._ask_each(order, [*self._vaults(), {"log": self.own_log()}]))

    async def _ask_each(self, order: Row, sources: Sequence[Row]) -> Row:
        """From the first source that can tell; if none can, the failure of the first: the others have less."""
        first: ChildFailed | None = None
        for source in sources:
            try:
                return await self._ask({**order, **source})
            except ChildFailed as error:
                first = first or error
        assert first is not None
        raise first

    def vault_named(self, name: Any) -> Row | None:
        """The access to a vault by name; None if there is none."""
        for vault in self._ledger.documents(VAULTS).values():
            if vault["name"] == name:
                return access_from(vault).as_plain()
        return None

    def look(self, access: Row) -> Deferred[Row]:
        """What a vault holds now, as backup/inventory says it."""
        return self._ask({"job": "look", "vault": access})

    def _ask(self, order: Row) -> Deferred[Row]:
        return self._children.start(order, lambda event: None).done

    # -- one restore

    async def _restore(self, job: Job, scratch: Path) -> Row:
        document = job.row
        told: Row = {}
        result = await self._read_past(job, scratch, told)
        targets = targets_of(document, told["tables"])
        fields: Row = {
            "log_index": result["log_index"],
            "moment": format_time(result["time_ms"]) if result["time_ms"] else None,
            "plan": told["plan"],
            "restored": [str(target.name) for target in targets],
        }
        if document["dry_run"]:
            self._check_targets(document, targets)
            return {**fields, "phase": "planned", "rows": 0, "lines": told["lines"]}
        if document["keys"] is not None:
            return {**fields, **await self._put_back(targets[0], result["documents"])}
        rows, size = result["written"]
        return {**fields, "phase": None, "rows": rows, "bytes": size}

    def _check_targets(self, document: Row, targets: Sequence[Target]) -> None:
        if document["keys"] is None and not document["replace"]:
            check_free(self._data.catalog, targets)

    async def _put_back(self, target: Target, documents: Sequence[Row]) -> Row:
        """Single documents; those that did not exist at that moment are left as they are now, and said."""
        rows = [
            (primary_key_bytes(document["key"]), document["row"].encode())
            for document in documents
            if document["row"] is not None
        ]
        missing = [document["key"] for document in documents if document["row"] is None]
        try:
            await self._fibers.errand(lambda: put_documents(self._data, target, rows))
        except ReqlError as error:
            raise RewindError(error.message) from error
        return {"phase": None, "rows": len(rows), "bytes": sum(len(row) for _, row in rows), "not_there": missing}

    async def _read_past(self, job: Job, scratch: Path, told: Row) -> Row:
        """Lets a child read the past, from one source after the other until one has it."""
        document = job.row
        first: ChildFailed | None = None
        for name, source in await self._sources(document):
            job.update(phase=f"reading from {name}")
            try:
                return await self._bring_back(job, source, scratch, told)
            except ChildFailed as error:
                if error.kind not in OTHER_SOURCE_KINDS or job.cancelled:
                    raise RewindError(job.cancelled or str(error)) from error
                first = first or error  # of the best source: the others have less
        raise RewindError(str(first))

    async def _bring_back(self, job: Job, source: Row, scratch: Path, told: Row) -> Row:
        """What the child said at its end, and under "written" the rows and bytes that are there now."""
        document = job.row
        failed: list[BaseException] = []
        writing: Deferred[tuple[int, int] | None] | None = None
        arrivals = Arrivals(scratch, self._fibers, lambda count: child.send({"taken": count}))

        def give_up(error: BaseException) -> None:
            failed.append(error)
            child.kill(str(error))

        def heard(event: Row) -> None:
            nonlocal writing
            if event["event"] == "progress":
                done, _, total = event["what"].rpartition(" ")[2].partition("/")
                job.progress(READ_SHARE * int(done) / max(int(total), 1), 0, 0)
            elif event["event"] == "counted":
                told.update(rows=event["rows"], percent=job.row["percent"] or 0)
            elif event["event"] == "piece":
                arrivals.arrived(event)
            elif event["event"] == "surveyed":
                told.update(event)
                try:
                    check_definitions(event["tables"])
                    self._check_targets(document, targets_of(document, event["tables"]))
                except RewindError as error:
                    give_up(error)
                    return
                if not document["dry_run"] and document["keys"] is None:
                    writing = self._write(job, told, arrivals, give_up)

        order = {
            "job": "bring_back",
            **source,
            "to": document["to"],
            "image": document["image"],
            "names": [*document["databases"], *document["tables"]],
            "keys": document["keys"],
            "dry_run": document["dry_run"],
            "scratch": str(scratch),
            "now_ms": self._ledger.now_ms(),
        }
        child = self._children.start(order, heard)
        job.on_cancel = child.kill
        try:
            result = dict(await child.done)
        except ChildFailed as error:
            arrivals.ended(error)
            if writing is not None:
                await writing
            raise (failed or [error])[0] from None
        finally:
            self._compactions.let_go()
        arrivals.ended()
        job.on_cancel = None
        if writing is not None:
            result["written"] = await writing
        if failed:
            raise failed[0]
        return result

    def _write(
        self, job: Job, told: Row, arrivals: Arrivals, give_up: Callable[[BaseException], None]
    ) -> Deferred[tuple[int, int] | None]:
        """Writes what arrives; fires with its rows and bytes, or with None after `give_up` heard why not."""

        def on_rows(rows: int, size: int) -> None:
            if size > HELD_BYTES:
                self._compactions.let_go()
            read_percent, total = told["percent"], max(told["rows"], rows, 1)
            job.progress(read_percent + (100 - read_percent) * rows / total, rows, size)

        targets = targets_of(job.row, told["tables"])
        replace = job.row["replace"]
        self._compactions.hold()
        self._at_work = writing = TableRestore(
            self._data, self._fibers, targets, arrivals.take, self._may_pack(), replace, job, on_rows
        )

        def ended(failure: Failure) -> None:
            error = failure.value
            assert error is not None
            give_up(RewindError(error.message) if isinstance(error, ReqlError) else error)

        def at_rest(result: tuple[int, int] | None) -> tuple[int, int] | None:
            self._at_work = None
            return result

        return self._fibers.errand(writing.run).addErrback(ended).addBoth(at_rest)

    # -- sources

    async def _sources(self, document: Row) -> list[tuple[str, Row]]:
        """(name, fields of a child's job) of all sources that may have the moment, the best first."""
        if isinstance(document["vault"], dict):
            return [(f"vault {document['vault']['url']}", {"vault": document["vault"]})]
        vaults = [
            (vault_id, vault)
            for vault_id, vault in self._ledger.documents(VAULTS).items()
            if document["vault"] in (None, vault["name"])
        ]
        if not vaults and document["vault"] is not None:
            raise BadSetting(f"Vault `{document['vault']}` does not exist any more.")
        await self._shipped([vault_id for vault_id, _ in vaults], self._needed_index(document))
        vaults.sort(key=lambda vault: -self._shipped_index(vault[0]))
        sources: list[tuple[str, Row]] = [
            (
                f"vault {vault['name']}",
                {"vault": access_from(vault).as_plain(), "own_images": self._own_images(vault["name"])},
            )
            for _, vault in vaults
        ]
        if document["vault"] is None and document["image"] is None:
            sources.append(("this server's log", {"log": self.own_log()}))
        return sources

    def _own_images(self, vault: str) -> Row:
        """The images that this cluster took into a vault: name -> hash of the manifest."""
        taken = (image for row in self._ledger.documents(BACKUPS).values() for image in row["images"])
        return {
            image["image"]: image["manifest_sha256"]
            for image in taken
            if image["vault"] == vault and image.get("manifest_sha256")
        }

    def own_log(self) -> Row:
        """The field `log` of a child's job."""
        databases = [(uuid, database.name) for uuid, database in self._data.catalog.databases_by_uuid.items()]
        return {
            "folder": self._state.folder,
            "last_index": self._state.archivable_index,
            "databases": databases,
            "now_ms": self._ledger.now_ms(),
        }

    def _vaults(self) -> list[Row]:
        """The field `vault` of a child's job for each vault, those first that have most of the log."""
        documents = self._ledger.documents(VAULTS)
        best_first = sorted(documents, key=self._shipped_index, reverse=True)
        return [{"vault": access_from(documents[vault_id]).as_plain()} for vault_id in best_first]

    def _shipped_index(self, vault_id: str) -> int:
        shipping = self._archiver.shippings.get(vault_id)
        return -1 if shipping is None else shipping.shipped_index or 0

    def _needed_index(self, document: Row) -> int:
        """The last entry that has to be in a vault: all of the log as it is now, if the moment does not say less."""
        moment = parse_moment(document["to"], self._ledger.now_ms())
        if moment.image is not None:
            return 0
        newest = self._state.archivable_index
        return newest if moment.index is None else min(newest, moment.index)

    async def _shipped(self, vault_ids: Sequence[str], wanted: int) -> None:
        """Waits until one of the vaults has the log up to that entry: what was just done can then be undone."""
        until_s = self._children.seconds() + SHIPPING_WAIT_S
        while vault_ids and max(map(self._shipped_index, vault_ids)) < wanted:
            if self._children.seconds() >= until_s:
                log.warning("a restore does not wait any longer for the vaults to get the newest entries of the log")
                return
            await self._pace.pause(LOOK_AGAIN_S)

    # -- what a crash left

    def _leftovers(self, catalog: Catalog) -> list[Any]:
        mine = None if self._at_work is None else self._at_work.scratch_uuid
        return [database for database in scratch_databases(catalog) if database.uuid != mine]

    def _sweep(self, catalog: Catalog, unused: Callable[[], int]) -> tuple[list[Any], None]:
        effects = []
        for database in self._leftovers(catalog):
            log.info("dropping %s, which an unfinished restore left", database.name)
            effects += drop_effects(database)
        return effects, None

    def _not_swept(self, failure: Any) -> None:
        self._has_swept = False
        log.warning("what an unfinished restore left could not be dropped: %s", failure.value)
