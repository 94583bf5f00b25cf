"""Keeps the log flowing into every vault: one child process per vault, told each second how far the log is.

One rule: vaults know nothing of each other. One that is slow, full or gone delays nobody; required ones hold on to
the log until they have it, up to a limit, beyond which the log goes and the vault needs a new image.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from backup.access import access_from
from server.backups.children import Child, Children
from server.backups.rows import Row

log = logging.getLogger("rewinddb.backup")

STARTING: Final = "starting"
OK: Final = "ok"
UNAVAILABLE: Final = "unavailable"
REFUSED: Final = "refused"
PAUSED: Final = "paused"
BROKEN: Final = "broken: needs a new image"
RESTART_S: Final = 15.0
KEPT_SAMPLES: Final = 4000
NOTE_ENTRIES: Final = 5000  # after so many shipped entries, or so many bytes of log, the others are told
NOTE_BYTES: Final = 64 << 20
HIDDEN: Final = ("claimed", "since_index", "noted_index")  # fields of a vault's document that its row does not show


class LogState(Protocol):
    """What is known of this server's log."""

    @property
    def first_index(self) -> int: ...
    @property
    def archivable_index(self) -> int:
        """Entries up to there are committed, synced and applied here."""

    @property
    def is_quiet(self) -> bool:
        """Whether the log ends there."""

    @property
    def folder(self) -> str: ...
    def terms(self, low: int, high: int) -> list[tuple[int, int]]:
        """(first entry, raft_term) that cover entries low to high."""

    def bytes_from(self, index: int) -> int:
        """About how much log there is from that entry on."""


class Shipping:
    """One vault's share."""

    def __init__(self, document: Row) -> None:
        self.document = document
        self.child: Child | None = None
        self.state = STARTING
        self.error = ""
        self.label: dict[str, Any] | None = None  # the vault's vault.json, once it was seen
        self.shipped_index: int | None = None
        self.shipped_ms = 0
        self.bytes = 0
        self.retry_at_s = 0.0
        self.is_let_go = False  # the log it needed was released

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def shown_state(self) -> str:
        if self.document["pause"]:
            return PAUSED
        return BROKEN if self.state == OK and self.document["missing"] else self.state


class Archiver:
    """All vaults' shipping. On the reactor's thread; `tick` is called each second.

    documents: the vaults as configured, by id. amend(id, changes): keeps changes of a vault's document in the log.
    """

    def __init__(
        self,
        state: LogState,
        children: Children,
        documents: Callable[[], Mapping[str, Row]],
        amend: Callable[[str, Row], None],
        cluster_id: str,
        now_ms: Callable[[], int],
        max_log_bytes: int,
    ) -> None:
        self._state = state
        self._children = children
        self._documents = documents
        self._amend = amend
        self._cluster_id = cluster_id
        self._now_ms = now_ms
        self._max_log_bytes = max_log_bytes
        # (seconds, archivable index), one per second and index: when the log was last seen to end there
        self._samples: deque[tuple[float, int]] = deque(maxlen=KEPT_SAMPLES)
        self.shippings: dict[str, Shipping] = {}

    # -- each second

    def tick(self) -> None:
        """Starts and stops children as vaults come and go, and tells them how far the log is."""
        self._follow_configuration()
        now_s, last = self._children.seconds(), self._state.archivable_index
        if self._samples and self._samples[-1][1] == last:
            self._samples.pop()
        self._samples.append((now_s, last))
        for shipping in self.shippings.values():
            if shipping.child is not None:
                shipping.child.send(self._order(shipping, last))
            elif not shipping.document["pause"] and now_s >= shipping.retry_at_s:
                self._start(shipping)

    def stop(self) -> None:
        """This server no longer leads, or stops."""
        for shipping in self.shippings.values():
            self._end(shipping, "The server no longer ships the log.")
        self.shippings.clear()

    def _follow_configuration(self) -> None:
        documents = self._documents()
        for vault_id, shipping in list(self.shippings.items()):
            document = documents.get(vault_id)
            if document is None:
                self._end(shipping, "The vault was removed.")
                del self.shippings[vault_id]
            elif document is not shipping.document:
                before, shipping.document = shipping.document, document
                if access_from(before) != access_from(document) or document["pause"]:
                    self._end(shipping, "The vault was changed.")
                    shipping.shipped_index, shipping.state, shipping.retry_at_s = None, STARTING, 0.0
                    shipping.label = None
        for vault_id, document in documents.items():
            if vault_id not in self.shippings:
                self.shippings[vault_id] = Shipping(document)

    def label(self, vault_id: str) -> dict[str, Any] | None:
        """What a vault's vault.json says here; None if it was not seen yet."""
        shipping = self.shippings.get(vault_id)
        return None if shipping is None else shipping.label

    def note_label(self, vault_id: str, label: dict[str, Any]) -> None:
        """Who else looks at a vault saw this."""
        if vault_id in self.shippings:
            self.shippings[vault_id].label = label

    def _order(self, shipping: Shipping, last: int) -> Row:
        first = self._state.first_index
        low = first if shipping.shipped_index is None else max(first, shipping.shipped_index)
        return {
            "first_index": first,
            "last_index": last,
            "terms": self._state.terms(low, last),
            "quiet_ms": self._now_ms() if self._state.is_quiet else None,
        }

    def gap_s(self, shipping: Shipping) -> float:
        """How many seconds of changes this vault may lack at this moment: rather too many than too few."""
        shipped = shipping.shipped_index
        if shipped is not None and shipped >= self._state.archivable_index:
            return 0.0
        now_s = self._children.seconds()
        was_complete_s = max((seen_s for seen_s, index in self._samples if index <= (shipped or 0)), default=None)
        if was_complete_s is not None:
            return max(now_s - was_complete_s, 0.0)
        if shipping.shipped_ms:  # so long ago that nothing else is remembered
            return max(self._now_ms() - shipping.shipped_ms, 0) / 1000
        return now_s - self._samples[0][0] if self._samples else 0.0

    # -- one child

    def _start(self, shipping: Shipping) -> None:
        document = shipping.document
        job = {
            "job": "ship",
            "vault": access_from(document).as_plain(),
            "log": self._state.folder,
            "cluster_id": self._cluster_id,
            "is_known": document["claimed"],
            "start_after": document["since_index"],
        }
        child = self._children.start(job, lambda event: self._heard(shipping, child, event))
        shipping.child = child

        def ended(failure: Any) -> None:
            if shipping.child is child:
                shipping.child = None
                shipping.state, shipping.error = REFUSED, str(failure.value)
                shipping.retry_at_s = self._children.seconds() + RESTART_S
                log.error("the log is no longer shipped to vault %s: %s", shipping.name, failure.value)

        child.done.addErrback(ended)

    def _end(self, shipping: Shipping, why: str) -> None:
        child, shipping.child = shipping.child, None
        if child is not None:
            child.kill(why)

    def _heard(self, shipping: Shipping, child: Child, event: Row) -> None:
        if shipping.child is not child:
            return
        kind = event["event"]
        if kind in ("ready", "shipped"):
            if shipping.state == UNAVAILABLE:
                log.info("vault %s is back", shipping.name)
            shipping.state, shipping.error = OK, ""
            shipping.label = event.get("label", shipping.label)
            shipping.shipped_index, shipping.shipped_ms = event["index"], event["time_ms"]
            shipping.bytes += event.get("bytes", 0)
            self._note(shipping, event["index"])
        elif kind == "error":
            if shipping.state != UNAVAILABLE:
                log.warning("vault %s: %s", shipping.name, event["message"])
            shipping.state, shipping.error = UNAVAILABLE, event["message"]
        elif kind == "missed":
            shipping.is_let_go = False
            log.error(
                "vault %s lacks the log entries %d to %d, which were released: it needs a new image",
                shipping.name,
                event["first"],
                event["last"],
            )
            self._amend(shipping.document["id"], {"missing": [event["first"], event["last"]]})

    def _note(self, shipping: Shipping, index: int) -> None:
        """Keeps in the log, now and then, what the vault has: other members hold their logs for it, too.

        Not at every slice: each note is an entry that has to be shipped in its turn.
        """
        document = shipping.document
        changes: Row = {} if document["claimed"] else {"claimed": True}
        noted = document["noted_index"]
        if index - noted >= NOTE_ENTRIES or (index > noted and self._state.bytes_from(noted + 1) >= NOTE_BYTES):
            changes["noted_index"] = index
        if changes:
            self._amend(document["id"], changes)

    # -- what holds the log

    def keep_from(self) -> int | None:
        """The first entry that a required vault still needs; None if none does."""
        needed = self._needed(self._documents())
        if needed is None or self._state.bytes_from(needed) <= self._max_log_bytes:
            return needed
        for shipping in self.shippings.values():
            is_behind = shipping.shipped_index is None or shipping.shipped_index < self._state.archivable_index
            if shipping.document["required"] and is_behind and not shipping.is_let_go:
                shipping.is_let_go = True
                log.error(
                    "vault %s is too far behind: the log has grown beyond %d bytes and is released",
                    shipping.name,
                    self._max_log_bytes,
                )
        return None

    def _needed(self, documents: Mapping[str, Row]) -> int | None:
        return min(self._needs(documents), default=None)

    def _needs(self, documents: Mapping[str, Row]) -> Iterable[int]:
        for vault_id, document in documents.items():
            if document["required"]:
                shipping = self.shippings.get(vault_id)
                shipped = shipping.shipped_index if shipping is not None else None
                yield document["noted_index"] + 1 if shipped is None else shipped + 1


def vault_rows(archiver: Archiver, documents: Mapping[str, Row], inventories: Mapping[str, Row]) -> Sequence[Row]:
    """The rows of `rethinkdb.vaults`: what is configured, how it goes, and what the vault was last seen to hold."""
    rows = []
    for vault_id, document in documents.items():
        shipping = archiver.shippings.get(vault_id)
        row = {name: value for name, value in document.items() if name not in HIDDEN}
        row["state"] = STARTING if shipping is None else shipping.shown_state
        row["error"] = (shipping.error or None) if shipping is not None else None
        row["gap"] = round(archiver.gap_s(shipping), 3) if shipping is not None else None
        row["shipped_index"] = shipping.shipped_index if shipping is not None else None
        row["inventory"] = inventories.get(vault_id)
        rows.append(row)
    return rows
