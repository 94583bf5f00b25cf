"""How a server becomes a member: the token it is invited with, and the one question it asks.

    token     rdb1. + base64 of [addresses, cluster id, invitation id, secret]
    asking    "RDBJ", length, payload of `Ask`, HMAC of both under a key derived from the token's secret
    answer    length, `Welcome` | `Refused`

One rule: neither the token's secret nor the cluster's own goes over the wire or is stored in clear. The member that
answers knows a key derived from the token's secret; the cluster's secret comes sealed under a key that both derive
from that one and from fresh X25519 keys, so that who records this and finds the token later learns nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from struct import Struct
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from consensus.messages import Natural
from model.errors import BadSetting, RewindError
from model.undecodable import UNDECODABLE

PREFIX: Final = "rdb1."
MAGIC: Final = b"RDBJ"
SECRET_BYTES: Final = 24
MAX_BYTES: Final = 64 << 10
VERSION: Final = 1
HEAD: Final = Struct("<I")
MAC_BYTES: Final = 32
_NONCE: Final = bytes(12)  # each key seals one answer


class JoinRefused(RewindError):
    """This server may not join, or what answered is not a member of the cluster; the message is the reason."""


class Invitation(msgspec.Struct, array_like=True, frozen=True):
    """What a token holds. addresses: host:port of the members' cluster ports."""

    addresses: tuple[str, ...]
    cluster_id: str
    invitation_id: str
    secret: bytes


class Ask(msgspec.Struct, array_like=True):
    """What a server says of itself when it wants to join. about: for system tables."""

    version: Natural
    cluster_id: str
    invitation_id: str
    server_id: str
    name: str
    address: str
    program: str
    features: list[str]
    public: bytes


class Welcome(msgspec.Struct, array_like=True, tag="welcome"):
    """That the server is a member now. sealed: a `Membership`."""

    public: bytes
    sealed: bytes


class Refused(msgspec.Struct, array_like=True, tag="refused"):
    """That it is not, and why. Nobody vouches for this."""

    reason: str


class Membership(msgspec.Struct, array_like=True):
    """What a new member needs: its id and name, the cluster's secret, where the others are."""

    member_id: Natural
    name: str
    secret: bytes
    addresses: dict[int, str]


_encoder: Final = msgspec.msgpack.Encoder()
_invitations: Final = msgspec.msgpack.Decoder(Invitation)
_asks: Final = msgspec.msgpack.Decoder(Ask)
_answers: Final[msgspec.msgpack.Decoder[Welcome | Refused]] = msgspec.msgpack.Decoder(Welcome | Refused)
_memberships: Final = msgspec.msgpack.Decoder(Membership)


# -- tokens


def encode_token(invitation: Invitation) -> str:
    """The text to hand to the new server."""
    return PREFIX + base64.urlsafe_b64encode(_encoder.encode(invitation)).decode().rstrip("=")


def decode_token(token: str) -> Invitation:
    """Inverse of `encode_token`. Raises BadSetting."""
    text = token.strip()
    try:
        if not text.startswith(PREFIX):
            raise ValueError("no token")
        body = text.removeprefix(PREFIX)
        return _invitations.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, *UNDECODABLE):
        raise BadSetting(
            "cluster.join: found something else than a token; `rewinddb member invite` prints one, beginning with "
            f"{PREFIX}"
        ) from None


def key_of(secret: bytes) -> bytes:
    """The key that members know of an invitation."""
    return blake2b(secret, digest_size=32, person=b"rewinddb invite").digest()


# -- the new server's side


@dataclass(slots=True)
class Question:
    """One attempt to join: the bytes to send, then `take` the bytes that come."""

    invitation: Invitation
    payload: bytes
    private: X25519PrivateKey

    @classmethod
    def about(
        cls, invitation: Invitation, server_id: str, name: str, address: str, program: str, features: list[str]
    ) -> Question:
        """A question with fresh keys."""
        private = X25519PrivateKey.generate()
        ask = Ask(
            VERSION,
            invitation.cluster_id,
            invitation.invitation_id,
            server_id,
            name,
            address,
            program,
            features,
            private.public_key().public_bytes_raw(),
        )
        return cls(invitation, _encoder.encode(ask), private)

    def to_bytes(self) -> bytes:
        """What is sent."""
        head = MAGIC + HEAD.pack(len(self.payload))
        return head + self.payload + hmac.digest(key_of(self.invitation.secret), head + self.payload, "sha256")

    def take(self, answer: bytes) -> Membership:
        """What was answered, without its length. Raises JoinRefused."""
        try:
            found = _answers.decode(answer)
            if isinstance(found, Refused):
                raise JoinRefused(f"The cluster refuses this server: {found.reason[:500]}")
            key = _sealing_key(self.invitation.secret, self.private, found.public, self.payload)
            return _memberships.decode(ChaCha20Poly1305(key).decrypt(_NONCE, found.sealed, self.payload))
        except (InvalidTag, ValueError, *UNDECODABLE):
            raise JoinRefused("What answered is not a member of the cluster of this token.") from None


# -- the member's side


class Asked:
    """A question that came: `ask` is believed once `is_proved` said so."""

    def __init__(self, head: bytes, payload: bytes, mac: bytes) -> None:
        """Raises JoinRefused for what cannot be read."""
        try:
            self.ask = _asks.decode(payload)
        except UNDECODABLE:
            raise JoinRefused("The question cannot be read: the versions of the servers do not fit.") from None
        self._signed = head + payload
        self._payload = payload
        self._mac = mac

    def is_proved(self, key: bytes) -> bool:
        """Whether it comes from somebody who has the token."""
        return hmac.compare_digest(self._mac, hmac.digest(key, self._signed, "sha256"))

    def welcome(self, key: bytes, membership: Membership) -> bytes:
        """The bytes of the answer that lets the server in."""
        private = X25519PrivateKey.generate()
        sealing = _sealing_key_of(key, private, self.ask.public, self._payload)
        sealed = ChaCha20Poly1305(sealing).encrypt(_NONCE, _encoder.encode(membership), self._payload)
        return _with_length(Welcome(private.public_key().public_bytes_raw(), sealed))


def refusal(reason: str) -> bytes:
    """The bytes of the answer that does not let the server in."""
    return _with_length(Refused(reason))


def _with_length(answer: Welcome | Refused) -> bytes:
    data = _encoder.encode(answer)
    return HEAD.pack(len(data)) + data


def _sealing_key(secret: bytes, private: X25519PrivateKey, public: bytes, payload: bytes) -> bytes:
    return _sealing_key_of(key_of(secret), private, public, payload)


def _sealing_key_of(key: bytes, private: X25519PrivateKey, public: bytes, payload: bytes) -> bytes:
    """Raises ValueError if the other side's public key is none."""
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return hmac.digest(key, b"RewindDB seal" + shared + sha256(payload).digest(), "sha256")


def invitation_document(key: bytes, ends_ms: int, learner: bool) -> dict[str, Any]:
    """What members keep of an invitation."""
    return {"key": key.hex(), "ends_ms": ends_ms, "learner": learner, "used_by": ""}


def why_not(document: Mapping[str, Any] | None, asked: Asked, cluster_id: str, now_ms: int) -> str:
    """Why a server is not let in, or "". document: the invitation that it names, if there is one."""
    ask = asked.ask
    if ask.version != VERSION:
        return f"it asks in version {ask.version}, this member answers in version {VERSION}"
    if ask.cluster_id != cluster_id:
        return f"this member belongs to the cluster {cluster_id}, the token to {ask.cluster_id[:64]}"
    if document is None:
        return "there is no such invitation (any more)"
    if not asked.is_proved(bytes.fromhex(document["key"])):
        return "the token is not the one that was given out"
    if document["ends_ms"] < now_ms:
        return "the invitation has ended; make a new one"
    if document["used_by"] not in ("", ask.server_id):
        return "the invitation was used by another server; make a new one"
    return ""
