"""Reads a tar as a stream, trusting nothing in it.

Python's `tarfile` takes the size of a name or a pax header from the archive and reads that much into memory;
here every header is bounded. One rule: what is not a plain file is passed over, what is malformed is an
UnfitArchive. Understood: ustar, GNU (long names, sizes beyond 8 GiB) and pax.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from model.errors import UnfitArchive

_BLOCK = 512
_PLAIN_FILES = b"0\0" + b"7"
_LONG_NAME_MAX = 64 << 10
_PAX_MAX = 1 << 20
_SIZE_MAX = 1 << 60
_TRAILER_MAX = 64 << 20


class TarMember:
    """A plain file of the tar. Its data can be read until the next member is asked for."""

    def __init__(self, tar: TarInput, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._tar = tar
        self._left = size

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the data, b"" at its end."""
        data = self._tar._exactly(min(size, self._left), "The data of " + self.name)
        self._left -= len(data)
        return data

    def read_all(self, size_max: int) -> bytes:
        """The data, if it is not larger than `size_max`."""
        if self.size > size_max:
            raise UnfitArchive(f"{self.name} has {self.size} bytes; the limit is {size_max}.")
        return self.read(self.size)

    def _skip(self) -> None:
        self._tar._pass_over(self._left + -self.size % _BLOCK)


class TarInput:
    """Iterates over the plain files of the tar in `stream`, which holds uncompressed bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.has_members = False

    def __iter__(self) -> Iterator[TarMember]:
        overrides: dict[str, str] = {}
        while (header := self._next_header()) is not None:
            kind = header[156:157]
            size = _number(header[124:136], "size")
            if size > _SIZE_MAX:
                raise UnfitArchive("A member of the archive is larger than any disk.")
            self.has_members = True
            if kind in b"LKxgX" and kind:
                self._read_extension(kind, size, overrides)
                continue
            name = overrides.get("path") or _name(header)
            if "size" in overrides:
                size = _decimal(overrides["size"])
            overrides = {}
            if kind in _PLAIN_FILES:
                member = TarMember(self, name, size)
                yield member
                member._skip()
            else:
                self._pass_over(size + -size % _BLOCK)
        if overrides:
            raise UnfitArchive("The archive is cut off behind the name of a member.")
        self._drain()

    def _next_header(self) -> bytes | None:
        header = self._stream.read(_BLOCK)
        if header == bytes(_BLOCK):
            return None
        if not header:
            raise UnfitArchive("The archive is cut off." if self.has_members else "The archive is empty.")
        if len(header) < _BLOCK:
            header += self._exactly(_BLOCK - len(header), "A header")
        given = _number(header[148:156], "checksum")
        if given != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise UnfitArchive("This is not a tar, or it is damaged: the checksum of a header is wrong.")
        return header

    def _read_extension(self, kind: bytes, size: int, overrides: dict[str, str]) -> None:
        """A GNU long name or a pax header, which speak of the next member; others are passed over."""
        if kind == b"L":
            if size > _LONG_NAME_MAX:
                raise UnfitArchive(f"A name of {size} bytes; the limit is {_LONG_NAME_MAX}.")
            overrides["path"] = _text(self._exactly(size, "A name").rstrip(b"\0"))
        elif kind in b"xX":
            if size > _PAX_MAX:
                raise UnfitArchive(f"A pax header of {size} bytes; the limit is {_PAX_MAX}.")
            overrides.update(_pax(self._exactly(size, "A pax header")))
        else:
            self._pass_over(size)
        self._pass_over(-size % _BLOCK)

    def _exactly(self, size: int, what: str) -> bytes:
        parts = []
        left = size
        while left:
            data = self._stream.read(min(left, 1 << 20))
            if not data:
                raise UnfitArchive(f"The archive is cut off: {what} ends {left} bytes too early.")
            parts.append(data)
            left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pass_over(self, size: int) -> None:
        while size:
            size -= len(self._exactly(min(size, 1 << 20), "A member"))

    def _drain(self) -> None:
        """To the end of the stream, so that the compression's own checksum is compared."""
        left = _TRAILER_MAX
        while data := self._stream.read(1 << 18):
            left -= len(data)
            if left < 0:
                raise UnfitArchive("A lot of data follows the end of the archive.")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 (first byte 0x80)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not digits.isdigit() and digits:
        raise UnfitArchive(f"The {what} in a header of the archive is not a number.")
    try:
        return int(digits or b"0", 8)
    except ValueError as error:
        raise UnfitArchive(f"The {what} in a header of the archive is not a number.") from error


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > _SIZE_MAX:
        raise UnfitArchive("The size in a pax header is not a number.")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    return _text(name)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnfitArchive("A name in the archive is not UTF-8.") from error


def _pax(data: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of a pax header that matter here."""
    found = {}
    while data.strip(b"\0"):
        length_text, _, _ = data.partition(b" ")
        if not length_text.isdigit() or len(length_text) > 7:
            raise UnfitArchive("A pax header is malformed.")
        length = int(length_text)
        record = data[len(length_text) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or length > len(data):
            raise UnfitArchive("A pax header is malformed.")
        if key in (b"path", b"size"):
            found[key.decode()] = _text(value[:-1])
        data = data[length:]
    return found
