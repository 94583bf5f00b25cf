"""Bytes that take as much memory as they hold: for whatever is kept.

One rule: who keeps what an encoder made, keeps a copy from here. Encoders guess how much room a value needs, give the
bytes away with all of that room, and never take it back: orjson's 1.4 KB of a row lie in 8 KB, msgspec's in 2.2. Such
bytes are harmless while a query lasts. In the recent rows and in the log's cache they made six times the memory that
was counted, and each insert touched three pages that nothing had been in before, for 10 µs.
"""

from __future__ import annotations

_join = b"".join


def exact(data: bytes) -> bytes:
    """A copy of `data` without the room around it; 0.2 µs for 1.4 KB."""
    return _join((data, b""))  # of one piece alone, `join` gives the very piece
