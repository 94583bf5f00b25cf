"""Payloads of log entries: packed rows are many rows to whoever asks, and what is no batch is refused."""

from __future__ import annotations

import msgspec
import pytest
import zstandard

from model.effect import PUT_ROW, PUT_ROWS, Batch, decode, decode_of, decode_stored, encode, is_packed, time_of
from model.errors import Corrupt
from model.packed_rows import MAX_UNPACKED_BYTES, pack_rows, unpack_rows

KEYS, ROWS = [b"a", b"b"], [b'{"id":1}', b'{"id":2}']


def packed(content: object) -> bytes:
    return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(content))


def test_packed_rows_are_rows_to_whoever_asks() -> None:
    rows = pack_rows(KEYS, ROWS)
    payload = encode([(PUT_ROWS, 7, rows)], 5)
    assert decode(payload) == Batch(5, [(PUT_ROW, 7, b"a", ROWS[0]), (PUT_ROW, 7, b"b", ROWS[1])])
    assert decode_stored(payload) == Batch(5, [(PUT_ROWS, 7, rows)])
    assert time_of(payload) == 5
    assert decode_of(payload, {7}) == decode(payload) and decode_of(payload, {8}) == Batch(5, [])
    assert decode_of(encode([(PUT_ROW, 7, b"a", b"{}")], 5), {8}) == Batch(5, [(PUT_ROW, 7, b"a", b"{}")])


def test_only_entries_of_packed_rows_have_the_new_format() -> None:
    """A reader that does not know them refuses those alone, and says so."""
    assert msgspec.msgpack.decode(encode([(PUT_ROWS, 7, b"")], 5))[0] == 2
    assert msgspec.msgpack.decode(encode([(PUT_ROW, 7, b"a", b"{}")], 5))[0] == 1
    assert msgspec.msgpack.decode(encode([], 5))[0] == 1
    assert is_packed(encode([(PUT_ROWS, 7, b"")], 5))
    assert not any(is_packed(encode(effects, 5)) for effects in ([], [(PUT_ROW, 7, b"a", b"{}")]))
    with pytest.raises(Corrupt, match="batch format 3"):
        decode(msgspec.msgpack.encode((3, 5, [])))


@pytest.mark.parametrize(
    "effects", [[], [(PUT_ROW, 7, b"a", b"{}")], [(PUT_ROWS, 7)], [()], [(PUT_ROWS, 7, b""), (PUT_ROW, 7, b"a", b"{}")]]
)
def test_the_new_format_holds_packed_rows_alone(effects: object) -> None:
    with pytest.raises(Corrupt):
        decode(msgspec.msgpack.encode((2, 5, effects)))


@pytest.mark.parametrize(
    "rows",
    [
        b"",
        b"no frame",
        packed([]),
        packed([KEYS, ROWS, []]),
        packed([KEYS, ROWS[:1]]),
        packed([["text"], ROWS[:1]]),
        packed({"keys": []}),
        packed([KEYS, ROWS])[:-3],
        zstandard.ZstdCompressor(write_content_size=False).compress(msgspec.msgpack.encode((KEYS, ROWS))),
        zstandard.ZstdCompressor().compress(b"\x91" * 100_000),
    ],
)
def test_what_is_no_packed_rows_is_refused(rows: bytes) -> None:
    with pytest.raises(Corrupt):
        unpack_rows(rows)


def test_what_would_fill_the_memory_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(MAX_UNPACKED_BYTES + 1))
    assert len(bomb) < 100_000
    with pytest.raises(Corrupt, match="the limit"):
        unpack_rows(bomb)


def test_no_rows_are_packed_rows_too() -> None:
    assert unpack_rows(pack_rows([], [])) == ([], [])
