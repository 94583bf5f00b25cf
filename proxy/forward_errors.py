"""Errors on their way from the server that ran a query to the one that was asked: as the drivers know them.

One rule: a class that only one room knows goes as the one of `model.errors` that it is of.
"""

from __future__ import annotations

from typing import Any

from model import errors
from model.errors import NotLeader, ReqlError, ReqlInternalError


def error_parts(error: BaseException) -> tuple[str, str, list[Any] | None]:
    """(class, message, path) of what ended a query."""
    if isinstance(error, ReqlError):
        return _class_of(error), error.message, None if error.path is None else list(error.path)
    return type(error).__name__, str(error), None


def _class_of(error: ReqlError) -> str:
    """The class that the other server knows: rooms have subclasses of their own."""
    names: list[str] = [kind.__name__ for kind in type(error).__mro__]
    known = [name for name, kind in zip(names, type(error).__mro__, strict=True) if getattr(errors, name, None) is kind]
    return known[0]


def error_from(name: str, message: str, path: list[Any] | None) -> Exception:
    """The error that another server raised; NotLeader if nothing was done there."""
    if name == "NotLeader":
        return NotLeader(message)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ReqlError):
        return kind(message, None if path is None else tuple(path))
    return ReqlInternalError(message)
