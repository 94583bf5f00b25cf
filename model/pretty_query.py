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

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model.function_blob import FunctionBlob
from model.pretty_layout import COMMA, DOT, NEWLINE, SPACE, Doc, Nest, joined, lay_out
from model.pseudo_binary import binary_bytes, encode_base64

_WIDTH = 80
_DEPTH_MAX = 15
_DATUM_DEPTH_MAX = 100
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


def term_text(term: Any, names: Names, width: int = _WIDTH) -> str:
    """A driver's term as JavaScript, broken into lines of about `width` characters."""
    return lay_out(_Printer(names).term(term), width)


def _variable_name(number: int) -> str:
    return f"_var{-number}" if number < 0 else f"var{number}"


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

    def term(self, raw: Any) -> Doc:
        outer_expr = self.in_expr
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            return "..."  # RethinkDB leaves the depth as it is here, so what follows is cut one level earlier
        doc = self._by_name(self.split(raw), outer_expr)
        self.in_expr = outer_expr
        self.depth -= 1
        return doc

    def _by_name(self, term: _Term, outer_expr: bool) -> Doc:
        match term.name:
            case "DATUM":
                doc = _datum(term.value)
                return doc if self.in_expr else self.prefixed(("expr(", Nest(doc), ")"))
            case "FUNCALL":
                return self.chain(term) if len(term.args) == 2 else self.do(term)
            case "MAKE_ARRAY":
                doc = self.array(term)
                return doc if outer_expr else self.prefixed(("expr(", Nest(doc), ")"))
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

    def prefixed(self, doc: Doc) -> Doc:
        return ("r", Nest((".", doc))) if self.may_prefix else doc

    def all(self, raws: Sequence[Any]) -> list[Doc]:
        """Terms inside r.expr(...) or an argument list."""
        outer_expr, self.in_expr = self.in_expr, True
        docs = [self.term(raw) for raw in raws]
        self.in_expr = outer_expr
        return docs

    def variable(self, term: _Term) -> Doc:
        value = self.split(term.args[0]).value
        return _variable_name(round(value)) if isinstance(value, int | float) else "var"

    def array(self, term: _Term) -> Doc:
        return ("[", Nest(joined(self.all(term.args))), "]")

    def object(self, term: _Term) -> Doc:
        pairs = [Nest((f'"{_cut(key)}":', SPACE, self.term(item))) for key, item in (term.options or {}).items()]
        return ("{", Nest(joined(pairs)), "}")

    def wrapped_object(self, term: _Term) -> Doc:
        parts: list[Doc] = []
        for key, item in (term.options or {}).items():
            parts += [f'"{_cut(key)}"', self.term(item)]
        return self.prefixed(("object(", Nest(Nest(joined(parts))), ")"))

    def options(self, term: _Term) -> Doc:
        pairs = [Nest((f'"{_camel(key)}":', SPACE, self.term(item))) for key, item in (term.options or {}).items()]
        return ("{", Nest(joined(pairs)), "}")

    def call(self, term: _Term) -> Doc:
        outer_expr, self.in_expr = self.in_expr, True
        parts = [self.term(raw) for raw in term.args]
        if term.options:
            parts.append(self.options(term))
        self.in_expr = outer_expr
        name = "js" if term.name == "JAVASCRIPT" else _camel(term.name)
        return self.prefixed((name, "(", Nest(joined(parts)), ")"))

    def do(self, term: _Term) -> Doc:
        values = joined(self.all(term.args[1:]))
        if values:
            values = (*values, COMMA)
        return self.prefixed(("do(", self.term(term.args[0]), Nest(values), ")"))

    def function(self, term: _Term) -> Doc:
        arguments = self.split(term.args[0])
        raws = arguments.value if arguments.name == "DATUM" else arguments.args
        parts = joined([_variable_name(round(self.split(raw).value)) for raw in raws])
        outer_expr, self.in_expr = self.in_expr, False
        body: Doc = ("return ", Nest(self.term(term.args[1])), ";")
        self.in_expr = outer_expr
        head = Nest(("tion (", Nest(parts), ") {", NEWLINE, body))
        return Nest(("func", head, NEWLINE, "}"))

    # A chain r.a(1).b(2)(3) is collected from its end to its start, then turned around.

    def chain(self, term: _Term) -> Doc:
        links: list[Doc] = []
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
        if links and links[-1] is DOT:
            links[-1] = "."
        return Nest((self.term(raw), *reversed(links)))

    def _link(self, term: _Term, links: list[Doc]) -> tuple[bool, Any]:
        """Adds a link; -> whether the chain needs `r.` if it starts here, and the term to its left or _CHAIN_START."""
        if term.name == "BRACKET":
            outer_expr, self.in_expr = self.in_expr, True
            links.append(")")
            if term.options:
                links += [self.options(term), SPACE, ","]
            links.append(self.term(term.args[1]))
            self.in_expr = outer_expr
            links.append("(")
            return False, term.args[0]
        if term.name == "FUNCALL":
            outer_expr, self.in_expr = self.in_expr, True
            links += [")", Nest(self.term(term.args[0]))]
            self.in_expr = outer_expr
            links += ["(", "do", DOT]
            return True, term.args[1]
        if term.name == "IMPLICIT_VAR":
            links.append("row")
            return True, _CHAIN_START
        return self._plain_link(term, links)

    def _plain_link(self, term: _Term, links: list[Doc]) -> tuple[bool, Any]:
        outer_expr, self.in_expr = self.in_expr, True
        links.append(")")
        if term.options:
            links.append(self.options(term))
        if len(term.args) > 1:
            # RethinkDB prints the arguments from the last to the first; with its depth counter that shows
            parts = [self.term(raw) for raw in reversed(term.args[1:])]
            if term.options:
                links.append(COMMA)
            links.append(Nest(joined(parts[::-1])))
        self.in_expr = outer_expr
        links += ["(", _camel(term.name)]
        if not term.args:
            return True, _CHAIN_START
        links.append(DOT)
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


def _datum(value: Any, depth: int = 0) -> Doc:
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
        return ("[", Nest(joined([_datum(item, depth + 1) for item in value])), "]")
    if value.get("$reql_type$") == "BINARY":
        return ("Buffer(", Nest((_binary(value), COMMA, "'base64'")), ")")
    pairs = [Nest((f'"{_cut(key)}":', SPACE, _datum(value[key], depth + 1))) for key in sorted(value)]
    return Nest(("{", *joined(pairs), "}"))


def _number(value: int | float) -> str:
    if value != int(value):
        return f"{value:f}"
    whole = int(value)
    return str(whole if -_WORD // 2 <= whole < _WORD // 2 else -_WORD // 2)


def _binary(value: dict[str, Any]) -> str:
    try:
        return encode_base64(binary_bytes(value))
    except (KeyError, ValueError):
        return ""
