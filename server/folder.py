"""The data folder: one server at a time, and an identity that stays.

One rule: the lock is held as long as the process lives; the kernel gives it back even after `kill -9`.

    lock            held with flock; its text is the process id, for people
    identity.json   format, ids of the server and of its cluster, when it was made, a secret; for the owner's eyes
    log/            the write-ahead log (wal)
    rows/           applied rows and indexes (storage)
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from model.errors import Corrupt, DiskFull, FolderInUse

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this data folder is. `server_id` and `cluster_id` are UUIDs, `created` is ISO 8601 in UTC.

    `login_secret` (hex) is what strangers' made-up salts come from, so that they are the same at each login.
    """

    format: int
    server_id: str
    cluster_id: str
    created: str
    login_secret: str = field(repr=False)


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
                self._write_identity()
            for name in ("log", "rows"):
                (self.path / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise DiskFull(
                f"Cannot use the data folder {self.path}: {error.strerror}.", "It has to be writable and have space."
            ) from error
        self.identity = self._read_identity()

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def rows(self) -> Path:
        return self.path / "rows"

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

    def _write_identity(self) -> None:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        identity = Identity(FORMAT, str(uuid4()), str(uuid4()), created, os.urandom(32).hex())
        new = self.path / "identity.json.new"
        new.touch(mode=0o600)
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(identity), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / "identity.json")
        for folder in (self.path, self.path.parent):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

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
