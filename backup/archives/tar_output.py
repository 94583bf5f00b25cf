"""Writes a compressed tar whose members' sizes are known only once they are written.

A tar member's size stands before its data. One rule: data is compressed once and kept nowhere if the output can
be rewound (the header is a stored piece that is corrected in place); else the compressed data waits in memory,
beyond SPOOL_BYTES in an unnamed file that vanishes with the process. See docs/decisions/020-dump-without-staging.md.
"""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

from backup.archives.codec import Codec, crc32_joined

PIECE_BYTES = 1 << 20
SPOOL_BYTES = 64 << 20
_TAR_BLOCK = 512
_TAR_RECORD = 20 * _TAR_BLOCK
_COPY_BYTES = 1 << 20


class TarOutput:
    """A tar being written to `raw`. Members are added one after the other, by one thread.

    time_s: the members' time of change. threads: how many compress. temp_dir: where an unnamed file may be made.
    can_rewind: whether `raw` is a file that may be written at any place.
    """

    def __init__(
        self,
        raw: IO[bytes],
        codec: Codec,
        time_s: int,
        *,
        threads: int = 1,
        temp_dir: str | None = None,
        can_rewind: bool = True,
    ) -> None:
        self._raw = raw
        self._target = raw
        self._codec = codec
        self._time_s = time_s
        self._temp_dir = temp_dir
        self._can_rewind = can_rewind
        self._pool = ThreadPoolExecutor(threads, "compress")
        self._in_work: deque[Future[bytes]] = deque()
        self._in_work_max = 2 * threads
        self._buffer = bytearray()
        self._crc = 0
        self._length = 0
        self._compressed_length = 0
        self._write_out(codec.head())

    @property
    def compressed_length(self) -> int:
        """Bytes given out so far."""
        return self._compressed_length

    def add(self, name: str, data: bytes) -> None:
        """A member whose content is at hand."""
        self._put(self._header(name, len(data)) + data + _padding(len(data)))

    def begin(self, name: str) -> Member:
        """A member that is written piece by piece; it must be closed before the next one begins."""
        self._flush()
        return Member(self, name)

    def close(self) -> None:
        """Ends the tar and the compression; `raw` stays open."""
        end = 2 * _TAR_BLOCK
        end += -(self._length + len(self._buffer) + end) % _TAR_RECORD
        self._put(bytes(end))
        self._flush()
        self._write_out(self._codec.tail(self._crc, self._length))
        self._pool.shutdown()

    def abort(self) -> None:
        """Stops the threads; what was written is worthless."""
        self._pool.shutdown(cancel_futures=True)

    def _header(self, name: str, size: int) -> bytes:
        """GNU form: sizes beyond 8 GiB and names beyond 100 bytes do not change its length for a given name."""
        info = tarfile.TarInfo(name)
        info.size = size
        info.mtime = self._time_s
        info.mode = 0o600
        info.uname = info.gname = "root"
        return info.tobuf(tarfile.GNU_FORMAT)

    def _put(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= PIECE_BYTES:
            self._compress(bytes(self._buffer[:PIECE_BYTES]))
            del self._buffer[:PIECE_BYTES]

    def _compress(self, piece: bytes) -> None:
        self._crc = zlib.crc32(piece, self._crc)
        self._length += len(piece)
        self._in_work.append(self._pool.submit(self._codec.compress, piece))
        if len(self._in_work) > self._in_work_max:
            self._write_out(self._in_work.popleft().result())

    def _flush(self) -> None:
        if self._buffer:
            self._compress(bytes(self._buffer))
            self._buffer.clear()
        while self._in_work:
            self._write_out(self._in_work.popleft().result())

    def _write_out(self, data: bytes) -> None:
        self._target.write(data)
        self._compressed_length += len(data)


class Member:
    """One member of a TarOutput: `write` its content, then `close`."""

    def __init__(self, output: TarOutput, name: str) -> None:
        self._output = output
        self._name = name
        self._outer = (output._crc, output._length)
        output._crc = output._length = 0
        self._size = 0
        self._place = 0
        self._spool: IO[bytes] | None = None
        if output._can_rewind:
            self._place = output._raw.tell()
            output._write_out(output._codec.stored(output._header(name, 0)))
        else:
            spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=output._temp_dir)  # noqa: SIM115 (closed in close)
            self._spool = output._target = spool

    def write(self, data: bytes) -> None:
        self._size += len(data)
        self._output._put(data)

    def close(self) -> None:
        """Fills in the header and joins this member's checksum to what came before it."""
        output = self._output
        output._put(_padding(self._size))
        output._flush()
        header = output._header(self._name, self._size)
        stored = output._codec.stored(header)
        if self._spool is None:
            end = output._raw.tell()
            output._raw.seek(self._place)
            output._raw.write(stored)
            output._raw.seek(end)
        else:
            output._target = output._raw
            output._raw.write(stored)
            output._compressed_length += len(stored)
            self._spool.seek(0)
            while data := self._spool.read(_COPY_BYTES):
                output._raw.write(data)
            self._spool.close()
        crc, length = self._outer
        output._crc = crc32_joined(zlib.crc32(header, crc), output._crc, output._length)
        output._length += length + len(header)


def _padding(size: int) -> bytes:
    return bytes(-size % _TAR_BLOCK)
