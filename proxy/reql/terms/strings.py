"""Terms on strings: match, split, format, case, and JSON as text (terms/string.cc, case.cc, json.cc).

One rule: positions are bytes of UTF-8 in `match`, as RE2 gives them, and characters everywhere else.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any, Final

import re2

from model import datum as d
from model import rapidjson
from model.errors import THE_TERM, ReqlNonExistenceError
from proxy.reql.ids import Term
from proxy.reql.registry import fail, term
from proxy.reql.terms.types import coerce_to
from proxy.reql.values import as_datum, as_integer, as_string, check_array_size, wrong_type

# ---- match -----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1000)
def _pattern(text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        portion = reason.partition(": ")[2]
        fail(f"Error in regexp `{text}` (portion `{portion}`): {reason}")


def _group(found: Any, number: int) -> dict[str, Any] | None:
    start, end = found.span(number)
    if start < 0:
        return None
    return {"end": end, "start": start, "str": found.group(number).decode(errors="replace")}


@term(Term.MATCH, "match", "2", takes=(as_string, as_string))
def match(env: Any, text: str, pattern: str) -> dict[str, Any] | None:
    """The first place where a regular expression matches, with its groups; null if there is none."""
    compiled = _pattern(pattern)
    found = compiled.search(text.encode())
    if found is None:
        return None
    groups = [_group(found, number) for number in range(1, compiled.groups + 1)]
    check_array_size(env, len(groups))
    whole = _group(found, 0)
    assert whole is not None
    return {**whole, "groups": groups}


# ---- split -----------------------------------------------------------------------------------------------------

_SPACES: Final = [*range(9, 14), 32, 133, 160, 5760, *range(8192, 8203), 8232, 8233, 8239, 8287, 12288]
_WORD: Final = re.compile(f"[^{''.join(map(chr, _SPACES))}]+")


def _as_separator(env: Any, value: Any) -> str | None:
    value = as_datum(env, value)
    if value is not None and value.__class__ is not str:
        error = wrong_type("STRING", value)
        error.at = THE_TERM
        raise error
    return value


@term(Term.SPLIT, "split", "1..3", takes=(as_string, _as_separator, as_integer))
def split(env: Any, text: str, separator: str | None = None, most: int = -1) -> list[str]:
    """The parts between separators: white space unless given, each character for an empty one."""
    if not -1 <= most <= env.array_limit - 1:
        fail(f"Error: `split` size argument must be in range [-1, {env.array_limit - 1}].")
    if separator is None:
        parts = _words(text, most)
    elif separator == "":
        # One part too many is enough to know that there are too many.
        parts = _characters(text, most if most >= 0 else env.array_limit)
    else:
        parts = text.split(separator, most)
    check_array_size(env, len(parts))
    return parts


def _words(text: str, most: int) -> list[str]:
    if most < 0:
        return _WORD.findall(text)
    parts: list[str] = []
    for word in _WORD.finditer(text):
        if len(parts) == most:
            return [*parts, text[word.start() :]]
        parts.append(word[0])
    return parts


def _characters(text: str, most: int) -> list[str]:
    """Each character together with the combining marks behind it; after so many parts the rest as one."""
    if text.isascii():
        return list(text) if len(text) <= most else [*text[:most], text[most:]]
    parts: list[str] = []
    begin = 0
    for at in range(1, len(text) + 1):
        if at < len(text) and unicodedata.category(text[at]).startswith("M"):
            continue
        if len(parts) == most:
            return [*parts, text[begin:]]
        parts.append(text[begin:at])
        begin = at
    return parts if text else []


# ---- case and templates ----------------------------------------------------------------------------------------

_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_TO_UPPER: Final = str.maketrans(_LOWER, _LOWER.upper())
_TO_LOWER: Final = str.maketrans(_LOWER.upper(), _LOWER)


@term(Term.UPCASE, "upcase", "1", takes=(as_string,))
def upcase(env: Any, text: str) -> str:
    """Only ASCII letters change."""
    return text.upper() if text.isascii() else text.translate(_TO_UPPER)


@term(Term.DOWNCASE, "downcase", "1", takes=(as_string,))
def downcase(env: Any, text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_TO_LOWER)


@term(Term.FORMAT, "format", "2", takes=(as_string, as_datum))
def format_(env: Any, template: str, fields: Any) -> str:
    """The template with every `{name}` replaced by that field as a string."""
    out: list[str] = []
    at = 0
    while at < len(template):
        if template[at] == "}":
            fail("No parameter tags to close")
        if template[at] != "{":
            out.append(template[at])
            at += 1
            continue
        name = _tag(template, at)
        out.append(_field_text(env, fields, name))
        at += len(name) + 2
    return "".join(out)


def _tag(template: str, at: int) -> str:
    """The name in the tag that opens at `at`."""
    end = at + 1
    while end < len(template) and template[end] != "}":
        letter = template[end]
        if letter == "{":
            fail("Nested template parameters are not allowed")
        if letter == ",":
            fail("Formatting separator `,` is not allowed in parameter name")
        if letter == "\\":
            fail("Reserved escape character `\\` is not allowed in parameter name")
        end += 1
    if end == len(template):
        fail("Parameter tag must be closed")
    return template[at + 1 : end]


def _field_text(env: Any, fields: Any, name: str) -> str:
    if not d.is_object(fields):
        d.expect(fields, "OBJECT")
    if name not in fields:
        raise ReqlNonExistenceError(f"No attribute `{name}` in object:\n{d.print_datum(fields)}")
    text: str = coerce_to(env, fields[name], "STRING")
    return text


# ---- JSON ------------------------------------------------------------------------------------------------------


@term(Term.JSON, "json", "1", takes=(as_string,))
def json_(env: Any, text: str) -> Any:
    """The datum that a JSON text stands for."""
    if "\0" in text:
        fail("Encountered unescaped null byte in JSON string.")
    try:
        value = rapidjson.parse(text)
    except rapidjson.BadJson as error:
        raw = text.encode()
        shown = raw[:37].decode(errors="ignore") + "..." if len(raw) > 40 else text
        fail(f'Failed to parse "{shown}" as JSON: {error}')
    if len(text) > env.array_limit:
        _check_arrays(env, value)
    return value


def _check_arrays(env: Any, value: Any) -> None:
    if value.__class__ is list:
        check_array_size(env, len(value))
        for item in value:
            _check_arrays(env, item)
    elif value.__class__ is dict:
        for item in value.values():
            _check_arrays(env, item)


@term(Term.TO_JSON_STRING, "to_json_string", "1", takes=(as_datum,))
def to_json_string(env: Any, value: Any) -> str:
    return d.json_text(value)
