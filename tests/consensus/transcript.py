"""Transcripts: a text of directives with the output that each one has to give.

    # a comment
    command argument key=value key=(1,2,3)
    input lines
    ----
    expected output, up to an empty line

Expected output with empty lines in it stands between two doubled rules (`----` twice before, twice
after). A backslash at the end of a command line continues it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

RULE = "----"


@dataclass(slots=True)
class Directive:
    """One command with what it has to print."""

    line: int
    command: str
    words: list[str] = field(default_factory=list)
    """Arguments without a value."""
    options: dict[str, list[str]] = field(default_factory=dict)
    """Arguments with a value, or with several in parentheses."""
    input: str = ""
    expected: str = ""

    def option(self, name: str, default: str = "") -> str:
        """The single value of an option."""
        values = self.options.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """Whether an option says true."""
        return self.option(name, "false").lower() in ("true", "t", "1")


def parse(text: str) -> Iterator[Directive]:
    """The directives of a transcript."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if not line or line.startswith("#"):
            at += 1
            continue
        start = at
        while line.endswith("\\"):
            at += 1
            line = line[:-1] + " " + lines[at].strip()
        directive = _command(start + 1, line)
        at += 1
        given: list[str] = []
        while at < len(lines) and lines[at] != RULE:
            given.append(lines[at])
            at += 1
        directive.input = "\n".join(given)
        directive.expected, at = _expected(lines, at + 1)
        yield directive


def _expected(lines: list[str], at: int) -> tuple[str, int]:
    found: list[str] = []
    if at < len(lines) and lines[at] == RULE:
        at += 1
        while lines[at : at + 2] != [RULE, RULE]:
            found.append(lines[at])
            at += 1
        return "\n".join(found), at + 2
    while at < len(lines) and lines[at].strip():
        found.append(lines[at])
        at += 1
    return "\n".join(found), at


def _command(line: int, text: str) -> Directive:
    command, _, rest = text.partition(" ")
    directive = Directive(line, command)
    for word in _words(rest):
        key, equals, value = word.partition("=")
        if not equals:
            directive.words.append(word)
        elif value.startswith("("):
            inner = value.strip("()")
            directive.options[key] = [each.strip() for each in inner.replace(",", " ").split()]
        else:
            directive.options[key] = [value]
    return directive


def _words(text: str) -> Iterator[str]:
    """Words at spaces, except those inside parentheses."""
    word, depth = "", 0
    for character in text + " ":
        depth += (character == "(") - (character == ")")
        if character.isspace() and not depth:
            if word:
                yield word
            word = ""
        else:
            word += character
