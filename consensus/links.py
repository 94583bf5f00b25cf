"""What goes over a link between two servers: the greeting in which each proves who it is, then frames.

Pure: bytes in, events and bytes out. The rule: until the other side has proved that it knows the
cluster's secret, nothing it sends is larger than `GREETING_BYTES` and nothing of it reaches the core.

A link is one TCP (or TLS) connection, made by the server that has something to send. Each frame:

    offset  size  field
    0       4     length of the payload, little-endian
    4       1     channel (`Channel`)
    5       16    code of the frame's number, channel and payload (`Frames`)
    21      …     payload

The greeting: dialer `Hello` → listener `Hello` → dialer `Proof` → listener `Proof`, or at any point a
`Refusal` with its reason. A proof is an HMAC of both hellos, which hold fresh random numbers, under the
secret; both then derive from the same a key for each direction, so that a frame that was changed, repeated,
left out or put in by somebody else ends the link. With mutual TLS the secret may be empty: the
certificates prove who is there, and the keys only find damage.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b, sha256
from struct import Struct
from typing import Final

import msgspec
from cryptography.hazmat.primitives.poly1305 import Poly1305

from consensus.messages import Natural
from model.errors import RewindError
from model.undecodable import UNDECODABLE

MAGIC: Final = b"RewindDB link"
VERSIONS: Final = (1, 2)
"""The oldest and the newest version of this protocol that this program speaks. 2 has Poly1305 for large frames."""
GREETING_BYTES: Final = 4096
NONCE_BYTES: Final = 32
MAC_BYTES: Final = 16
DEFAULT_FRAME_BYTES: Final = 256 << 20
FIRST_WITH_POLY1305: Final = 2
POLY1305_KEY_BYTES: Final = 32
LARGE_BYTES: Final = 16 << 10
"""From here on a Poly1305 code is the cheaper one: 0.25 ms a MiB where blake2b takes 2.4, but 6 µs at least."""
_HEAD: Final = Struct(f"<IB{MAC_BYTES}s")
_COUNT: Final = Struct("<QB")


class Channel(IntEnum):
    """What a frame carries."""

    GREETING = 0
    RAFT = 1
    """One message of the Raft core."""
    PING = 2
    PONG = 3
    SHIPPING = 4
    """Parts of a snapshot, and what is said about them."""
    QUERIES = 5
    """What the servers say to each other for their clients; opaque here."""


class LinkRefused(RewindError):
    """The other server, or this one, refuses the link; the message is the reason."""


class LinkBroken(RewindError):
    """What came over a link is not what the other server sent, or larger than allowed."""


class Hello(msgspec.Struct, array_like=True, tag="hello"):
    """How a server introduces itself. `to` is the member it means to talk to."""

    magic: bytes
    oldest: Natural
    newest: Natural
    cluster_id: str
    member_id: Natural
    to: Natural
    server_id: str
    nonce: bytes
    features: list[str] = []


class Proof(msgspec.Struct, array_like=True, tag="proof"):
    """That the sender knows the secret, for this greeting only."""

    mac: bytes


class Refusal(msgspec.Struct, array_like=True, tag="refusal"):
    """That there will be no link, and why."""

    reason: str


_Greeting = Hello | Proof | Refusal
_encoder: Final = msgspec.msgpack.Encoder()
_greeting_decoder: Final[msgspec.msgpack.Decoder[_Greeting]] = msgspec.msgpack.Decoder(_Greeting)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this server is. `server_id` is new with every data folder, so that a member that lost its disk is known
    as another server; `secret` is empty only under mutual TLS."""

    cluster_id: str
    member_id: int
    server_id: str
    secret: bytes
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """How patient links are. Sizes in bytes, times in seconds."""

    frame_bytes: int = DEFAULT_FRAME_BYTES
    buffer_bytes: int = 64 << 20
    """Waiting for one member; what comes beyond that is dropped."""
    greeting_s: float = 5.0
    ping_s: float = 1.0
    silence_s: float = 5.0
    """A member that answers no ping for so long is called anew."""
    retry_first_s: float = 0.05
    retry_most_s: float = 3.0
    strangers: int = 64
    """Connections that have not proved who they are."""
    piece_bytes: int = 64 << 10
    ship_give_up_s: float = 60.0
    snapshot_bytes: int = 1 << 44


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a link that stands."""

    member_id: int
    server_id: str
    version: int
    features: frozenset[str]


Admit = Callable[[int, str], str]
"""`admit(member_id, server_id)`: why that server is not let in, or ""."""


class SlicedFrame:
    """A frame of which the code is worked out slice by slice, and that is then given out slice by slice."""

    __slots__ = ("_at", "_channel", "_finish", "_head", "_update", "_view", "size")

    def __init__(
        self, channel: Channel, payload: bytes, update: Callable[[memoryview], object], finish: Callable[[], bytes]
    ) -> None:
        self._channel = channel
        self._view = memoryview(payload)
        self.size = len(payload)
        self._update = update
        self._finish = finish
        self._head = b""
        self._at = 0

    def step(self, size: int) -> bytes:
        """Works on at most `size` bytes of the payload: the next bytes to send; none while the code is worked out."""
        part = self._view[self._at : self._at + size]
        self._at += len(part)
        if self._head:
            return bytes(part)
        self._update(part)
        if self._at < len(self._view):
            return b""
        self._head, self._at = _HEAD.pack(self._at, self._channel, self._finish()), 0
        return self._head

    @property
    def is_given_out(self) -> bool:
        """Whether `step` has given out all of it."""
        return bool(self._head) and self._at == len(self._view)


class Frames:
    """One direction of a link: makes frames, or takes them apart. Until it has a key, their codes are zeros.

    A frame's code is a keyed blake2b of its number, channel and payload. From version 2 of the protocol on, that of a
    large frame is Poly1305 (RFC 8439) under a key for this frame only: a keyed blake2b of its number and channel.
    """

    def __init__(self, max_bytes: int = GREETING_BYTES) -> None:
        self.max_bytes = max_bytes
        self._key = b""
        self._large_bytes = 0
        self._count = 0
        self._buffer = bytearray()

    def use_key(self, key: bytes, max_bytes: int, version: int) -> None:
        """From the next frame on, every frame is proved with this key, as this version of the protocol does."""
        self._key = key
        self._large_bytes = LARGE_BYTES if version >= FIRST_WITH_POLY1305 else sys.maxsize
        self._count = 0
        self.max_bytes = max_bytes

    def _mac(self, channel: int, payload: bytes) -> bytes:
        if not self._key:
            return bytes(MAC_BYTES)
        if len(payload) >= self._large_bytes:
            return Poly1305.generate_tag(self._key_of_large(channel), payload)
        code = blake2b(self._next_place(channel), key=self._key, digest_size=MAC_BYTES)
        code.update(payload)
        return code.digest()

    def _next_place(self, channel: int) -> bytes:
        place = _COUNT.pack(self._count, channel)
        self._count += 1
        return place

    def _key_of_large(self, channel: int) -> bytes:
        place = self._next_place(channel)
        return blake2b(place, key=self._key, digest_size=POLY1305_KEY_BYTES, person=b"large frame").digest()

    def pack(self, channel: Channel, payload: bytes) -> bytes:
        """A frame. Raises `LinkBroken` if it is too large for the other side."""
        self._check(len(payload))
        return _HEAD.pack(len(payload), channel, self._mac(channel, payload)) + payload

    def begin(self, channel: Channel, payload: bytes) -> SlicedFrame:
        """A large frame, to be made in slices and sent before any other one. Raises `LinkBroken`, as `pack`."""
        size = len(payload)
        self._check(size)
        if size >= self._large_bytes:
            large = Poly1305(self._key_of_large(channel))
            return SlicedFrame(channel, payload, large.update, large.finalize)
        code = blake2b(self._next_place(channel), key=self._key, digest_size=MAC_BYTES)
        return SlicedFrame(channel, payload, code.update, code.digest)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise LinkBroken(f"A frame of {size} bytes is above the limit of {self.max_bytes}.")

    def feed(self, data: bytes) -> Iterator[tuple[Channel, bytes]]:
        """The frames that are whole now. Raises `LinkBroken`: nothing after that is to be believed."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEAD.size:
            length, channel, mac = _HEAD.unpack_from(buffer)
            if length > self.max_bytes:
                raise LinkBroken(f"A frame of {length} bytes came; the limit is {self.max_bytes}.")
            end = _HEAD.size + length
            if len(buffer) < end:
                return
            with memoryview(buffer) as view:
                payload = bytes(view[_HEAD.size : end])
            del buffer[:end]
            if not hmac.compare_digest(mac, self._mac(channel, payload)):
                raise LinkBroken("A frame was changed, repeated or left out on its way.")
            if channel not in Channel._value2member_map_:
                raise LinkBroken(f"A frame came for the unknown channel {channel}.")
            yield Channel(channel), payload


class Greeting:
    """One side of the greeting. `receive` takes bytes and gives the frames after it; `peer` is set once it is over."""

    def __init__(
        self,
        identity: Identity,
        nonce: bytes,
        *,
        dials: int = 0,
        admit: Admit | None = None,
        max_bytes: int = DEFAULT_FRAME_BYTES,
    ) -> None:
        """`dials` is the member that is called, 0 where this side is called. `nonce`: fresh random bytes."""
        self.peer: Peer | None = None
        self.outgoing = Frames()
        self._incoming = Frames()
        self._identity = identity
        self._dials = dials
        self._admit = admit
        self._max_bytes = max_bytes
        self._other: Hello | None = None
        self._other_bytes = b""
        self._version = 0
        self._own = Hello(
            MAGIC,
            *VERSIONS,
            identity.cluster_id,
            identity.member_id,
            dials,
            identity.server_id,
            nonce,
            list(identity.features),
        )
        self._own_bytes = _encoder.encode(self._own)

    def begin(self) -> bytes:
        """What this side sends first; nothing where it is called."""
        return self._pack(self._own) if self._dials else b""

    def _pack(self, greeting: _Greeting) -> bytes:
        return self.outgoing.pack(Channel.GREETING, _encoder.encode(greeting))

    def receive(self, data: bytes, answer: Callable[[bytes], object]) -> Iterator[tuple[Channel, bytes]]:
        """Take bytes; answer with bytes; give what comes after the greeting.

        Raises `LinkRefused` when there is no link to be (the other side was told why), or `LinkBroken`.
        """
        for channel, payload in self._incoming.feed(data):
            if self.peer is not None:
                yield channel, payload
                continue
            if channel is not Channel.GREETING:
                raise LinkBroken("Something else than a greeting came first.")
            try:
                greeting = _greeting_decoder.decode(payload)
            except UNDECODABLE as error:
                raise LinkBroken("The other side does not speak this protocol.") from error
            try:
                self._take(greeting, payload, answer)
            except LinkRefused as refusal:
                if not isinstance(greeting, Refusal):
                    answer(self._pack(Refusal(refusal.message)))
                raise

    def _take(self, greeting: _Greeting, payload: bytes, answer: Callable[[bytes], object]) -> None:
        if isinstance(greeting, Refusal):
            raise LinkRefused(f"The other server refuses the link: {greeting.reason[:500]}")
        if isinstance(greeting, Hello):
            if self._other is not None:
                raise LinkBroken("A second hello came.")
            self._check(greeting)
            self._other, self._other_bytes = greeting, payload
            answer(self._pack(self._proof(b"dialer") if self._dials else self._own))
            return
        if self._other is None:
            raise LinkBroken("A proof came before a hello.")
        expected = self._proof(b"listener" if self._dials else b"dialer")
        if not hmac.compare_digest(greeting.mac, expected.mac):
            raise LinkRefused("The other server does not know this cluster's secret.")
        if not self._dials:
            answer(self._pack(self._proof(b"listener")))
        self._finish(self._other)

    def _check(self, hello: Hello) -> None:
        own = self._identity
        if hello.magic != MAGIC or len(hello.nonce) != NONCE_BYTES or hello.nonce == self._own.nonce:
            raise LinkBroken("The other side does not speak this protocol.")
        self._version = min(hello.newest, self._own.newest)
        if self._version < max(hello.oldest, self._own.oldest):
            raise LinkRefused(
                f"Server versions do not fit: one speaks link versions {hello.oldest} to {hello.newest},"
                f" the other {self._own.oldest} to {self._own.newest}."
            )
        if hello.cluster_id != own.cluster_id:
            raise LinkRefused(f"Member {hello.member_id} belongs to another cluster ({hello.cluster_id[:64]}).")
        if hello.member_id == own.member_id:
            raise LinkRefused(f"Both servers say that they are member {own.member_id}.")
        if self._dials and hello.member_id != self._dials:
            raise LinkRefused(f"Member {hello.member_id} answers where member {self._dials} was called.")
        if not self._dials and hello.to != own.member_id:
            raise LinkRefused(f"Member {hello.to} was called, but this is member {own.member_id}.")
        reason = self._admit(hello.member_id, hello.server_id) if self._admit else ""
        if reason:
            raise LinkRefused(reason)

    def _transcript(self) -> bytes:
        """Both hellos as they went over the link, the dialer's first."""
        hellos = (self._own_bytes, self._other_bytes) if self._dials else (self._other_bytes, self._own_bytes)
        return sha256(len(hellos[0]).to_bytes(4, "little") + b"".join(hellos)).digest()

    def _derive(self, label: bytes) -> bytes:
        return hmac.digest(self._identity.secret, b"RewindDB " + label + self._transcript(), "sha256")

    def _proof(self, role: bytes) -> Proof:
        return Proof(self._derive(b"proof of the " + role))

    def _finish(self, other: Hello) -> None:
        from_dialer, from_listener = self._derive(b"key of the dialer"), self._derive(b"key of the listener")
        own_key, their_key = (from_dialer, from_listener) if self._dials else (from_listener, from_dialer)
        self.outgoing.use_key(own_key, self._max_bytes, self._version)
        self._incoming.use_key(their_key, self._max_bytes, self._version)
        features = frozenset(other.features) & frozenset(self._identity.features)
        self.peer = Peer(other.member_id, other.server_id, self._version, features)
