"""Snapshots as files of one folder: what is sent to other members, and what comes from them.

The rule: a file under its own name is whole. What is still arriving has another name, and gets its own
only once its size and hash are those that the leader's snapshot names. The folder is the server's own,
and nobody else writes there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from consensus.messages import Natural, Snapshot
from consensus.raftlog import SnapshotUnavailable
from model.errors import Corrupt, RewindError

DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"[0-9a-z][0-9a-z._-]{0,99}")
_ARRIVING: Final = ".arriving"
_READ_BYTES: Final = 1 << 20


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What a `Snapshot.data` says of its file."""

    name: str
    size: Natural
    digest: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Content)

InThread = Callable[[Callable[[], None], Callable[[Exception | None], None]], None]
"""Runs the first call away from the reactor's thread, then the second on it with what went wrong, or None."""


def at_once(work: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
    """Work on this very thread, for tests and small files."""
    try:
        work()
    except Exception as error:
        done(error)
    else:
        done(None)


def content_of(snapshot: Snapshot) -> Content:
    """What a snapshot says of its file. Raises `RewindError` for what cannot be one of ours."""
    try:
        content = _decoder.decode(snapshot.data)
    except msgspec.MsgspecError as error:
        raise RewindError(f"A snapshot does not say which file it is: {error}.") from error
    if not _NAME.fullmatch(content.name) or content.name.endswith(_ARRIVING):
        raise RewindError("A snapshot names a file that no server of ours would.")
    return content


def describe(path: Path) -> bytes:
    """The `Snapshot.data` for a file that is whole. Reads all of it: call it in a thread."""
    size, digest = _measure(path)
    return _encoder.encode(Content(path.name, size, digest))


def _measure(path: Path) -> tuple[int, bytes]:
    code, size = blake2b(digest_size=DIGEST_BYTES), 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            code.update(part)
            size += len(part)
    return size, code.digest()


class FileSource:
    """The bytes of one file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size = path.stat().st_size

    def read(self, offset: int, size: int) -> bytes:
        """See `shipping.Source`."""
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """See `shipping.Source`."""
        self._file.close()


class FileSink:
    """A file that arrives."""

    def __init__(self, path: Path, content: Content, in_thread: InThread) -> None:
        self._path = path
        self._arriving = path.with_name(path.name + _ARRIVING)
        self._content = content
        self._in_thread = in_thread
        self._file: BinaryIO = self._arriving.open("ab")
        self.offset = self._file.tell()
        if self.offset > content.size:
            self._file.truncate(0)
            self.offset = 0

    def write(self, data: bytes) -> None:
        """See `shipping.Sink`."""
        self._file.write(data)
        self.offset += len(data)

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """See `shipping.Sink`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._in_thread(self._keep, done)

    def _keep(self) -> None:
        if _measure(self._arriving) != (self._content.size, self._content.digest):
            self._arriving.unlink()
            raise Corrupt("The snapshot that arrived is not the one that was sent.", "It will be sent again.")
        self._arriving.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """See `shipping.Sink`."""
        self._file.close()


class WholeSink:
    """A file that is there already."""

    def __init__(self, size: int) -> None:
        self.offset = size

    def write(self, data: bytes) -> None:
        """Nothing is missing."""
        raise Corrupt("A snapshot that is whole gets more bytes.")

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """See `shipping.Sink`."""
        done(None)

    def close(self) -> None:
        """See `shipping.Sink`."""


class FileShelf:
    """Implements `shipping.Shelf` over a folder, which must exist."""

    def __init__(self, folder: Path, in_thread: InThread = at_once) -> None:
        self._folder = folder
        self._in_thread = in_thread

    def path_of(self, snapshot: Snapshot) -> Path:
        """Where a snapshot's file is, or will be."""
        return self._folder / content_of(snapshot).name

    def open(self, snapshot: Snapshot) -> FileSource:
        """See `shipping.Shelf`."""
        try:
            return FileSource(self.path_of(snapshot))
        except FileNotFoundError as error:
            raise SnapshotUnavailable(f"The snapshot up to index {snapshot.index} is gone.") from error

    def receive(self, snapshot: Snapshot, size: int) -> FileSink | WholeSink:
        """See `shipping.Shelf`."""
        content, path = content_of(snapshot), self.path_of(snapshot)
        if content.size != size:
            raise RewindError(f"A snapshot of {content.size} bytes is offered with {size}.")
        if path.exists() and _measure(path) == (content.size, content.digest):
            return WholeSink(size)
        return FileSink(path, content, self._in_thread)
