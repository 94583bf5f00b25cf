"""Functions of one row as generated Python: one loop over a chunk, where closures would be called term by term.

One rule: generated code gives exactly what the closures give, or it gives a row up (`Unlikely`, or a field that is not
there) and the closures are asked about that row: they know every case, every error and its place. So only terms are
here that change nothing, and of those only the cases that are worth it.

An expression is written for each term, as text; what a query says gets into the text as the `repr` of a string,
number, boolean or null, and in no other way. Values of parameters (`p0`, `p1`) are known when a chunk comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from model import datum as d
from model import order
from model.errors import ReqlError
from proxy.reql.ids import Term
from proxy.reql.nodes import MISSING, Node, Parameter

MIN_ROWS: Final = 64  # in a chunk, for code to be worth being made: it takes 200 µs
MAX_DEPTH: Final = 12
MAX_NODES: Final = 60

Slow = Callable[[Any], Any]
"""The closures' answer for a row that the code gives up."""


class Unlikely(Exception):
    """A case that generated code leaves to the closures."""


class _NoCode(Exception):
    """The function has terms that no code is written for."""


def unlikely() -> Any:
    raise Unlikely


class RowCode(NamedTuple):
    """each(rows, params, limit, slow): the value for each row. keep: the rows whose value is true. And how many rows
    were given up. `slow` gives a value for `each`, whether the row stays for `keep`."""

    each: Callable[[list[Any], Any, int, Slow], tuple[list[Any], int]]
    keep: Callable[[list[Any], Any, int, Slow], tuple[list[Any], int]]


class _Text(NamedTuple):
    """An expression. kind: what its value is for sure: "bool", "number", "string", "array", "" for anything."""

    code: str
    kind: str = ""


def row_code(body: Node, slot: int) -> RowCode | None:
    """The code for a function's body whose one argument is in `slot`; None where there is none to be had."""
    code: RowCode | None = body.code
    if code is None and not body.has_no_code:
        try:
            code = _make(body, slot)
        except _NoCode:
            body.has_no_code = True
        body.code = code
    return code


_EACH: Final = """
def run(rows, params, limit, slow):
    {prologue}
    out, given_up = [], 0
    add = out.append
    for row in rows:
        try:
            if row.__class__ is not dict or PTYPE in row:
                raise Unlikely
            {step}
        except GIVEN_UP:
            given_up += 1
            {instead}
    return out, given_up
"""


def _make(body: Node, slot: int) -> RowCode:
    writer = _Writer(slot)
    text = writer.write(body, 0)
    prologue = "; ".join(writer.prologue) or "pass"
    test = text.code if text.kind == "bool" else f"{_truth(writer, text)}"
    each = _EACH.format(prologue=prologue, step=f"add({text.code})", instead="add(slow(row))")
    keep = _EACH.format(prologue=prologue, step=f"if {test}: add(row)", instead="if slow(row): add(row)")
    return RowCode(_compiled(each), _compiled(keep))


_NUMBERS: Final = frozenset((int, float))
_STRINGS: Final = frozenset((str,))
_NAMES: Final[dict[str, Any]] = {
    "__builtins__": {},
    "GIVEN_UP": (KeyError, Unlikely, ReqlError),
    "MAX_INT": d.MAX_INT,
    "NUMBERS": _NUMBERS,
    "COMPARABLE": _NUMBERS | _STRINGS,
    "NOTHING": frozenset(),
    "PTYPE": d.PTYPE_KEY,
    "STRINGS": _STRINGS,
    "Unlikely": Unlikely,
    "compare": order.compare,
    "dict": dict,
    "equal": order.equal,
    "int": int,
    "len": len,
    "list": list,
    "number": d.number,
    "str": str,
    "unlikely": unlikely,
}


def _compiled(source: str) -> Any:
    names = dict(_NAMES)
    exec(compile(source, "<row code>", "exec"), names)  # of nothing but `_Writer`'s own text: see the module's rule
    return names["run"]


def _truth(writer: _Writer, text: _Text) -> str:
    """The expression of whether a value counts as true: all but null and false does."""
    if text.kind == "bool":
        return text.code
    name = writer.name()
    return f"(({name} := {text.code}) is not None and {name} is not False)"


class _Writer:
    """Writes the expression of one function's body."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._names = 0
        self._nodes = 0
        self._parameters: dict[int, str] = {}
        self.prologue: list[str] = []

    def name(self) -> str:
        """A name for a value that is looked at more than once."""
        self._names += 1
        return f"v{self._names}"

    def write(self, node: Node, depth: int) -> _Text:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise _NoCode
        if node.constant is not MISSING:
            return self._constant(node.constant)
        if node.raw.__class__ is Parameter:
            return _Text(self._parameter(node.raw[1]))
        write = _WRITERS.get(node.term)
        if write is None or any(argument.term == Term.ARGS for argument in node.arguments):
            raise _NoCode
        return write(self, node, depth + 1)

    def _constant(self, value: Any) -> _Text:
        kind = _KINDS.get(value.__class__)
        if kind is None:
            raise _NoCode
        return _Text(repr(value), kind)

    def _parameter(self, number: int) -> str:
        name = self._parameters.get(number)
        if name is None:
            name = self._parameters[number] = f"p{number}"
            self.prologue.append(f"{name} = params[{int(number)}]")
        return name

    def is_row(self, node: Node) -> bool:
        return node.slot == self._slot

    def two(self, node: Node, depth: int) -> tuple[_Text, _Text]:
        """The two arguments of a term; of those with more nothing is known here."""
        if len(node.arguments) != 2 or node.optargs:
            raise _NoCode
        left, right = node.arguments
        return self.write(left, depth), self.write(right, depth)


_KINDS: Final[dict[type, str]] = {
    str: "string", int: "number", float: "number", bool: "bool", type(None): "",
}  # fmt: skip

_Write = Callable[[_Writer, Node, int], _Text]
_WRITERS: Final[dict[int, _Write]] = {}


def _writes(*terms: Term) -> Callable[[_Write], _Write]:
    def declare(write: _Write) -> _Write:
        for term in terms:
            _WRITERS[int(term)] = write
        return write

    return declare


# ---- the row and its fields ------------------------------------------------------------------------------------


@_writes(Term.VAR, Term.IMPLICIT_VAR)
def _row(writer: _Writer, node: Node, depth: int) -> _Text:
    if not writer.is_row(node):
        raise _NoCode
    return _Text("row")


@_writes(Term.BRACKET, Term.GET_FIELD)
def _field(writer: _Writer, node: Node, depth: int) -> _Text:
    if len(node.arguments) != 2 or node.optargs:
        raise _NoCode
    value, key = node.arguments
    if key.constant.__class__ is not str:
        raise _NoCode
    if writer.is_row(value):
        return _Text(f"row[{key.constant!r}]")
    inner, name = writer.write(value, depth), writer.name()
    return _Text(
        f"({name}[{key.constant!r}] if ({name} := {inner.code}).__class__ is dict and PTYPE not in {name} "
        "else unlikely())"
    )


@_writes(Term.HAS_FIELDS)
def _has_fields(writer: _Writer, node: Node, depth: int) -> _Text:
    keys = [argument.constant for argument in node.arguments[1:]]
    if not keys or not writer.is_row(node.arguments[0]) or any(key.__class__ is not str for key in keys):
        raise _NoCode
    return _Text("(" + " and ".join(f"row.get({key!r}) is not None" for key in keys) + ")", "bool")


@_writes(Term.DEFAULT)
def _default(writer: _Writer, node: Node, depth: int) -> _Text:
    """Of a field of the row, a literal instead: the usual case, and one that can go wrong in no other way."""
    if len(node.arguments) != 2:
        raise _NoCode
    value, instead = node.arguments
    if value.term not in (Term.BRACKET, Term.GET_FIELD):
        raise _NoCode
    if instead.constant is MISSING and instead.raw.__class__ is not Parameter:
        raise _NoCode
    if len(value.arguments) != 2 or not writer.is_row(value.arguments[0]):
        raise _NoCode
    key = value.arguments[1].constant
    if key.__class__ is not str:
        raise _NoCode
    name = writer.name()
    return _Text(f"({name} if ({name} := row.get({key!r})) is not None else {writer.write(instead, depth).code})")


# ---- logic and comparisons -------------------------------------------------------------------------------------


def _logic(term: Term, word: str) -> None:
    @_writes(term)
    def write(writer: _Writer, node: Node, depth: int) -> _Text:
        parts = [writer.write(argument, depth) for argument in node.arguments]
        if not parts or any(part.kind != "bool" for part in parts):
            raise _NoCode
        return _Text("(" + f" {word} ".join(part.code for part in parts) + ")", "bool")


_logic(Term.AND, "and")
_logic(Term.OR, "or")


@_writes(Term.NOT)
def _not(writer: _Writer, node: Node, depth: int) -> _Text:
    if len(node.arguments) != 1:
        raise _NoCode
    return _Text(f"(not {_truth(writer, writer.write(node.arguments[0], depth))})", "bool")


def _comparison(term: Term, sign: str, rest: str) -> None:
    """Two numbers or two strings are compared as Python does it; `rest` does it for any data."""

    @_writes(term)
    def write(writer: _Writer, node: Node, depth: int) -> _Text:
        left, right = writer.two(node, depth)
        a, b = writer.name(), writer.name()
        first, second = f"({a} := {left.code})", f"({b} := {right.code})"
        for kind, classes in (("number", "NUMBERS"), ("string", "STRINGS")):
            if right.kind == kind:
                fits = f"{first}.__class__ in {classes}"
                return _Text(f"({a} {sign} {right.code} if {fits} else {rest.format(a=a, b=right.code)})", "bool")
        fits = f"{first}.__class__ is {second}.__class__ and {a}.__class__ in COMPARABLE"
        return _Text(f"({a} {sign} {b} if {fits} else {rest.format(a=a, b=b)})", "bool")


_comparison(Term.EQ, "==", "equal({a}, {b})")
_comparison(Term.NE, "!=", "not equal({a}, {b})")
_comparison(Term.LT, "<", "compare({a}, {b}) < 0")
_comparison(Term.LE, "<=", "compare({a}, {b}) <= 0")
_comparison(Term.GT, ">", "compare({a}, {b}) > 0")
_comparison(Term.GE, ">=", "compare({a}, {b}) >= 0")


# ---- numbers, strings, arrays ----------------------------------------------------------------------------------


def _arithmetic(term: Term, result: str, condition: str = "") -> None:
    """Two numbers; a whole result that is exact is the usual case. Times, strings and arrays are left out."""

    @_writes(term)
    def write(writer: _Writer, node: Node, depth: int) -> _Text:
        left, right = writer.two(node, depth)
        a, b = writer.name(), writer.name()
        fits = f"({a} := {left.code}).__class__ in NUMBERS and ({b} := {right.code}).__class__ in NUMBERS{condition}"
        return _Text(f"({result} if {fits.format(a=a, b=b)} else unlikely())".format(a=a, b=b), "number")


_arithmetic(Term.ADD, "number({a} + {b})")
_arithmetic(Term.SUB, "number({a} - {b})")
_arithmetic(Term.MUL, "number({a} * {b})", " and {a} and {b}")  # 0 * -1 is -0.0
_arithmetic(Term.DIV, "number({a} / {b})", " and {b}")


@_writes(Term.SPLIT)
def _split(writer: _Writer, node: Node, depth: int) -> _Text:
    """A string by a string; there are fewer parts than the array limit if there are fewer characters."""
    text, separator = writer.two(node, depth)
    a, b = writer.name(), writer.name()
    fits = f"({a} := {text.code}).__class__ is str and ({b} := {separator.code}).__class__ is str"
    return _Text(f"({a}.split({b}) if {fits} and {b} and len({a}) < limit else unlikely())", "array")


@_writes(Term.COUNT)
def _count(writer: _Writer, node: Node, depth: int) -> _Text:
    if len(node.arguments) != 1:
        raise _NoCode
    inner = writer.write(node.arguments[0], depth)
    if inner.kind in ("array", "string"):
        return _Text(f"len({inner.code})", "number")
    a = writer.name()
    return _Text(
        f"(len({a}) if ({a} := {inner.code}).__class__ is list or {a}.__class__ is str else unlikely())", "number"
    )


@_writes(Term.MAKE_ARRAY)
def _make_array(writer: _Writer, node: Node, depth: int) -> _Text:
    items = ", ".join(writer.write(argument, depth).code for argument in node.arguments)
    return _Text(f"([{items}] if limit >= {len(node.arguments)} else unlikely())", "array")


@_writes(Term.MAKE_OBJ)
def _make_object(writer: _Writer, node: Node, depth: int) -> _Text:
    if d.PTYPE_KEY in node.optargs:
        raise _NoCode
    fields = ", ".join(f"{key!r}: {writer.write(value, depth).code}" for key, value in node.optargs.items())
    return _Text(f"{{{fields}}}")
