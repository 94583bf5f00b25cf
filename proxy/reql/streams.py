"""Streams: rows that come in chunks, through operations that take and give chunks.

One rule: a stream is pulled by one reader, chunk by chunk, and `breathe` is called between chunks, never within
a row. A chunk is a list of data; after a `group` operation it is a dict from hashable group to (group, rows), and
every further operation works on the rows of each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from model import datum as d
from model.errors import Path, ReqlError, ReqlQueryLogicError, ReqlResourceLimitError
from model.index_function import Decode, Fields
from proxy.reql.absent import NoAttribute
from proxy.reql.nodes import located
from proxy.reql.operations import NOTHING, MapRows, Operation, RowOperation, Rows, Terminal
from proxy.reql.partial import NO_FIELDS, decode_all, decoder
from proxy.reql.values import (
    PLAIN,
    Grouped,
    Selection,
    Table,
    TableSlice,
    Value,
    as_datum,
    check_array_size,
    wrong_kind,
)

__all__ = [
    "ENDLESS", "ENDLESS_FEED", "FIRST_CHUNK", "MAX_CHUNK", "NOTHING", "ArrayStream", "IteratorStream", "MapRows",
    "Operation", "RowOperation", "Rows", "SpentArray", "Stream", "Terminal", "TextRows", "array_texts", "as_selection",
    "as_stream", "chunked", "grouped_value", "is_selection", "is_sequence", "keep", "over_groups", "plain_stream",
    "run_terminal", "settle", "slice_stream", "to_list",
]  # fmt: skip

FIRST_CHUNK: Final = 16
MAX_CHUNK: Final = 256

ENDLESS: Final = (
    "Cannot use an infinite stream with an aggregation function (`reduce`, `count`, etc.) or coerce it to an array."
)
ENDLESS_FEED: Final = "Cannot call a terminal (`reduce`, `count`, etc.) on an infinite stream (such as a changefeed)."


class Stream(Value):
    """Base of all streams: subclasses give `source_chunk`; `operations` run over what it gives.

    is_array: the stream is an array in disguise, so that the value of the term is an ARRAY (RethinkDB's as_array).
    is_infinite: it never ends by itself. ordered: the order means something. path: of the term that made it or did
    something to it last, which is to blame for what fails in the stream itself.
    """

    __slots__ = (
        "_decode", "_expanding", "grouped", "is_array", "is_infinite", "operations", "ordered", "path",
        "terminal_reads",
    )  # fmt: skip
    type_label = "SEQUENCE"
    has_texts = False

    def __init__(self, is_array: bool = False, is_infinite: bool = False, path: Path | None = None) -> None:
        self.operations: list[Operation] = []
        self.grouped = False
        self.is_array = is_array
        self.is_infinite = is_infinite
        self.ordered = False
        self.path = path
        self.terminal_reads: Fields | None = None  # what an aggregation at the end reads of the rows, if it is known
        self._decode: Decode | None = None
        self._expanding: list[tuple[Iterator[Rows], int]] = []  # pieces under way, and which operation comes next

    def source_chunk(self, env: Any) -> Rows | None:
        """The next rows before operations; None at the end. An empty list says: not yet."""
        raise AssertionError("a stream must say where its rows come from")

    def source_texts(self, env: Any) -> list[bytes] | None:
        """The next rows as JSON texts, where the source has them; only called when `has_texts`."""
        raise AssertionError("this stream has no texts")

    @property
    def ends_batch(self) -> bool:
        """Whether what was given so far is to be sent before more is asked for."""
        return False

    def is_over(self) -> bool:
        """Whether it is known already that nothing comes after the rows that were given."""
        return False

    def is_exhausted(self) -> bool:
        """Whether RethinkDB knows without reading that it has no rows, as `order_by` asks (is_exhausted there)."""
        return False

    def close(self) -> None:
        """Gives back what the source holds."""

    def keeps_texts(self) -> bool:
        """Whether its rows are rows of its source, as they are stored."""
        return self.has_texts and not self.grouped and all(operation.keeps_rows for operation in self.operations)

    def expect(self, rows: int) -> None:
        """Says that no more than so many rows will be asked for, so that the source need not read ahead."""

    def add(self, operation: Operation) -> Stream:
        self.operations.append(operation)
        self.path = operation.path
        if operation.kind == "group":
            self.grouped = True
        return self

    def chunk(self, env: Any) -> Any:
        """The next rows after all operations, None at the end."""
        if self._expanding:
            rows = self._expanded(env)
            if rows is not None:
                return rows
        if self.has_texts and (self.operations or self.terminal_reads is not None):
            return self._decoded(env)
        rows = self.source_chunk(env)
        if rows is None or not self.operations:
            return rows
        return self._operate(env, rows, 0)

    def _decoded(self, env: Any) -> Any:
        """The next rows after all operations, of which no more was decoded than these need."""
        texts = self.source_texts(env)
        if texts is None:
            return None
        decode = self._decode
        if decode is None:  # the first rows are not worth a plan
            decode = decode_all
            self._decode = self._decoder() if len(texts) >= FIRST_CHUNK else None
        rows = decode(texts)
        try:
            return self._operate(env, rows, 0)
        except NoAttribute:
            if decode is decode_all:
                raise
            return self._operate(env, decode_all(texts), 0)  # the error shows the row, so it has to be whole

    def _decoder(self) -> Decode:
        needed: Fields = NO_FIELDS
        for operation in self.operations:
            read = operation.reads()
            if read is None:
                return decode_all
            needed |= read
            if not operation.keeps_rows:
                return decoder(needed)
        return decode_all if self.terminal_reads is None else decoder(needed | self.terminal_reads)

    def _operate(self, env: Any, rows: Any, begin: int) -> Any:
        """The rows after the operations from number `begin` on."""
        operations = self.operations
        for at in range(begin, len(operations)):
            operation = operations[at]
            try:
                if rows.__class__ is dict:
                    rows = {key: (group, operation.apply(env, kept)) for key, (group, kept) in rows.items()}
                elif operation.expands:
                    self._expanding.append((operation.expand(env, rows), at + 1))
                    rows = self._expanded(env)
                    return [] if rows is None else rows
                else:
                    rows = operation.apply(env, rows)
            except ReqlError as error:
                if error.path is None:
                    error.path = operation.path
                raise
        return rows

    def _expanded(self, env: Any) -> Any:
        """The next rows of what is being expanded, None when it has come to its end."""
        expanding = self._expanding
        while expanding:
            pieces, at = expanding[-1]
            try:
                rows = next(pieces, None)
            except ReqlError as error:
                if error.path is None:
                    error.path = self.operations[at - 1].path
                raise
            if rows is not None:
                return self._operate(env, rows, at)
            expanding.pop()
        return None

    def texts(self, env: Any) -> list[bytes] | None:
        """The next rows as JSON texts: as stored when nothing was done to them."""
        if self.has_texts:
            if not self.operations:
                return self.source_texts(env)
            if all(operation.keeps_rows for operation in self.operations):
                return self._kept_texts(env)
        rows = self.chunk(env)
        return None if rows is None else [d.dumps(row) for row in rows]

    def _kept_texts(self, env: Any) -> list[bytes] | None:
        """The next rows that are left, as they are stored; not for grouped streams."""
        texts = self.source_texts(env)
        if texts is None:
            return None
        decode = self._decode
        if decode is None:
            self.terminal_reads = NO_FIELDS  # nobody else looks at the rows
            decode = decode_all
            self._decode = self._decoder() if len(texts) >= FIRST_CHUNK else None
        rows = decode(texts)
        kept = set(map(id, self._operate(env, rows, 0)))
        return [text for text, row in zip(texts, rows, strict=True) if id(row) in kept]

    def chunks(self, env: Any) -> Iterator[Any]:
        """All chunks to the end, breathing in between; refused for a stream without end."""
        self.refuse_endless()
        breathe = env.fibers.breathe
        while (rows := self.chunk(env)) is not None:
            yield rows
            breathe()

    def refuse_endless(self) -> None:
        """Raises the error of who wants all rows of a stream without end."""
        if self.is_infinite:
            raise ReqlQueryLogicError(ENDLESS_FEED if self.notes() else ENDLESS, self.path)

    def rows(self, env: Any) -> Iterator[Any]:
        """All rows to the end; not for grouped streams."""
        for chunk in self.chunks(env):
            yield from chunk

    def notes(self) -> list[int]:
        """The notes of a response from this stream; only changefeeds have any."""
        return []

    def describe(self) -> str:
        return "VALUE SEQUENCE"


class ArrayStream(Stream):
    """The elements of an array."""

    __slots__ = ("_at", "_items")

    def __init__(self, items: list[Any], is_array: bool = True) -> None:
        super().__init__(is_array=is_array)
        self._items = items
        self._at = 0
        self.ordered = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left."""
        return self._at >= len(self._items)

    def is_exhausted(self) -> bool:
        return self.is_empty and not self.operations

    def source_chunk(self, env: Any) -> Rows | None:
        at = self._at
        if at >= len(self._items):
            return None
        self._at = at + MAX_CHUNK
        return self._items if at == 0 and len(self._items) <= MAX_CHUNK else self._items[at : at + MAX_CHUNK]


class SpentArray(ArrayStream):
    """The elements of an array that nobody will look at again: they leave it as they are given."""

    __slots__ = ()

    def source_chunk(self, env: Any) -> Rows | None:
        at = self._at
        rows = super().source_chunk(env)
        if rows is self._items:
            self._items = []
        elif rows:
            self._items[at : at + len(rows)] = [None] * len(rows)
        return rows


class TextRows(Stream):
    """The elements of an array that are JSON texts still, as rows are stored."""

    __slots__ = ("_at", "_texts")
    has_texts = True

    def __init__(self, texts: list[bytes]) -> None:
        super().__init__(is_array=True)
        self._texts = texts
        self._at = 0
        self.ordered = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left."""
        return self._at >= len(self._texts)

    def is_exhausted(self) -> bool:
        return self.is_empty and not self.operations

    def source_texts(self, env: Any) -> list[bytes] | None:
        at = self._at
        if at >= len(self._texts):
            return None
        self._at = at + MAX_CHUNK
        return self._texts[at : at + MAX_CHUNK]

    def source_chunk(self, env: Any) -> Rows | None:
        texts = self.source_texts(env)
        return None if texts is None else decode_all(texts)


class IteratorStream(Stream):
    """Rows from a Python iterator of chunks (made by terms such as range, union or fold)."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: Iterator[Rows], is_array: bool = False, is_infinite: bool = False) -> None:
        super().__init__(is_array=is_array, is_infinite=is_infinite)
        self._chunks = chunks

    def source_chunk(self, env: Any) -> Rows | None:
        return next(self._chunks, None)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


def run_terminal(env: Any, stream: Stream, terminal: Terminal) -> Any:
    """Pulls the stream to its end; a grouped stream gives Grouped with one result per group."""
    stream.terminal_reads = terminal.reads()
    if not stream.grouped:
        accumulator = terminal.begin(env)
        for rows in stream.chunks(env):
            if rows:
                accumulator = terminal.step(env, accumulator, rows)
        return terminal.end(env, accumulator)
    groups: dict[Any, tuple[Any, Any]] = {}
    for chunk in stream.chunks(env):
        if chunk.__class__ is list:
            continue  # pieces that are still to come: nothing to group yet
        for key, (group, rows) in chunk.items():
            if not rows:
                continue  # RethinkDB makes no group for rows that were all filtered away
            found = groups.get(key)
            accumulator = terminal.step(env, terminal.begin(env) if found is None else found[1], rows)
            if accumulator is not NOTHING:
                groups[key] = (group, accumulator)
        if len(groups) > env.array_limit:
            raise ReqlResourceLimitError(f"Too many groups (> {env.array_limit}).", ())
    return Grouped({key: (group, terminal.end(env, held)) for key, (group, held) in groups.items()})


def to_list(env: Any, stream: Stream) -> Any:
    """All rows as an array, within the array limit; Grouped arrays for a grouped stream."""
    if stream.grouped:
        return run_terminal(env, stream, _ToArrays())
    out: Rows = []
    for rows in stream.chunks(env):
        out += rows
        located(check_array_size, env, len(out), ())  # by which RethinkDB blames no term
    return out


def array_texts(env: Any, stream: Stream) -> list[bytes]:
    """The elements of `to_list` as JSON texts, made of the rows' own texts where nothing was done to them."""
    stream.refuse_endless()
    out: list[bytes] = []
    while (texts := stream.texts(env)) is not None:
        out += texts
        check_array_size(env, len(out))
        env.fibers.breathe()
    return out


class _ToArrays(Terminal):
    """The rows of each group; the array limit holds for all of them together."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        self._size = 0

    def begin(self, env: Any) -> Rows:
        return []

    def step(self, env: Any, accumulator: Rows, rows: Rows) -> Rows:
        accumulator += rows
        self._size += len(rows)
        if self._size > env.array_limit:
            raise ReqlResourceLimitError(
                f"Grouped data over size limit `{env.array_limit}`.  "
                "Try putting a reduction (like `.reduce` or `.count`) on the end.",
                (),
            )
        return accumulator


def settle(env: Any, stream: Stream) -> Any:
    """The value a term gives for a stream: an array when the stream is one in disguise (val_t's constructor)."""
    if stream.is_array and not stream.grouped:
        return to_list(env, stream)
    return stream


def as_stream(env: Any, value: Any, at: int = 0) -> Stream:
    """Anything with rows as a Stream that the caller may add operations to. `at`: which argument of the term it is."""
    if value.__class__ is list:
        return ArrayStream(value)
    if isinstance(value, Stream):
        return value
    if value.__class__ is Selection:
        return value.stream  # type: ignore[no-any-return]
    if value.__class__ is Table or value.__class__ is TableSlice:
        return slice_stream(env, value)
    if value.__class__ in PLAIN or value is d.MINVAL or value is d.MAXVAL:
        d.fail_typed(value, f"Cannot convert {d.type_name(value)} to SEQUENCE")
    error = wrong_kind("SEQUENCE", value)
    error.at = at
    raise error


def plain_stream(env: Any, value: Any, at: int = 0) -> Stream:
    """`as_stream` for terms that read rows themselves, which cannot be done with the groups of a grouped stream."""
    stream = as_stream(env, value, at)
    if stream.grouped:
        raise ReqlQueryLogicError(
            "Cannot treat the output of `group` as a stream (did you mean to `ungroup`?).", stream.path
        )
    return stream


def slice_stream(env: Any, value: Any) -> Stream:
    """The rows of a table or slice."""
    part = value if value.__class__ is TableSlice else TableSlice(value)
    return part.table.source.stream(env, part.table, part)  # type: ignore[no-any-return]


def as_selection(env: Any, value: Any) -> Selection:
    """Rows that can be written to: a selection, slice or table."""
    if value.__class__ is Selection:
        return value
    if value.__class__ is Table:
        return Selection(value, slice_stream(env, value))
    if value.__class__ is TableSlice:
        return Selection(value.table, slice_stream(env, value))
    raise wrong_kind("SELECTION", value)


def is_sequence(value: Any) -> bool:
    """Whether the value is convertible to a sequence without being a datum."""
    return isinstance(value, (Stream, Selection, Table, TableSlice))


def is_selection(value: Any) -> bool:
    return isinstance(value, (Selection, Table, TableSlice))


def keep(value: Any, stream: Stream, env: Any) -> Any:
    """What a term that only leaves rows out gives: still a selection if it was one."""
    if isinstance(value, Selection):
        return Selection(value.table, stream)
    if isinstance(value, (Table, TableSlice)):
        return Selection(value if isinstance(value, Table) else value.table, stream)
    return settle(env, stream)


def grouped_value(env: Any, value: Any) -> Grouped | None:
    """The value as grouped data if it is grouped data or a grouped stream (maybe_as_promiscuous_grouped_data)."""
    if value.__class__ is Grouped:
        return value
    if isinstance(value, Stream) and value.grouped:
        return to_list(env, value)  # type: ignore[no-any-return]
    return None


def over_groups(env: Any, grouped: Grouped, apply: Callable[[Any], Any]) -> Grouped:
    """Applies a term to each group's value (op_term_t::term_eval)."""
    out: dict[Any, tuple[Any, Any]] = {}
    for key, (group, held) in grouped.groups.items():
        out[key] = (group, as_datum(env, apply(held)))
    return Grouped(out)


def chunked(rows: Sequence[Any]) -> Iterator[Rows]:
    for at in range(0, len(rows), MAX_CHUNK):
        yield list(rows[at : at + MAX_CHUNK])
