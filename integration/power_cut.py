"""`rewinddb`, but it keeps beside its log an image of what a disk would surely hold if the power went now.

    python -m integration.power_cut IMAGE serve ...

One rule: bytes reach the image when they are synced, never before. Names (create, rename, remove) reach it at once,
as a journaling file system orders them; `wal/` has its own tests with names that come late.
"""

import os
import sys
from collections import defaultdict
from pathlib import Path

from wal.files import OsFiles
from wal.syncs import KernelSyncs


class Image:
    """The durable image of all files that the log writes."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = {}  # handle -> name
        self.dirty = defaultdict(list)  # name -> (offset, bytes) not synced

    def opened(self, handle, path):
        self.names[handle] = path.name
        (self.folder / path.name).touch()

    def written(self, handle, data, offset):
        self.dirty[self.names[handle]].append((offset, bytes(data)))

    def synced(self, handle):
        name = self.names[handle]
        with (self.folder / name).open("r+b") as file:
            for offset, data in self.dirty.pop(name, ()):
                file.seek(offset)
                file.write(data)

    def renamed(self, old, new):
        (self.folder / old.name).rename(self.folder / new.name)
        self.names = {handle: new.name if name == old.name else name for handle, name in self.names.items()}
        if old.name in self.dirty:
            self.dirty[new.name] = self.dirty.pop(old.name)

    def removed(self, path):
        (self.folder / path.name).unlink()
        self.dirty.pop(path.name, None)


def watch(image):
    """Puts the image behind every file operation of the log."""
    plain = {name: getattr(OsFiles, name) for name in ("open", "pwrite", "datasync", "rename", "remove")}

    def opening(self, path, *, writable, create=False):
        handle = plain["open"](self, path, writable=writable, create=create)
        if writable:
            image.opened(handle, path)
        return handle

    def pwrite(self, handle, data, offset):
        written = plain["pwrite"](self, handle, data, offset)
        image.written(handle, data[:written], offset)
        return written

    def datasync(self, handle):
        plain["datasync"](self, handle)
        image.synced(handle)

    begin = KernelSyncs.begin

    def beginning(self, handle, ended):
        """Nothing else is written until it has ended."""

        def telling(error):
            if error is None:
                image.synced(handle)
            ended(error)

        return begin(self, handle, telling)

    def rename(self, old, new):
        plain["rename"](self, old, new)
        image.renamed(old, new)

    def remove(self, path):
        plain["remove"](self, path)
        image.removed(path)

    OsFiles.open, OsFiles.pwrite, OsFiles.datasync = opening, pwrite, datasync
    OsFiles.rename, OsFiles.remove = rename, remove
    KernelSyncs.begin = beginning


def cut_power(log, image, rng):
    """Makes the folder `log` what it might be after a power cut: the image, and any of the pages not yet synced."""
    kept = 0
    for path in image.iterdir():
        durable = bytearray(path.read_bytes())
        later = (log / path.name).read_bytes() if (log / path.name).exists() else b""
        durable.extend(bytes(max(0, len(later) - len(durable))))
        for offset in range(0, len(later), 4096):
            page = later[offset : offset + 4096]
            if durable[offset : offset + 4096] != page and rng.random() < 0.5:
                durable[offset : offset + len(page)] = page
                kept += 1
        (log / path.name).write_bytes(durable)
    for path in log.iterdir():
        if path.is_file() and not (image / path.name).exists():
            path.unlink()
    return kept


if __name__ == "__main__":
    watch(Image(sys.argv.pop(1)))
    os.environ["PYTHONUNBUFFERED"] = "1"
    from server.cli import main

    main()
