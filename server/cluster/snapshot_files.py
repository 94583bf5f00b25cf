"""A snapshot as a stream of bytes: the files of a checkpoint one after the other, a list of them in front.

One rule: whoever takes the stream believes nothing of it. The list is checked against the hash in the Raft
message, names and sizes before a file is made, every file is read back and checked against its hash before the
whole is used; until then what came stays where the next attempt goes on.

The files are the storage engine's own, secondary indexes and all: nothing has to be encoded, decoded or built
again on either side, and while it is sent a snapshot takes no space beyond what is changed meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Callable
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Final

import msgspec

from consensus.messages import Natural, Snapshot
from model.errors import Corrupt
from model.undecodable import UNDECODABLE

FORMAT: Final = "rocksdb checkpoint 1"
LIST_NAME: Final = "files.list"
MARKER_NAME: Final = "installed.snapshot"
MAX_LIST_BYTES: Final = 64 << 20
HASH_BYTES: Final = 32
READ_BYTES: Final = 1 << 20
READAHEAD_BYTES: Final = 4 << 20
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class StoredFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a checkpoint."""

    name: str
    size: Natural
    hash: bytes


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """What `Snapshot.data` holds: the format, and how the stream's list of files is to be checked."""

    format: str
    list_bytes: Natural
    list_hash: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_list_decoder: Final = msgspec.msgpack.Decoder(list[StoredFile])
_contents_decoder: Final = msgspec.msgpack.Decoder(Contents)
_snapshot_decoder: Final = msgspec.msgpack.Decoder(Snapshot)


def hash_of(path: Path) -> bytes:
    """The hash of a file; reads all of it. Other threads run meanwhile."""
    digest = blake2b(digest_size=HASH_BYTES)
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.digest()


def list_files(folder: Path) -> list[StoredFile]:
    """The files of a checkpoint, read and hashed; the big ones first, so that a broken stream has most of it."""
    found = [StoredFile(path.name, path.stat().st_size, hash_of(path)) for path in folder.iterdir() if path.is_file()]
    return sorted(found, key=lambda file: (-file.size, file.name))


def contents_of(snapshot: Snapshot) -> Contents:
    """What a snapshot says about its stream. Raises Corrupt."""
    try:
        contents = _contents_decoder.decode(snapshot.data)
    except UNDECODABLE as error:
        raise Corrupt(f"A snapshot does not say what it holds: {error}.") from error
    if contents.format != FORMAT:
        raise Corrupt(
            f"A snapshot has the format {contents.format[:100]!r}; this version takes {FORMAT!r}.",
            "Start the same version on all servers.",
        )
    if contents.list_bytes > MAX_LIST_BYTES:
        raise Corrupt(f"A snapshot announces a list of {contents.list_bytes} bytes; the limit is {MAX_LIST_BYTES}.")
    return contents


class Outgoing:
    """The stream of a checkpoint folder."""

    def __init__(self, folder: Path, files: list[StoredFile]) -> None:
        self.folder = folder
        self._files = files
        self._list = _encoder.encode(files)
        self._starts = list(accumulate((file.size for file in files), initial=len(self._list)))
        self.size = self._starts[-1]
        list_hash = blake2b(self._list, digest_size=HASH_BYTES).digest()
        self.data = _encoder.encode(Contents(FORMAT, len(self._list), list_hash))

    def open(self) -> OutgoingSource:
        """The stream, to be read (the `Source` port of consensus/shipping)."""
        return OutgoingSource(self)


class OutgoingSource:
    """Reads the stream of a checkpoint from any offset. `on_close` is called once."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.size = outgoing.size
        self.on_close: Callable[[], object] = _nobody
        self._outgoing = outgoing
        self._number = -1
        self._handle = -1

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer at the end of a file. Raises OSError."""
        outgoing = self._outgoing
        head = outgoing._list
        if offset < len(head):
            return head[offset : offset + size]
        number = bisect_right(outgoing._starts, offset) - 1
        if number >= len(outgoing._files):
            return b""
        at = offset - outgoing._starts[number]
        if number != self._number:
            self._open(number)
        os.posix_fadvise(self._handle, at + size, READAHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        return os.pread(self._handle, min(size, outgoing._files[number].size - at), at)

    def _open(self, number: int) -> None:
        self._shut()
        path = self._outgoing.folder / self._outgoing._files[number].name
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._number = number

    def _shut(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = self._number = -1

    def close(self) -> None:
        """No more is needed."""
        self._shut()
        on_close, self.on_close = self.on_close, _nobody
        on_close()


class Incoming:
    """The folder into which a stream goes; `offset` is how much of it is there, also from an earlier attempt."""

    def __init__(self, folder: Path, snapshot: Snapshot, size: int) -> None:
        self.folder = folder
        self.snapshot = snapshot
        self._size = size
        self._contents = contents_of(snapshot)
        self._files: list[StoredFile] = []
        self._number = -1  # of the file that is written; -1 is the list
        self._left = self._contents.list_bytes  # of that file
        self._handle = -1
        self.offset = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._resume()

    def _resume(self) -> None:
        """Finds out what is there; what does not fit is thrown away."""
        path = self.folder / LIST_NAME
        while True:
            have = path.stat().st_size if path.exists() else 0
            if have > self._left:
                path.unlink()
                have = 0
            self.offset += have
            self._left -= have
            if self._left or not self._next_file():
                return
            path = self.folder / self._files[self._number].name

    def _next_file(self) -> bool:
        """What is written is whole: goes on to the next file that has bytes; False if there is none."""
        self._shut()
        if self._number < 0:
            self._read_list()
        while self._number + 1 < len(self._files):
            self._number += 1
            self._left = self._files[self._number].size
            if self._left:
                return True
            (self.folder / self._files[self._number].name).touch(mode=0o600)
        return False

    def _read_list(self) -> None:
        data = (self.folder / LIST_NAME).read_bytes()
        try:
            if blake2b(data, digest_size=HASH_BYTES).digest() != self._contents.list_hash:
                raise Corrupt("A snapshot's list of files is not the one that was announced.")
            self._files = _list_decoder.decode(data)
            self._check_list()
        except (Corrupt, *UNDECODABLE) as error:
            self.discard()
            raise Corrupt(f"A snapshot cannot be taken: {error}") from error

    def _check_list(self) -> None:
        names = {file.name for file in self._files}
        if len(names) != len(self._files) or names & {LIST_NAME, MARKER_NAME}:
            raise Corrupt("two files have one name.")
        for name in names:
            if not _FILE_NAME.fullmatch(name):
                raise Corrupt(f"{name[:100]!r} is no name of a file.")
        if self._contents.list_bytes + sum(file.size for file in self._files) != self._size:
            raise Corrupt("its files are not as long as was announced.")

    def write(self, data: bytes) -> None:
        """Adds the next bytes of the stream. Raises OSError, Corrupt."""
        view = memoryview(data)
        while view:
            if not self._left and not self._next_file():
                raise Corrupt("A snapshot has more bytes than were announced.")
            if self._handle < 0:
                name = self._files[self._number].name if self._number >= 0 else LIST_NAME
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._handle = os.open(self.folder / name, flags, 0o600)
            written = os.write(self._handle, view[: self._left])
            self._left -= written
            self.offset += written
            view = view[written:]

    def seal(self, whole: Path) -> None:
        """All is there: checks it, makes it durable and gives the folder the name `whole`. Blocks. Raises Corrupt."""
        if self._left or self._next_file():
            raise Corrupt("A snapshot ended before all of it was there.")
        self._shut()
        for file in self._files:
            path = self.folder / file.name
            if not path.exists() or path.stat().st_size != file.size or hash_of(path) != file.hash:
                self.discard()
                raise Corrupt(f"A snapshot's file {file.name} did not arrive as it was sent.")
            _sync(path)
        (self.folder / LIST_NAME).unlink(missing_ok=True)
        (self.folder / MARKER_NAME).write_bytes(_encoder.encode(self.snapshot))
        _sync(self.folder / MARKER_NAME)
        _sync(self.folder)
        self.folder.rename(whole)
        _sync(whole.parent)

    def discard(self) -> None:
        """Throws away what came."""
        self._shut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shut(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def close(self) -> None:
        """The attempt is broken off; what is there stays."""
        self._shut()


def installed_in(folder: Path) -> Snapshot | None:
    """The snapshot that a folder of rows came with; None if it did not come with one. Raises Corrupt."""
    path = folder / MARKER_NAME
    try:
        return _snapshot_decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except UNDECODABLE as error:
        raise Corrupt(f"{path} cannot be read: {error}.", "Restore this server from its peers.") from error


def _nobody() -> None:
    """Nobody wants to know."""


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
