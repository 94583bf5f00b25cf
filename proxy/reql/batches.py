"""How much goes into one response of a stream.

One rule: the options of a query decide, by RethinkDB's names and defaults (rdb_protocol/batching.cc).
"""

from __future__ import annotations

from typing import Any, Final

from model import datum as d
from model.errors import ReqlQueryLogicError
from proxy.reql.env import Env
from proxy.reql.values import as_integer, as_number

DEFAULT_BATCH_BYTES: Final = 1 << 20
DEFAULT_BATCH_SECONDS: Final = 0.5
UNBOUNDED: Final = 1 << 62


class BatchLimits:
    """How much goes into one response."""

    __slots__ = ("max_bytes", "max_rows", "max_seconds", "min_rows", "scaledown")

    def __init__(self, env: Env | None, options: dict[str, Any]) -> None:
        self.max_rows = _option(env, options, "max_batch_rows", UNBOUNDED)
        self.min_rows = min(_option(env, options, "min_batch_rows", 1), self.max_rows)
        self.max_bytes = _option(env, options, "max_batch_bytes", DEFAULT_BATCH_BYTES)
        self.scaledown = _option(env, options, "first_batch_scaledown_factor", 4)
        self.max_seconds = DEFAULT_BATCH_SECONDS
        if "max_batch_seconds" in options:
            seconds = as_number(env, options["max_batch_seconds"])
            if seconds >= 86400:
                raise ReqlQueryLogicError(
                    f"max_batch_seconds is too large (got `{d.number_text(seconds)}`, must be less than 86400)."
                )
            if seconds < 0:
                raise ReqlQueryLogicError(f"max_batch_seconds must be positive (got `{d.number_text(seconds)}`).")
            self.max_seconds = seconds

    def first(self) -> tuple[int, int, float]:
        """(rows, bytes, seconds) of the first response, which is smaller so that it comes soon."""
        rows = self.max_rows if self.max_rows == UNBOUNDED else max(1, self.max_rows // self.scaledown)
        return rows, max(1, self.max_bytes // self.scaledown), self.max_seconds / self.scaledown

    def later(self) -> tuple[int, int, float]:
        return self.max_rows, self.max_bytes, self.max_seconds


def _option(env: Env | None, options: dict[str, Any], name: str, default: int) -> int:
    if name not in options:
        return default
    value = as_integer(env, options[name])
    if value < 1:
        raise ReqlQueryLogicError(f"`{name}` must be at least 1 (got `{value}`).")
    return value


_DEFAULTS: Final = BatchLimits(None, {})


def batch_limits(env: Env) -> BatchLimits:
    """What the query's options say."""
    return BatchLimits(env, env.options) if env.options else _DEFAULTS
