"""Plugs restores into a server: what they may see of the backup service, the data and the fibers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread

from proxy.fibers import FiberPool
from server.backups.plug import WORK_FOLDER
from server.backups.service import BackupService, Pauses
from server.folder import DataFolder
from server.past_tables import past_tables
from server.restores.work import RestoreWork
from server.restores.writing import Store
from server.system import SystemTables
from storage.compactions import COMPACTIONS


def plug_restores(
    service: BackupService,
    system: SystemTables,
    data: Store,
    fibers: FiberPool,
    folder: DataFolder,
    reactor: Any,
    may_pack: Callable[[], bool],
) -> RestoreWork:
    """From now on the service takes restores, and questions about the past have tables.

    may_pack: whether all members know packed rows in the log.

    `tick` of what is returned is to be called each second.
    """
    work = RestoreWork(
        data,
        fibers,
        service.ledger,
        service.children,
        service.archiver,
        service.state,
        Pauses(reactor),
        deferToThread,
        folder.path / WORK_FOLDER,
        may_pack,
        COMPACTIONS,
    )
    service.restores.plug(work.check, work.restore)
    system.add(*past_tables(work))
    return work
