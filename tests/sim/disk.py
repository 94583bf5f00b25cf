"""A disk that can lose what was not synced, tear a write, fail, fill up, and rot.

What is written shows at once to whoever reads, as through the system's page cache. A sync makes a file's
bytes (or a folder's names) durable. A power cut keeps any subset of the unsynced sectors, and the
unsynced changes of names up to some point. A process that is killed loses nothing: its pages stay.
"""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

SECTOR = 512


class PowerCut(BaseException):
    """The machine lost its power in the middle of a call."""


class _File:
    __slots__ = ("bytes", "dirty", "durable")

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()


class Disk:
    """One machine's disk; implements `wal.files.Files`."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._name_changes: list[dict[Path, _File]] = []
        self._handles: dict[int, _File] = {}
        self._next_handle = 3
        self.cut_after: int | None = None
        """The power fails after so many more writes and syncs."""
        self.fails_sync = False
        self.is_full = False
        self.syncs = 0

    # -- wal.files.Files

    def names(self, folder: Path) -> list[str]:
        """The names in a folder."""
        return sorted(path.name for path in self._names if path.parent == folder)

    def make_folder(self, folder: Path) -> None:
        """Folders are always there."""

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        """Open a file, making it if told so."""
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._names[path] = _File()
            self._name_changes.append(dict(self._names))
        self._next_handle += 1
        self._handles[self._next_handle] = self._names[path]
        return self._next_handle

    def close(self, handle: int) -> None:
        """Close a file."""
        del self._handles[handle]

    def size(self, handle: int) -> int:
        """The length of a file."""
        return len(self._handles[handle].bytes)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Read, also what is not synced."""
        return bytes(self._handles[handle].bytes[offset : offset + size])

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        """Write without syncing; sometimes less than asked, as the system may."""
        file = self._handles[handle]
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        if len(data) > 1 and self._dice.random() < 0.02:
            data = data[: self._dice.randrange(1, len(data))]
        if len(file.bytes) < offset:
            file.bytes += bytes(offset - len(file.bytes))
        file.bytes[offset : offset + len(data)] = data
        file.dirty.update(range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1))
        self._count_down()
        return len(data)

    def datasync(self, handle: int) -> None:
        """Make a file's bytes durable."""
        file = self._handles[handle]
        if self.fails_sync:
            self._settle(file)
            raise OSError(errno.EIO, "input/output error")
        self._count_down()
        file.durable = bytearray(file.bytes)
        file.dirty.clear()
        self.syncs += 1

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        self._names[new] = self._names.pop(old)
        self._name_changes.append(dict(self._names))

    def remove(self, path: Path) -> None:
        """Remove a name."""
        del self._names[path]
        self._name_changes.append(dict(self._names))

    def sync_folder(self, folder: Path) -> None:
        """Make the names durable."""
        self._count_down()
        self._durable_names = dict(self._names)
        self._name_changes.clear()

    # -- faults

    def _count_down(self) -> None:
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                self.cut_after = None
                raise PowerCut

    def _settle(self, file: _File) -> None:
        """Each unsynced sector reached the disk, or did not."""
        for sector in sorted(file.dirty):
            if self._dice.random() < 0.5:
                start, end = sector * SECTOR, (sector + 1) * SECTOR
                if len(file.durable) < start:
                    file.durable += bytes(start - len(file.durable))
                file.durable[start:end] = file.bytes[start:end]
        file.bytes = bytearray(file.durable)
        file.dirty.clear()

    def cut_power(self) -> None:
        """Lose what was not synced, or parts of it."""
        if self._name_changes:
            reached = self._dice.randrange(len(self._name_changes) + 1)
            if reached:
                self._durable_names = self._name_changes[reached - 1]
        self._name_changes.clear()
        self._names = dict(self._durable_names)
        for path in sorted(self._names):
            self._settle(self._names[path])
        self.stop()

    def stop(self) -> None:
        """The process ends: its handles are closed, what it wrote stays to be read."""
        self._handles.clear()
        self.cut_after = None
        self.fails_sync = False
        self.is_full = False

    def rot(self) -> bool:
        """Flip one bit of the oldest segment, if there is a later one; whether it was done."""
        segments = sorted(path for path in self._names if path.suffix == ".wal" and not path.name.startswith("spare"))
        if len(segments) < 2:
            return False
        file = self._names[segments[0]]
        used = len(bytes(file.bytes).rstrip(b"\0"))
        at = self._dice.randrange(used)
        file.bytes[at] ^= 1 << self._dice.randrange(8)
        file.durable = bytearray(file.bytes)
        file.dirty.clear()
        return True
