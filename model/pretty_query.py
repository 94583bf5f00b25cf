"""The text of a stored function, as `index_status` and `get_write_hook` show it in their field `query`.

RethinkDB prints functions as its JavaScript driver would spell them, in lines of about 80 characters:
`indexCreate('x', function(var1) { return r.add(var1("a"), 1); })`. Tools compare these texts, so the
one rule is to print what RethinkDB prints, its oddities included: strings are not escaped, a chain of
calls on a row loses the `r.` of what is inside its arguments, nothing is printed below 15 terms.

Two steps, as in RethinkDB's `pprint/js_pprint.cc` and `pprint/pprint.cc`: a term becomes a document of
texts, possible line breaks and indentations; the document is laid out in a width. The numbers of terms
are the caller's: `names` maps them to the names of the protocol.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model.function_blob import FunctionBlob

_WIDTH = 80
_DEPTH_MAX = 15
_DATUM_DEPTH_MAX = 100
_BASE64_LINE = 76
_WORD = 1 << 64


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Not called on what comes before them with a dot: r.eq(a, b), not a.eq(b).
_PREFIX_TERMS = _words(
    """ERROR UUID HTTP DB EQ NE LT LE GT GE NOT ADD SUB MUL DIV MOD BIT_AND BIT_OR BIT_XOR BIT_NOT BIT_SAL BIT_SAR
    OBJECT RANGE DB_CREATE DB_DROP DB_LIST BRANCH OR AND JSON ISO8601 EPOCH_TIME NOW TIME MONDAY TUESDAY WEDNESDAY
    THURSDAY FRIDAY SATURDAY SUNDAY JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER
    DECEMBER LITERAL RANDOM GEOJSON POINT LINE POLYGON CIRCLE DATUM VAR MAKE_ARRAY MAKE_OBJ ARGS JAVASCRIPT ASC DESC
    MINVAL MAXVAL"""
)
_CONSTANTS = _words(
    """MINVAL MAXVAL IMPLICIT_VAR MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY JANUARY FEBRUARY MARCH APRIL
    MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER"""
)

Names = Callable[[int], str]


def index_query(name: str, function: FunctionBlob, names: Names) -> str:
    """The `query` of an index in `index_status`. names: number of a term -> its name in the protocol, `GET_FIELD`."""
    options = [f"{option}: true" for option in ("multi", "geo") if getattr(function, option)]
    tail = f", {{{', '.join(options)}}}" if options else ""
    return f"indexCreate('{name}', {function_text(function, names)}{tail})"


def write_hook_query(function: FunctionBlob, names: Names) -> str:
    """The `query` of a table's write hook in `get_write_hook`."""
    return f"setWriteHook({function_text(function, names)})"


def function_text(function: FunctionBlob, names: Names) -> str:
    if function.js_source is not None:
        return f"r.js({function.js_source})"
    if function.captured:
        return "non-printable function (captured scope not empty)"
    arguments = ", ".join(_variable_name(arg_id) for arg_id in function.arg_ids)
    return f"function({arguments}) {{ return {term_text(function.body, names)}; }}"


def term_text(term: Any, names: Names) -> str:
    """A driver's term as JavaScript, broken into lines of about 80 characters."""
    return _lay_out(_Printer(names).term(term))


def _variable_name(number: int) -> str:
    return f"_var{-number}" if number < 0 else f"var{number}"


# --- the document -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Break:
    """A place for a line break: `flat` is printed without one, `after` on the next line with one. None: always one."""

    flat: str | None
    after: str = ""


@dataclass(frozen=True, slots=True)
class _Nest:
    """Lines inside start at the column where it begins; it is broken as a whole or not at all."""

    child: _Doc


@dataclass(frozen=True, slots=True)
class _End:
    """Where a _Nest ends, in the flat sequence."""


@dataclass(slots=True)
class _Begin:
    """Where a _Nest begins, in the flat sequence. `end`: column of its end if there were no line breaks."""

    end: int = 0


_Doc = str | _Break | _Nest | tuple["_Doc", ...]
_Element = str | _Break | _Begin | _End

_SPACE = _Break(" ")
_DOT = _Break(".", ".")
_NEWLINE = _Break(None)
_COMMA: _Doc = (",", _SPACE)


def _joined(docs: Sequence[_Doc]) -> tuple[_Doc, ...]:
    result: list[_Doc] = []
    for doc in docs:
        if result:
            result.append(_COMMA)
        result.append(doc)
    return tuple(result)


def _flatten(doc: _Doc) -> list[_Element]:
    elements: list[_Element] = []
    stack: list[_Doc | _End] = [doc]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))
        elif isinstance(item, _Nest):
            elements.append(_Begin())
            stack += [_End(), item.child]
        else:
            elements.append(item)
    return elements


def _columns(elements: list[_Element]) -> list[int]:
    """The column after each element if no line were broken, in UTF-8 bytes as RethinkDB counts; fills in _Begin.end."""
    columns = []
    column = 0
    open_nests: list[_Begin] = []
    for element in elements:
        if isinstance(element, str):
            column += len(element.encode("utf-8"))
        elif isinstance(element, _Break):
            column += len(element.flat or "")
        elif isinstance(element, _Begin):
            open_nests.append(element)
        else:
            open_nests.pop().end = column
        columns.append(column)
    return columns


def _lay_out(doc: _Doc, width: int = _WIDTH) -> str:
    """Breaks the lines of each nest that would pass the right edge. Arithmetic wraps at 64 bits, as RethinkDB's."""
    elements = _flatten(doc)
    columns = _columns(elements)
    output: list[str] = []
    indents: list[int] = []
    column = fitting = 0
    right_edge = width
    for element, flat_column in zip(elements, columns, strict=True):
        if isinstance(element, str):
            output.append(element)
            column += len(element.encode("utf-8"))
        elif isinstance(element, _Begin):
            indents.append(column)
            fitting = fitting + 1 if fitting or element.end <= right_edge else 0
        elif isinstance(element, _End):
            indents.pop()
            fitting = max(fitting - 1, 0)
        elif element.flat is not None and fitting:
            output.append(element.flat)
            column += len(element.flat)
        else:
            indent = indents[-1] if indents else 0
            output.append("\n" + " " * indent + element.after)
            fitting = 0
            column = indent + len(element.after)
            right_edge = (width - column + flat_column) % _WORD
    return "".join(output)


# --- from terms to the document ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Term:
    """A term taken apart. value: of a DATUM only."""

    name: str
    args: Sequence[Any] = ()
    options: dict[str, Any] | None = None
    value: Any = None


class _Printer:
    """State of one walk: how deep it is, whether it is inside r.expr(...), whether `r.` may be put in front."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.depth = 0
        self.in_expr = False
        self.may_prefix = True

    def split(self, term: Any) -> _Term:
        if isinstance(term, dict):
            return _Term("MAKE_OBJ", options=term)
        if not isinstance(term, list):
            return _Term("DATUM", value=term)
        if term[0] == 1:
            return _Term("DATUM", value=term[1])
        args = next((part for part in term[1:] if isinstance(part, list)), ())
        options = next((part for part in term[1:] if isinstance(part, dict)), None)
        return _Term(self.names(term[0]), args, options)

    def term(self, raw: Any) -> _Doc:
        outer_expr = self.in_expr
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            return "..."  # RethinkDB leaves the depth as it is here, so what follows is cut one level earlier
        doc = self._by_name(self.split(raw), outer_expr)
        self.in_expr = outer_expr
        self.depth -= 1
        return doc

    def _by_name(self, term: _Term, outer_expr: bool) -> _Doc:
        match term.name:
            case "DATUM":
                doc = _datum(term.value)
                return doc if self.in_expr else self.prefixed(("expr(", _Nest(doc), ")"))
            case "FUNCALL":
                return self.chain(term) if len(term.args) == 2 else self.do(term)
            case "MAKE_ARRAY":
                doc = self.array(term)
                return doc if outer_expr else self.prefixed(("expr(", _Nest(doc), ")"))
            case "MAKE_OBJ":
                self.in_expr = True
                return self.object(term) if outer_expr else self.wrapped_object(term)
            case "FUNC":
                return self.function(term)
            case "VAR":
                return self.variable(term)
            case "IMPLICIT_VAR":
                return self.prefixed("row")
        if _continues_chain(term):
            return self.chain(term)
        if term.args or term.name not in _CONSTANTS:
            return self.call(term)
        return self.prefixed(_camel(term.name))

    def prefixed(self, doc: _Doc) -> _Doc:
        return ("r", _Nest((".", doc))) if self.may_prefix else doc

    def all(self, raws: Sequence[Any]) -> list[_Doc]:
        """Terms inside r.expr(...) or an argument list."""
        outer_expr, self.in_expr = self.in_expr, True
        docs = [self.term(raw) for raw in raws]
        self.in_expr = outer_expr
        return docs

    def variable(self, term: _Term) -> _Doc:
        value = self.split(term.args[0]).value
        return _variable_name(round(value)) if isinstance(value, int | float) else "var"

    def array(self, term: _Term) -> _Doc:
        return ("[", _Nest(_joined(self.all(term.args))), "]")

    def object(self, term: _Term) -> _Doc:
        pairs = [_Nest((f'"{_cut(key)}":', _SPACE, self.term(item))) for key, item in (term.options or {}).items()]
        return ("{", _Nest(_joined(pairs)), "}")

    def wrapped_object(self, term: _Term) -> _Doc:
        parts: list[_Doc] = []
        for key, item in (term.options or {}).items():
            parts += [f'"{_cut(key)}"', self.term(item)]
        return self.prefixed(("object(", _Nest(_Nest(_joined(parts))), ")"))

    def options(self, term: _Term) -> _Doc:
        pairs = [_Nest((f'"{_camel(key)}":', _SPACE, self.term(item))) for key, item in (term.options or {}).items()]
        return ("{", _Nest(_joined(pairs)), "}")

    def call(self, term: _Term) -> _Doc:
        outer_expr, self.in_expr = self.in_expr, True
        parts = [self.term(raw) for raw in term.args]
        if term.options:
            parts.append(self.options(term))
        self.in_expr = outer_expr
        name = "js" if term.name == "JAVASCRIPT" else _camel(term.name)
        return self.prefixed((name, "(", _Nest(_joined(parts)), ")"))

    def do(self, term: _Term) -> _Doc:
        values = _joined(self.all(term.args[1:]))
        if values:
            values = (*values, _COMMA)
        return self.prefixed(("do(", self.term(term.args[0]), _Nest(values), ")"))

    def function(self, term: _Term) -> _Doc:
        arguments = self.split(term.args[0])
        raws = arguments.value if arguments.name == "DATUM" else arguments.args
        parts = _joined([_variable_name(round(self.split(raw).value)) for raw in raws])
        outer_expr, self.in_expr = self.in_expr, False
        body: _Doc = ("return ", _Nest(self.term(term.args[1])), ";")
        self.in_expr = outer_expr
        head = _Nest(("tion (", _Nest(parts), ") {", _NEWLINE, body))
        return _Nest(("func", head, _NEWLINE, "}"))

    # A chain r.a(1).b(2)(3) is collected from its end to its start, then turned around.

    def chain(self, term: _Term) -> _Doc:
        links: list[_Doc] = []
        wrap = False
        left: Any = term
        while left is not None and _continues_chain(left):
            wrap, raw = self._link(left, links)
            left = None if raw is _CHAIN_START else self.split(raw)
        if left is None:
            doc = tuple(reversed(links))
            return self.prefixed(doc) if wrap else doc
        if left.name not in ("VAR", "DATUM"):
            outer_prefix, self.may_prefix = self.may_prefix, False
            start = self.term(raw)
            self.may_prefix = outer_prefix
            return self.prefixed((start, *reversed(links)))
        if links and links[-1] is _DOT:
            links[-1] = "."
        return _Nest((self.term(raw), *reversed(links)))

    def _link(self, term: _Term, links: list[_Doc]) -> tuple[bool, Any]:
        """Adds a link; -> whether the chain needs `r.` if it starts here, and the term to its left or _CHAIN_START."""
        if term.name == "BRACKET":
            outer_expr, self.in_expr = self.in_expr, True
            links.append(")")
            if term.options:
                links += [self.options(term), _SPACE, ","]
            links.append(self.term(term.args[1]))
            self.in_expr = outer_expr
            links.append("(")
            return False, term.args[0]
        if term.name == "FUNCALL":
            outer_expr, self.in_expr = self.in_expr, True
            links += [")", _Nest(self.term(term.args[0]))]
            self.in_expr = outer_expr
            links += ["(", "do", _DOT]
            return True, term.args[1]
        if term.name == "IMPLICIT_VAR":
            links.append("row")
            return True, _CHAIN_START
        return self._plain_link(term, links)

    def _plain_link(self, term: _Term, links: list[_Doc]) -> tuple[bool, Any]:
        outer_expr, self.in_expr = self.in_expr, True
        links.append(")")
        if term.options:
            links.append(self.options(term))
        if len(term.args) > 1:
            # RethinkDB prints the arguments from the last to the first; with its depth counter that shows
            parts = [self.term(raw) for raw in reversed(term.args[1:])]
            if term.options:
                links.append(_COMMA)
            links.append(_Nest(_joined(parts[::-1])))
        self.in_expr = outer_expr
        links += ["(", _camel(term.name)]
        if not term.args:
            return True, _CHAIN_START
        links.append(_DOT)
        return True, term.args[0]


_CHAIN_START: Any = object()


def _continues_chain(term: _Term) -> bool:
    if term.name in ("TABLE", "FUNCALL"):
        return len(term.args) == 2
    return term.name not in _PREFIX_TERMS


def _camel(name: str) -> str:
    """`GET_FIELD` -> `getField`, as the JavaScript driver spells names."""
    return re.sub("(_?)(.?)", lambda found: found[2].upper() or "_" if found[1] else found[2].lower(), name)


def _cut(text: str) -> str:
    """RethinkDB prints through C strings, which end at a NUL; nothing is escaped."""
    return text.partition("\0")[0]


def _datum(value: Any, depth: int = 0) -> _Doc:
    if depth > _DATUM_DEPTH_MAX:
        return "..."
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return f'"{_cut(value)}"'
    if isinstance(value, list):
        return ("[", _Nest(_joined([_datum(item, depth + 1) for item in value])), "]")
    if value.get("$reql_type$") == "BINARY":
        return ("Buffer(", _Nest((_binary(value), _COMMA, "'base64'")), ")")
    pairs = [_Nest((f'"{_cut(key)}":', _SPACE, _datum(value[key], depth + 1))) for key in sorted(value)]
    return _Nest(("{", *_joined(pairs), "}"))


def _number(value: int | float) -> str:
    if value != int(value):
        return f"{value:f}"
    whole = int(value)
    return str(whole if -_WORD // 2 <= whole < _WORD // 2 else -_WORD // 2)


def _binary(value: dict[str, Any]) -> str:
    try:
        text = base64.b64encode(base64.b64decode(str(value.get("data", "")))).decode("ascii")
    except binascii.Error:
        return ""
    return "\r\n".join(text[start : start + _BASE64_LINE] for start in range(0, len(text), _BASE64_LINE))
