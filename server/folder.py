"""The data folder: one server at a time, and an identity that stays.

One rule: the lock is held as long as the process lives; the kernel gives it back even after `kill -9`.

    lock            held with flock; its text is the process id, for people
    identity.json   format, ids of the server and of its cluster, when it was made, a secret; for the owner's eyes
    log/            the write-ahead log (wal)
    rows/           applied rows and indexes (storage), until a snapshot of another server takes their place;
    rows.current    then this names the folder that counts
    snapshots/      what is sent to or comes from other servers (server/cluster/snapshots)
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from model.errors import Corrupt, DiskFull, FolderInUse

FORMAT = 1
FIRST_MEMBER = 1
SECRET_BYTES = 32
_ROWS = "rows"
_CURRENT = "rows.current"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this data folder is. `server_id` and `cluster_id` are UUIDs, `created` is ISO 8601 in UTC.

    `login_secret` (hex) is what strangers' made-up salts come from, so that they are the same at each login.
    `cluster_secret` (hex) is how the members of a cluster know each other. `is_begun`: this member has taken part,
    so an empty log is a lost one. `name`: what the cluster calls it. `peers`: where others were, by member id, when
    this server joined.
    """

    format: int
    server_id: str
    cluster_id: str
    created: str
    login_secret: str = field(repr=False)
    member_id: int = FIRST_MEMBER
    cluster_secret: str = field(default="", repr=False)
    is_begun: bool = False
    name: str = ""
    peers: dict[str, str] = field(default_factory=dict)


class DataFolder:
    """An open and locked data folder; `is_new` says whether it was made just now."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._take_lock()
            self.is_new = not (self.path / "identity.json").exists()
            if self.is_new:
                self._refuse_foreign_files()
                self._write_identity(self._new_identity())
            self._rows_name = self._read_current()
            for name in ("log", self._rows_name):
                (self.path / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise DiskFull(
                f"Cannot use the data folder {self.path}: {error.strerror}.", "It has to be writable and have space."
            ) from error
        self.identity = self._read_identity()
        if not self.identity.cluster_secret:
            self._change(cluster_secret=os.urandom(SECRET_BYTES).hex())

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def rows(self) -> Path:
        return self.path / self._rows_name

    def use_rows(self, name: str) -> None:
        """From now on, also after a crash, the rows are in the folder of this name."""
        self._replace_file(_CURRENT, f"{name}\n")
        self._rows_name = name

    def begun(self) -> None:
        """Remembers that this member has taken part in its cluster."""
        if not self.identity.is_begun:
            self._change(is_begun=True)

    def join(self, cluster_id: str, member_id: int, name: str, cluster_secret: bytes, peers: Mapping[int, str]) -> None:
        """Makes this folder, in which nothing was stored yet, that of a new member of a cluster."""
        known = {str(member): address for member, address in peers.items()}
        secret = cluster_secret.hex()
        self._change(cluster_id=cluster_id, member_id=member_id, name=name, cluster_secret=secret, peers=known)

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._lock)

    def _take_lock(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise FolderInUse(
                f"The data folder {self.path} is in use by process {holder or 'unknown'}.",
                "Stop that server, or give this one a folder of its own with --data-dir.",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def _refuse_foreign_files(self) -> None:
        known = {"lock", "log", "rows", "identity.json.new"}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in known)
        has_log = any((self.path / "log").iterdir()) if (self.path / "log").exists() else False
        if foreign or has_log:
            found = foreign[0] if foreign else "log"
            raise Corrupt(
                f"The folder {self.path} holds {found} but no identity.json, so it is not a data folder of RewindDB.",
                "Give an empty folder, or put identity.json back from where this folder was copied.",
            )

    def _new_identity(self) -> Identity:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        login_secret, cluster_secret = os.urandom(32).hex(), os.urandom(SECRET_BYTES).hex()
        return Identity(FORMAT, str(uuid4()), str(uuid4()), created, login_secret, FIRST_MEMBER, cluster_secret)

    def _change(self, **changes: Any) -> None:
        self.identity = replace(self.identity, **changes)
        self._write_identity(self.identity)

    def _write_identity(self, identity: Identity) -> None:
        self._replace_file("identity.json", json.dumps(asdict(identity), indent=2))

    def _replace_file(self, name: str, text: str) -> None:
        """Replaces a small file, durably: after a crash there is the old one or the new one."""
        new = self.path / f"{name}.new"
        new.touch(mode=0o600)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)
        for folder in (self.path, self.path.parent):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _read_current(self) -> str:
        path = self.path / _CURRENT
        if not path.exists():
            return _ROWS
        name = path.read_text(encoding="utf-8").strip()
        if not (self.path / name).is_dir() or Path(name).name != name:
            raise Corrupt(
                f"{path} says that the rows are in {name!r}, but there is no such folder.",
                "Put it back, or remove this member and let a server with an empty folder join in its place.",
            )
        return name

    def _read_identity(self) -> Identity:
        path = self.path / "identity.json"
        try:
            identity = Identity(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise Corrupt(f"{path} cannot be read: {error}", "Put it back from a copy of this folder.") from error
        if identity.format != FORMAT:
            raise Corrupt(
                f"{path} says format {identity.format}; this version reads {FORMAT}.",
                "Start the version that wrote it.",
            )
        return identity
