"""Breaking a text of nested parts into lines of a width, exactly as RethinkDB breaks its printed queries.

A document is made of texts, places for breaks and nests. One rule: the breaks of a nest are taken all
or none, and lines inside it start at the column where it begins. The method is Oppen's, in the
streaming form of Kiselyov, Peyton Jones and Sabry; RethinkDB's is `pprint/pprint.cc`, whose habits (widths
in bytes, arithmetic of 64 bits, breaks outside any nest always taken) are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WORD = 1 << 64


@dataclass(frozen=True, slots=True)
class Break:
    """A place for a line break: `flat` is printed without one, `after` on the next line with one. None: always one."""

    flat: str | None
    after: str = ""


@dataclass(frozen=True, slots=True)
class Nest:
    """Lines inside start at the column where it begins; it is broken as a whole or not at all."""

    child: Doc


@dataclass(frozen=True, slots=True)
class _End:
    """Where a Nest ends, in the flat sequence."""


@dataclass(slots=True)
class _Begin:
    """Where a Nest begins, in the flat sequence. `end`: column of its end if there were no line breaks."""

    end: int = 0


Doc = str | Break | Nest | tuple["Doc", ...]
_Element = str | Break | _Begin | _End

SPACE = Break(" ")
DOT = Break(".", ".")
NEWLINE = Break(None)
COMMA: Doc = (",", SPACE)


def joined(docs: Sequence[Doc]) -> tuple[Doc, ...]:
    result: list[Doc] = []
    for doc in docs:
        if result:
            result.append(COMMA)
        result.append(doc)
    return tuple(result)


def _flatten(doc: Doc) -> list[_Element]:
    elements: list[_Element] = []
    stack: list[Doc | _End] = [doc]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))
        elif isinstance(item, Nest):
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
        elif isinstance(element, Break):
            column += len(element.flat or "")
        elif isinstance(element, _Begin):
            open_nests.append(element)
        else:
            open_nests.pop().end = column
        columns.append(column)
    return columns


def lay_out(doc: Doc, width: int) -> str:
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
