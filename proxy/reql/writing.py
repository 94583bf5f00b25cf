"""Writes to rows: from "what becomes of each row" to effects, statistics and changes (table_common.cc, val.cc).

One rule: a row is read from the head, decided on and put into the batch without a switch in between, so that the
decision still holds when the batch is proposed; nothing waits before `flush`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model import datum as d
from model import order
from model.effect import DELETE_ROW, PUT_ROW, Effect
from model.errors import ReqlError, ReqlOpFailedError, ReqlQueryLogicError, ReqlRuntimeError
from model.exact_bytes import exact
from model.keys import primary_key_bytes
from model.pseudo_time import make_time
from proxy.reql.tables import StoredTable
from proxy.reql.values import Func, Table

Decide = Callable[[Any], Any]
"""From a row as it is (None if there is none) to what it becomes (None to delete it)."""

MAX_BATCH_ROWS: Final = 500
MAX_BATCH_BYTES: Final = 4 << 20
MAX_BATCH_S: Final = 0.02  # where functions are costly: nobody else has a turn before the batch is proposed
MAX_STORED_ARRAY: Final = 100_000

NO_CHANGES: Final = 0
CHANGES: Final = 1
ALWAYS_CHANGES: Final = 2


class Stats:
    """What a write comes to, as its result: counters, the first error, changes, warnings."""

    __slots__ = (
        "_first_is_of_a_row", "changes", "counts", "first_error", "limit", "return_changes", "truncated", "warnings",
        "was_used",
    )  # fmt: skip

    def __init__(self, return_changes: int, array_limit: int) -> None:
        self.counts = {"deleted": 0, "errors": 0, "inserted": 0, "replaced": 0, "skipped": 0, "unchanged": 0}
        self.first_error: str | None = None
        self._first_is_of_a_row = False
        self.return_changes = return_changes
        self.changes: list[dict[str, Any]] = []
        self.limit = array_limit
        self.truncated = False
        self.warnings: list[str] = []
        self.was_used = False  # whether there was any row at all: without, there is no list of changes

    def add_error(self, message: str) -> None:
        self.counts["errors"] += 1
        if self.first_error is None:
            self.first_error = message

    def add_error_of_a_row(self, message: str) -> None:
        """An error that RethinkDB finds in what is to be written, before it tries to write anything."""
        self.counts["errors"] += 1
        if not self._first_is_of_a_row:
            self._first_is_of_a_row = True
            self.first_error = message

    def add_change(self, change: dict[str, Any]) -> None:
        if len(self.changes) < self.limit:
            self.changes.append(change)
        else:
            self.truncated = True

    def result(self) -> dict[str, Any]:
        out: dict[str, Any] = self.counts.copy()
        if self.first_error is not None:
            out["first_error"] = self.first_error
        if self.return_changes and self.was_used:
            out["changes"] = self.changes
        warnings = list(self.warnings)
        if self.truncated:
            warnings.append(f"Too many changes, array truncated to {self.limit}.")
        if warnings:
            out["warnings"] = warnings
        return out


def check_key_kept(primary_key: str, old: Any, new: Any) -> None:
    """RethinkDB's rcheck_valid_replace: the new row has the primary key, and the same as the old one."""
    if primary_key not in new:
        raise ReqlQueryLogicError(f"Inserted object must have primary key `{primary_key}`:\n{d.print_datum(new)}")
    if old is None:
        return
    kept, given = old[primary_key], new[primary_key]
    if given is not kept and not order.equal(kept, given):
        raise ReqlQueryLogicError(
            f"Primary key `{primary_key}` cannot be changed (`{d.print_datum(old)}` -> `{d.print_datum(new)}`)."
        )


def check_new_row(primary_key: str, key: bytes, old: Any, new: Any) -> None:
    """Raises unless `new` is a row for this key; `old` is what was read there, None if nothing was."""
    d.expect(new, "OBJECT")
    check_key_kept(primary_key, old, new)
    if old is None and primary_key_bytes(new[primary_key]) != key:
        raise ReqlQueryLogicError(f"Primary key `{primary_key}` cannot be changed (`null` -> `{d.print_datum(new)}`).")


def check_row(primary_key: str, key: bytes, old: Any, new: Any) -> None:
    """Raises unless `new` may take the place of `old` under this key (rcheck_row_replacement)."""
    if (
        old is not None
        and new.__class__ is dict
        and d.PTYPE_KEY not in new
        and new.get(primary_key) is old[primary_key]
    ):
        return  # what nearly all updates come to
    if not d.is_object(new):
        raise ReqlQueryLogicError(f"Inserted value must be an OBJECT (got {d.type_name(new)}):\n{d.print_datum(new)}")
    check_key_kept(primary_key, old, new)
    if old is None and primary_key_bytes(new[primary_key]) != key:
        raise ReqlQueryLogicError(f"Primary key `{primary_key}` cannot be changed (null -> {d.print_datum(new)})")


def stored_text(new: Any) -> bytes:
    """The row as it is stored; raises RethinkDB's errors for what cannot be written to disk."""
    try:
        text = d.dumps(new)
    except ReqlError as error:
        if "r.minval" in error.message or "r.maxval" in error.message:
            raise ReqlQueryLogicError("`r.minval` and `r.maxval` cannot be written to disk.") from None
        raise
    if len(text) > 2 * MAX_STORED_ARRAY and _has_long_array(new):
        raise ReqlQueryLogicError(f"Array too large for disk writes (limit {MAX_STORED_ARRAY:,} elements).")
    return exact(text)


def _has_long_array(value: Any) -> bool:
    if value.__class__ is list:
        return len(value) > MAX_STORED_ARRAY or any(map(_has_long_array, value))
    if value.__class__ is dict:
        return any(map(_has_long_array, value.values()))
    return False


class Unbroken:
    """The fibers port between the first decision of a batch and its proposal, when nothing may come in between."""

    def wait(self, deferred: Any, timeout_s: float | None = None) -> Any:
        raise AssertionError("the new value of a row may not wait for anything")

    def wait_for(self, begin: Any, timeout_s: float | None = None) -> Any:
        raise AssertionError("the new value of a row may not wait for anything")

    def breathe(self) -> None:
        """Others wait until the batch is proposed."""

    def run_s(self) -> float:
        raise AssertionError("whether a batch has taken long is asked where it is written")


UNBROKEN: Final = Unbroken()


class RowWriter:
    """Collects the effects of one query on one stored table, and commits them in batches."""

    def __init__(self, env: Any, table: Table, durability: str | None, stats: Stats, use_hook: bool = True) -> None:
        source = table.source
        assert isinstance(source, StoredTable)
        self._env = env
        self._source = source
        self._table_id = source.table.table_id
        self._primary_key = source.primary_key
        self._durability = durability or source.table.options.get("durability") or "hard"
        self._stats = stats
        self._hook = write_hook(env, source) if use_hook else None
        self._effects: list[Effect] = []
        self._pending: dict[bytes, bytes | None] = {}
        self._bytes = 0
        self._fibers: Any = None
        self._ahead: dict[bytes, bytes | None] = {}  # rows of the head that were read together; gone at every flush

    def require_permission(self) -> None:
        """Raises unless the query's user may write to the table."""
        if self._env.permissions is not None:
            self._env.permissions.require("write", self._source.table.database, self._source.uuid)

    def write(self, key: bytes, decide: Decide, offered: Any = None, key_is_made: bool = False) -> None:
        """Decides on one row. Errors of the decision are counted, not raised. `offered`: what to show when it fails.

        key_is_made: the insert made the key up, which is of no matter here.
        """
        stats = self._stats
        stats.was_used = True
        if self._fibers is None:
            self._begin()
        old_text = self._old_text(key)
        old = None if old_text is None else d.loads(old_text)
        new: Any = offered
        try:
            new = decide(old)
            if self._hook is not None:
                new = self._apply_hook(old, new)
            if new is not None:
                check_row(self._primary_key, key, old, new)
                new_text: bytes | None = stored_text(new)
            else:
                new_text = None
        except ReqlRuntimeError as error:
            self._fail(old, new, error.message)
            return
        is_changed = new_text != old_text
        if is_changed:
            self._put(key, new_text)
        if old is None:
            name = "skipped" if new is None else "inserted"
        elif new is None:
            name = "deleted"
        else:
            name = "replaced" if is_changed else "unchanged"
        stats.counts[name] += 1
        if stats.return_changes and (is_changed or stats.return_changes == ALWAYS_CHANGES):
            stats.add_change({"old_val": old, "new_val": new})

    def _begin(self) -> None:
        """The first decision of a batch: nothing may come in between from here on."""
        if self._fibers is None:
            self.require_permission()
            self._fibers, self._env.fibers = self._env.fibers, UNBROKEN

    def _old_text(self, key: bytes) -> bytes | None:
        if self._pending and key in self._pending:
            return self._pending[key]
        if self._ahead and key in self._ahead:
            return self._ahead[key]
        text: bytes | None = self._env.data.get_head(self._table_id, key)
        return text

    @property
    def may_insert_new(self) -> bool:
        """Whether a row that is not there is stored as it is offered, and nobody wants to hear more of it."""
        return self._hook is None and not self._stats.return_changes

    def read_ahead(self, keys: list[bytes]) -> None:
        """Reads the rows that the next writes are about, all at once."""
        self._begin()
        self._ahead = dict(zip(keys, self._env.data.get_head_many(self._table_id, keys), strict=True))

    def insert_new(self, key: bytes, row: dict[str, Any]) -> bool:
        """The short way of `write` for an object with this key where there is no row yet; False if there is one.

        Only if `may_insert_new`, and not for pseudo-types.
        """
        if self._fibers is None:
            self._begin()
        if self._old_text(key) is not None:
            return False
        stats = self._stats
        stats.was_used = True
        try:
            text = stored_text(row)
        except ReqlRuntimeError as error:
            self._fail(None, row, error.message)
            return True
        stats.counts["inserted"] += 1
        self._put(key, text)
        return True

    def _fail(self, old: Any, new: Any, message: str) -> None:
        self._stats.add_error(message)
        if self._stats.return_changes == ALWAYS_CHANGES:
            self._stats.add_change({"old_val": old, "new_val": old, "error": message})

    def _put(self, key: bytes, text: bytes | None) -> None:
        if text is None:
            self._effects.append((DELETE_ROW, self._table_id, key))
        else:
            self._effects.append((PUT_ROW, self._table_id, key, text))
            self._bytes += len(text)
        self._pending[key] = text

    def _apply_hook(self, old: Any, new: Any) -> Any:
        assert self._hook is not None
        row = new if new is not None else old
        if row is not None:
            d.expect(row, "OBJECT")
        key = None if row is None else row.get(self._primary_key)
        context = {"primary_key": key, "timestamp": make_time(self._env.now_s())}
        try:
            modified = self._hook.datum(context, old, new)
        except ReqlRuntimeError as error:
            raise error.reworded(f"Error in write hook: {error.message}") from error
        if new is None and modified is not None:
            raise ReqlOpFailedError("A write hook function must not turn a deletion into a replace/insert.")
        if new is not None and modified is None:
            raise ReqlOpFailedError("A write hook function must not turn a replace/insert into a deletion.")
        return modified

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be committed before the next row is looked at."""
        return (
            len(self._effects) >= MAX_BATCH_ROWS
            or self._bytes >= MAX_BATCH_BYTES
            or (self._fibers is not None and self._fibers.run_s() >= MAX_BATCH_S)
        )

    def flush(self, is_last: bool = False) -> None:
        """Commits what was collected; returns when it is as durable as asked for.

        Where nothing came of it, what was seen may still be on its way to the log, or no longer be so: that is
        waited for, too. Whoever leads no more finds it out there; a commit finds it out by itself.
        is_last: nothing more is written, so that the waiting may be left to whoever sends the query's answer.
        """
        has_looked = self._fibers is not None
        if has_looked:
            self._env.fibers, self._fibers = self._fibers, None
        if self._ahead:
            self._ahead = {}
        if self._effects:
            effects, self._effects = self._effects, []
            self._pending.clear()
            self._bytes = 0
            self._source.traffic.written += len(effects)
            if is_last and self._env.may_promise:
                self._env.promise = self._env.data.promise(effects, self._durability)
            else:
                self._env.data.commit(effects, self._durability)
                self._env.read_prepared = False  # a soft commit may not be applied yet
                self._env.fibers.breathe()  # a soft commit may not have waited
        elif has_looked and self._durability == "hard":
            self._env.data.confirm()
        elif has_looked:
            self._env.prepare_read()


_HOOKS: dict[int, tuple[Any, Func]] = {}


def write_hook(env: Any, source: StoredTable) -> Func | None:
    """The compiled write hook of a table. Kept per table until the hook's definition changes."""
    definition = source.table.write_hook
    if definition is None:
        return None
    from proxy.reql.index_functions import compile_function  # which needs all terms, and so this file

    kept = _HOOKS.get(source.table.table_id)
    if kept is None or kept[0] is not definition:
        kept = (definition, compile_function(definition["function"]))
        _HOOKS[source.table.table_id] = kept
    return kept[1]
