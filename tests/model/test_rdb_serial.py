"""RethinkDB's serialised values: what is written is read back, and nothing hostile gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import UnfitArchive
from model.pseudo_binary import make_binary
from model.rdb_serial import SerialReader, datum_bytes, varint_bytes

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
binaries = st.binary(max_size=100).map(make_binary)
datums = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20) | binaries,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=30,
)


@given(datums)
def test_a_datum_comes_back(value: object) -> None:
    reader = SerialReader(datum_bytes(value))
    assert reader.datum() == value
    assert reader.remaining == 0


@given(st.integers(0, 2**64 - 1))
def test_a_varint_comes_back(value: int) -> None:
    assert SerialReader(varint_bytes(value)).varint() == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_datum_or_unfit_archive(data: bytes) -> None:
    try:
        SerialReader(data).datum()
    except UnfitArchive:
        return


def test_examples_from_the_varint_description() -> None:
    assert [varint_bytes(value) for value in (1, 127, 138)] == [b"\x01", b"\x7f", b"\x8a\x01"]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, b"\x03"),
        (True, b"\x02\x01"),
        (5, b"\x08\x05"),
        (-5, b"\x07\x05"),
        (1.5, b"\x04\x00\x00\x00\x00\x00\x00\xf8\x3f"),
        ("ab", b"\x06\x02ab"),
        ([], b"\x0a\x01\x00"),
        ([1, None, 2], b"\x0a\x08\x03\x02\x03\x08\x01\x03\x08\x02"),
        ({"b": 1, "a": None}, b"\x0b\x09\x02\x03\x01a\x03\x01b\x08\x01"),
        ({"$reql_type$": "BINARY", "data": "AAE="}, b"\x09\x02\x00\x01"),
    ],
)
def test_the_bytes_rethinkdb_writes(value: object, data: bytes) -> None:
    assert datum_bytes(value) == data
    assert SerialReader(data).datum() == value


def test_offsets_grow_with_the_size() -> None:
    value = ["x" * 100, "y" * 200, "z" * 70000]
    data = datum_bytes(value)
    assert SerialReader(data).datum() == value
    assert data[0] == 10
    reader = SerialReader(data, 1)
    size = reader.varint()
    assert size == reader.remaining
    assert size == 1 + 2 * 4 + (1 + 1 + 100) + (1 + 2 + 200) + (1 + 3 + 70000)


def test_the_old_arrays_and_objects_are_read() -> None:
    assert SerialReader(b"\x01\x02\x03\x08\x07").datum() == [None, 7]
    assert SerialReader(b"\x05\x01\x01a\x08\x07").datum() == {"a": 7}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0c",  # uninitialised
        b"\x0d",  # minval
        b"\x00",
        b"\x02\x02",  # neither true nor false
        b"\x04\x00\x00\x00\x00\x00\x00\xf0\x7f",  # infinity
        b"\x06\xff\xff\xff\xff\x0fab",  # 4 GiB announced
        b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08" + b"\xff" * 9 + b"\x02",  # more than 64 bits
        b"\x08" + b"\x80" * 11,
        b"\x08\x81\x80\x80\x80\x80\x80\x80\x10",  # 2^53 + 1
        b"\x06\x01\xff",  # not UTF-8
        b"\x0a\x05\x02\x01\x03\x03",  # shorter than it says
        b"\x01\x01" * 200 + b"\x03",  # nested too deep
    ],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnfitArchive):
        SerialReader(data).datum()
