"""Runs queries: START's JSON text in, an Answer out; streams go on in a StreamCursor or a FeedCursor.

One rule: this file ties compiling, running and answering together, and knows no term.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from model import datum as d
from model.errors import ReqlCompileError, ReqlError, ReqlQueryLogicError
from proxy.answers import ARRAY, ATOM, PARTIAL, SEQUENCE, Answer, Promised, QueryContext
from proxy.frames import parse_query
from proxy.reql import terms as _terms  # noqa: F401  (fills the registry
from proxy.reql.batches import batch_limits
from proxy.reql.calling import call_runner
from proxy.reql.compiler import Compiler
from proxy.reql.env import Env, World
from proxy.reql.feeds.cursor import FeedCursor
from proxy.reql.feeds.lenses import lens_of, shows_the_same
from proxy.reql.ids import Term
from proxy.reql.nodes import Node
from proxy.reql.one_row import write_at_once
from proxy.reql.permissions import ADMIN
from proxy.reql.point_get import look_up_of
from proxy.reql.registry import LAST, ROW_WRITES, TERMS
from proxy.reql.shapes import MAX_SHAPES, Key, lift
from proxy.reql.streams import Stream, array_texts, as_stream, is_sequence, to_list
from proxy.reql.values import PLAIN, Grouped, SingleSelection, as_integer, as_string, type_label

# Options of a whole query that no term has as its own optarg (rdb_protocol/optargs.cc), and ours: `view` reads at a
# fixed point in time.
QUERY_OPTIONS: Final = frozenset(
    {
        "array_limit", "binary_format", "changefeed_queue_size", "db", "durability", "first_batch_scaledown_factor",
        "group_format", "max_batch_bytes", "max_batch_rows", "max_batch_seconds", "min_batch_rows", "noreply",
        "profile", "read_mode", "time_format", "use_outdated", "view",
    }
)  # fmt: skip

# What RethinkDB accepts besides, because one table of its holds the optargs of all terms.
TERM_OPTIONS: Final = frozenset(
    {
        "_EVAL_FLAGS_", "_NO_RECURSE_", "_SHORTCUT_", "attempts", "auth", "base", "conflict", "data", "default",
        "default_timezone", "dry_run", "emergency_repair", "emit", "fill", "final_emit", "float", "geo", "geo_system",
        "header", "identifier_format", "ignore_write_hook", "include_initial", "include_offsets", "include_states",
        "include_types", "index", "interleave", "ordered", "left_bound", "max_dist", "max_results", "method", "multi",
        "non_atomic", "nonvoting_replica_tags", "num_vertices", "overwrite", "page", "page_limit", "params",
        "primary_key", "primary_replica_tag", "redirects", "replicas", "result_format", "return_changes",
        "return_vals", "right_bound", "shards", "squash", "timeout", "unit", "verify", "wait_for",
    }
)  # fmt: skip

HEARD_BYTES: Final = 256  # a longer query carries data, and hardly comes twice
MAX_HEARD: Final = 4000
GLANCE_BYTES: Final = 512 << 10  # others have a turn between the parsing, 2 ms and more, and the run of what is larger

# How those of the longer queries begin that are worth a glance: a write into a named table, or to one of its rows.
ONE_ROW_WRITES: Final = (
    b"[1,[%d,[[%d," % (Term.INSERT, Term.TABLE),
    *(b"[1,[%d,[[%d,[[%d," % (change, Term.GET, Term.TABLE) for change in (Term.UPDATE, Term.REPLACE)),
)


class StreamCursor:
    """The rest of a stream between responses. Rows that did not fit into a response wait in `_left`."""

    __slots__ = ("_env", "_left", "_limits", "_stream")

    def __init__(self, env: Env, stream: Stream) -> None:
        self._env = env
        self._stream = stream
        self._limits = batch_limits(env)
        self._left: list[bytes] = []

    def first_batch(self) -> Answer:
        return self._batch(*self._limits.first())

    def next_batch(self) -> Answer:
        return self._batch(*self._limits.later())

    def close(self) -> None:
        self._stream.close()

    def _batch(self, max_rows: int, max_bytes: int, max_seconds: float) -> Answer:
        env, stream = self._env, self._stream
        items, self._left = self._left, []
        size = sum(map(len, items))
        started = None
        min_rows = self._limits.min_rows
        while len(items) < max_rows and (size < max_bytes or len(items) < min_rows):
            texts = stream.texts(env)
            if texts is None:
                if len(items) <= max_rows:
                    return Answer(SEQUENCE, items, stream.notes())
                break
            items += texts
            if stream.is_over() and len(items) <= max_rows:
                return Answer(SEQUENCE, items, stream.notes())
            size += sum(map(len, texts))
            if stream.ends_batch and len(items) >= min_rows:
                break
            env.fibers.breathe()
            if started is None:
                started = env.world.now_s()
            elif items and env.world.now_s() - started >= max_seconds:
                break
        if len(items) > max_rows:
            self._left = items[max_rows:]
            items = items[:max_rows]
        return Answer(PARTIAL, items, stream.notes(), cursor=self)


class Shape:
    """A compiled query that can be run with any parameters.

    options: the global optargs; `db` is not among them, it is evaluated by `table`, and only if it needs it.
    look_up: the short way to its answer, if it has one (see `point_get`).
    write: the same for a write to one row (see `one_row`).
    ends_with_write: it is one write to rows and has no other, so nothing of it comes after that write's last commit.
    """

    __slots__ = ("ends_with_write", "has_lens", "look_up", "options", "root", "slot_count", "write")

    def __init__(self, root: Node, compiler: Compiler) -> None:
        self.root = root
        spec = LAST.get(root.term)
        if spec is not None:
            has_args = any(argument.term == Term.ARGS for argument in root.arguments)
            root.run = call_runner(spec, root.arguments, root.optargs, root.path, has_args)
        self.options = {name: node for name, node in compiler.global_optargs.items() if name != "db"}
        self.look_up = None if self.options else look_up_of(root)
        self.slot_count = compiler.slot_count
        self.has_lens = shows_the_same(root)  # of a changefeed
        self.ends_with_write = root.term in ROW_WRITES and compiler.write_count == 1
        self.write = root.at_once if self.ends_with_write and not self.options else None


class ReqlEvaluator:
    """The Evaluator port of the proxy."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._shapes: dict[Key, Shape] = {}
        self._heard: dict[bytes, tuple[Shape, list[Any]]] = {}  # short queries as they came, to be known by sight
        self._heard_before: dict[bytes, tuple[Shape, list[Any]]] = {}
        self._glanced: tuple[bytes, tuple[Shape, list[Any]]] | None = None  # in vain; not to be parsed again

    def start(self, body: bytes, context: QueryContext) -> Answer | Promised:
        """Compiles and runs a query; raises ReqlError."""
        glanced, self._glanced = self._glanced, None
        if glanced is not None and glanced[0] is body:
            known: tuple[Shape, list[Any]] | None = glanced[1]
        else:
            known = None if len(body) > HEARD_BYTES else self._heard.get(body) or self._recall(body)
        if known is None:
            known = self._understand(body)
            if len(body) >= GLANCE_BYTES:
                context.fibers.breathe()  # not for less: what was parsed would leave the cache, a fifth of a load
        return self._run(*known, context)

    def glance(self, body: bytes, user: str) -> bytes | Promised | None:
        """A point get's row, if it can be read at once, or what a write to one row promises; see `Evaluator`."""
        if user != ADMIN:
            return None
        if len(body) <= HEARD_BYTES:
            known = self._heard.get(body) or self._recall(body) or self._recognize(body)
        elif len(body) < GLANCE_BYTES and body.startswith(ONE_ROW_WRITES) and self._world.data.can_write():
            known = self._recognize(body)
        else:
            return None
        if known is None:
            return None
        shape, parameters = known
        if shape.look_up is not None:
            return shape.look_up(self._world, parameters)
        done = None if shape.write is None else write_at_once(shape.write, self._world, parameters, shape.slot_count)
        if done is None:
            self._glanced = (body, known)
        return done

    def _understand(self, body: bytes) -> tuple[Shape, list[Any]]:
        """The compiled shape of a query, and its literals."""
        query = parse_query(body)
        key, parameters = lift(query)
        shape = self._shapes.get(key) if key is not None else None
        if shape is None:
            if key is None:
                query, parameters = parse_query(body), []  # lifting may have stopped half way
            shape = self._compile(query[1], query[2] if len(query) > 2 else {})
            if key is not None:
                self._keep(key, shape)
        known = shape, parameters
        if key is not None and len(body) <= HEARD_BYTES:
            self._remember(body, known)
        return known

    def _recognize(self, body: bytes) -> tuple[Shape, list[Any]] | None:
        """As `_understand`, for queries of shapes that are there already; None for all others."""
        try:
            key, parameters = lift(parse_query(body))
        except ReqlError:
            return None
        shape = None if key is None else self._shapes.get(key)
        if shape is None:
            return None
        known = shape, parameters
        if len(body) <= HEARD_BYTES:
            self._remember(body, known)
        return known

    def _recall(self, body: bytes) -> tuple[Shape, list[Any]] | None:
        """A query of the older generation, which is young again."""
        known = self._heard_before.pop(body, None)
        if known is not None:
            self._remember(body, known)
        return known

    def _remember(self, body: bytes, known: tuple[Shape, list[Any]]) -> None:
        """Two generations take turns: whatever is not heard again is forgotten with the older one."""
        if len(self._heard) >= MAX_HEARD:
            self._heard_before, self._heard = self._heard, {}
        self._heard[body] = known

    def _compile(self, raw: Any, raw_optargs: dict[str, Any]) -> Shape:
        compiler = Compiler()
        compiler.global_optargs = self._global_optargs(compiler, raw_optargs)
        root = compiler.compile_query(raw)
        return Shape(root, compiler)

    def _keep(self, key: Key, shape: Shape) -> None:
        if len(self._shapes) >= MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        self._shapes[key] = shape

    def _run(self, shape: Shape, parameters: list[Any], context: QueryContext) -> Answer | Promised:
        env = Env(self._world, context.fibers, context.user, shape.slot_count)
        env.params = parameters
        if shape.has_lens:
            env.lens = lens_of(shape, parameters)
        if shape.options:
            self._apply_options(env, shape.options)
        root = shape.root
        if env.profile is None:
            env.may_promise = shape.ends_with_write and context.takes_promises
            answer = self.answer(env, root.run(env), context.returns_empty_batches)
            return answer if env.promise is None else Promised(answer, env.promise)
        started = self._world.now_s()
        answer = self.answer(env, root.run(env), context.returns_empty_batches)
        spent_ms = (self._world.now_s() - started) * 1000
        task = {"description": f"Evaluating {_name(root)}.", "duration(ms)": spent_ms, "sub_tasks": env.profile}
        answer.profile = orjson.dumps([task])
        return answer

    def _global_optargs(self, compiler: Compiler, raw_optargs: dict[str, Any]) -> dict[str, Node]:
        nodes = {}
        for name, raw in raw_optargs.items():
            if name not in QUERY_OPTIONS and name not in TERM_OPTIONS:
                raise ReqlCompileError(f"Unrecognized global optional argument `{name}`.", ())
            nodes[name] = compiler.compile(raw, ())
        return nodes

    def _apply_options(self, env: Env, nodes: dict[str, Node]) -> None:
        for name, node in nodes.items():
            env.options[name] = node.run(env)
        options = env.options
        if "array_limit" in options:
            limit = as_integer(env, options["array_limit"])
            if limit < 1:
                raise ReqlQueryLogicError(f"Illegal array size limit `{limit}`.  (Must be >= 1.)")
            env.array_limit = limit
        if options.get("profile") is True:
            env.profile = []
        if "view" in options:
            env.data = self._world.data_at(env, as_string(env, options["view"]))

    def answer(self, env: Env, value: Any, returns_empty_batches: bool = False) -> Answer:
        """The response for a term's value (query_cache_t::ref_t::run and serve)."""
        if value.__class__ in PLAIN or value is d.MINVAL or value is d.MAXVAL:
            return Answer(ATOM, [d.dumps(value)])
        if value.__class__ is SingleSelection:
            return Answer(ATOM, [value.text()])
        if isinstance(value, Stream) and value.grouped:
            value = to_list(env, value)
        if value.__class__ is Grouped:
            return Answer(ATOM, [d.dumps(grouped_datum(value))])
        if not is_sequence(value):
            raise ReqlQueryLogicError(
                f"Query result must be of type DATUM, GROUPED_DATA, or STREAM (got {type_label(value)}).", ()
            )
        stream = as_stream(env, value)
        if stream.is_array:
            return Answer(ARRAY, array_texts(env, stream))
        if stream.grouped:
            return self.answer(env, to_list(env, stream))
        if env.feeds:
            return FeedCursor(env, stream, returns_empty_batches).first_batch()
        return StreamCursor(env, stream).first_batch()


def grouped_datum(grouped: Grouped) -> dict[str, Any]:
    """Grouped data as drivers are sent it."""
    return {"$reql_type$": "GROUPED_DATA", "data": [[group, held] for group, held in grouped.items()]}


def _name(root: Node) -> str:
    spec = TERMS.get(root.term)
    return spec.name if spec is not None else "datum"
