"""`changes`: which rows a feed is about, from the stream it was called on (terms/seq.cc, changefeed.cc)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from model import datum as d
from model import order
from model.errors import Path, ReqlOpFailedError, ReqlQueryLogicError, ReqlResourceLimitError
from model.keys import bound_key, key_range, prefix_range, primary_key_bytes
from proxy.answers import ATOM_FEED, SEQUENCE_FEED
from proxy.reql.feeds.chain import Feed
from proxy.reql.feeds.changes import PointFeed, RangeFeed
from proxy.reql.feeds.limit import LimitFeed, Order
from proxy.reql.feeds.resume import check_retained, parse_position
from proxy.reql.feeds.streams import FeedOptions, FeedStream, PolledFeed, through
from proxy.reql.geo.reads import IntersectingRows
from proxy.reql.ids import Term
from proxy.reql.index_functions import index_function
from proxy.reql.registry import CONSTANT_NOW, NEVER, SINGLE_SERVER, fail, term
from proxy.reql.streams import Stream, as_stream, slice_stream
from proxy.reql.tables import ComputedRows, IndexScan, KeyedIndexRows, KeyedRows, StoredTable, TableScan, UnreadableRows
from proxy.reql.terms.http import HttpPages
from proxy.reql.terms.slices import Slice
from proxy.reql.terms.union import FeedUnion, Union
from proxy.reql.values import SingleSelection, as_bool, as_datum, as_integer, as_string

DEFAULT_QUEUE_SIZE = 100_000
READS = (TableScan, IndexScan, KeyedRows, KeyedIndexRows, IntersectingRows)
EAGER = "Cannot call `changes` on an eager stream."
NO_TRANSFORMATIONS = (
    "Changefeeds are not supported on queries that have a transformation following a `limit` term.  "
    "Transformations include terms such as `filter`, `map`, `pluck`, etc.  Consider moving the "
    "transformation before the `limit` term."
)
NO_SYSTEM_LIMITS = "System tables don't support changefeeds on `.limit()`."

CHANGES_OPTARGS: dict[str, Any] = {
    "squash": as_datum,
    "changefeed_queue_size": as_integer,
    "include_initial": as_bool,
    "include_offsets": as_bool,
    "include_states": as_bool,
    "include_types": as_bool,
    "include_positions": as_bool,
    "resume_after": as_string,
}


@term(Term.CHANGES, "changes", "1", optargs=CHANGES_OPTARGS, grouped="never", determinism=NEVER, wants_path=True)
def changes(env: Any, value: Any, *, path: Path, **optargs: Any) -> Any:
    """An endless stream of {old_val, new_val} for the rows that `value` selects."""
    options = _options(env, optargs)
    if isinstance(value, SingleSelection):
        return _blamed(_changes_of_row(env, value, options), (*path, 0))
    stream = as_stream(env, value)
    if isinstance(stream, Union):
        return FeedUnion([_changes_of_stream(env, part, options, path) for part in stream.streams], path)
    return _blamed(_changes_of_stream(env, stream, options, path), path)


def _blamed(feed: FeedStream, path: Path) -> FeedStream:
    """The feed, with the term to blame for what cannot be done with it."""
    feed.path = path
    return feed


def _options(env: Any, optargs: dict[str, Any]) -> FeedOptions:
    squash = optargs.get("squash", False)
    if d.is_number(squash):
        if squash < 0:
            fail("Expected BOOL or a positive NUMBER but found a negative NUMBER.", "squash")
        squash_s: float | None = float(squash)
    elif squash.__class__ is bool:
        squash_s = 0.0 if squash else None
    else:
        fail(f"Expected BOOL or NUMBER but found {d.type_name(squash)}.", "squash")
    queue_size = optargs.get("changefeed_queue_size", DEFAULT_QUEUE_SIZE)
    if queue_size < 1:
        fail(f"Illegal changefeed queue size `{queue_size}`.  (Must be >= 1.)")
    resume_after = None
    if "resume_after" in optargs:
        if optargs.get("include_initial"):
            fail("Cannot use both `resume_after` and `include_initial`.", "resume_after")
        resume_after = parse_position(optargs["resume_after"], env.world.lineage)
    return FeedOptions(
        squash_s,
        queue_size,
        optargs.get("include_initial", False),
        optargs.get("include_states", False),
        optargs.get("include_offsets", False),
        optargs.get("include_types", False),
        env.world.lineage if optargs.get("include_positions") or resume_after is not None else None,
        resume_after,
    )


def _changes_of_row(env: Any, selection: SingleSelection, options: FeedOptions) -> FeedStream:
    origin = selection.origin
    source = selection.table.source
    if origin is not None and origin[0] == "extreme":  # the first row of a slice
        if not isinstance(source, StoredTable):
            raise ReqlOpFailedError(NO_SYSTEM_LIMITS)
        return _limit_feed(env, slice_stream(env, origin[1]), [], 1, options)
    if options.include_offsets:
        fail("Cannot include offsets for point subs.")
    if not isinstance(source, StoredTable):
        return _polled(env, source, options, ATOM_FEED, lambda env: _row_of(env, source, selection.key), [])
    source.prepare_read(env)
    key = primary_key_bytes(selection.key)
    check_resumption(env, options)
    feed = _subscribe(env, source, options, key)
    return PointFeed(env, feed, options, key, env.data.get(source.table.table_id, key))


def _changes_of_stream(env: Any, stream: Stream, options: FeedOptions, path: Path) -> FeedStream:
    if isinstance(stream, Slice) and not stream.is_array:
        if any(operation.kind != "filter" for operation in stream.operations):
            raise ReqlQueryLogicError(NO_TRANSFORMATIONS, (*path, 0))
        if stream.left == 0 and stream.right is not None:
            return _changes_of_first(env, stream, stream.right, options, path)
    if stream.grouped:
        fail(EAGER)
    if isinstance(stream, UnreadableRows):
        raise stream.error
    if isinstance(stream, ComputedRows):
        _check_operations(stream.operations)
        return _polled(env, stream.source, options, SEQUENCE_FEED, stream.again, stream.operations)
    if isinstance(stream, READS) and not any(operation.kind == "distinct" for operation in stream.operations):
        return _range_feed(env, stream, options)
    if isinstance(stream, HttpPages):
        raise ReqlQueryLogicError(stream.refusal_of_changes, stream.path)
    raise ReqlQueryLogicError(EAGER, _innermost(stream, path))


def _innermost(stream: Stream, path: Path) -> Path:
    """The path of the stream that slices were made of: each slice is the first argument of what is around it."""
    path = (*path, 0)
    while isinstance(stream, Slice):
        stream, path = stream.inner, (*path, 0)
    return path


def _changes_of_first(env: Any, stream: Slice, count: int, options: FeedOptions, path: Path) -> FeedStream:
    source = stream.inner
    if isinstance(source, ComputedRows):
        raise ReqlOpFailedError(NO_SYSTEM_LIMITS)
    if isinstance(source, Union):
        for part in source.streams:
            _changes_of_stream(env, part, options, path).close()
        raise ReqlQueryLogicError("Cannot call `changes` on a slice of a union.", source.path)
    if not isinstance(source, READS) or _is_empty(source):
        raise ReqlQueryLogicError(EAGER, _innermost(stream, path))
    if not source.ordered:
        raise ReqlQueryLogicError("Cannot get changes on the first elements of an unordered stream.", ())
    if count > env.array_limit:
        raise ReqlResourceLimitError(
            f"Array size limit `{env.array_limit}` exceeded.  (`.limit(X).changes()` is illegal "
            "if X is larger than the array size limit.)"
        )
    return _limit_feed(env, source, [*source.operations, *stream.operations], count, options)


def _is_empty(stream: Any) -> bool:
    """Whether there can be no row in what a stream reads, so that RethinkDB makes an empty array of it."""
    return isinstance(stream, (TableScan, IndexScan)) and stream.part.is_empty


def _check_operations(operations: list[Any]) -> None:
    for operation in operations:
        if operation.kind in ("concat_map", "zip"):
            fail(f"Cannot call `changes` after `{operation.kind}`.")
        function = operation.func
        if function is not None and function.determinism & ~(CONSTANT_NOW | SINGLE_SERVER):
            raise ReqlQueryLogicError("Cannot call `changes` after a non-deterministic function.", function.path)


def _range_feed(env: Any, stream: Any, options: FeedOptions) -> FeedStream:
    operations = stream.operations
    _check_operations(operations)
    if options.include_offsets:
        fail(f"Cannot include offsets for {'empty' if _is_empty(stream) else 'range'} subs.")
    source: StoredTable = stream.source
    source.prepare_read(env)
    check_resumption(env, options)
    feed = _subscribe(env, source, options)
    # Subscribed and viewed in one breath: the view holds exactly what the queue will not tell.
    at = env.data.view() if options.include_initial else None
    initial = stream if at is not None else None
    # An index may be another one by the time of the next query.
    lens = env.lens if isinstance(stream, (TableScan, KeyedRows)) else None
    return RangeFeed(env, feed, options, _copies(stream), list(operations), initial, at, lens)


def _copies(stream: Any) -> Callable[[bytes, bytes | None], int] | None:
    """How often a row (primary key bytes, JSON text) is among the rows that the stream reads; None: all are once."""
    if isinstance(stream, TableScan):
        part = stream.part
        if not part.bounded:
            return None
        low, high = key_range(part.low, part.high, part.low_open, part.high_open, primary=True)
        return lambda key, text: low <= key < high
    if isinstance(stream, KeyedRows):
        wanted = Counter(primary_key_bytes(key) for key in stream.keys)
        return lambda key, text: wanted[key]
    if isinstance(stream, IntersectingRows):
        copies_of, _ = stream.matcher()
        return lambda key, text: 0 if text is None else copies_of(d.loads(text))
    function = index_function(stream.source.table, stream.index)
    decode = function.decoder(function.fields)
    if isinstance(stream, KeyedIndexRows):
        ranges = [prefix_range(bound_key(key, primary=False)) for key in stream.keys]
    else:
        part = stream.part
        ranges = [key_range(part.low, part.high, part.low_open, part.high_open)]

    def copies(key: bytes, text: bytes | None) -> int:
        if text is None:
            return 0
        return sum(low <= entry < high for entry in function.keys_of(decode((text,)))[0] for low, high in ranges)

    return copies


def check_resumption(env: Any, options: FeedOptions) -> None:
    """Raises ReqlOpFailedError if a feed is to be resumed from where the log does not reach back to."""
    if options.resume_after is not None:
        check_retained(env, options.resume_after)


def _refuse_positions(options: FeedOptions) -> None:
    if options.lineage is not None:
        fail("Only feeds on single rows and on ranges of stored tables have positions.")


def _limit_feed(env: Any, stream: Any, operations: list[Any], count: int, options: FeedOptions) -> FeedStream:
    _check_operations(operations)
    _refuse_positions(options)
    source: StoredTable = stream.source
    source.prepare_read(env)
    feed = _subscribe(env, source, options)
    return LimitFeed(env, feed, options, Order(stream, operations, count), env.lens)


def _subscribe(env: Any, source: StoredTable, options: FeedOptions, key: bytes | None = None) -> Feed:
    """A feed of the changes of a stored table or of one of its rows, which ends when its user may not read them."""
    feed: Feed = env.world.feeds.subscribe(source.table.table_id, options.queue_size, key)
    permissions = env.permissions
    if permissions is not None:
        feed.guard = lambda: permissions.require("read", source.table.database, source.uuid)
    return feed


def _row_of(env: Any, source: Any, key: Any) -> list[Any]:
    text = source.get(env, key)
    return [] if text is None else [d.loads(text)]


def _polled(
    env: Any, source: Any, options: FeedOptions, note: int, rows_of: Callable[[Any], list[Any]], operations: list[Any]
) -> FeedStream:
    """A feed of a system table, whose rows `rows_of` computes anew."""
    primary_key = source.primary_key
    _refuse_positions(options)
    if options.include_offsets:
        fail("Cannot include offsets for range subs.")

    def read(env: Any) -> dict[Any, Any]:
        found = {}
        for row in rows_of(env):
            for shown in through(env, operations, row):
                found[order.hashable_key(row[primary_key])] = shown
        return found

    feed = env.world.feeds.subscribe_polled(options.queue_size)
    return PolledFeed(env, feed, options, read, note, source.only_grows)
