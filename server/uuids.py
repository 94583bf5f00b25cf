"""Random UUIDs of version 4 (RFC 9562), for rows that have no primary key.

One rule: nobody can guess one from others. The system's random bytes are fetched for many at once: a call of the system
and `uuid.UUID` with its checks cost more than an insert's own rules do.
"""

from __future__ import annotations

import os
from typing import Final

_AT_ONCE: Final = 128
_UUID_BYTES: Final = 16
_VARIANTS: Final = "89ab"


class RandomUuids:
    """Where they come from. On one thread."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def new(self) -> str:
        """One that was never given before, in RFC 9562's form."""
        at = self._at
        if at == len(self._digits):
            self._digits = os.urandom(_AT_ONCE * _UUID_BYTES).hex()
            at = 0
        digits = self._digits[at : at + 32]
        self._at = at + 32
        variant = _VARIANTS[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
