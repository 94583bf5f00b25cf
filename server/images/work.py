"""The jobs of the table `backups`: an image in each vault, taken by the first server that can.

One rule: the leader answers for the job. Whoever takes the image only reports to it, and what a server did that was
lost on the way does not count: the next one begins anew, under another name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from backup.access import access_from
from backup.manifest import image_name
from model.errors import RewindError
from server.backups.lane import Job
from server.backups.ledger import Ledger
from server.backups.rows import VAULTS, Row
from server.images.messages import Asked, Outcome, VaultAsked
from server.images.places import Here, Place, PlaceLost
from server.images.taking import LOOK_AGAIN_S, ImageTaker

log = logging.getLogger("rewinddb.backup")

LABEL_PATIENCE_S: Final = 5.0  # for a vault that was added just now


class Labels(Protocol):
    """What the vaults' vault.json say, by the vaults' ids, as far as they were seen on this server."""

    def label(self, vault_id: str) -> dict[str, Any] | None: ...
    def note_label(self, vault_id: str, label: dict[str, Any]) -> None: ...


class ImageWork:
    """Takes images. Of other members nothing is known before `plug`: until then all are taken here."""

    def __init__(self, taker: ImageTaker, ledger: Ledger, labels: Labels, vault: Callable[[str], Row]) -> None:
        """vault: its document by its name; raises RewindError."""
        self._taker = taker
        self._ledger = ledger
        self._labels = labels
        self._vault = vault
        self._own_name: Callable[[], str] = lambda: ""
        self._others: Callable[[], Sequence[Place]] = list

    def plug(self, own_name: Callable[[], str], others: Callable[[], Sequence[Place]]) -> None:
        """others: the members that may be asked before this server, the best first."""
        self._own_name, self._others = own_name, others

    async def back_up(self, job: Job) -> Row:
        """An image at one log index in each vault."""
        vaults = [self._vault(name) for name in job.row["vaults"]]
        passed: list[str] = []
        for place in await self._places(vaults):
            job.update(server=place.name, rows=0, bytes=0, percent=0, log_index=None)
            try:
                result = await self._take(job, place, vaults)
            except PlaceLost as error:
                passed.append(f"not taken by {place.name}: {error}")
                log.warning("%s: the image is %s", job.row["name"], passed[-1])
            else:
                return {**result, "warnings": [*passed, *result["warnings"]]}
        raise RewindError("No server could take the image: " + "; ".join(passed))

    # -- inside

    async def _places(self, vaults: Sequence[Row]) -> list[Place]:
        """Where it may be taken, this server last: by others only if they can tell that they see the same vaults."""
        others = list(self._others())
        waited_s = 0.0
        while others and any(self._labels.label(vault["id"]) is None for vault in vaults):
            if waited_s >= LABEL_PATIENCE_S or any(vault["pause"] for vault in vaults):
                others.clear()
            else:
                await self._taker.pace.pause(LOOK_AGAIN_S)
                waited_s += LOOK_AGAIN_S
        return [*others, Here(self._own_name(), self._taker, self._note_label)]

    def _note_label(self, name: str, label: dict[str, Any]) -> None:
        self._labels.note_label(self._vault(name)["id"], label)

    async def _take(self, job: Job, place: Place, vaults: Sequence[Row]) -> Row:
        asked = self._asked(job.row, place, vaults)
        total = len(vaults) * self._rows_of(asked.selection)

        def progress(rows_in_all: int, rows: int, size: int) -> None:
            job.progress(100 * rows_in_all / total if total else 0, rows, size)

        job.on_cancel = place.cancel
        try:
            if job.cancelled:
                raise RewindError(job.cancelled)
            log_index = await place.prepare(asked)
            # The leader's clock, now: not before the time of any entry in the image, which this clock stamped.
            time_ms = self._ledger.now_ms()
            job.update(log_index=log_index)
            image = image_name(time_ms, log_index)
            outcomes = await place.take(image, time_ms, progress)
        finally:
            job.on_cancel = None
            await place.end()
        return self._sum_up(vaults, outcomes, image, log_index)

    def _asked(self, row: Row, place: Place, vaults: Sequence[Row]) -> Asked:
        is_here = isinstance(place, Here)
        return Asked(
            [
                VaultAsked(
                    access_from(vault).as_plain(),
                    vault["claimed"],
                    None if is_here else self._labels.label(vault["id"]),
                )
                for vault in vaults
            ],
            [*row["databases"], *row["tables"]],
            row["max_bytes_per_s"],
            row["hold"],
            self._taker.source.applied_index,
        )

    def _sum_up(self, vaults: Sequence[Row], outcomes: Sequence[Outcome], image: str, index: int) -> Row:
        images: list[Row] = []
        errors: list[str] = []
        warnings: list[str] = []
        whole = Outcome()
        for vault, outcome in zip(vaults, outcomes, strict=True):
            if outcome.error:
                text = f"in vault {vault['name']}: {outcome.error}"
                (errors if vault["required"] or len(vaults) == 1 else warnings).append(text)
                continue
            whole = outcome
            images.append(
                {
                    "vault": vault["name"],
                    "url": vault["url"],
                    "image": image,
                    "bytes": outcome.stored_bytes,
                    "manifest_sha256": outcome.manifest_sha256 or None,
                }
            )
            missing = vault["missing"]
            if missing is not None and not outcome.selection and index >= missing[1]:
                self._ledger.amend(VAULTS, vault["id"], {"missing": None})
        if errors or not images:
            good = f" (It is whole in vault {', '.join(image['vault'] for image in images)}.)" if images else ""
            raise RewindError("; ".join(errors or warnings) + good)
        return {
            "rows": whole.rows,
            "bytes": whole.bytes,
            "log_index": index,
            "images": images,
            "warnings": warnings,
            "tables_done": list(whole.tables),
        }

    def _rows_of(self, selection: Sequence[str]) -> int:
        """About how many rows are to be read."""
        source = self._taker.source
        total = 0
        for table in source.catalog.tables.values():
            database = source.catalog.databases_by_uuid[table.database].name
            if not selection or database in selection or f"{database}.{table.name}" in selection:
                total += source.count(table.table_id)
        return total
