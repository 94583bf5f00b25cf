"""Views: the data as they were at one moment, for several queries on several connections.

A row inserted into the system table `views` takes one, the run option `view` with the row's id reads from it,
deleting the row lets it go. One rule: a view pins memory and files, so there are only a few, and one that nobody
has read from for a while is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from model.catalog import Catalog
from model.errors import ReqlOpFailedError, ReqlQueryLogicError, ReqlResourceLimitError
from model.pseudo_time import make_time
from server.replica import FixedRows
from server.system import Change, Row, SystemTable

MAX_VIEWS: Final = 16
IDLE_S: Final = 600.0


class FixedData:
    """The `Data` port over a point-in-time read. `used` is called at each read of a range, so that idleness shows."""

    def __init__(self, rows: FixedRows, used: Callable[[], None] | None = None) -> None:
        self._rows = rows
        self._used = used or (lambda: None)
        self.get = rows.get
        self.get_head = rows.get
        self.get_head_many = rows.get_many
        self.get_many = rows.get_many
        self.count = rows.count
        self.index_ready = rows.index_ready
        self.index_progress = rows.index_progress
        self.close = rows.close

    @property
    def catalog(self) -> Catalog:
        return self._rows.catalog

    @property
    def applied_index(self) -> int:
        """The log index that the data are as of."""
        return self._rows.applied_index

    def scan_rows(
        self, table_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], bytes]:
        self._used()
        return self._rows.scan_rows(table_id, low, high, limit, reverse)

    def scan_index_chunk(
        self, index_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        self._used()
        return self._rows.scan_index_chunk(index_id, low, high, limit, reverse)

    def scan_index_rows(
        self, index_id: int, table_id: int, low: bytes, high: bytes, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], int, bytes]:
        self._used()
        return self._rows.scan_index_rows(index_id, table_id, low, high, limit, reverse)

    def log_first_index(self) -> int:
        """A view has no log; the entry after it stands for all that it cannot tell."""
        return self._rows.applied_index + 1

    def read_log(self, low: int, high: int, max_bytes: int) -> NoReturn:
        raise ReqlOpFailedError("A view is of the past and has no log.")

    def prepare_read(self, read_mode: str) -> None:
        """The past is always ready to be read."""

    def prepare_get(self, read_mode: str, table_id: int, key: bytes) -> bool:
        """The same for one row."""
        return True

    def can_get(self) -> bool:
        """The same for any row."""
        return True

    def can_write(self) -> bool:
        """The past is not changed."""
        return False

    def confirm(self) -> None:
        """The past stays as it is."""

    def commit(self, effects: Sequence[Any], durability: str) -> NoReturn:
        raise ReqlOpFailedError("A view is of the past and cannot be written to.")

    promise = commit

    def change_catalog(self, change: Any) -> NoReturn:
        raise ReqlOpFailedError("A view is of the past and cannot be changed.")

    def sync(self, table_id: int) -> None:
        """Nothing in a view waits for the disk."""

    def view(self) -> FixedData:
        raise ReqlOpFailedError("A view cannot be followed: it does not change.")


class _View:
    __slots__ = ("data", "opened_s", "used_s")

    def __init__(self, opened_s: float) -> None:
        self.opened_s = self.used_s = opened_s
        self.data: FixedData


class Views:
    """The views that are open, by id. `now_s` is the wall clock; `take` gives a new point-in-time read."""

    def __init__(self, take: Callable[[], FixedRows], now_s: Callable[[], float]) -> None:
        self._take = take
        self._now_s = now_s
        self._views: dict[Any, _View] = {}

    def open(self, view_id: Any) -> None:
        """Takes a view of this moment. Raises ReqlResourceLimitError when there are too many."""
        self.drop_idle()
        if len(self._views) >= MAX_VIEWS:
            raise ReqlResourceLimitError(f"There are {MAX_VIEWS} views already; delete one from `rethinkdb.views`.")
        view = _View(self._now_s())

        def used() -> None:
            view.used_s = self._now_s()

        view.data = FixedData(self._take(), used)
        self._views[view_id] = view

    def close(self, view_id: Any) -> None:
        """Lets a view go; queries that still read from it fail."""
        view = self._views.pop(view_id, None)
        if view is not None:
            view.data.close()

    def data(self, view_id: str) -> FixedData:
        """The data of a view. Raises ReqlOpFailedError if there is no such view (any more)."""
        view = self._views.get(view_id)
        if view is None:
            raise ReqlOpFailedError(f"View `{view_id}` does not exist (any more).")
        view.used_s = self._now_s()
        return view.data

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the system table."""
        return [
            {
                "id": view_id,
                "log_index": view.data.applied_index,
                "opened": make_time(view.opened_s),
                "last_read": make_time(view.used_s),
            }
            for view_id, view in self._views.items()
        ]

    def drop_idle(self) -> None:
        """Lets go what nobody has read from for a while; to be called now and then."""
        oldest_s = self._now_s() - IDLE_S
        for view_id in [view_id for view_id, view in self._views.items() if view.used_s < oldest_s]:
            self.close(view_id)

    def close_all(self) -> None:
        """Lets everything go: the server stops."""
        for view_id in list(self._views):
            self.close(view_id)


def views_table(views: Views) -> SystemTable:
    """`views`: ours and not RethinkDB's, so it can be used, but is not listed."""

    def write(change: Change) -> Row | None:
        if change.new is None:
            views.close(change.key)
        elif change.old is not None or change.new != {"id": change.key}:
            raise ReqlQueryLogicError("A row of `rethinkdb.views` has an `id` and nothing else that could be written.")
        else:
            change.env.prepare_read()
            views.open(change.key)
        return change.new

    return SystemTable("views", lambda env, form: views.rows(), write=write)
