"""A moment of the past as the data folder of a new cluster.

    <folder>.restoring/    locked; identity.json with fresh ids, rows/, log/   ──renamed──►   <folder>/

One rule: a restored server can never join its past. Its cluster, its server and its log get new ids, the log begins
behind the restored entry in a later raft_term, and its first entry takes away what ties it to the old cluster: its
members, vaults and jobs. Schedules stay, disabled.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backup.image_loading import all_workers
from backup.plan import Plan
from backup.rebuild import Progress, Rebuilt, rebuild
from backup.vault import Vault
from consensus.logstore import LogStore
from consensus.messages import ConfState, Entry, HardState, Snapshot
from model.catalog import Catalog
from model.effect import Effect, Kind, encode
from model.errors import BadSetting, DiskFull
from server.backups.rows import BACKUPS, RESTORES, SCHEDULES, TASKS, VAULTS
from server.cluster.members import foreign_effects
from server.daemon import RECURSION_LIMIT
from server.folder import FIRST_MEMBER, DataFolder
from server.restores.asking import check_definitions
from server.system.site import SERVERS
from storage.documents import load_catalog
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

LEFT_BEHIND: Final = (VAULTS, BACKUPS, RESTORES, TASKS, SERVERS)  # documents of the old cluster's own affairs
KEPT_FREE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What a restore into a folder came to. seconds: from the first look at the folder to its name."""

    data_dir: Path
    cluster_id: str
    server_id: str
    rebuilt: Rebuilt
    tables: int
    seconds: float


def check_empty(data_dir: Path) -> None:
    """Raises BadSetting unless a restore may put a data folder there."""
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise BadSetting(
            f"{data_dir} is there already and not an empty folder.", "Give --data-dir a folder that does not exist."
        )


def restore_folder(
    vault: Vault, plan: Plan, data_dir: Path, progress: Progress, now_ms: Callable[[], int]
) -> NewCluster:
    """Makes `data_dir` the data folder of a new cluster that is at the planned moment, or leaves nothing there.

    Raises BadSetting, FolderInUse (another restore into the same folder), UnfitArchive, VaultUnavailable, DiskFull.
    """
    began_s = time.monotonic()
    data_dir = data_dir.absolute()
    check_empty(data_dir)
    folder = _begin(data_dir)
    try:
        _check_space(folder.path, plan)
        rebuilt = rebuild(vault, plan, folder.rows, progress, all_workers())
        catalog = _catalog_in(folder.rows)
        check_definitions(_tables_of(catalog))
        begin_log(
            folder.log, rebuilt.log_index, rebuilt.raft_term, _farewell(catalog, folder.identity.cluster_id), now_ms()
        )
        _sync(folder.path)
        check_empty(data_dir)
        folder.path.rename(data_dir)
        _sync(data_dir.parent)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    finally:
        folder.close()
    identity = folder.identity
    seconds = time.monotonic() - began_s
    return NewCluster(data_dir, identity.cluster_id, identity.server_id, rebuilt, len(catalog.tables), seconds)


def _begin(data_dir: Path) -> DataFolder:
    """A locked folder beside the wanted one, emptied of what an interrupted restore left."""
    folder = DataFolder(data_dir.with_name(data_dir.name + ".restoring"))
    for entry in folder.path.iterdir():
        if entry.name not in ("lock", "identity.json"):
            shutil.rmtree(entry, ignore_errors=True)
    return folder


def _check_space(folder: Path, plan: Plan) -> None:
    needed = plan.image.stored_bytes + sum(replay.piece.stored_bytes for replay in plan.replays)
    free = shutil.disk_usage(folder).free
    if needed + KEPT_FREE_BYTES > free:
        raise DiskFull(f"The restore needs {needed >> 20} MiB and more; {folder.parent} has {free >> 20} MiB free.")


def _catalog_in(rows: Path) -> Catalog:
    engine = RocksEngine(rows, RocksSettings(cache_bytes=8 << 20))
    try:
        catalog = Catalog()
        load_catalog(engine, catalog)
        return catalog
    finally:
        engine.close()


def _tables_of(catalog: Catalog) -> list[dict[str, Any]]:
    """The tables as `check_definitions` looks at them."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    return [
        {
            "db": catalog.databases_by_uuid[table.database].name,
            "table": table.name,
            "primary_key": table.primary_key,
            "write_hook": table.write_hook,
            "indexes": [{"name": index.name, "definition": index.definition} for index in table.indexes.values()],
        }
        for table in catalog.tables.values()
    ]


def _farewell(catalog: Catalog, cluster_id: str) -> list[Effect]:
    """What the first entry of the new log does."""
    effects = foreign_effects(catalog, cluster_id)
    for collection in LEFT_BEHIND:
        effects += [(int(Kind.DELETE_SYSTEM), collection, key) for key in catalog.documents(collection)]
    for key, schedule in catalog.documents(SCHEDULES).items():
        effects.append((int(Kind.PUT_SYSTEM), SCHEDULES, key, {**schedule, "enabled": False}))
    return effects


def begin_log(folder: Path, log_index: int, raft_term: int, effects: list[Effect], now_ms: int) -> None:
    """A new log whose stored data are as of `log_index`: one member, and one entry with the effects.

    Its raft_term is later than that of the restored entry, so that an entry of the old cluster and one of the new
    never have both index and raft_term in common. Raises DiskFull or SyncFailed.
    """
    snapshot = Snapshot(log_index, raft_term, ConfState(voters=(FIRST_MEMBER,)))
    store = LogStore(folder, log_index, installed=snapshot)
    new_term = raft_term + 1
    first = Entry(log_index + 1, new_term, data=encode(effects, now_ms))
    store.append([first], HardState(new_term, FIRST_MEMBER, log_index), None)
    store.close()
    if store.failed is not None:
        raise store.failed


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
