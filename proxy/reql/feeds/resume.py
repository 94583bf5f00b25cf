"""Positions of changefeeds: handed out with every change, and where a feed goes on after a disconnect or a restart.

Beyond RethinkDB (rethinkdb#3471): `changes(include_positions=True)` adds `position` to each change, and
`changes(resume_after=position)` begins with all that came after it. What happened in between is read from the log,
which is kept for a while; a position that is older is refused, and nothing is left out in silence.

One rule: a position names one change of one table in the log of one cluster, `<lineage>:<log index>-<ordinal>`, both
numbers in hex; the ordinal counts the changes of this table in that entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from model.effect import DELETE_ROW, PUT_ROW, decode_of
from model.errors import ReqlOpFailedError, ReqlQueryLogicError
from proxy.reql.feeds.chain import SharedChange

POSITION: Final = re.compile(r"([0-9a-f-]+):([0-9a-f]{1,16})-([0-9a-f]{1,8})\Z")
CHUNK_ENTRIES: Final = 64
CHUNK_BYTES: Final = 1 << 20


class Position(NamedTuple):
    log_index: int
    ordinal: int


class PastChange(NamedTuple):
    """A change as it is found in the log (the RowChange port)."""

    table_id: int
    key: bytes
    old: bytes | None
    new: bytes | None


def position_text(lineage: str, log_index: int, ordinal: int) -> str:
    return f"{lineage}:{log_index:x}-{ordinal:x}"


def parse_position(text: str, lineage: str) -> Position:
    """The position in a text; raises ReqlQueryLogicError for what is none, or is of another cluster's history."""
    match = POSITION.match(text)
    if match is None:
        raise ReqlQueryLogicError(
            f"`{text}` is not a position of a changefeed.  Positions come with the changes of a feed that was opened "
            "with `include_positions`.",
            at="resume_after",
        )
    if match[1] != lineage:
        raise ReqlQueryLogicError(
            f"The position `{text}` is of the history {match[1]}, but this server's is {lineage}: it was restored, or "
            "is another cluster.  Read the table anew, for example with `include_initial`.",
            at="resume_after",
        )
    return Position(int(match[2], 16), int(match[3], 16))


def check_retained(env: Any, position: Position) -> None:
    """Raises ReqlOpFailedError if the log does not reach back to the position."""
    first = env.data.log_first_index()
    if position.log_index + 1 < first:
        raise ReqlOpFailedError(
            f"The position is at log entry {position.log_index}, but this server keeps the log only from entry {first} "
            "on.  Read the table anew, for example with `include_initial`."
        )
    if position.log_index > env.data.applied_index:
        raise ReqlOpFailedError(
            f"The position is at log entry {position.log_index}, which this server has not reached yet "
            f"(it is at {env.data.applied_index})."
        )


def past_changes(env: Any, table_id: int, after: Position, until: int) -> Iterator[list[SharedChange]]:
    """The changes of a table after a position, up to the log entry `until`, a list for some entries at a time.

    A row's earlier version is the one of its change before; for the first change of a row it is looked for in the
    log before the position, and is none if the log does not reach back to it.
    """
    rows = _rows_before(env, table_id, after, until)
    for index, effects in _entries(env, table_id, after.log_index, until):
        changes = []
        for ordinal, (key, new) in enumerate(effects):
            old, rows[key] = rows.get(key), new
            if (index, ordinal) > after and (old is not None or new is not None):
                changes.append(SharedChange(index, PastChange(table_id, key, old, new), ordinal))
        if changes:
            yield changes


def _rows_before(env: Any, table_id: int, after: Position, until: int) -> dict[bytes, bytes | None]:
    """The newest version before entry `after` of every row that changes from there on."""
    wanted = {key for _, effects in _entries(env, table_id, after.log_index, until) for key, _ in effects}
    found: dict[bytes, bytes | None] = {}
    for _, effects in _entries(env, table_id, env.data.log_first_index(), after.log_index - 1):
        for key, row in effects:
            if key in wanted:
                found[key] = row
    return found


def _entries(env: Any, table_id: int, low: int, high: int) -> Iterator[tuple[int, list[tuple[bytes, bytes | None]]]]:
    """(log index, [(key, new row or None), ...]) of the entries low to high that change the table."""
    low = max(low, env.data.log_first_index())
    while low <= high:
        entries = env.data.read_log(low, min(high, low + CHUNK_ENTRIES - 1), CHUNK_BYTES)
        if not entries:
            return
        for index, payload in entries:
            effects = []
            for effect in decode_of(payload, (table_id,)).effects if payload else ():
                if effect[0] == PUT_ROW and effect[1] == table_id:
                    effects.append((effect[2], effect[3]))
                elif effect[0] == DELETE_ROW and effect[1] == table_id:
                    effects.append((effect[2], None))
            if effects:
                yield index, effects
        low = entries[-1][0] + 1
        env.fibers.breathe()
