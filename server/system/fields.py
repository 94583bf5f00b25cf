"""Checks of rows that users write into system tables (clustering/administration/datum_adapter.cc).

One rule: every message is RethinkDB's, letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from model import datum as d
from model.catalog import Catalog, Database
from model.errors import ReqlOpFailedError
from proxy.reql.layouts import NAME, NAME_RULE

T = TypeVar("T")

UUID_TEXT: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


class Fields:
    """An object whose fields are taken one by one; what is left at the end is wrong."""

    def __init__(self, row: Any) -> None:
        if d.type_name(row) != "OBJECT":
            raise ReqlOpFailedError(f"Expected an object; got {d.print_datum(row)}")
        self._row = row
        self._extra = set(row)

    def take(self, name: str) -> Any:
        self._extra.discard(name)
        if name not in self._row:
            raise ReqlOpFailedError(f"Expected a field named `{name}`.")
        return self._row[name]

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def end(self) -> None:
        """Raises if there are fields that nobody took."""
        if self._extra:
            raise ReqlOpFailedError("Unexpected key(s): " + " ".join(sorted(self._extra, key=str.encode)))


@contextmanager
def within(place: str) -> Iterator[None]:
    """Puts where it is in front of the message of an error."""
    try:
        yield
    except ReqlOpFailedError as error:
        raise ReqlOpFailedError(f"{place}{error.message}") from error


def name(value: Any, what: str) -> str:
    """A name of something, such as a "table name"."""
    if value.__class__ is not str:
        raise ReqlOpFailedError(f"Expected a {what}; got {d.print_datum(value)}")
    if not NAME.match(value):
        raise ReqlOpFailedError(f"{d.print_datum(value)} is not a valid {what}; {NAME_RULE}")
    return str(value)


def string(value: Any) -> str:
    if value.__class__ is not str:
        raise ReqlOpFailedError(f"Expected a string; got {d.print_datum(value)}")
    return str(value)


def uuid(value: Any, what: str = "UUID") -> str:
    if value.__class__ is not str or not UUID_TEXT.match(value):
        raise ReqlOpFailedError(f"Expected a {what}; got {d.print_datum(value)}")
    return str(value).lower()


def is_uuid(value: Any) -> bool:
    return value.__class__ is str and UUID_TEXT.match(value) is not None


def array_of(value: Any, read: Callable[[Any], T]) -> list[T]:
    if value.__class__ is not list:
        raise ReqlOpFailedError(f"Expected an array, got {d.print_datum(value)}")
    return [read(item) for item in value]


def set_of(value: Any, read: Callable[[Any], T]) -> set[T]:
    """The different items of an array, none of which may be there twice."""
    items = array_of(value, read)
    out: set[T] = set()
    for at, item in enumerate(items):
        if item in out:
            raise ReqlOpFailedError(f"{d.print_datum(value[at])} was specified more than once.")
        out.add(item)
    return out


def database(value: Any, catalog: Catalog, form: str) -> Database:
    """A database by name, or by UUID if `form` says so."""
    if form == "uuid":
        found = catalog.databases_by_uuid.get(uuid(value))
        if found is None:
            raise ReqlOpFailedError(f"There is no database with UUID `{value}`.")
        return found
    found = catalog.databases.get(name(value, "database name"))
    if found is None:
        raise ReqlOpFailedError(f"Database `{value}` does not exist.")
    return found
