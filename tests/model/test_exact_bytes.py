"""What is kept takes the memory that is counted for it, and no room that an encoder reserved."""

import tracemalloc
from collections.abc import Callable

import pytest

from model.effect import PUT_ROW, encode
from model.exact_bytes import exact
from proxy.reql.writing import stored_text

HEAD_BYTES = 64  # of a bytes object, with what the allocator rounds up
SIZES = [1, 50, 300, 500, 700, 3000, 10_000]


def kept_bytes(make: Callable[[], bytes]) -> tuple[bytes, int]:
    """What `make` gives, and how much memory there is more than before it was called."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return made, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_row_takes_its_own_length(size: int) -> None:
    row = {"id": 1, "text": "x" * size}
    text, kept = kept_bytes(lambda: stored_text(row))
    assert kept <= len(text) + HEAD_BYTES


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_takes_its_own_length(size: int) -> None:
    effects = [(PUT_ROW, 1, b"key", b"x" * size)]
    payload, kept = kept_bytes(lambda: encode(effects, 0))
    assert kept <= len(payload) + HEAD_BYTES


def test_the_copy_is_the_same_bytes_elsewhere() -> None:
    data = bytes(range(256))
    assert exact(data) == data
    assert exact(data) is not data
    assert exact(b"") == b""
