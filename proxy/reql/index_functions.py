"""Index functions outside of queries: from a stored definition to a function from a row's JSON text to index keys.

One rule: they are deterministic and see nothing but the row, so that every replica computes the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model import datum as d
from model.catalog import Index, Table
from model.errors import ReqlError
from model.keys import index_key_bytes
from proxy.reql import terms as _terms  # noqa: F401  (fills the registry)
from proxy.reql.compiler import Compiler
from proxy.reql.env import Env, World
from proxy.reql.geo_index import index_keys_of
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


def index_keys(table: Table, index: Index) -> Callable[[bytes], list[bytes]]:
    """The port of the state machine: (row's JSON text) -> index key bytes. Values that cannot be keys are left out."""
    definition = index.definition
    function = compile_function(definition["function"])
    multi = bool(definition.get("multi"))
    if definition.get("geo"):
        return lambda row: index_keys_of(index_values(function, multi, d.loads(row)))

    def keys(row: bytes) -> list[bytes]:
        out = []
        for value in index_values(function, multi, d.loads(row)):
            try:
                out.append(index_key_bytes(value))
            except ReqlError:
                continue  # a value that cannot be a key: the row is not in the index under it
        return out

    return keys
