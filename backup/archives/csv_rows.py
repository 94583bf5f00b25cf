"""Rows from CSV: every field is a string, empty fields are left out, as in `rethinkdb import`.

One rule: the same reader serves import and archives, so a delimiter that is asked for is a delimiter that is used.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator, Sequence

import orjson

from model.errors import UnfitArchive

LINE_CHARACTERS_MAX = 128 << 20
_READ_BYTES = 1 << 20
_BATCH_ROWS = 500


def csv_rows(
    read: Callable[[int], bytes],
    name: str,
    *,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
    has_header: bool = True,
) -> Iterator[list[bytes]]:
    """The rows of a file as JSON texts, in batches. UnfitArchive where it is malformed.

    read: gives at most so many bytes, b"" at the end. name: for errors. header: names of the columns instead of
    those in the first line. has_header: whether there is such a line.
    """
    csv.field_size_limit(LINE_CHARACTERS_MAX)
    columns = list(header) if header is not None else None
    batch: list[bytes] = []
    reader = csv.reader(_lines(read, name), delimiter=delimiter)
    try:
        for fields in reader:
            if not fields:
                continue
            if has_header:
                has_header = False
                columns = columns or fields
                continue
            if columns is None or len(fields) != len(columns):
                raise UnfitArchive(f"'{name}' line {reader.line_num} has an inconsistent number of columns: {fields}")
            batch.append(orjson.dumps({key: value for key, value in zip(columns, fields, strict=True) if value != ""}))
            if len(batch) == _BATCH_ROWS:
                yield batch
                batch = []
    except csv.Error as error:
        raise UnfitArchive(f"The file {name} is malformed near line {reader.line_num}: {error}.") from error
    if columns is None:
        raise UnfitArchive(f"The file {name} is empty.")
    if batch:
        yield batch


def _lines(read: Callable[[int], bytes], name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    pending = ""
    while True:
        chunk = read(_READ_BYTES)
        try:
            text = pending + decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise UnfitArchive(f"The file {name} is not UTF-8.") from error
        lines = text.split("\n")
        pending = lines.pop()
        if len(pending) > LINE_CHARACTERS_MAX:
            raise UnfitArchive(f"The file {name} has a line of more than {LINE_CHARACTERS_MAX} characters.")
        yield from (line + "\n" for line in lines)
        if not chunk:
            break
    if pending:
        yield pending
