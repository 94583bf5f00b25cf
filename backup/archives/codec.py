"""Compression of a dump file in independent pieces, so that threads compress and a part can be filled in later.

A file is `head`, any number of pieces, `tail`. One rule: pieces do not refer to each other, so their order of
making does not matter, and a `stored` piece holds its bytes as they are: it always has the same length, so a
tar header can be written before its content is known and be corrected afterwards.

    gz     one gzip member, as every reader of tar streams expects (Python's does not go on to a second one):
           raw deflate pieces that end on a byte (Z_SYNC_FLUSH), stored blocks; the tail has the CRC of all
    zst    one zstd frame for each piece
    none   the bytes themselves
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from typing import IO, Protocol, cast

import zstandard

from model.errors import UnfitArchive

GZ_LEVEL, ZST_LEVEL = 6, 3
_STORED_BLOCK_MAX = 0xFFFF
_LZMA_MEMORY_MAX = 256 << 20
_ZST_WINDOW_MAX = 128 << 20
_READ_BYTES = 1 << 18


class Codec(Protocol):
    """One form of compression. `compress` is called by several threads at once."""

    suffix: str

    def head(self) -> bytes: ...

    def compress(self, data: bytes) -> bytes: ...

    def stored(self, data: bytes) -> bytes: ...

    def tail(self, crc: int, length: int) -> bytes: ...


class GzCodec:
    suffix = ".gz"

    def __init__(self, level: int | None = None) -> None:
        self.level = GZ_LEVEL if level is None else level

    def head(self) -> bytes:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def compress(self, data: bytes) -> bytes:
        deflate = zlib.compressobj(self.level, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)

    def stored(self, data: bytes) -> bytes:
        blocks = []
        for start in range(0, len(data), _STORED_BLOCK_MAX):
            block = data[start : start + _STORED_BLOCK_MAX]
            blocks.append(struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF) + block)
        return b"".join(blocks)

    def tail(self, crc: int, length: int) -> bytes:
        return b"\x03\0" + struct.pack("<LL", crc, length & 0xFFFFFFFF)


class ZstCodec:
    suffix = ".zst"

    def __init__(self, level: int | None = None) -> None:
        self.level = ZST_LEVEL if level is None else level

    def head(self) -> bytes:
        return b""

    def compress(self, data: bytes) -> bytes:
        return zstandard.ZstdCompressor(level=self.level, write_checksum=True).compress(data)

    def stored(self, data: bytes) -> bytes:
        """A frame of raw blocks: magic, one segment with its size in 8 bytes, blocks of at most 128 KiB."""
        parts = [b"\x28\xb5\x2f\xfd\xe0", struct.pack("<Q", len(data))]
        starts = range(0, len(data), 1 << 17) or (0,)
        for start in starts:
            block = data[start : start + (1 << 17)]
            is_last = start == starts[-1]
            parts += [struct.pack("<L", len(block) << 3 | is_last)[:3], block]
        return b"".join(parts)

    def tail(self, crc: int, length: int) -> bytes:
        return b""


class PlainCodec:
    suffix = ""

    def head(self) -> bytes:
        return b""

    def compress(self, data: bytes) -> bytes:
        return data

    def stored(self, data: bytes) -> bytes:
        return data

    def tail(self, crc: int, length: int) -> bytes:
        return b""


def codec_named(name: str, level: int | None = None) -> Codec:
    """The codec `gz`, `zst` or `none`."""
    if name == "none":
        return PlainCodec()
    return ZstCodec(level) if name == "zst" else GzCodec(level)


def codec_for_file(name: str) -> str:
    """The name of the codec that a file's name asks for; gz where it says nothing, as RethinkDB's dump."""
    if name.endswith((".zst", ".tzst")):
        return "zst"
    return "none" if name.endswith(".tar") else "gz"


def opened(raw: IO[bytes]) -> IO[bytes]:
    """The uncompressed bytes of `raw`, whatever compression it has: gz (of several members), zst, bz2, xz or none.

    Memory is bounded whatever the stream demands. Raises UnfitArchive, also while reading, if it is damaged.
    """
    start = raw.read(6)
    rest = cast(IO[bytes], io.BufferedReader(_Rejoined(start, raw), _READ_BYTES))
    if start.startswith(b"\x1f\x8b"):
        return _Checked(cast(IO[bytes], gzip.GzipFile(fileobj=rest)))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZST_WINDOW_MAX)
        return _Checked(cast(IO[bytes], decompressor.stream_reader(rest, read_across_frames=True)))
    if start.startswith(b"BZh"):
        return _Checked(cast(IO[bytes], bz2.BZ2File(rest)))
    if start.startswith(b"\xfd7zXZ\0"):
        return _Checked(cast(IO[bytes], io.BufferedReader(_XzReader(rest), _READ_BYTES)))
    return rest


class _Rejoined(io.RawIOBase):
    """`start` and then the rest of a stream that cannot be rewound."""

    def __init__(self, start: bytes, raw: IO[bytes]) -> None:
        self._start = start
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._start[: len(buffer)] or self._raw.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _XzReader(io.RawIOBase):
    """xz with a limit on the memory that the stream may ask for, which `lzma.LZMAFile` does not have."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._lzma = self._decompressor()

    @staticmethod
    def _decompressor() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_MAX)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data:
            source = b""
            if self._lzma.eof:
                source = self._lzma.unused_data or self._raw.read(_READ_BYTES)
                if not source.lstrip(b"\0"):
                    return 0
                self._lzma = self._decompressor()
            elif self._lzma.needs_input:
                source = self._raw.read(_READ_BYTES)
                if not source:
                    raise EOFError("the xz stream ends too early")
            data = self._lzma.decompress(source, max_length=len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Checked(io.BufferedIOBase, IO[bytes]):
    """A decompressing stream whose many kinds of errors are one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._stream.read(-1 if size is None else size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, MemoryError) as error:
            raise UnfitArchive(f"The compressed stream is damaged or cut: {error}.") from error


# --- crc32 of a concatenation, from the crc32 of its parts --------------------------------------------
# Appending `length` zero bytes to a message multiplies its CRC by x^(8·length) in the field of polynomials
# modulo the CRC's. zlib has this as crc32_combine, which Python does not show.

_POLYNOMIAL = 0xEDB88320


def _multiply(a: int, b: int) -> int:
    """a·b in the field; the highest bit is x^0, as in the reflected CRC."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


_SQUARES = [1 << 30]  # x^(2^n)
while len(_SQUARES) < 32:
    _SQUARES.append(_multiply(_SQUARES[-1], _SQUARES[-1]))


def crc32_joined(first: int, second: int, second_length: int) -> int:
    """The CRC-32 of two messages one after the other, from that of each and the length of the second in bytes."""
    shift = 1 << 31
    exponent, power = second_length, 3
    while exponent:
        if exponent & 1:
            shift = _multiply(_SQUARES[power % 32], shift)
        exponent >>= 1
        power += 1
    return _multiply(shift, first) ^ second
