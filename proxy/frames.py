"""The bytes of the query protocol: frames in, response frames out. Pure.

A frame, either way, is token (8 bytes) + length (4 bytes), little-endian, + that many bytes of JSON. A query's
JSON is [type], [type, term] or [type, term, optargs]; a response's is

    {"t":type, "e":error type, "r":[items], "b":[backtrace], "p":profile, "n":[notes]}

One rule: a body is copied once out of what the socket gave and is otherwise left alone. Items of a response are
JSON texts already; they are joined, never parsed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from model.errors import ReqlClientError, ReqlError, ReqlResourceLimitError
from model.undecodable import UNDECODABLE
from proxy.answers import ARRAY, ATOM, PARTIAL, Answer
from proxy.large_queries import LARGE_QUERY_BYTES, loads_large

START: Final = 1
CONTINUE: Final = 2
STOP: Final = 3
NOREPLY_WAIT: Final = 4
SERVER_INFO: Final = 5

MAX_QUERY_BYTES: Final = 128 << 20  # a query has to be smaller
DRAIN_LIMIT_BYTES: Final = 1 << 30  # a query this large is not even read to its end
MAX_RESPONSE_BYTES: Final = (1 << 32) - 1

UNPARSEABLE: Final = "Client is buggy (failed to deserialize query)."

_HEADER = struct.Struct("<qI")  # RethinkDB prints tokens as signed numbers
HEADER_BYTES: Final = _HEADER.size
unpack_header = _HEADER.unpack_from
_pack = _HEADER.pack
_SMALL_BYTES: Final = 4096
_TAIL_BYTES: Final = 65536

Frame = tuple[int, bytes]


class FrameReader:
    """Cuts a byte stream into (token, body) frames, in whatever pieces it comes.

    A query of `max_query_bytes` or more is skipped, not stored: `refused` is then its (token, size), no further
    frame comes, and the caller answers and disconnects. While it is still being skipped, `is_draining` is true.
    """

    __slots__ = (
        "_chunks",
        "_discard",
        "_head",
        "_max_query_bytes",
        "_missing",
        "_oversize",
        "_size",
        "_tail",
        "is_clear",
        "refused",
        "token",
    )

    def __init__(self, max_query_bytes: int = MAX_QUERY_BYTES) -> None:
        self._max_query_bytes = max_query_bytes
        self._head = b""  # the beginning of a header
        self.token = 0  # of the current body
        self._size = 0  # of the current body
        self._missing = -1  # bytes of it still to come; -1: between frames
        self._chunks: list[bytes] = []  # what there is of the current body
        self._tail = bytearray()  # its last small pieces, so that a trickle of bytes costs no object each
        self._discard = 0  # bytes of an oversized body still to be skipped
        self._oversize: tuple[int, int] | None = None
        self.refused: tuple[int, int] | None = None
        self.is_clear = True  # the next byte begins a frame

    @property
    def is_draining(self) -> bool:
        return self._oversize is not None and self.refused is None

    @property
    def received_bytes(self) -> int:
        """How much there is of the current body."""
        return self._size - self._missing if self._missing >= 0 else 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        frames = self._cut(data)
        self.is_clear = self._missing < 0 and not self._head and self._oversize is None
        return frames

    def _cut(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        if self._oversize is not None:
            self._skip(len(data))
            return frames
        at = 0
        if self._missing >= 0:
            at = self._more_body(data, frames)
        elif self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        while end - at >= HEADER_BYTES:
            token, size = unpack_header(data, at)
            at += HEADER_BYTES
            if size >= self._max_query_bytes:
                self._oversize = (token, size)
                self._discard = size
                self._skip(end - at if size < DRAIN_LIMIT_BYTES else size)
                return frames
            if at + size > end:
                self.token = token
                self._size = size
                self._missing = size - (end - at)
                self._chunks = [data[at:]] if at < end else []
                return frames
            frames.append((token, data[at : at + size]))
            at += size
        if at < end:
            self._head = data[at:]
        return frames

    def _more_body(self, data: bytes, frames: list[Frame]) -> int:
        """Adds `data` to the current body; returns how much of it was used."""
        size = len(data)
        if size >= self._missing:
            used = self._missing
            if self._tail:
                self._chunks.append(bytes(self._tail))
                self._tail = bytearray()
            self._chunks.append(data if used == size else data[:used])
            frames.append((self.token, b"".join(self._chunks)))
            self._chunks = []
            self._missing = -1
            return used
        self._missing -= size
        if size < _SMALL_BYTES:
            self._tail += data
            if len(self._tail) < _TAIL_BYTES:
                return size
            data = b""
        if self._tail:
            self._chunks.append(bytes(self._tail))
            self._tail = bytearray()
        if data:
            self._chunks.append(data)
        return size

    def _skip(self, count: int) -> None:
        self._discard -= count
        if self._discard <= 0:
            self.refused = self._oversize


_NoreplyDecoder = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, dict[str, msgspec.Raw]])
_SIMPLE_QUERIES: Final = {b"[2]": CONTINUE, b"[3]": STOP, b"[4]": NOREPLY_WAIT, b"[5]": SERVER_INFO}


def query_type(body: bytes) -> int:
    """The query's type, at best from its first bytes. A START's body is otherwise unchecked: it is the evaluator's.

    Raises ReqlClientError in RethinkDB's words for what is no query.
    """
    if body.startswith(b"[1,"):
        return START
    simple = _SIMPLE_QUERIES.get(body)
    if simple is not None:
        return simple
    kind: int = parse_query(body)[0]
    return kind


def is_noreply(body: bytes) -> bool:
    """Whether the query's global optargs say that nobody waits for an answer. False for what is no query."""
    if body.find(b'"noreply"') < 0:  # faster than `in`, which tries the number first
        return False
    try:
        option = msgspec.json.decode(_NoreplyDecoder.decode(body)[2]["noreply"])
    except (*UNDECODABLE, KeyError):
        return False
    if isinstance(option, list) and len(option) == 2 and option[0] == 1:
        option = option[1]
    return option is True


def parse_query(body: bytes) -> list[Any]:
    """The query as [type, term, optargs], missing parts left out, its outer shape checked; the term is not.

    Raises ReqlClientError in RethinkDB's words, ReqlResourceLimitError where the JSON is nested too deeply.
    """
    try:
        query = orjson.loads(body) if len(body) < LARGE_QUERY_BYTES else loads_large(body)
    except orjson.JSONDecodeError as error:
        if "depth" not in str(error) and "ecursion" not in str(error):
            raise ReqlClientError(UNPARSEABLE) from None
        query = _parse_deep(body)
    if _is_whole(query):
        return query  # type: ignore[no-any-return]
    problem = _shape_problem(query)
    if problem:
        raise ReqlClientError(f"Server could not parse query: {problem}")
    assert isinstance(query, list)
    return query


def _is_whole(query: Any) -> bool:
    """Whether it is a START with optargs, as drivers send it: then its shape needs no further look."""
    if query.__class__ is not list or len(query) != 3:
        return False
    return query[0].__class__ is int and query[0] == START and query[2].__class__ is dict


def _parse_deep(body: bytes) -> Any:
    """JSON of more levels than orjson's 1024, which chains such as r.expr(1).add(1).add(1)... reach."""
    try:
        query = json.loads(body, parse_constant=_refuse_constant)
        json.dumps(query, ensure_ascii=False).encode()  # raises for what is no Unicode, as orjson does
    except RecursionError:
        raise ReqlResourceLimitError("Query is nested too deeply.") from None
    except ValueError:
        raise ReqlClientError(UNPARSEABLE) from None
    return query


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _shape_problem(query: object) -> str:
    if not isinstance(query, list):
        return f"Expected a query to be an array, but found {_json_type(query)}."
    if not 1 <= len(query) <= 3:
        return f"Expected 1 to 3 elements in the top-level query, but found {len(query)}."
    kind = query[0]
    if isinstance(kind, bool) or not isinstance(kind, int | float):
        return f"Expected a query type as a number, but found {_json_type(kind)}."
    if not START <= kind <= SERVER_INFO or kind != int(kind):
        return f"Unrecognized QueryType: {int(kind)}."
    query[0] = int(kind)
    if len(query) == 3 and not isinstance(query[2], dict):
        return f"Expected global optargs as an object, but found {_json_type(query[2])}."
    if kind == START and len(query) < 2:
        return "Expected a term to run, but found none."
    return ""


def _json_type(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "BOOL"
    if isinstance(value, int | float):
        return "NUMBER"
    if isinstance(value, str):
        return "STRING"
    return "ARRAY" if isinstance(value, list) else "OBJECT"


PIECE_ITEMS: Final = 256
LARGE_BYTES: Final = 4 << 20  # an answer from which on it is sent in pieces

_ATOM_BYTES: Final = len(b'{"t":1,"r":[]}')
_KIND_PREFIX: Final = {
    ATOM: b'{"t":1,"r":[', ARRAY: b'{"t":1,"r":[[', PARTIAL: b'{"t":3,"r":[', "sequence": b'{"t":2,"r":['
}  # fmt: skip


class Pieces:
    """A response frame that is made as it is sent, so that its items are not in memory twice. It can be made once."""

    __slots__ = ("_head", "_items", "_suffix", "size")

    def __init__(self, head: bytes, items: list[bytes], suffix: bytes, size: int) -> None:
        """items: at least one; they are taken out of the list. size: of the frame's body."""
        self.size = size
        self._head = head
        self._items = items
        self._suffix = suffix

    def __iter__(self) -> Iterator[bytes]:
        items, lead = self._items, self._head
        items.reverse()
        while items:
            part = items[: -PIECE_ITEMS - 1 : -1]
            del items[-PIECE_ITEMS:]
            part[0] = lead + part[0]
            yield b",".join(part)
            lead = b","
        yield self._suffix


def answer_pieces(token: int, answer: Answer) -> Pieces | None:
    """The response frame for a large answer, whose items it takes; None for any other."""
    items = answer.items
    if len(items) <= PIECE_ITEMS or answer.body is not None:
        return None
    size = sum(map(len, items))
    if size < LARGE_BYTES:
        return None
    head, suffix, size = _around(token, answer, size)
    return Pieces(head, items, suffix, size) if size < MAX_RESPONSE_BYTES else None


def answer_frame(token: int, answer: Answer) -> bytes:
    """The response frame for an answer; a resource limit error instead where it would be longer than frames can say."""
    if answer.body is not None:
        return frame(token, answer.body)
    items = answer.items
    if answer.profile is None and answer.kind == ATOM:
        item = items[0]
        size = len(item) + _ATOM_BYTES
        if size < MAX_RESPONSE_BYTES:
            return datum_frame(token, item)
    head, suffix, size = _around(token, answer, sum(map(len, items)))
    if size >= MAX_RESPONSE_BYTES:
        text = f"Response size ({size}) greater than maximum ({MAX_RESPONSE_BYTES - 1})."
        return error_frame(token, ReqlResourceLimitError(text))
    if len(items) < 2:
        return b"".join((head, *items, suffix))
    return b",".join([head + items[0], *items[1:-1], items[-1] + suffix])  # all bytes between are copied only once


def _around(token: int, answer: Answer, items_bytes: int) -> tuple[bytes, bytes, int]:
    """What comes before and after an answer's items in its frame, and how long its body is."""
    suffix = b"]]" if answer.kind == ARRAY else b"]"
    if answer.profile is not None:
        suffix += b',"p":' + answer.profile
    if answer.kind != ATOM and answer.kind != ARRAY:
        suffix += b',"n":[%s]' % ",".join(map(str, answer.notes)).encode() if answer.notes else b',"n":[]'
    suffix += b"}"
    prefix = _KIND_PREFIX[answer.kind]
    size = len(prefix) + items_bytes + max(0, len(answer.items) - 1) + len(suffix)
    return _pack(token, size & MAX_RESPONSE_BYTES) + prefix, suffix, size


def datum_frame(token: int, text: bytes) -> bytes:
    """The response frame for one datum, as JSON. What is longer than frames can say is not for here."""
    return b"".join((_pack(token, len(text) + _ATOM_BYTES), b'{"t":1,"r":[', text, b"]}"))


def as_atom(answer: Answer) -> Answer:
    """An array as the atom that it is, for who does not know of arrays; any other answer as it is."""
    if answer.kind != ARRAY:
        return answer
    return Answer(ATOM, [b"[%b]" % b",".join(answer.items)], profile=answer.profile)


def partial_body(items: list[bytes], notes: list[int]) -> bytes:
    """The body of a response with more to come, for as many frames as it is sent in."""
    return b'{"t":3,"r":[%b],"n":[%b]}' % (b",".join(items), ",".join(map(str, notes)).encode())


def frame(token: int, body: bytes) -> bytes:
    """A response frame of a body."""
    return _pack(token, len(body)) + body


def frame_header(token: int, body: bytes) -> bytes:
    """What comes before the body in its frame."""
    return _pack(token, len(body))


def error_frame(token: int, error: ReqlError) -> bytes:
    """The response frame for an error, with its type (runtime errors only) and backtrace."""
    response: dict[str, Any] = {"t": error.response_type}
    if error.error_type is not None:
        response["e"] = error.error_type
    response["r"] = [error.message]
    response["b"] = list(error.path or ())
    try:
        body = orjson.dumps(response)
    except TypeError:  # a lone surrogate in the message
        response["r"] = [error.message.encode(errors="replace").decode()]
        body = orjson.dumps(response)
    return _pack(token, len(body)) + body


def _fixed(body: bytes) -> tuple[int, bytes]:
    return len(body), body


_END_SIZE, _END = _fixed(b'{"t":2,"r":[],"n":[]}')
_WAITED_SIZE, _WAITED = _fixed(b'{"t":4,"r":[]}')


def end_frame(token: int) -> bytes:
    """An empty SUCCESS_SEQUENCE: how a stopped stream answers."""
    return _pack(token, _END_SIZE) + _END


def wait_complete_frame(token: int) -> bytes:
    """The answer to NOREPLY_WAIT."""
    return _pack(token, _WAITED_SIZE) + _WAITED


def server_info_frame(token: int, info: bytes) -> bytes:
    """The answer to SERVER_INFO; `info` is the JSON text of {"id", "name", "proxy"}."""
    body = b'{"t":5,"r":[' + info + b"]}"
    return _pack(token, len(body)) + body


def too_large_frame(token: int, size: int, max_query_bytes: int = MAX_QUERY_BYTES) -> bytes:
    """The answer to a query of `size` bytes, which was not read."""
    text = f"Query size ({size}) greater than maximum ({max_query_bytes - 1})."
    return error_frame(token, ReqlClientError(text))
