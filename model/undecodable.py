"""What a decoder raises for bytes that it cannot read, as one tuple for `except`.

One rule: whoever decodes bytes that somebody else made catches all of it. msgspec has its own class for what has the
wrong shape, but lets strings that are no UTF-8 and nesting that is too deep out as Python's errors.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
