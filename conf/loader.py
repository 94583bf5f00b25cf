"""Turns YAML and command-line values into frozen dataclasses, or says exactly what is wrong.

One rule: nothing is guessed. A wrong key, type or value is refused with its path, what was found and
what is allowed; all mistakes of a file are told at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from model.errors import BadSetting

T = TypeVar("T")

_SAY = {bool: "true or false", str: "text"}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (empty if the file is empty); raises BadSetting naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadSetting(f"Cannot read the settings file {path}: {reason}.") from error
    try:
        raw = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise BadSetting(f"{path} is not valid YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise BadSetting(f"{path} has to hold settings as `key: value`; it holds {_say_found(raw)}.")
    return raw


def override(raw: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `raw` with the value at a dotted path replaced; the sections on the way are made."""
    head, _, rest = path.partition(".")
    section = raw.get(head)
    changed = override(section if isinstance(section, Mapping) else {}, rest, value) if rest else value
    return {**raw, head: changed}


def build(cls: type[T], raw: Any) -> T:
    """An instance of the dataclass `cls` from nested mappings; raises BadSetting with every mistake found."""
    mistakes: list[str] = []
    built = _section(cls, raw, "", mistakes)
    if mistakes:
        raise BadSetting("\n".join(mistakes))
    return cast(T, built)


def _section(cls: type[Any], raw: Any, at: str, mistakes: list[str]) -> Any:
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        mistakes.append(f"{at.rstrip('.')}: found {_say_found(raw)}; allowed: a section of settings")
        return None
    known = {field.name: field for field in fields(cls)}
    kinds = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            mistakes.append(f"{at}{key}: no such setting; known here: {', '.join(sorted(known))}")
        elif is_dataclass(kinds[key]):
            values[key] = _section(cast(type[Any], kinds[key]), value, f"{at}{key}.", mistakes)
        else:
            wrong = _wrong(kinds[key], value, known[key].metadata)
            if wrong:
                found = "a value that is not shown" if known[key].metadata.get("secret") else _say_found(value)
                mistakes.append(f"{at}{key}: found {found}; allowed: {wrong}")
            values[key] = value
    return cls(**values) if not mistakes else None


def _wrong(kind: Any, value: Any, limits: Mapping[str, Any]) -> str:
    """What would be allowed, if `value` is not; else an empty text."""
    if get_origin(kind) in (Union, UnionType):
        wrongs = [_wrong(one, value, limits) for one in get_args(kind)]
        return "" if "" in wrongs else " or ".join(wrongs)
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        allowed = f"{', '.join(others)} or {last}" if others else last
        return "" if value in (*others, last) and isinstance(value, str) else allowed
    if kind is int:
        low, high = limits["low"], limits["high"]
        fits = type(value) is int and low <= value <= high
        return "" if fits else f"a whole number from {low} to {high}"
    if type(value) is not kind:
        return _SAY[kind]
    return "" if value or not limits.get("needed") else "text that is not empty"


def _say_found(value: Any) -> str:
    kind = {bool: "", int: "", str: "the text ", float: "the number ", type(None): "nothing"}.get(type(value))
    if kind is None:
        return "a list" if isinstance(value, list) else "a section" if isinstance(value, dict) else f"{value}"
    if value is None:
        return kind
    return f"{kind}{str(value).lower() if isinstance(value, bool) else repr(value)}"


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once in a section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands twice in one section", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
