"""Talking to a server through the official driver, with rows passing through as text.

The driver lets a query bring its own JSON encoder and decoder. The decoder here leaves the rows of a response as
the bytes that the server sent; the encoder puts texts of rows into a query as they are. One rule: only texts that
were checked to be one JSON object each (backup/archives/row_text) are put into a query.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from rethinkdb import RethinkDB
from rethinkdb.ast import ReQLEncoder
from rethinkdb.errors import ReqlDriverError, ReqlError, ReqlTimeoutError

from model.errors import ToolFailed

r = RethinkDB()
RAW_FORMATS = {"time_format": "raw", "binary_format": "raw"}
TRIES = 5
_MARK = f"rows-{secrets.token_hex(16)}"
_PARTIAL, _SEQUENCE = 3, 2
LOST = (ReqlDriverError, ReqlTimeoutError)


@dataclass(frozen=True)
class Target:
    """How to reach a server. tls_cert: file with the certificates to trust, for TLS."""

    host: str = "localhost"
    port: int = 28015
    user: str = "admin"
    password: str | None = None
    tls_cert: str | None = None

    def connect(self) -> Any:
        """A connection of the official driver. Raises ToolFailed."""
        tls = {"ca_certs": self.tls_cert} if self.tls_cert else None
        try:
            return r.connect(host=self.host, port=self.port, user=self.user, password=self.password, ssl=tls)
        except ReqlError as error:
            raise ToolFailed(f"Unable to connect to server: {error.message}") from error


class Session:
    """One connection for one thread, opened again when it is lost. `options` go with every query."""

    def __init__(self, target: Target, options: dict[str, Any] | None = None) -> None:
        self.target = target
        self.options = options or {}
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        if self._connection is None or not self._connection.is_open():
            self._connection = self.target.connect()
        return self._connection

    def run(self, what: str, query: Any, **options: Any) -> Any:
        """The answer of a query that may be asked twice; a sequence comes as a list. Raises ToolFailed, saying `what`.

        A lost connection is opened again and the query repeated, TRIES times in all.
        """
        for turn in range(TRIES):
            try:
                answer = query.run(self.connection, **self.options, **options)
                return answer if isinstance(answer, list | dict | str | int | float | None) else list(answer)
            except LOST as error:
                self.close()
                if turn == TRIES - 1:
                    raise ToolFailed(f"Connection error during '{what}': {error.message}") from error
            except ReqlError as error:
                raise ToolFailed(f"{what}: {error.message}") from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close(noreply_wait=False)


class _Envelope(msgspec.Struct):
    t: int
    r: list[msgspec.Raw]


class _RawRows:
    """A decoder for the driver that leaves the rows of a stream as bytes."""

    _decoder = msgspec.json.Decoder(_Envelope)

    def __init__(self, options: Any = None) -> None:
        """`options` are the query's; the driver hands them to every decoder."""

    def decode(self, text: str) -> dict[str, Any]:
        response = self._decoder.decode(text)
        if response.t in (_PARTIAL, _SEQUENCE):
            return {"t": response.t, "r": [bytes(row) for row in response.r]}
        whole: dict[str, Any] = orjson.loads(text)
        return whole


def read_rows(connection: Any, query: Any, options: dict[str, Any]) -> Iterator[list[bytes]]:
    """The rows of a stream as JSON texts, in the batches they come in. Raises the driver's errors."""
    cursor = query.run(connection, json_decoder=_RawRows, **RAW_FORMATS, **options)
    if isinstance(cursor, list):
        yield [orjson.dumps(row) for row in cursor]
        return
    for row in cursor:
        batch = [row, *cursor.items]
        cursor.items.clear()
        yield batch


def run_with_rows(connection: Any, make_query: Callable[[str], Any], rows: Sequence[bytes], **options: Any) -> Any:
    """Runs `make_query(mark)` with `mark` replaced by an array of the rows. Raises the driver's errors.

    Each row goes as a literal, `[1, row]`, which RethinkDB takes as it is, arrays inside included: the driver
    would wrap every array of every row in a term.
    """
    literals = "[2,[" + ",".join(f"[1,{row.decode('utf-8')}]" for row in rows) + "]]"

    class Splice(ReQLEncoder):  # type: ignore[misc]
        def encode(self, message: Any) -> str:
            text: str = super().encode(message)
            return text.replace(f'"{_MARK}"', literals, 1)

    return make_query(_MARK).run(connection, json_encoder=Splice, **options)


def server_version(session: Session) -> tuple[str, tuple[int, ...]]:
    """The server's version as it says it and as numbers. Raises ToolFailed if it is no RethinkDB."""
    query = r.db("rethinkdb").table("server_status")[0]["process"]["version"]
    text = session.run("get server version", query)
    found = re.match(r"(rethinkdb|rebirthdb|rewinddb) (\d+)\.(\d+)\.(\d+)", str(text))
    if found is None:
        raise ToolFailed(f"invalid version string format: {text}")
    return str(text), tuple(int(number) for number in found.groups()[1:])
