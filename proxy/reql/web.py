"""The port through which `r.http` fetches: what is asked for and what comes back, as plain values.

One rule: whoever implements it decides which addresses may be reached; nobody here opens a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(slots=True, frozen=True)
class Login:
    """kind: "basic" or "digest"."""

    kind: str
    user: str
    password: str


@dataclass(slots=True, frozen=True)
class WebRequest:
    """url: complete, as bytes on the wire will have it. header: whole lines. cookies: as a WebResponse had them."""

    method: str
    url: str
    header: Sequence[str] = ()
    body: bytes | None = None
    login: Login | None = None
    cookies: Sequence[str] = ()
    timeout_ms: int = 30_000
    attempts: int = 5
    redirects: int = 1
    verify: bool = True


@dataclass(slots=True, frozen=True)
class WebResponse:
    """The last response, after redirects, logins and further attempts. header: names and values as received."""

    status: int
    header: Sequence[tuple[str, str]]
    body: bytes
    content_type: str
    cookies: Sequence[str]


class WebFailure(Exception):
    """There was no response. in_time: whether there was an outcome at all before the time was over."""

    def __init__(self, message: str, in_time: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.in_time = in_time


class Web(Protocol):
    def fetch(self, env: Any, request: WebRequest) -> WebResponse:
        """Waits for the response; raises WebFailure."""
