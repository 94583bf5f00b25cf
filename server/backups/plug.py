"""Plugs the backup service into a server: what it may see of the log, the data and the settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from conf.settings import Backup
from consensus.logstore import LogStore
from consensus.node import Node
from model.catalog import Catalog
from model.effect import Effect
from server.backups.children import Children
from server.backups.service import BackupService, BackupSettings
from server.folder import DataFolder
from storage.machine import Machine

WORK_FOLDER = "backup"  # in the data folder, so that checkpoints are hard links


class ServerLog:
    """The log of this server (the port `LogState`)."""

    def __init__(self, node: Node, store: LogStore) -> None:
        self._node = node
        self._store = store

    @property
    def first_index(self) -> int:
        return self._store.first_index()

    @property
    def archivable_index(self) -> int:
        return min(self._node.applied_index, self._store.synced_index)

    @property
    def is_quiet(self) -> bool:
        return self._node.last_index == self.archivable_index

    @property
    def folder(self) -> str:
        return str(self._store.folder)

    def terms(self, low: int, high: int) -> list[tuple[int, int]]:
        return self._store.term_runs(low, high)

    def bytes_from(self, index: int) -> int:
        segments = self._store.segments
        after = [segment.first_index for segment in segments[1:]] + [1 << 63]
        return sum(segment.end for segment, following in zip(segments, after, strict=True) if following > index)


class ServerData:
    """What images are taken of (the port `Source`)."""

    def __init__(self, machine: Machine, store: LogStore) -> None:
        self._machine = machine
        self._store = store

    @property
    def catalog(self) -> Catalog:
        return self._machine.catalog

    @property
    def applied_index(self) -> int:
        return self._machine.applied_index

    def count(self, table_id: int) -> int:
        return self._machine.store.count(table_id)

    def checkpoint(self, folder: Path) -> Deferred[int]:
        return deferToThread(self._machine.checkpoint, folder)

    def term(self, log_index: int) -> int:
        return self._store.term(log_index)


def backup_service(
    settings: Backup,
    folder: DataFolder,
    node: Node,
    store: LogStore,
    machine: Machine,
    propose: Callable[[list[Effect]], Deferred[None]],
    changed: Callable[[], None],
    loop: asyncio.AbstractEventLoop,
    reactor: Any,
    version: str,
) -> BackupService:
    """The service of a server. `propose` brings effects through the log, `changed` wakes feeds of system tables."""
    return BackupService(
        BackupSettings(
            settings.max_log_bytes,
            settings.max_bytes_per_second,
            settings.stall_timeout_ms / 1000,
            settings.alarm_gap_ms / 1000,
            settings.alarm_age_ms / 1000,
        ),
        ServerData(machine, store),
        ServerLog(node, store),
        propose,
        lambda: node.can_serve,
        changed,
        Children(loop, time.monotonic),
        reactor,
        lambda: time.time_ns() // 1_000_000,
        folder.path / WORK_FOLDER,
        folder.identity.cluster_id,
        version,
    )
