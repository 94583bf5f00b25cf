"""A disk in memory whose power can be cut: what was not synced may be there afterwards, whole, in part or not at all.

One rule: it is as nasty as a real one may be, never nastier: synced bytes and synced names stay.
"""

import errno
from pathlib import Path

PAGE = 4096


class Inode:
    def __init__(self):
        self.now = bytearray()  # what readers see
        self.durable = bytearray()
        self.dirty = set()  # pages written since the last sync

    def after_power_loss(self, keep):
        """The file as a later process finds it: `keep(page)` says whether an unsynced page reached the disk."""
        found = Inode()
        content = bytearray(self.durable)
        for page in sorted(self.dirty):
            if keep(page):
                low = page * PAGE
                piece = self.now[low : low + PAGE]
                if len(content) < low + len(piece):
                    content.extend(bytes(low + len(piece) - len(content)))
                content[low : low + len(piece)] = piece
        found.now, found.durable = bytearray(content), content
        return found


class LossyDisk:
    """Implements `wal.files.Files` for one folder.

    `fail_at`: at which operation (counted from 1) every further one fails, with `fail_with`.
    `short_writes`: a write takes no more bytes than that at once.
    """

    def __init__(self, short_writes=None):
        self.files = {}  # name -> inode, as readers see it
        self.durable_files = {}
        self.unsynced_names = []  # changes of names since the last sync of the folder, each a function of a dict
        self.handles = {}
        self.operations = 0
        self.fail_at = None
        self.fail_with = errno.EIO
        self.only = None  # the kind of operation that fails; None: any that changes something
        self.short_writes = short_writes

    @classmethod
    def holding(cls, folder):
        """A disk with the files of a real folder, all durable."""
        disk = cls()
        for path in folder.iterdir():
            disk.files[path.name] = inode = Inode()
            inode.now, inode.durable = bytearray(path.read_bytes()), bytearray(path.read_bytes())
        disk.durable_files = dict(disk.files)
        return disk

    def _count(self, kind):
        if self.only is None or self.only == kind:
            self.operations += 1
            if self.fail_at is not None and self.operations >= self.fail_at:
                raise OSError(self.fail_with, f"{kind} failed")

    def _change(self, change):
        change(self.files)
        self.unsynced_names.append(change)

    def names(self, folder):
        return list(self.files)

    def make_folder(self, folder):
        pass

    def open(self, path, *, writable, create=False):
        if path.name not in self.files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._count("create")
            inode = Inode()
            self._change(lambda files: files.setdefault(path.name, inode))
        handle = len(self.handles) + 3
        self.handles[handle] = self.files[path.name]
        return handle

    def close(self, handle):
        assert self.handles[handle] is not None
        self.handles[handle] = None

    def size(self, handle):
        return len(self.handles[handle].now)

    def pread(self, handle, size, offset):
        return bytes(self.handles[handle].now[offset : offset + size])

    def pwrite(self, handle, data, offset):
        inode = self.handles[handle]
        data = data[: self.short_writes] if self.short_writes else data
        try:
            self._count("write")
        except OSError:
            self._store(inode, data[: len(data) // 2], offset)
            raise
        self._store(inode, data, offset)
        return len(data)

    def _store(self, inode, data, offset):
        if len(inode.now) < offset:
            inode.now.extend(bytes(offset - len(inode.now)))
        inode.now[offset : offset + len(data)] = data
        inode.dirty.update(range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1))

    def datasync(self, handle):
        self._count("sync")
        inode = self.handles[handle]
        inode.durable = bytearray(inode.now)
        inode.dirty = set()

    def rename(self, old, new):
        self._count("rename")
        self._change(lambda files: files.update({new.name: files.pop(old.name)}) if old.name in files else None)

    def remove(self, path):
        self._count("remove")
        self._change(lambda files: files.pop(path.name, None))

    def sync_folder(self, folder):
        self._count("sync folder")
        self.durable_files = dict(self.files)
        self.unsynced_names = []

    def after_power_loss(self, dice):
        """The disk as the next process finds it; `dice`, a random.Random, decides what got through."""
        found = LossyDisk(self.short_writes)
        share = dice.choice([0.0, 0.3, 0.5, 0.9, 1.0])
        names = dict(self.durable_files)
        for change in self.unsynced_names:
            if dice.random() < share:
                change(names)
        found.files = {
            name: inode.after_power_loss(lambda page: dice.random() < share) for name, inode in names.items()
        }
        found.durable_files = dict(found.files)
        return found

    def contents(self, name):
        return bytes(self.files[name].now)


FOLDER = Path("log")
