"""What is said before the first query: V0_3 and V0_4 (a key), V1_0 (SCRAM-SHA-256, RFC 5802). Pure.

    V0_x   client: magic(4) key length(4) key wire protocol(4)            server: SUCCESS NUL | ERROR: ... LF NUL
    V1_0   client: magic(4)  {protocol_version, authentication_method, authentication: client-first} NUL
                             {authentication: client-final} NUL
           server: {min/max_protocol_version, server_version, success} NUL
                             {authentication: server-first, success} NUL   {authentication: server-final, success} NUL

Numbers are little-endian; the words of errors and their codes are RethinkDB's. A client may send its first JSON
together with the magic number, and queries right behind its last word: what is left over is handed on.

One rule: nothing beyond 2048 bytes is buffered for a message, and an unknown user cannot be told from a wrong password.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

MAGIC_V0_1: Final = 0x3F61BA36
MAGIC_V0_2: Final = 0x723081E1
MAGIC_V0_3: Final = 0x5F75E83E
MAGIC_V0_4: Final = 0x400C2D20
MAGIC_V1_0: Final = 0x34C2BDC3
WIRE_PROTOBUF: Final = 0x271FFC41
WIRE_JSON: Final = 0x7E6970C7

MAX_MESSAGE_BYTES: Final = 2048
PATIENCE_S: Final = 2.0  # after failures an attempt is held up to so long, and beyond it refused; drivers wait for 20
_NONCE_BYTES: Final = 18
_KEY_USER: Final = "admin"  # whose password V0_x keys are compared with

_WRONG_PORT = (
    "Received an unsupported protocol version. This port is for RethinkDB queries. "
    "Does your client driver version not match the server?"
)
_PROTOBUF = "The PROTOBUF client protocol is no longer supported"


class Verifier(Protocol):
    """What a password is checked against: SCRAM's two keys, never the password."""

    @property
    def salt(self) -> bytes: ...
    @property
    def iterations(self) -> int: ...
    @property
    def stored_key(self) -> bytes: ...
    @property
    def server_key(self) -> bytes: ...


class Authenticator(Protocol):
    """Who may log in; implemented by `proxy/auth`."""

    def verifier(self, user: str) -> Verifier:
        """The user's keys; for an unknown user made-up ones that fit no password."""

    def refusal(self, address: str, user: str, patience_s: float = 0.0) -> str | None:
        """Why this attempt is not even looked at (too many failures, and a longer wait than this one's), or None."""

    def stand_in_line(self, address: str, user: str) -> float:
        """How many seconds this attempt is to be held, after failures, before it is looked at."""

    def note(self, address: str, user: str, success: bool) -> None:
        """Remembers how an attempt ended."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The handshake is done; `rest` are bytes of queries that came behind it."""

    user: str
    one_at_a_time: bool  # V0_3: queries are answered in order
    rest: bytes


@dataclass(frozen=True, slots=True)
class CheckKey:
    """The shell is to compare `key` with the password of `user` (it may take milliseconds) and say `key_checked`."""

    user: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """The shell is to read no further, and to say `held` after this time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The handshake failed: close after what was sent. `reason` is for the log and holds no secret."""

    reason: str


Event = bytes | Ready | CheckKey | Hold | Refuse
"""bytes are to be sent."""


class _Failure(Exception):
    """Ends the handshake with RethinkDB's code and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Handshake:
    """One connection's handshake: feed it bytes, perform the events in order."""

    def __init__(
        self,
        authenticator: Authenticator,
        random_bytes: Callable[[int], bytes],
        address: str,
        server_version: str = "2.4.4",
    ) -> None:
        self._authenticator = authenticator
        self._random_bytes = random_bytes
        self._address = address
        self._server_version = server_version
        self._data = b""
        self._step: Callable[[], list[Event] | None] = self._magic
        self._after_hold: Callable[[], list[Event] | None] = _nothing
        self._speaks_json = False  # how errors are put
        self._version = 0
        self._user = ""
        self._client_first_bare = ""
        self._client_nonce = ""
        self._server_first = ""
        self._nonce = ""
        self._keys: Verifier | None = None

    def receive(self, data: bytes) -> list[Event]:
        """What `data` leads to. After Ready or Refuse it is not to be called again."""
        self._data += data
        return self._advance([])

    def key_checked(self, is_right: bool) -> list[Event]:
        """The answer to CheckKey."""
        self._authenticator.note(self._address, self._user, is_right)
        if not is_right:
            return self._refused(_Failure(-1, "Incorrect authorization key."), [])
        self._step = self._wire_protocol
        return self._advance([])

    def held(self) -> list[Event]:
        """The time of Hold is over."""
        self._step = self._after_hold
        return self._advance([])

    def _attempt(self, step: Callable[[], list[Event] | None]) -> list[Event] | None:
        """Goes on with `step`, which looks at the attempt: at once, or after failures when its time has come."""
        refusal = self._authenticator.refusal(self._address, self._user, PATIENCE_S)
        if refusal is not None:
            raise _Failure(20 if self._speaks_json else -1, refusal)
        seconds = self._authenticator.stand_in_line(self._address, self._user)
        if seconds <= 0:
            return step()
        self._step = _nothing
        self._after_hold = step
        return [Hold(seconds)]

    def _advance(self, events: list[Event]) -> list[Event]:
        try:
            while (more := self._step()) is not None:
                events += more
        except _Failure as failure:
            return self._refused(failure, events)
        return events

    def _refused(self, failure: _Failure, events: list[Event]) -> list[Event]:
        if self._speaks_json:
            body = {"error": failure.message, "error_code": failure.code, "success": False}
            events.append(orjson.dumps(body) + b"\0")
        else:
            events.append(b"ERROR: " + failure.message.encode() + b"\n\0")
        events.append(Refuse(failure.message))
        self._step = _nothing
        self._data = b""
        return events

    def _take_number(self) -> int | None:
        if len(self._data) < 4:
            return None
        number: int = struct.unpack_from("<I", self._data)[0]
        self._data = self._data[4:]
        return number

    # -- steps: each returns None when it needs more bytes --------------------------------------------------------

    def _magic(self) -> list[Event] | None:
        magic = self._take_number()
        if magic is None:
            return None
        if magic in (MAGIC_V0_3, MAGIC_V0_4):
            self._version = 3 if magic == MAGIC_V0_3 else 4
            self._step = self._key
            return self._key()
        if magic == MAGIC_V1_0:
            self._speaks_json = True
            self._step = self._first_message
            greeting = {
                "max_protocol_version": 0,
                "min_protocol_version": 0,
                "server_version": self._server_version,
                "success": True,
            }
            return [orjson.dumps(greeting) + b"\0"]
        raise _Failure(-1, _PROTOBUF if magic in (MAGIC_V0_1, MAGIC_V0_2) else _WRONG_PORT)

    def _key(self) -> list[Event] | None:
        if len(self._data) < 4:
            return None
        size = struct.unpack_from("<I", self._data)[0]
        if size > MAX_MESSAGE_BYTES:
            raise _Failure(-1, "Client provided an authorization key that is too long.")
        if len(self._data) < 4 + size:
            return None
        key = self._data[4 : 4 + size]
        self._data = self._data[4 + size :]
        self._user = _KEY_USER
        return self._attempt(lambda: self._check(key))

    def _check(self, key: bytes) -> list[Event]:
        self._step = _nothing
        return [CheckKey(_KEY_USER, key)]

    def _wire_protocol(self) -> list[Event] | None:
        number = self._take_number()
        if number is None:
            return None
        if number == WIRE_PROTOBUF:
            raise _Failure(-1, _PROTOBUF)
        if number != WIRE_JSON:
            signed = number - (1 << 32) if number >> 31 else number
            raise _Failure(-1, f"Unrecognized protocol specified: '{signed}'")
        return [b"SUCCESS\0", self._ready()]

    def _ready(self) -> Ready:
        rest, self._data = self._data, b""
        self._step = _nothing
        return Ready(self._user, self._version == 3, rest)

    def _take_message(self) -> Any:
        """The next JSON message as an object, {} for any other JSON; None when it is not complete."""
        end = self._data.find(b"\0", 0, MAX_MESSAGE_BYTES - 1)
        if end < 0:
            if len(self._data) >= MAX_MESSAGE_BYTES:
                raise _Failure(7, "Limited read buffer size.")
            return None
        text = self._data[:end]
        self._data = self._data[end + 1 :]
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise _Failure(8, "Invalid JSON object.") from None
        return message if isinstance(message, dict) else {}

    def _first_message(self) -> list[Event] | None:
        message = self._take_message()
        if message is None:
            return None
        version = message.get("protocol_version")
        if isinstance(version, bool) or not isinstance(version, int | float):
            raise _Failure(1, "Expected a number for `protocol_version`.")
        if version != 0:
            raise _Failure(2, "Unsupported `protocol_version`.")
        method = message.get("authentication_method")
        if not isinstance(method, str):
            raise _Failure(3, "Expected a string for `authentication_method`.")
        if method != "SCRAM-SHA-256":
            raise _Failure(4, "Unsupported `authentication_method`.")
        self._client_first_message(_authentication(message))
        return self._attempt(self._challenge)

    def _challenge(self) -> list[Event]:
        self._step = self._final_message
        return [_success(self._server_first_message())]

    def _final_message(self) -> list[Event] | None:
        message = self._take_message()
        if message is None:
            return None
        reply = self._server_final_message(_authentication(message))
        return [_success(reply), self._ready()]

    # -- SCRAM ----------------------------------------------------------------------------------------------------

    def _client_first_message(self, text: str) -> None:
        if not text.startswith("n,"):
            raise _Failure(15, "Channel binding is not supported")
        at = text.find(",", 2)
        if at < 0:
            raise _Failure(10, "Invalid encoding")
        self._client_first_bare = text[at + 1 :]
        attributes = _attributes(self._client_first_bare)
        for name in sorted(attributes):
            if name == "n":
                self._user = _decoded_user(attributes["n"])
            elif name == "m":
                raise _Failure(11, "Extensions not supported")
            elif name != "r":
                raise _Failure(10, "Invalid encoding")
        if "n" not in attributes or "r" not in attributes:
            raise _Failure(10, "Invalid encoding")
        self._client_nonce = attributes["r"]

    def _server_first_message(self) -> str:
        self._keys = keys = self._authenticator.verifier(self._user)
        self._nonce = self._client_nonce + _base64(self._random_bytes(_NONCE_BYTES))
        self._server_first = f"r={self._nonce},s={_base64(keys.salt)},i={keys.iterations}"
        return self._server_first

    def _server_final_message(self, text: str) -> str:
        assert self._keys is not None
        signed = ",".join((self._client_first_bare, self._server_first, text.partition(",p=")[0])).encode()
        attributes = _attributes(text)
        for name in sorted(attributes):
            if name == "m":
                raise _Failure(11, "Extensions not supported")
            if name not in ("c", "p", "r") or (name == "c" and attributes["c"] != "biws"):
                raise _Failure(10, "Invalid encoding")
            if name == "p":
                is_right = _proof_fits(attributes["p"], self._keys.stored_key, signed)
                self._authenticator.note(self._address, self._user, is_right)
                if not is_right:
                    raise _Failure(12, "Wrong password")
            elif name == "r" and not hmac.compare_digest(attributes["r"].encode(), self._nonce.encode()):
                raise _Failure(20, "Other error")
        if not {"c", "p", "r"} <= set(attributes):
            raise _Failure(10, "Invalid encoding")
        return "v=" + _base64(hmac.digest(self._keys.server_key, signed, "sha256"))


def _nothing() -> list[Event] | None:
    """The step where no bytes are wanted. It is no method, so that a handshake that is over does not hold itself."""
    return None


def _authentication(message: dict[str, Any]) -> str:
    value = message.get("authentication")
    if not isinstance(value, str):
        raise _Failure(5, "Expected a string for `authentication`.")
    return value


def _success(authentication: str) -> bytes:
    return orjson.dumps({"authentication": authentication, "success": True}) + b"\0"


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _attributes(text: str) -> dict[str, str]:
    """SCRAM's `a=value,b=value` by letter; each letter once."""
    attributes: dict[str, str] = {}
    for part in text.removesuffix(",").split(",") if text else ():
        if part[1:2] != "=" or part[0] == "=" or part[0] in attributes:
            raise _Failure(10, "Invalid encoding")
        attributes[part[0]] = part[2:]
    return attributes


def _decoded_user(text: str) -> str:
    """The user's name out of a SCRAM saslname, where =2C is a comma and =3D an equals sign."""
    pieces = text.split("=")
    user = pieces[0]
    for piece in pieces[1:]:
        if piece[:2] == "2C":
            user += "," + piece[2:]
        elif piece[:2] == "3D":
            user += "=" + piece[2:]
        else:
            raise _Failure(18, "Invalid username encoding")
    if not user:
        raise _Failure(18, "Empty username")
    return user


def _proof_fits(proof: str, stored_key: bytes, signed: bytes) -> bool:
    """Whether the client knows the key whose hash is `stored_key` (RFC 5802, section 3). In constant time."""
    try:
        given = binascii.a2b_base64(proof, strict_mode=True)
    except ValueError:
        given = b""
    signature = hmac.digest(stored_key, signed, "sha256")
    key = int.from_bytes(given.ljust(32, b"\0")[:32], "big") ^ int.from_bytes(signature, "big")
    client_key = key.to_bytes(32, "big")
    fits = hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)
    return fits and len(given) == 32
