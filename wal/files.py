"""The few file operations that the log needs, as a port, so that tests can take the power away.

One rule: nothing here decides anything; each method is one system call and raises its OSError.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, Protocol

from model.errors import DiskFull, RewindError, SyncFailed

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Files(Protocol):
    """What is written is durable after `datasync` (bytes, length) or `sync_folder` (names), not before."""

    def names(self, folder: Path) -> list[str]: ...
    def make_folder(self, folder: Path) -> None: ...
    def open(self, path: Path, *, writable: bool, create: bool = False) -> int: ...
    def close(self, handle: int) -> None: ...
    def size(self, handle: int) -> int: ...
    def pread(self, handle: int, size: int, offset: int) -> bytes: ...
    def pwrite(self, handle: int, data: bytes, offset: int) -> int: ...
    def datasync(self, handle: int) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def sync_folder(self, folder: Path) -> None: ...


class OsFiles:
    """The operating system's files."""

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in folder.iterdir()]

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
        return os.open(path, flags | os.O_CLOEXEC, 0o640)

    def close(self, handle: int) -> None:
        os.close(handle)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return os.pread(handle, size, offset)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def datasync(self, handle: int) -> None:
        os.fdatasync(handle)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_all(files: Files, handle: int, offset: int = 0) -> bytes:
    """Everything from `offset` to the end of the file."""
    parts: list[bytes] = []
    while part := files.pread(handle, 64 << 20, offset):
        parts.append(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_all(files: Files, handle: int, data: bytes, offset: int) -> None:
    """All of `data` at `offset`, however many calls the system makes of it."""
    done = files.pwrite(handle, data, offset)
    while done < len(data):
        done += files.pwrite(handle, data[done:], offset + done)


def final_error(error: OSError, folder: Path) -> RewindError:
    """What a failed write or sync means: DiskFull or SyncFailed, both with what to do."""
    if error.errno in _FULL:
        return DiskFull(
            f"The log in {folder} cannot grow: {error.strerror}.",
            "Free space on its disk (or make it writable), then start the server again; nothing acknowledged is lost.",
        )
    return SyncFailed(
        f"The log in {folder} could not be written: {error.strerror or error}.",
        "What is on disk is unknown until it is read back: check the disk, then start the server again.",
    )
