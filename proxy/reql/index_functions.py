"""Index functions outside of queries: from a stored definition to a function from a row's JSON text to index keys.

One rule: they are deterministic and see nothing but the row, so that every replica computes the same keys.
"""

from __future__ import annotations

from typing import Any, Final

from model.catalog import Index, Table
from model.errors import ReqlError
from model.index_function import Decode, Fields, IndexFunction
from model.keys import index_key_bytes
from model.keys import index_keys as keys_of_value
from proxy.reql.compiler import Compiler
from proxy.reql.env import Env, World
from proxy.reql.geo.index import index_keys_of
from proxy.reql.partial import decode_all, decoder, fields_read
from proxy.reql.rowcode import MIN_ROWS
from proxy.reql.values import Func


class NoFibers:
    """The fibers port for code that runs straight through."""

    def wait(self, deferred: Any, timeout_s: float | None = None) -> Any:
        raise AssertionError("an index function does not wait")

    def wait_for(self, begin: Any, timeout_s: float | None = None) -> Any:
        raise AssertionError("an index function does not wait")

    def breathe(self) -> None:
        """Index functions are short."""


class NoWorld:
    """A world without data, time or dice; deterministic terms never ask for them."""

    data: Any = None
    system: Any = None
    feeds: Any = None
    http: Any = None
    javascript: Any = None
    server_name = ""
    server_uuid = ""
    array_limit = 100_000
    durability = "hard"

    def now_s(self) -> float:
        raise AssertionError("a deterministic function does not ask for the time")

    def random(self) -> Any:
        raise AssertionError("a deterministic function throws no dice")

    def new_uuid(self) -> str:
        raise AssertionError("a deterministic function makes no UUID")


def compile_function(raw: Any, world: World | None = None) -> Func:
    """The function value of a raw FUNC term that stands alone (an index function, a write hook)."""

    compiler = Compiler()
    node = compiler.compile(raw)
    env = Env(world if world is not None else NoWorld(), NoFibers(), "admin", compiler.slot_count)  # type: ignore[arg-type]
    function = node.run(env)
    assert isinstance(function, Func)
    return function


def index_values(function: Func, multi: bool, row: Any) -> list[Any]:
    """The indexed values of a row: none if the function fails, one, or one per element of a multi index."""
    try:
        value = function.datum(row)
    except ReqlError:
        return []
    if multi and value.__class__ is list:
        return value
    return [value]


FAILED: Final = object()
"""Stands for the value of an index function that failed."""


def index_function(table: Table, index: Index) -> IndexFunction:
    """The port of the state machine: how an index's keys are computed. Values that cannot be keys are left out."""
    definition = index.definition
    function = compile_function(definition["function"])
    is_multi, is_geo = bool(definition.get("multi")), bool(definition.get("geo"))

    def keys_of(rows: list[Any]) -> list[list[bytes]]:
        out: list[list[bytes]] = []
        for value in _values(function, rows):
            if value is FAILED:
                out.append([])
            elif is_geo:
                out.append(index_keys_of(value if is_multi and value.__class__ is list else [value]))
            elif is_multi and value.__class__ is list:
                out.append(keys_of_value(value, multi=True))
            else:
                try:
                    out.append([index_key_bytes(value)])
                except ReqlError:
                    out.append([])  # a value that cannot be a key: the row is not in the index
        return out

    return IndexFunction(keys_of, fields_read(function), row_decoder)


def row_decoder(fields: Fields | None) -> Decode:
    """What decodes these fields of rows' JSON texts; None: all of them."""
    return decode_all if fields is None else decoder(fields)


def _values(function: Func, rows: list[Any]) -> list[Any]:
    """What an index function gives for each row."""

    def value_of(row: Any) -> Any:
        try:
            return function.datum(row)
        except ReqlError:
            return FAILED

    code = function.row_code(MIN_ROWS)  # it will be asked about every row that is ever written
    if code is None:
        return [value_of(row) for row in rows]
    values: list[Any] = code.each(rows, (), function.env.array_limit, value_of)[0]
    return values
