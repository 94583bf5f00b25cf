"""JSON text to data, refusing what RethinkDB's JSON parser (rapidjson) refuses, in its words.

One rule: the fast parser decides whether the text is JSON; the slow one here only finds out what to say.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import orjson

from model.datum import canonical
from model.errors import ReqlQueryLogicError
from model.kinds import Datum
from model.printing import print_datum

MAX_DEPTH: Final = 1000  # less than orjson's own limit
_SPACE: Final = re.compile(r"[ \n\r\t]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FRACTION: Final = re.compile(r"\.([0-9]*)")
_EXPONENT: Final = re.compile(r"[eE][+-]?([0-9]*)")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{4}")


class BadJson(ValueError):
    """The text is not JSON; the message is rapidjson's."""


def parse(text: str) -> Datum:
    """The datum that the text stands for. Raises BadJson, and ReqlQueryLogicError for JSON that is no datum."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        _Fault(text).find()
    if "{" in text:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    return canonical(value)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ReqlQueryLogicError(f"Duplicate key {print_datum(key)} in JSON.")
            seen.add(key)
    return out


class _Fault:
    """Reads a text as rapidjson does, up to the first fault."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.deepest = 0

    def find(self) -> NoReturn:
        """Raises BadJson with the reason."""
        self._space()
        if self.at == len(self.text):
            raise BadJson("The document is empty.")
        self._values()
        self._space()
        if self.at < len(self.text):
            raise BadJson("The document root must not follow by other values.")
        if self.deepest > MAX_DEPTH:
            raise BadJson(f"The document is nested deeper than {MAX_DEPTH} levels.")
        raise BadJson("Unspecific syntax error.")

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match
        self.at = match.end()

    def _values(self) -> None:
        """One value with all that is in it, without recursion: the text may be deeper than Python goes."""
        open_brackets: list[str] = []
        while True:
            letter = self._next()
            if letter == "[" or letter == "{":
                self.at += 1
                self._space()
                if self._next() == "]}"[letter == "{"]:
                    self.at += 1
                else:
                    open_brackets.append(letter)
                    self.deepest = max(self.deepest, len(open_brackets))
                    if letter == "{":
                        self._name()
                    continue
            else:
                self._scalar(letter)
            if not self._after_value(open_brackets):
                return

    def _after_value(self, open_brackets: list[str]) -> bool:
        """Steps over what follows a value; False at the end of the outermost one."""
        while open_brackets:
            self._space()
            letter, is_object = self._next(), open_brackets[-1] == "{"
            if letter == ",":
                self.at += 1
                self._space()
                if is_object:
                    self._name()
                return True
            if letter != "]}"[is_object]:
                raise BadJson(
                    "Missing a comma or '}' after an object member."
                    if is_object
                    else "Missing a comma or ']' after an array element."
                )
            self.at += 1
            open_brackets.pop()
        return False

    def _name(self) -> None:
        if self._next() != '"':
            raise BadJson("Missing a name for object member.")
        self._string()
        self._space()
        if self._next() != ":":
            raise BadJson("Missing a colon after a name of object member.")
        self.at += 1
        self._space()

    def _scalar(self, letter: str) -> None:
        for word in ("null", "true", "false"):
            if letter == word[0]:
                if not self.text.startswith(word, self.at):
                    raise BadJson("Invalid value.")
                self.at += len(word)
                return
        if letter == '"':
            self._string()
        else:
            self._number()

    def _number(self) -> None:
        start = self.at
        match = _NUMBER.match(self.text, start)
        if match is None:
            raise BadJson("Invalid value.")
        self.at = match.end()
        for part, lacking in ((_FRACTION, "Miss fraction part in number."), (_EXPONENT, "Miss exponent in number.")):
            if match := part.match(self.text, self.at):
                if not match[1]:
                    raise BadJson(lacking)
                self.at = match.end()
        if float(self.text[start : self.at]) in (float("inf"), float("-inf")):
            raise BadJson("Number too big to be stored in double.")

    def _string(self) -> None:
        self.at += 1
        while (letter := self._next()) != '"':
            if not letter:
                raise BadJson("Missing a closing quotation mark in string.")
            self.at += 1
            if letter == "\\":
                self._escape()
            elif letter < " ":
                raise BadJson("Invalid escape character in string.")
        self.at += 1

    def _escape(self) -> None:
        letter = self._next()
        self.at += 1
        if letter == "u":
            code = self._hex()
            if 0xD800 <= code <= 0xDBFF:
                if self.text[self.at : self.at + 2] != "\\u":
                    raise BadJson("The surrogate pair in string is invalid.")
                self.at += 2
                if not 0xDC00 <= self._hex() <= 0xDFFF:
                    raise BadJson("The surrogate pair in string is invalid.")
        elif not letter or letter not in '"\\/bfnrt':
            raise BadJson("Invalid escape character in string.")

    def _hex(self) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            raise BadJson("Incorrect hex digit after \\u escape in string.")
        self.at = match.end()
        return int(match[0], 16)
