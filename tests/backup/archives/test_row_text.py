"""Rows are cut out of a file whatever its layout, whatever the chunks, and nothing else gets through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.archives.row_text import RowCutter
from model.errors import UnfitArchive

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(['"', "}{", "],[", "\\", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(max_size=4), values, max_size=3), max_size=8)


def rethinkdb_layout(rows: list[Any]) -> str:
    return "[" + ",".join("\n" + json.dumps(row) for row in rows) + "\n]\n"


LAYOUTS = {
    "rethinkdb": rethinkdb_layout,
    "unicode": lambda rows: "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n",
    "one line": json.dumps,
    "indented": lambda rows: json.dumps(rows, indent=2),
    "indented with tabs": lambda rows: "\ufeff \r\n" + json.dumps(rows, indent="\t").replace("\n", "\r\n"),
    "commas first": lambda rows: "[" + "\n,".join(json.dumps(row) for row in rows) + "]",
    "one by line": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "one by line without the last": lambda rows: "\n".join(json.dumps(row) for row in rows),
    "blank lines": lambda rows: "\n\n".join(json.dumps(row) for row in rows),
    "side by side": lambda rows: "".join(json.dumps(row) for row in rows),
}


def cut(data: bytes, sizes: list[int] | None = None, **options: Any) -> list[bytes]:
    cutter = RowCutter("t.json", **options)
    found = []
    sizes = sizes or [len(data) or 1]
    place = turn = 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        found += cutter.feed(data[place : place + size])
        place += size
        turn += 1
    return found + cutter.finish()


@given(rows, st.sampled_from(sorted(LAYOUTS)), st.lists(st.integers(1, 40), max_size=6))
def test_every_layout_in_every_cutting(rows: list[Any], layout: str, sizes: list[int]) -> None:
    data = LAYOUTS[layout](rows).encode()
    if not data.strip():
        with pytest.raises(UnfitArchive, match="is empty"):
            cut(data, sizes)
        return
    assert [json.loads(row) for row in cut(data, sizes)] == rows


@given(rows, st.integers(0, 400), st.integers(1, 50))
def test_a_cut_array_is_noticed(rows: list[Any], size: int, chunk: int) -> None:
    data = rethinkdb_layout(rows).encode().rstrip()
    with pytest.raises(UnfitArchive):
        cut(data[: min(size, len(data) - 1)], [chunk])


@given(st.binary(max_size=80) | st.text('[]{},:"\\ \n\t1ae', max_size=60).map(str.encode), st.integers(1, 20))
def test_whatever_comes_out_is_an_object(data: bytes, chunk: int) -> None:
    try:
        found = cut(data, [chunk])
    except UnfitArchive:
        return
    assert all(isinstance(json.loads(row.decode("utf-8", "replace")), dict) for row in found)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  \n",
        b"5",
        b'"x"',
        b"null",
        b"[1]",
        b'[{"a":1}',
        b'[{"a":1},]',
        b'[\n{"a":1},\n]\n',
        b'[\n{"a":1},\n' + b"\n" * 50 + b"]\n",
        b'[{"a":1} {"b":2}]',
        b'[\n{"a":1}\n{"b":2}\n]\n',
        b'[{"a":1},,{"b":2}]',
        b'[,{"a":1}]',
        b'[[{"a":1}]]',
        b'[["a"],{"a":1}]',
        b'[{"a":1}] {"b":2}',
        b'[{"a":1}]]',
        b'{"a":1} [',
        b'{"a":1}, 5',
        b'[{"a":1},\n5\n]',
        b'[{"a":1},\n"x"\n]',
        b'[{"a":1}],[57,["evil"]],[1,{}',
        b'[\n{"a":1}],[57,["evil"]],[1,{}\n]\n',
        b'[{"a":tru}]',
        b'[{"a":"x\ny"}]',
        b'[{"a":1]}',
        b'{"a":1}}',
        b'[{"a":"}',
        b"\xef\xbb",
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_what_is_not_a_list_of_rows_is_refused(data: bytes, chunk: int) -> None:
    with pytest.raises(UnfitArchive):
        cut(data, [chunk])


def test_rows_are_bounded() -> None:
    data = b'[{"a":"' + b"x" * 5000 + b'"}]'
    assert len(cut(data, [100], row_bytes_max=6000)) == 1
    for chunk in (100, 10000):
        with pytest.raises(UnfitArchive, match="bytes"):
            cut(data, [chunk], row_bytes_max=4000)
    with pytest.raises(UnfitArchive, match="more than 1000 bytes"):
        cut(b'[{"a":"' + b"x" * 100000, [100], row_bytes_max=1000)


def test_nesting_is_bounded() -> None:
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    with pytest.raises(UnfitArchive, match="nested too deep"):
        cut(b"[\n" + deep + b"\n]\n")
    assert len(cut(b"[\n" + b'{"a":' * 500 + b"1" + b"}" * 500 + b"\n]\n")) == 1


def test_white_space_without_end_is_not_kept() -> None:
    cutter = RowCutter("t.json", row_bytes_max=1000)
    for _ in range(100):
        assert cutter.feed(b" " * 1000) == []
    assert cutter.feed(b"[") == []


def test_a_row_of_many_chunks() -> None:
    row = b'{"a":"' + b"x" * 3_000_000 + b'"}'
    assert cut(b"[\n" + row + b",\n" + row + b"\n]\n", [10_000]) == [row, row]
    assert cut(b"[" + row + b"," + row + b"," + row + b"]", [100_000]) == [row, row, row]
