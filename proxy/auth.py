"""Who may log in: credentials (SCRAM's StoredKey and ServerKey, never a password) and patience with wrong ones.

One rule: nothing here could be used to log in elsewhere if it leaked, and nothing tells a stranger which users exist.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

DEFAULT_ITERATIONS: Final = 4096  # as RethinkDB: what drivers expect, and what strangers are shown
_SALT_BYTES: Final = 16
_MAX_RIGHT_KEYS: Final = 64


@dataclass(frozen=True, slots=True)
class Credential:
    """What is kept of a password (RFC 5802): enough to check it, not enough to know it or to log in with."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def fits(self, password: str | bytes) -> bool:
        """Whether this is the password. Costs `iterations` rounds of PBKDF2 (about 0.4 µs each)."""
        stored_key, _ = _keys(password, self.salt, self.iterations)
        return hmac.compare_digest(stored_key, self.stored_key)

    def __repr__(self) -> str:
        return f"Credential(iterations={self.iterations})"  # keys stay out of logs

    def to_document(self) -> dict[str, Any]:
        """As JSON, for the catalog's collection of users."""
        return {
            "salt": base64.b64encode(self.salt).decode(),
            "iterations": self.iterations,
            "stored_key": base64.b64encode(self.stored_key).decode(),
            "server_key": base64.b64encode(self.server_key).decode(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Credential:
        """The inverse of `to_document`."""
        return cls(
            base64.b64decode(document["salt"]),
            document["iterations"],
            base64.b64decode(document["stored_key"]),
            base64.b64decode(document["server_key"]),
        )


def make_credential(
    password: str, iterations: int = DEFAULT_ITERATIONS, random_bytes: Callable[[int], bytes] = os.urandom
) -> Credential:
    """The credential of a new password, with a fresh salt. iterations: at least 1."""
    salt = random_bytes(_SALT_BYTES)
    return Credential(salt, iterations, *_keys(password, salt, iterations))


def passwordless_admin(random_bytes: Callable[[int], bytes] = os.urandom) -> Credential:
    """The credential of a fresh server's `admin`: the empty password, one iteration, as RethinkDB has it."""
    return make_credential("", 1, random_bytes)


def _keys(password: str | bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """(StoredKey, ServerKey) of RFC 5802, section 3."""
    secret = password.encode("utf-8", "surrogatepass") if isinstance(password, str) else password
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return stored_key, hmac.digest(salted, b"Server Key", "sha256")


@dataclass(slots=True)
class _Failures:
    count: int
    counted_from: float  # failures are forgiven from then on
    blocked_until: float = 0.0


class Backoff:
    """Makes guessing slow: after some failures a further attempt has to wait for a time that doubles.

    Counted for each address and user together, for each address, and for each user; the last with a short wait
    only, and not for an address from which that user has logged in before, so that a stranger's guesses cannot
    lock a user out. Failures are forgiven with time, those of an address soon: many may share it.
    """

    PAIR: Final = (5, 60.0, 60.0)  # failures before the first wait; longest wait; one is forgiven in: seconds
    ADDRESS: Final = (20, 60.0, 5.0)
    USER: Final = (50, 2.0, 5.0)
    FIRST_WAIT_S: Final = 0.25
    MAX_ENTRIES: Final = 10_000

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._failures: OrderedDict[tuple[str | None, str | None], _Failures] = OrderedDict()
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, address: str, user: str) -> float:
        """How long an attempt has to wait from now on; 0.0: it may be made."""
        if not self._failures:
            return 0.0
        now = self._seconds()
        return max([0.0, *(entry.blocked_until - now for entry in self._about(address, user))])

    def stand_in_line(self, address: str, user: str) -> float:
        """`wait_s` for an attempt that does wait; those that come in the meantime are behind it."""
        wait_s = self.wait_s(address, user)
        if wait_s <= 0.0:
            return 0.0
        now = self._seconds()
        for entry in self._about(address, user):
            if entry.blocked_until > now:
                entry.blocked_until += self.FIRST_WAIT_S
        return wait_s

    def _about(self, address: str, user: str) -> list[_Failures]:
        keys: list[tuple[str | None, str | None]] = [(address, user), (address, None)]
        if (address, user) not in self._trusted:
            keys.append((None, user))
        return [self._failures[key] for key in keys if key in self._failures]

    def note(self, address: str, user: str, success: bool) -> None:
        """Remembers how an attempt ended."""
        if success:
            self._failures.pop((address, user), None)
            _keep(self._trusted, (address, user), None, self.MAX_ENTRIES)
            return
        for key, (free, longest_s, forgiven_s) in (
            ((address, user), self.PAIR),
            ((address, None), self.ADDRESS),
            ((None, user), self.USER),
        ):
            self._fail(key, free, longest_s, forgiven_s)

    def _fail(self, key: tuple[str | None, str | None], free: int, longest_s: float, forgiven_s: float) -> None:
        now = self._seconds()
        entry = self._failures.get(key)
        if entry is None:
            entry = _Failures(0, now)
        forgiven = int((now - entry.counted_from) / forgiven_s)
        entry.counted_from += forgiven * forgiven_s
        entry.count = max(0, entry.count - forgiven) + 1
        if entry.count >= free:
            entry.blocked_until = now + min(longest_s, self.FIRST_WAIT_S * 2.0 ** min(entry.count - free, 30))
        _keep(self._failures, key, entry, self.MAX_ENTRIES)


def _keep(table: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)


class Credentials:
    """The credentials of users by name, out of their documents: one that is known is not read again.

    documents: gives the users' documents, which are replaced and never changed.
    """

    def __init__(self, documents: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self._documents = documents
        self._known: dict[str, tuple[Mapping[str, Any], Credential]] = {}

    def of(self, user: str) -> Credential | None:
        """The user's credential; None for nobody."""
        document = self._documents().get(user)
        if document is None:
            self._known.pop(user, None)
            return None
        known = self._known.get(user)
        if known is None or known[0] is not document:
            known = self._known[user] = document, Credential.from_document(document)
        return known[1]


class UserDirectory:
    """The authenticator of a server: checks against the users that `lookup` finds.

    lookup: user name -> Credential, or None for nobody; it is asked anew at each login.
    secret: random bytes that stay the same while the data folder lives; made-up salts come from it.
    """

    def __init__(
        self,
        lookup: Callable[[str], Credential | None],
        secret: bytes,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._secret = secret
        self._backoff = Backoff(seconds)
        self._right_keys: OrderedDict[bytes, Credential] = OrderedDict()  # digests of keys that fit: PBKDF2 once
        self._is_empty: dict[Credential, bool] = {}  # for the current credential only

    def verifier(self, user: str) -> Credential:
        """The user's credential; for an unknown user a made-up one, always the same, that no password fits."""
        credential = self._lookup(user)
        if credential is not None:
            return credential
        name = user.encode("utf-8", "surrogatepass")
        salt = self._mac(b"salt " + name)[:_SALT_BYTES]
        return Credential(salt, DEFAULT_ITERATIONS, self._mac(b"stored " + name), self._mac(b"server " + name))

    def refusal(self, address: str, user: str, patience_s: float = 0.0) -> str | None:
        """Why this attempt is not looked at, or None. patience_s: who asks would wait for so long."""
        wait_s = self._backoff.wait_s(address, user)
        return f"Too many failed logins; try again in {wait_s:.1f} seconds." if wait_s > patience_s else None

    def stand_in_line(self, address: str, user: str) -> float:
        """How many seconds this attempt is to be held before it is looked at."""
        return self._backoff.stand_in_line(address, user)

    def note(self, address: str, user: str, success: bool) -> None:
        """Remembers how an attempt ended."""
        self._backoff.note(address, user, success)

    def key_fits(self, user: str, key: bytes) -> bool:
        """Whether `key` is the user's password. May cost `iterations` rounds of PBKDF2: see `key_is_cheap`."""
        credential = self.verifier(user)
        digest = self._mac(b"key " + user.encode("utf-8", "surrogatepass") + b"\0" + key)
        if self._right_keys.get(digest) == credential:
            return True
        fits = credential.fits(key)
        if fits:
            _keep(self._right_keys, digest, credential, _MAX_RIGHT_KEYS)
        return fits

    def key_is_cheap(self, user: str) -> bool:
        """Whether `key_fits` takes a few milliseconds at most, so that it may run on the reactor's thread."""
        return self.verifier(user).iterations <= 2 * DEFAULT_ITERATIONS

    def needs_password(self, user: str = "admin") -> bool:
        """Whether the user exists and the empty password is wrong."""
        credential = self._lookup(user)
        if credential is None:
            return False
        if credential not in self._is_empty:
            self._is_empty = {credential: credential.fits("")}
        return not self._is_empty[credential]

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, "sha256")
