"""Puts rows into tables over several connections at once: the writing half of restore and import.

One thread hands over batches; a bounded queue holds it back. One rule: a row counts as written only when the
server said so, and what is tried again after a lost connection can neither double a row nor hide another one.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

import orjson
from rethinkdb.errors import ReqlError

from backup.driver_link import LOST, TRIES, Session, Target, r, run_with_rows
from backup.progress import Bar
from backup.selection import TableName
from model.errors import RewindError, ToolFailed, UnfitArchive

BATCH_ROWS, BATCH_BYTES = 1000, 1 << 20


@dataclass
class LoadedTable:
    """A table that is being filled. has_hook: whether rows must be kept from a write hook."""

    name: TableName
    primary_key: str
    is_new: bool
    has_hook: bool = False
    rows_read: int = 0
    rows_written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Loader:
    """Writers over `clients` connections. Use: `put` batches, then `finish`; on an error `stop`.

    force: rows with a key that is there replace what is there; otherwise they are an error.
    """

    def __init__(
        self, target: Target, *, clients: int, durability: str, force: bool, bar: Bar, batch_rows: int = BATCH_ROWS
    ) -> None:
        self._target = target
        self._durability = durability
        self._force = force
        self._bar = bar
        self._batch_rows = batch_rows
        self._queue: queue.Queue[tuple[LoadedTable, list[bytes]] | None] = queue.Queue(2 * clients)
        self._error: Exception | None = None
        self._threads = [threading.Thread(target=self._work, name="write rows", daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def put(self, table: LoadedTable, rows: list[bytes]) -> None:
        """Hands rows over, in batches of bounded length. Raises what a writer raised."""
        table.rows_read += len(rows)
        batch: list[bytes] = []
        size = 0
        for row in rows:
            if batch and (len(batch) >= self._batch_rows or size + len(row) > BATCH_BYTES):
                self._hand_over((table, batch))
                batch, size = [], 0
            batch.append(row)
            size += len(row)
        if batch:
            self._hand_over((table, batch))

    def finish(self) -> None:
        """Returns when every row is written. Raises what a writer raised."""
        for _ in self._threads:
            self._hand_over(None)
        for thread in self._threads:
            thread.join()
        self._raise_error()

    def stop(self) -> None:
        """Ends the writers; rows in the queue are not written."""
        self._error = self._error or ToolFailed("Interrupted")
        for thread in self._threads:
            thread.join(timeout=5)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _hand_over(self, item: tuple[LoadedTable, list[bytes]] | None) -> None:
        while True:
            self._raise_error()
            try:
                self._queue.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        session = Session(self._target)
        try:
            while self._error is None:
                try:
                    item = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                if item is None:
                    return
                self._write(session, *item)
        except (RewindError, ReqlError) as error:
            self._error = self._error or error
        except Exception as error:  # the one who hands over rows must hear of anything that ends a writer
            self._error = self._error or error
        finally:
            session.close()

    def _write(self, session: Session, table: LoadedTable, rows: list[bytes]) -> None:
        conflict: Any = "replace" if self._force else "error"
        for turn in range(TRIES):
            try:
                answer = self._insert(session, table, rows, conflict)
                break
            except LOST as error:
                session.close()
                if turn == TRIES - 1:
                    raise ToolFailed(f"Connection error while writing to {table.name}: {error.message}") from error
                conflict = self._conflict_when_repeated(table, rows)
            except UnicodeDecodeError as error:
                raise UnfitArchive(f"A row for {table.name} is not UTF-8.") from error
        if answer["errors"]:
            raise ToolFailed(f"Error when importing into table '{table.name}': {answer.get('first_error')}")
        done = answer["inserted"] + answer["replaced"] + answer["unchanged"]
        if done != len(rows):
            raise ToolFailed(f"The server took {done} of {len(rows)} rows for table '{table.name}'.")
        with table.lock:
            table.rows_written += done
        self._bar.add(rows=done)

    def _insert(self, session: Session, table: LoadedTable, rows: list[bytes], conflict: Any) -> Any:
        options: dict[str, Any] = {"durability": self._durability, "conflict": conflict}
        if table.has_hook:
            options["ignore_write_hook"] = True
        into = r.db(table.name.database).table(table.name.table)
        return run_with_rows(session.connection, lambda mark: into.insert(mark, **options), rows)

    def _conflict_when_repeated(self, table: LoadedTable, rows: list[bytes]) -> Any:
        """Some of the rows may be there already from the first try: those are fine, other ones are not."""
        if not all(table.primary_key in orjson.loads(row) for row in rows):
            raise ToolFailed(
                f"Connection error while importing. A row for {table.name} does not have the primary key "
                f"({table.primary_key}), so repeating it could double it."
            )
        if self._force:
            return "replace"
        return lambda key, old, new: r.branch(old.eq(new), old, r.error("Duplicate primary key"))
