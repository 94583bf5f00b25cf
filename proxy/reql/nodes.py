"""Compiled terms, and what may stand in a raw tree besides what a driver can send. One rule: plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from model.errors import THE_TERM, Frame, Path, ReqlError
from proxy.reql.ids import Term

Run = Callable[[Any], Any]
MISSING: Final = object()


class Parameter(list[int]):
    """Stands in a raw tree for the n-th literal that was lifted out of it (see `shapes`): [0, n]."""

    __slots__ = ()


class Node:
    """A compiled term. `constant` is its value if it is a literal, else MISSING.

    made_by: of a term that hands on a value of another, gives that one's node (see `place_of`).
    slot: of a variable, where its value is. code: of a function's body, what `rowcode` made of it. at_once: of a write,
    as `run`, but it never waits, and gives None, with nothing done, where the general way is needed (see `one_row`).
    """

    __slots__ = (
        "arguments", "at_once", "code", "constant", "determinism", "has_no_code", "made_by", "optargs", "path", "raw",
        "run", "slot", "term",
    )  # fmt: skip

    def __init__(
        self,
        run: Run,
        term: int,
        path: Path,
        raw: Any,
        determinism: int = 0,
        constant: Any = MISSING,
        arguments: list[Node] | None = None,
        optargs: dict[str, Node] | None = None,
    ) -> None:
        self.run = run
        self.term = term
        self.path = path
        self.raw = raw
        self.determinism = determinism
        self.constant = constant
        self.arguments = arguments or []
        self.optargs = optargs or {}
        self.slot = -1
        self.code: Any = None
        self.has_no_code = False
        self.at_once: Run | None = None
        self.made_by: Callable[[Any], Node | None] | None = None


class Captures(NamedTuple):
    """What a function sees from outside: its variables by name, and `r.row`, with their slots (var_scope_t).

    implicit_depth: how many functions around it give `r.row` a meaning. implicit_slot: -1 if it does not use it.
    """

    variables: dict[int, int]
    implicit_depth: int
    implicit_slot: int


NOTHING_CAPTURED: Final = Captures({}, 0, -1)


class At:
    """A raw tree that keeps its own path inside a tree made by the server."""

    __slots__ = ("path", "raw")

    def __init__(self, path: Path, raw: Any) -> None:
        self.path = path
        self.raw = raw


class Compiled:
    """A node inside a raw tree made by the server."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


def constant_node(value: Any, path: Path, raw: Any) -> Node:
    return Node(lambda env: value, Term.DATUM, path, raw, constant=value)


def place_of(env: Any, node: Node) -> Path:
    """Where the value that `node` gave last was made, which is what RethinkDB blames for a value of a wrong type: a
    branch hands on its choice's value, an aggregation has the place of its sequence (val_t's backtrace)."""
    while node.made_by is not None:
        maker = node.made_by(env)
        if maker is None:
            break
        node = maker
    return node.path


def taken(convert: Callable[[Any, Any], Any], env: Any, value: Any, node: Node, path: Path) -> Any:
    """convert(env, value) for the term at `path`, which is blamed if a row cannot be read; else who made the value."""
    try:
        return convert(env, value)
    except ReqlError as error:
        if error.path is None:
            error.path = path if error.at == THE_TERM else place_of(env, node)
        raise


def argument(convert: Callable[[Any, Any], Any], env: Any, value: Any, at: Frame) -> Any:
    """convert(env, value) for argument or optarg `at` of the running term, which is named as the one to blame."""
    try:
        return convert(env, value)
    except ReqlError as error:
        if error.at != THE_TERM:
            error.at = at
        raise


def located(convert: Callable[[Any, Any], Any], env: Any, value: Any, path: Path) -> Any:
    """convert(env, value), blaming the term at `path` for an error."""
    try:
        return convert(env, value)
    except ReqlError as error:
        if error.path is None:
            error.path = path
        raise
