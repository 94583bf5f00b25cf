"""What a response's header and body come to as data (extproc/http_job.cc).

One rule: what cannot be read raises BadResponse with RethinkDB's words, and the body as text where it helps.
"""

from __future__ import annotations

from typing import Any, Final

import re2

from model.errors import ReqlError
from model.pseudo_binary import make_binary
from model.rapidjson import BadJson, parse
from proxy.reql.web import WebResponse

JSON_TYPES: Final = ("application/json",)
JSONP_TYPES: Final = ("text/javascript", "application/json-p", "text/json-p")
BINARY_TYPES: Final = ("audio/", "image/", "video/", "application/octet-stream")

_LINK: Final = re2.compile(r"\s*<([^>]*)>\s*(?:;\s*([^,]+)\s*(?:,|$))")
_LETTER: Final = r"[$_\p{Ll}\p{Lt}\p{Lu}\p{Lm}\p{Lo}\p{Nl}]"
_NAME: Final = rf"\s*{_LETTER}[$_\p{{Ll}}\p{{Lt}}\p{{Lu}}\p{{Lm}}\p{{Lo}}\p{{Nl}}\p{{Mn}}\p{{Mc}}\p{{Nd}}\p{{Pc}}]*\s*"
_CALL: Final = r"\(((?s).*)\)\s*;?\s*"
_PADDED: Final = [
    re2.compile(caller + _CALL) for caller in (_NAME, rf"{_NAME}\.{_NAME}", rf"{_NAME}\[\s*['\"].*['\"]\s*\]\s*")
]


class BadResponse(Exception):
    """`body`: what to show of it."""

    def __init__(self, message: str, body: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.body = body


def header_of(response: WebResponse) -> dict[str, Any]:
    """The header with small letters; of several lines with one name the last. `link` is taken apart."""
    out: dict[str, Any] = {}
    links: dict[str, str] = {}
    for name, value in response.header:
        key = name.lower()
        if key == "link":
            links.update(_links(value))
        else:
            out[key] = value
    if links:
        out["link"] = links
    return out


def _links(line: str) -> dict[str, str]:
    """From what is said of each link (`rel="next"`) to its address."""
    found = {}
    at = 0
    while (match := _LINK.match(line, at)) is not None:
        found[match[2]] = match[1]
        at = match.end()
    if at != len(line):
        raise BadResponse(f"failed to parse link header line: '{line[at:]}'")
    return found


def text_of(response: WebResponse) -> str:
    """The body as text; what is no UTF-8 is replaced."""
    return response.body.decode("utf-8", "replace")


def body_of(response: WebResponse, form: str) -> Any:
    """The body as `result_format` wants it: auto, json, jsonp, text or binary."""
    if form == "binary":
        return make_binary(response.body)
    if form == "text":
        return text_of(response)
    if form == "json":
        return _json(text_of(response))
    if form == "jsonp":
        return _padded_json(text_of(response))
    kind = response.content_type.lower()
    if kind.startswith(JSON_TYPES):
        return _json(text_of(response))
    if kind.startswith(JSONP_TYPES):
        return _script(text_of(response))
    if kind.startswith(BINARY_TYPES):
        return make_binary(response.body)
    return text_of(response)


def _script(text: str) -> Any:
    """JSON, padded or not, or else the text."""
    for read in (_json, _padded_json):
        try:
            return read(text)
        except BadResponse:
            continue
    return text


def _json(text: str) -> Any:
    try:
        return parse(text)
    except BadJson as error:
        raise BadResponse(f"failed to parse JSON response: {error}", text) from None
    except ReqlError as error:
        raise BadResponse(error.message) from None


def _padded_json(text: str) -> Any:
    for pattern in _PADDED:
        match = pattern.fullmatch(text)
        if match is not None:
            return _json(match[1])
    raise BadResponse("failed to parse JSONP response", text)
