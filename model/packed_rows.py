"""Many rows of one table as one piece of bytes: what a block of an image holds, and what goes through the log whole.

Format: a Zstandard frame that says how large it is unpacked, of MessagePack [[key, ...], [row, ...]].
One rule: how much it unpacks to is known, and bounded, before it is unpacked.
"""

from __future__ import annotations

from typing import Final

import msgspec
import zstandard

from model.errors import Corrupt
from model.undecodable import UNDECODABLE

MAX_UNPACKED_BYTES: Final = 256 << 20  # a single row may be as large as a query (128 MB)
PACK_LEVEL: Final = 1  # of zstd, for rows that are packed to be unpacked soon

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[list[bytes], list[bytes]])


def pack_rows(keys: list[bytes], rows: list[bytes]) -> bytes:
    """Rows under their keys."""
    return pack_plain(plain_rows(keys, rows))


def unpack_rows(packed: bytes) -> tuple[list[bytes], list[bytes]]:
    """(keys, rows), as many of the one as of the other. Raises Corrupt."""
    return rows_in(unpack_plain(packed))


def plain_rows(keys: list[bytes], rows: list[bytes]) -> bytes:
    """What a frame of these rows unpacks to."""
    return _ENCODER.encode((keys, rows))


def pack_plain(plain: bytes) -> bytes:
    """A frame that unpacks to that."""
    return zstandard.ZstdCompressor(level=PACK_LEVEL).compress(plain)


def unpack_plain(packed: bytes) -> bytes:
    """What a frame unpacks to. Raises Corrupt."""
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 < size <= MAX_UNPACKED_BYTES:
            raise Corrupt(f"packed rows would unpack to {size} bytes; the limit is {MAX_UNPACKED_BYTES}")
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise Corrupt(f"{len(packed)} bytes are no packed rows: {error}") from error


def rows_in(plain: bytes | memoryview) -> tuple[list[bytes], list[bytes]]:
    """(keys, rows) of what a frame unpacks to. Raises Corrupt."""
    try:
        keys, rows = _DECODER.decode(plain)
    except UNDECODABLE as error:
        raise Corrupt(f"{len(plain)} bytes are no unpacked rows: {error}") from error
    if len(keys) != len(rows):
        raise Corrupt(f"packed rows hold {len(keys)} keys but {len(rows)} rows")
    return keys, rows
