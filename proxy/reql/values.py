"""What a term may give besides a datum: databases, tables, selections, functions, grouped data; and conversions.

One rule: a conversion (`as_*`) takes (env, value), gives the value in the wanted kind or raises RethinkDB's
type error without a path; the compiler adds the path of the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from model import datum as d
from model import order
from model.errors import THE_TERM, Path, ReqlError, ReqlNonExistenceError, ReqlQueryLogicError
from model.printing import truncate
from proxy.reql.env import Env, TableSource
from proxy.reql.nodes import NOTHING_CAPTURED, Captures, Node, place_of
from proxy.reql.registry import ALWAYS, fail_limit
from proxy.reql.rowcode import MIN_ROWS, RowCode, row_code

PLAIN: Final = frozenset({type(None), bool, int, float, str, list, dict})
"""The Python types of data. Anything else is a Value (or MINVAL/MAXVAL)."""

ROWS_A_BREATH: Final = 32


def in_turns(env: Any, rows: list[Any]) -> Iterator[Any]:
    """The rows one by one, for functions of any cost; others have a turn now and then."""
    breathe = env.fibers.breathe
    for at in range(0, len(rows), ROWS_A_BREATH):
        yield from rows[at : at + ROWS_A_BREATH]
        breathe()


class Value:
    """What is not a datum. `type_label` is the name in type errors."""

    __slots__ = ()
    type_label = "VALUE"

    def describe(self) -> str:
        """The value as type errors print it."""
        return f"VALUE {self.type_label}"


class Db(Value):
    __slots__ = ("name", "uuid")
    type_label = "DATABASE"

    def __init__(self, name: str, uuid: str) -> None:
        self.name = name
        self.uuid = uuid

    def describe(self) -> str:
        return f'db("{self.name}")'


class Table(Value):
    """A whole table; `source` reads and knows it. `path` is of the term that named it, to blame for wrong uses."""

    __slots__ = ("db", "name", "path", "source")
    type_label = "TABLE"

    def __init__(self, db: Db, name: str, source: TableSource, path: Path | None = None) -> None:
        self.db = db
        self.name = name
        self.source = source
        self.path = path

    def describe(self) -> str:
        return f'table("{self.name}")'


class TableSlice(Value):
    """A range of a table by primary key or index. Bounds are data (MINVAL/MAXVAL for none); index None: no choice yet.

    sorting: 0 none, 1 ascending, -1 descending.
    """

    __slots__ = ("high", "high_open", "index", "low", "low_open", "sorting", "table")
    type_label = "TABLE_SLICE"

    def __init__(
        self,
        table: Table,
        index: str | None = None,
        low: Any = d.MINVAL,
        high: Any = d.MAXVAL,
        low_open: bool = True,
        high_open: bool = True,
        sorting: int = 0,
    ) -> None:
        self.table = table
        self.index = index
        self.low = low
        self.high = high
        self.low_open = low_open
        self.high_open = high_open
        self.sorting = sorting

    @property
    def bounded(self) -> bool:
        """Whether bounds were given; open ones at both extremes are none, but closed ones are."""
        endless = self.low is d.MINVAL and self.high is d.MAXVAL
        return not (endless and self.low_open and self.high_open)

    @property
    def is_empty(self) -> bool:
        """Whether no key can lie between the bounds (datum_range_t::is_empty)."""
        if (sign := order.compare(self.low, self.high)) != 0:
            return sign > 0
        return self.low_open or self.high_open

    def describe(self) -> str:
        return f"SELECTION ON table({self.table.name})"


class Selection(Value):
    """Rows of one table, which may be written to."""

    __slots__ = ("stream", "table")
    type_label = "SELECTION"

    def __init__(self, table: Table, stream: Any) -> None:
        self.table = table
        self.stream = stream

    def describe(self) -> str:
        return f"SELECTION ON table({self.table.name})"


class SingleSelection(Value):
    """One row (or the lack of one) of a table by primary key. The row stays JSON text until somebody looks inside.

    `origin` tells `changes` how the row was found: ("get",) or a description of the slice or stream it came from.
    find: gives the row when it is first asked for (the target of a write, or min and max of an index, whose key is
    not known either), instead of `text`. stored_key: `key` as it is stored, where that is known already.
    """

    __slots__ = ("_datum", "_find", "_key", "_loaded", "_text", "origin", "stored_key", "table")
    type_label = "SINGLE_SELECTION"

    def __init__(
        self,
        table: Table,
        key: Any,
        text: bytes | None,
        origin: Any = None,
        find: Callable[[], bytes | None] | None = None,
    ) -> None:
        self.table = table
        self._key = key
        self._text = text
        self._loaded = False
        self._datum: Any = None
        self._find = find
        self.stored_key: bytes | None = None
        self.origin = origin

    @property
    def key(self) -> Any:
        """The row's primary key."""
        if self._find is not None and self._key is None:
            self.datum()
        return self._key

    def text(self) -> bytes:
        """The row's JSON text, `null` if there is none."""
        if self._find is not None:
            self.datum()
        return b"null" if self._text is None else self._text

    def datum(self) -> Any:
        if not self._loaded:
            if self._find is not None:
                self._text = self._found(self._find)
                self._find = None
            if self._text is not None:
                self._datum = d.loads(self._text)
                if self._key is None:
                    self._key = self._datum[self.table.source.primary_key]
            self._loaded = True
        return self._datum

    @staticmethod
    def _found(find: Callable[[], bytes | None]) -> bytes | None:
        try:
            return find()
        except ReqlError as error:
            error.at = THE_TERM  # whichever looks at the row
            raise

    def describe(self) -> str:
        return d.print_datum(self.datum())


class Grouped(Value):
    """Grouped data: groups in the order of their keys once sorted. Maps hashable keys to (group, value)."""

    __slots__ = ("groups",)
    type_label = "GROUPED_DATA"

    def __init__(self, groups: dict[Any, tuple[Any, Any]] | None = None) -> None:
        self.groups = {} if groups is None else groups

    def items(self) -> Iterator[tuple[Any, Any]]:
        """(group, value) in the order of the groups."""
        return iter(sorted(self.groups.values(), key=lambda pair: order.sort_key(pair[0])))


class Func(Value):
    """A function. `run(env)` is its body, which finds the arguments in `env.slots`; arity 0 takes any number.

    body: the compiled body of a function of one argument, of which code may be made. maker: the body of any function.
    """

    __slots__ = (
        "arity", "body", "captured", "determinism", "env", "maker", "matches_object", "path", "raw", "run", "slots",
    )  # fmt: skip
    type_label = "FUNCTION"

    def __init__(
        self,
        env: Env,
        slots: tuple[int, ...],
        run: Callable[[Any], Any],
        path: Path,
        determinism: int,
        raw: Any = None,
        matches_object: bool = False,
        captured: Captures = NOTHING_CAPTURED,
    ) -> None:
        self.env = env
        self.body: Node | None = None
        self.maker: Node | None = None
        self.captured = captured
        self.slots = slots
        self.arity: int | None = len(slots)
        self.run = run
        self.path = path
        self.determinism = determinism
        self.raw = raw
        self.matches_object = matches_object

    def call(self, *arguments: Any) -> Any:
        """The body's value for these data; raises the arity error of RethinkDB."""
        slots = self.slots
        if slots:
            if len(slots) != len(arguments):
                self._wrong_arity(len(arguments))
            values = self.env.slots
            for slot, argument in zip(slots, arguments, strict=True):
                values[slot] = argument
        return self.run(self.env)

    def _wrong_arity(self, given: int) -> None:
        raise ReqlQueryLogicError(
            f"Expected function with {given} argument{'' if given == 1 else 's'} "
            f"but found function with {len(self.slots)} argument{'' if len(self.slots) == 1 else 's'}.",
            self.path,
        )

    def datum(self, *arguments: Any) -> Any:
        """The body's value as a datum."""
        value = self.call(*arguments)
        return value if value.__class__ in PLAIN else self.as_datum(value)

    def each(self, rows: list[Any]) -> list[Any]:
        """`datum` of every row: the hot loop of map, filter, group and aggregations."""
        slots = self.slots
        if len(slots) != 1:
            return [self.datum(row) for row in in_turns(self.env, rows)]
        code = self.row_code(len(rows))
        if code is not None:
            return self.use_code(code.each, rows, self.datum)
        slot, run, env = slots[0], self.run, self.env
        values = env.slots
        out: list[Any] = []
        add = out.append
        for row in in_turns(env, rows):
            values[slot] = row
            value = run(env)
            if value.__class__ not in PLAIN:
                value = self.as_datum(value)
            add(value)
        return out

    def row_code(self, rows: int) -> RowCode | None:
        """The code for the body, where so many rows are worth making it."""
        body = self.body
        if body is None or (body.code is None and rows < MIN_ROWS):
            return None
        return row_code(body, self.slots[0])

    def use_code(self, loop: Any, rows: list[Any], slow: Callable[[Any], Any]) -> list[Any]:
        """What a loop of the code gives; `slow` is asked about rows that it gives up."""
        env = self.env
        out: list[Any]
        out, given_up = loop(rows, env.params, env.array_limit, slow)
        if given_up * 2 > len(rows):
            self.body = None  # these rows are not what the code is for
        return out

    def as_datum(self, value: Any) -> Any:
        """The datum in what the body gave, blaming the body if there is none."""
        try:
            return as_datum(self.env, value)
        except ReqlError as error:
            if error.path is None:
                if error.at == THE_TERM:
                    error.path = self.path[:-1]  # the function itself looked at the row
                else:
                    error.path = self.place()
            raise

    def place(self) -> Path:
        """Where the value that the body gave last was made."""
        return self.path if self.maker is None else place_of(self.env, self.maker)


class NativeFunc(Func):
    """A function made by the server (shortcuts, rewrites): `call` runs Python. arity None takes any number."""

    __slots__ = ("native",)

    def __init__(
        self, env: Env, native: Callable[..., Any], arity: int | None, path: Path = (), determinism: int = ALWAYS
    ) -> None:
        super().__init__(env, (), self._no_body, path, determinism)
        self.native = native
        self.arity = arity

    @staticmethod
    def _no_body(env: Any) -> Any:
        raise AssertionError("a native function has no body")

    def call(self, *arguments: Any) -> Any:
        try:
            return self.native(*arguments)
        except ReqlError as error:
            if error.path is None:
                error.path = self.path
            raise


def type_label(value: Any) -> str:
    """The kind of any value as type errors name it."""
    return value.type_label if isinstance(value, Value) else "DATUM"


def describe(value: Any) -> str:
    """Any value as messages show it. What cannot be shown is the error then, and that of the term that looked."""
    try:
        return value.describe() if isinstance(value, Value) else d.print_datum(value)
    except ReqlError as error:
        error.at = THE_TERM
        raise


def describe_short(value: Any) -> str:
    """`describe`, cut as RethinkDB cuts it."""
    return truncate(describe(value))


def wrong_kind(expected: str, value: Any) -> ReqlQueryLogicError:
    """RethinkDB's type error between kinds of values (`rcheck_literal_type`)."""
    absent = value is None or (value.__class__ is SingleSelection and value.datum() is None)
    error = ReqlNonExistenceError if absent else ReqlQueryLogicError
    return error(f"Expected type {expected} but found {type_label(value)}:\n{describe(value)}")


def wrong_type(expected: str, value: Any) -> ReqlQueryLogicError:
    """RethinkDB's type error between types of data; null makes it a non-existence error."""
    error = ReqlNonExistenceError if value is None else ReqlQueryLogicError
    return error(f"Expected type {expected} but found {d.type_name(value)}.")


def as_datum(env: Any, value: Any) -> Any:
    """Any datum, or the row of a single selection."""
    if value.__class__ in PLAIN or value is d.MINVAL or value is d.MAXVAL:
        return value
    if value.__class__ is SingleSelection:
        return value.datum()
    raise wrong_kind("DATUM", value)


def _datum_of(env: Any, value: Any) -> Any:
    """`as_datum` for who wants one type: a row that cannot be read is blamed on its own term then (val_t::as_num)."""
    try:
        return as_datum(env, value)
    except ReqlError as error:
        error.at = None
        raise


def as_number(env: Any, value: Any) -> int | float:
    if value.__class__ is int or value.__class__ is float:
        return value
    value = _datum_of(env, value)
    if value.__class__ is int or value.__class__ is float:
        return value
    raise wrong_type("NUMBER", value)


def as_integer(env: Any, value: Any) -> int:
    """A whole number of up to 2**53 (datum_t::as_int)."""
    if value.__class__ is int:
        return value
    return d.to_int(as_number(env, value))


def as_string(env: Any, value: Any) -> str:
    if value.__class__ is str:
        return value
    value = _datum_of(env, value)
    if value.__class__ is str:
        return value
    raise wrong_type("STRING", value)


def as_bool(env: Any, value: Any) -> bool:
    """RethinkDB's truth: everything is true but false and null."""
    if value.__class__ is bool:
        return value
    value = _datum_of(env, value)
    if value.__class__ is bool:
        return value
    return value is not None


def as_array(env: Any, value: Any) -> list[Any]:
    if value.__class__ is list:
        return value
    value = as_datum(env, value)
    if value.__class__ is list:
        return value
    raise wrong_type("ARRAY", value)


def as_object(env: Any, value: Any) -> dict[str, Any]:
    """An object; pseudo-types count as objects here as in RethinkDB, except binary."""
    value = as_datum(env, value)
    if value.__class__ is dict and d.type_name(value) != "PTYPE<BINARY>":
        return value
    raise wrong_type("OBJECT", value)


def as_db(env: Any, value: Any) -> Db:
    if value.__class__ is Db:
        return value
    raise wrong_kind("DATABASE", value)


def as_table(env: Any, value: Any) -> Table:
    if value.__class__ is Table:
        return value
    raise wrong_kind("TABLE", value)


def as_slice(env: Any, value: Any) -> TableSlice:
    if value.__class__ is TableSlice:
        return value
    if value.__class__ is Table:
        return TableSlice(value)
    raise wrong_kind("TABLE_SLICE", value)


def as_single_selection(env: Any, value: Any) -> SingleSelection:
    if value.__class__ is SingleSelection:
        return value
    raise wrong_kind("SINGLE_SELECTION", value)


def as_func(env: Any, value: Any) -> Func:
    if isinstance(value, Func):
        return value
    raise wrong_kind("FUNCTION", value)


def as_func_or_constant(env: Any, value: Any) -> Func:
    """A function; a datum becomes the function that always gives it (CONSTANT_SHORTCUT)."""
    if isinstance(value, Func):
        return value
    if isinstance(value, Value) and value.__class__ is not SingleSelection:
        raise wrong_kind("FUNCTION", value)
    constant = as_datum(env, value)
    func = NativeFunc(env, lambda *_: constant, None)
    func.matches_object = constant.__class__ is dict and not d.is_ptype(constant, d.BINARY)
    return func


def check_array_size(env: Env, size: int) -> None:
    """Raises RethinkDB's error for arrays over the limit of this query."""
    if size > env.array_limit:
        fail_limit(
            f"Array over size limit `{env.array_limit}`.  To raise the number of allowed elements, modify the "
            "`array_limit` option to `.run` (not available in the Data Explorer), or use an index."
        )
