"""Cuts the text of a table's file into the texts of its rows, without decoding them.

The file is a JSON array of objects, or objects one after the other, in any layout. In files of ours and of
RethinkDB's each row has a line of its own, which is the fast path: all whole lines of a chunk go through the JSON
parser at once. Other layouts go through a scanner for braces. One rule: what comes out is exactly one JSON object
each, checked by the parser, because it is put into queries as it is. A row is bounded in length, nesting by the
parser (about 900 levels); the file is not bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum

import msgspec

from model.errors import UnfitArchive
from model.undecodable import UNDECODABLE

ROW_BYTES_MAX = 128 << 20
_LINE_BYTES_MAX = 4 << 20
_READ_BYTES = 1 << 20
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
# A whole string, or one character that opens or closes something or starts a string.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|["{}\[\]]', re.DOTALL)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class _After(Enum):
    """What stood last before the text to come; in an array it decides what may come next."""

    START = 0
    ROW = 1
    COMMA = 2


def json_rows(read: Callable[[int], bytes], name: str, row_bytes_max: int = ROW_BYTES_MAX) -> Iterator[list[bytes]]:
    """The rows of a file, in batches. read: gives at most so many bytes, b"" at the end. name: for errors."""
    cutter = RowCutter(name, row_bytes_max)
    while chunk := read(_READ_BYTES):
        yield cutter.feed(chunk)
    yield cutter.finish()


class RowCutter:
    """`feed` the file in chunks of bytes, take the rows; `finish` at its end. name: of the file, for errors."""

    def __init__(self, name: str, row_bytes_max: int = ROW_BYTES_MAX) -> None:
        self._name = name
        self._row_bytes_max = row_bytes_max
        self._pending = b""
        self._is_array: bool | None = None
        self._ended = False
        self._after = _After.START
        self._by_lines = True
        self._worth_scanning = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The rows that are known to be complete with this chunk."""
        text = self._pending + chunk if self._pending else chunk
        self._pending = b""
        if self._is_array is None:
            text = self._begin(text)
        if self._ended:
            return self._expect_nothing(text)
        rows = self._cut(text) if text else []
        if len(self._pending) > self._row_bytes_max:
            raise self._unfit(f"has a row of more than {self._row_bytes_max} bytes")
        return rows

    def finish(self) -> list[bytes]:
        """The last rows. Raises UnfitArchive if the file ends in the middle."""
        rest, self._pending = self._pending, b""
        if self._is_array is None:
            raise self._unfit("is empty")
        rows = [] if self._ended else self._scan(rest)
        if self._pending.strip(_SPACE) or (self._is_array and not self._ended):
            raise self._unfit("is cut off")
        return rows

    def _begin(self, text: bytes) -> bytes:
        """What follows the bracket that opens the array, or the first object; b"" if neither is there yet."""
        stripped = text.removeprefix(_BOM).lstrip(_SPACE)
        if not stripped or (len(text) < len(_BOM) and _BOM.startswith(text)):
            self._pending = b"" if text.isspace() else text
            return b""
        self._is_array = stripped[:1] == b"["
        if not self._is_array and stripped[:1] != b"{":
            raise self._unfit("begins neither with an array nor with an object")
        return stripped[1:] if self._is_array else stripped

    def _cut(self, text: bytes) -> list[bytes]:
        end = text.rfind(b"\n") + 1
        if self._by_lines and (end or len(text) < _LINE_BYTES_MAX):
            rows = self._lines(text[:end]) if end else []
            if rows is not None:
                self._pending = text[end:]
                return rows
        self._by_lines = False
        if len(text) < self._worth_scanning:
            self._pending = text
            return []
        rows = self._scan(text)
        self._worth_scanning = 2 * len(self._pending)  # so that a row of many chunks is not scanned once for each
        return rows

    def _lines(self, text: bytes) -> list[bytes] | None:
        """The rows of whole lines, each with its comma at its end; None if the layout is another one."""
        body = text.strip(_SPACE)
        if not self._is_array:
            return self._raws(body.replace(b"\n", b","))
        has_end = body == b"]" or body.endswith(b"\n]")
        if has_end:
            body = body[:-1].rstrip(_SPACE)
        has_comma = body.endswith(b",")
        wants_comma = self._after is _After.ROW and body != b""
        if wants_comma or (has_end and (has_comma or (self._after is _After.COMMA and not body))):
            return None
        rows = self._raws(body.removesuffix(b","))
        if rows is None or (has_comma and not rows):
            return None
        if rows:
            self._after = _After.COMMA if has_comma else _After.ROW
        self._ended = has_end
        return rows

    def _raws(self, body: bytes) -> list[bytes] | None:
        """The elements of a list without its brackets, None if they are not all objects."""
        try:
            raws = _RAWS.decode(b"[" + body + b"]")
        except UNDECODABLE:
            return None
        rows = [bytes(raw) for raw in raws]
        return rows if all(row[:1] == b"{" for row in rows) else None

    def _scan(self, text: bytes) -> list[bytes]:
        """The rows of any layout, found by their braces; the rest stays pending."""
        rows: list[bytes] = []
        place = 0
        for start, end in self._objects(text):
            self._check_gap(text[place:start])
            rows.append(self._checked(text[start:end]))
            place = end
        rest = text[place:]
        begun = rest.lstrip(_SPACE + b",")
        if begun[:1] == b"]" and self._is_array:
            if b"," in rest[: len(rest) - len(begun)] or self._after is _After.COMMA:
                raise self._unfit("has a comma before its end")
            self._ended = True
            return rows + self._expect_nothing(begun[1:])
        if begun[:1] not in (b"", b"{"):
            raise self._unfit("holds something other than objects")
        self._pending = rest
        return rows

    def _objects(self, text: bytes) -> Iterator[tuple[int, int]]:
        """(start, end) of each whole object at the top."""
        depth = start = 0
        for token in _TOKENS.finditer(text):
            kind = token[0]
            if kind in b"{[":
                if depth == 0:
                    if kind == b"[":
                        raise self._unfit("holds an array where a row should be")
                    start = token.start()
                depth += 1
            elif kind in b"}]":
                depth -= 1
                if depth < 0:
                    return
                if depth == 0:
                    yield start, token.end()
            elif len(kind) == 1:
                return  # a string that goes on in the next chunk
            elif depth == 0:
                raise self._unfit("holds a string where a row should be")

    def _check_gap(self, gap: bytes) -> None:
        """Before a row of an array stands a comma unless it is the first; between objects only white space."""
        expected = 1 if self._is_array and self._after is _After.ROW else 0
        if gap.count(b",") != expected or gap.strip(_SPACE + b","):
            raise self._unfit("is not a list of rows")
        self._after = _After.ROW

    def _checked(self, row: bytes) -> bytes:
        if len(row) > self._row_bytes_max:
            raise self._unfit(f"has a row of {len(row)} bytes; the limit is {self._row_bytes_max}")
        try:
            _RAWS.decode(b"[" + row + b"]")
        except RecursionError as error:
            raise self._unfit("has a row that is nested too deep") from error
        except UNDECODABLE as error:
            raise self._unfit(f"has a row that is not JSON ({error})") from error
        return row

    def _expect_nothing(self, text: bytes) -> list[bytes]:
        if text.strip(_SPACE):
            raise self._unfit("goes on behind its end")
        return []

    def _unfit(self, what: str) -> UnfitArchive:
        return UnfitArchive(f"The file {self._name} {what}.")
