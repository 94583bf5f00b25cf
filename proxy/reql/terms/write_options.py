"""What the optargs of writes may be (terms/writes.cc).

One rule: they are checked in the order in which they stand here, before anything is read or written.
"""

from __future__ import annotations

from typing import Any, NoReturn

from model.errors import THE_TERM
from proxy.reql.registry import CONSTANT_NOW, fail
from proxy.reql.values import Func, as_bool, as_datum, as_string
from proxy.reql.writing import ALWAYS_CHANGES, CHANGES, NO_CHANGES


def as_durability(env: Any, value: Any) -> str:
    """`hard` or `soft`."""
    durability = as_string(env, value)
    if durability not in ("hard", "soft"):
        fail(f'Durability option `{durability}` unrecognized (options are "hard" and "soft").')
    return durability


def _as_return_changes(env: Any, value: Any) -> int:
    """False, true or "always", as the numbers of `Stats`."""
    value = as_datum(env, value)
    if value.__class__ is str:
        if value != "always":
            fail(f"Invalid return_changes value `{value}` (options are `true`, `false`, and `'always'`.)", THE_TERM)
        return ALWAYS_CHANGES
    return CHANGES if as_bool(env, value) else NO_CHANGES


def _refuse_return_vals(env: Any, value: Any) -> NoReturn:
    fail("Error: encountered obsolete optarg `return_vals`.  Use `return_changes` instead.", THE_TERM)


def _as_conflict(env: Any, conflict: Any) -> Any:
    """What becomes of a row that is there: `error`, `replace`, `update` or a function."""
    if isinstance(conflict, Func):
        if conflict.determinism & ~CONSTANT_NOW:
            fail("The conflict function passed to `insert` must be deterministic.", THE_TERM)
        if conflict.arity not in (0, 3):
            fail("The conflict function passed to `insert` should expect 3 arguments.", THE_TERM)
        return conflict
    name = as_string(env, conflict)
    if name not in ("error", "replace", "update"):
        fail(f'Conflict option `{name}` unrecognized (options are "error", "replace" and "update").')
    return name


WRITE_OPTARGS = {
    "return_vals": _refuse_return_vals,
    "return_changes": _as_return_changes,
    "durability": as_durability,
    "ignore_write_hook": as_bool,
}
INSERT_OPTARGS = {
    "return_vals": _refuse_return_vals,
    "return_changes": _as_return_changes,
    "conflict": _as_conflict,
    "durability": as_durability,
    "ignore_write_hook": as_bool,
}
