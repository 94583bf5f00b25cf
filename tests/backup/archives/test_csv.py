"""CSV in and out: what export writes, import reads; what is malformed is refused."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.archives.csv_rows import csv_rows
from backup.archives.exports import file_texts
from model.errors import UnfitArchive


def rows_of(data: bytes, chunk: int = 1 << 20, **options: Any) -> list[Any]:
    stream = io.BytesIO(data)
    batches = csv_rows(lambda size: stream.read(min(size, chunk)), "t.csv", **options)
    return [json.loads(row) for batch in batches for row in batch]


def exported(rows: list[dict[str, Any]], form: str, fields: list[str] | None = None, delimiter: str = ",") -> bytes:
    encoded = [json.dumps(row).encode() for row in rows]
    batches = iter([encoded[:1], [], encoded[1:]])
    return b"".join(file_texts(batches, form, fields, delimiter))


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@given(
    st.lists(st.fixed_dictionaries({"a": texts, "b": texts}), max_size=5), st.integers(1, 9), st.sampled_from(",;\t|")
)
def test_strings_come_back_from_csv(rows: list[dict[str, str]], chunk: int, delimiter: str) -> None:
    data = exported(rows, "csv", ["a", "b"], delimiter)
    expected = [{key: value for key, value in row.items() if value} for row in rows]
    assert rows_of(data, chunk, delimiter=delimiter) == expected


def test_cells() -> None:
    row = {"id": 1, "text": 'say "hi", you', "none": None, "yes": True, "list": [1, {"a": 2.5}], "line": "a\nb"}
    data = exported([row], "csv", ["id", "text", "none", "yes", "list", "line", "missing"])
    assert list(csv.reader(io.StringIO(data.decode(), newline="")))[1] == [
        "1",
        'say "hi", you',
        "null",
        "true",
        '[1,{"a":2.5}]',
        "a\nb",
        "",
    ]


def test_json_and_ndjson() -> None:
    rows = [{"id": 1, "x": 2}, {"id": 2}, {"id": 3}]
    assert exported(rows, "json") == b'[\n{"id": 1, "x": 2},\n{"id": 2},\n{"id": 3}\n]\n'
    assert exported([], "json") == b"[\n]\n"
    assert exported(rows, "ndjson") == b'{"id": 1, "x": 2}\n{"id": 2}\n{"id": 3}\n'
    assert exported([], "ndjson") == b""
    assert exported(rows, "json", ["x"]) == b'[\n{"x":2},\n{},\n{}\n]\n'


def test_headers() -> None:
    data = b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,\r\n"
    assert rows_of(data) == [{"a": "1", "b": "2"}, {"a": "3"}]
    assert rows_of(data, header=["x", "y"]) == [{"x": "1", "y": "2"}, {"x": "3"}]
    assert rows_of(b"1;2", header=["x", "y"], has_header=False, delimiter=";") == [{"x": "1", "y": "2"}]


@pytest.mark.parametrize("data", [b"", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a\n\xff\n", b"a\n1\rb\n"])
def test_malformed_files_are_refused(data: bytes) -> None:
    with pytest.raises(UnfitArchive):
        rows_of(data)


def test_quotes_without_end_do_not_take_long() -> None:
    rows = rows_of(b'a\n"' + b"\n" * 200_000, chunk=5000)
    assert rows == [{"a": "\n" * 200_000}]
