"""union: streams side by side, one after the other, or merged in an order (datum_stream/union, ordered_union)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from model.errors import Path, ReqlError, ReqlQueryLogicError
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, located
from proxy.reql.registry import TERMS, special
from proxy.reql.streams import MAX_CHUNK, Rows, Stream, grouped_value, over_groups, plain_stream, settle
from proxy.reql.terms.sorting import compare_rows, comparisons_of
from proxy.reql.values import PLAIN, as_array


class Union(Stream):
    """Rows of several streams. Interleaved, a chunk of each in turn; else all of the first before any of the next."""

    __slots__ = ("_interleaved", "_waiting", "streams")

    def __init__(self, streams: list[Stream], interleaved: bool, path: Path) -> None:
        is_array = all(stream.is_array for stream in streams)
        super().__init__(is_array, any(stream.is_infinite for stream in streams), path)
        self.streams = streams
        self._waiting = deque(streams)
        self._interleaved = interleaved and not is_array

    def source_chunk(self, env: Any) -> Rows | None:
        waiting = self._waiting
        tried = 0
        while waiting:
            rows = waiting[0].chunk(env)
            if rows is None:
                waiting.popleft()
                continue
            if self._interleaved:
                waiting.rotate(-1)
                tried += 1
                if not rows and tried < len(waiting):
                    continue  # a changefeed without news does not hold up the others
            return rows  # type: ignore[no-any-return]
        return None

    def notes(self) -> list[int]:
        return sorted({note for stream in self.streams for note in stream.notes()})

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


class FeedUnion(Union):
    """The changes of a union. Its feeds have one state: it is initializing from the first that is, and ready with the
    last (union_datum_stream_t)."""

    __slots__ = ("_has_begun", "_not_ready")

    def __init__(self, feeds: list[Stream], path: Path) -> None:
        super().__init__(feeds, True, path)
        self._has_begun = False
        self._not_ready = len(feeds)

    def source_chunk(self, env: Any) -> Rows | None:
        rows = super().source_chunk(env)
        if rows is None or not self._not_ready:
            return rows
        return [row for row in rows if "state" not in row or self._is_told(row["state"])]

    def _is_told(self, state: str) -> bool:
        if state == "ready":
            self._not_ready -= 1
            return self._not_ready == 0
        is_first, self._has_begun = not self._has_begun, True
        return is_first


class Head:
    """The next row of a stream that is being merged."""

    __slots__ = ("compare", "number", "reader", "row")

    def __init__(self, number: int, row: Any, reader: Reader, compare: Callable[[Any, Any], int]) -> None:
        self.number = number
        self.row = row
        self.reader = reader
        self.compare = compare

    def __lt__(self, other: Head) -> bool:
        sign = self.compare(self.row, other.row)
        return self.number < other.number if sign == 0 else sign < 0


class Merged(Stream):
    """Rows of several ordered streams in their common order."""

    __slots__ = ("_compare", "_heads", "streams")

    def __init__(self, streams: list[Stream], compare: Callable[[Any, Any], int], path: Path) -> None:
        super().__init__(
            all(stream.is_array for stream in streams), any(stream.is_infinite for stream in streams), path
        )
        self.streams = streams
        self.ordered = True
        self._compare = compare
        self._heads: list[Head] | None = None

    def source_chunk(self, env: Any) -> Rows | None:
        if self._heads is None:
            self._heads = []
            for number, stream in enumerate(self.streams):
                reader = Reader(env, stream)
                for row in reader:
                    heapq.heappush(self._heads, Head(number, row, reader, self._compare))
                    break
        heads = self._heads
        out: Rows = []
        while heads and len(out) < MAX_CHUNK:
            head = heapq.heappop(heads)
            row = head.row
            out.append(row)
            for following in head.reader:
                if self._compare(following, row) < 0:
                    raise ReqlQueryLogicError(
                        "The streams given as arguments are not ordered by given ordering.", self.path
                    )
                head.row = following
                heapq.heappush(heads, head)
                break
        return out or None

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


class Reader:
    """A stream row by row. A changefeed ends where it has nothing more at once: what is merged is there already."""

    __slots__ = ("_at", "_env", "_rows", "_stream")

    def __init__(self, env: Any, stream: Stream) -> None:
        self._env = env
        self._stream = stream
        self._rows: Rows = []
        self._at = 0

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> Any:
        while self._at >= len(self._rows):
            rows = self._stream.chunk(self._env)
            if rows is None or (not rows and self._stream.notes()):
                raise StopIteration
            self._rows, self._at = rows, 0
            if not rows:
                self._env.fibers.breathe()
        self._at += 1
        return self._rows[self._at - 1]


@special(Term.UNION, "union", "0..*", optargs={"interleave": None})
def union(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """`interleave`: true (as the rows come), false (one after the other), or what the streams are ordered by."""
    arguments, raw_optargs = compiler.split(raw, path)
    nodes = [compiler.child(argument, (*path, at), Term.UNION, at == 0) for at, argument in enumerate(arguments)]
    order = compiler.compile_optargs(TERMS[Term.UNION], raw_optargs, path).get("interleave")

    def run(env: Any) -> Any:
        values: list[Any] = []
        for node in nodes:
            value = node.run(env)
            values += located(as_array, env, value, node.path) if node.term == Term.ARGS else [value]
        try:
            grouped = grouped_value(env, values[0]) if values and values[0].__class__ not in PLAIN else None
            if grouped is not None:
                return over_groups(env, grouped, lambda held: _union(env, [held, *values[1:]], order, path))
            return _union(env, values, order, path)
        except ReqlError as error:
            if error.path is None:
                at = error.at
                error.path = nodes[at].path if isinstance(at, int) and at < len(nodes) else path
            raise

    determinism = order.determinism if order is not None else 0
    for node in nodes:
        determinism |= node.determinism
    return Node(run, Term.UNION, path, raw, determinism, arguments=nodes)


def _union(env: Any, values: list[Any], order: Node | None, path: Path) -> Any:
    streams = [plain_stream(env, value, at) for at, value in enumerate(values)]
    if order is None:
        return settle(env, Union(streams, True, path))
    if order.term == Term.MAKE_ARRAY:
        by = order.arguments
        if not by:
            return settle(env, Union(streams, False, path))
    else:
        interleave = order.run(env)
        if interleave.__class__ is bool:
            return settle(env, Union(streams, interleave, path))
        by = [order]
    return settle(env, Merged(streams, compare_rows(comparisons_of(env, by)), path))
