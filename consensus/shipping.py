"""Bringing a snapshot to another member: offered, asked for piece by piece, resumed after a broken link.

Pure state machines on both sides; who plugs them in reads and writes the pieces. The rule: the core of the
receiving member hears of a snapshot only when all of it is there and was found to be whole.

    sender                      receiver
    Offer(ship, message, size) ─►
                             ◄─ Want(ship, offset)      where to begin: what is there from before stays
    Piece(ship, offset, data) ─► …                      a window of pieces is under way at a time
                             ◄─ Want(ship, offset)      everything before is stored
                             ◄─ Done(ship) or Failed(ship, reason)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from consensus.links import LinkBroken
from consensus.messages import Kind, Message, Natural, Snapshot
from model.errors import RewindError
from model.undecodable import UNDECODABLE

_log = logging.getLogger("rewinddb.consensus")

PIECE_BYTES: Final = 64 << 10
"""Reading, proving and sending one holds up everything else for about 0.2 ms."""
WINDOW_PIECES: Final = 16
SHIP_BYTES: Final = 16


class Source(Protocol):
    """The bytes of one snapshot."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`."""

    def close(self) -> None:
        """No more is needed."""


class Sink(Protocol):
    """Where the bytes of one snapshot go."""

    offset: int
    """How many bytes are there; more than 0 where an earlier attempt was broken off."""

    def write(self, data: bytes) -> None:
        """Add bytes."""

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """All is there: check it and keep it; then call `done`."""

    def close(self) -> None:
        """The attempt is broken off; what is there may stay for the next one."""


class Shelf(Protocol):
    """Where a server keeps the bytes of snapshots."""

    def open(self, snapshot: Snapshot) -> Source:
        """The bytes of a snapshot of this server. Raises `SnapshotUnavailable`."""

    def receive(self, snapshot: Snapshot, size: int) -> Sink:
        """A place for a snapshot of another server."""


class Offer(msgspec.Struct, array_like=True, tag="offer"):
    """That a snapshot is to be sent, with the core's message about it."""

    ship: bytes
    message: Message
    size: Natural


class Want(msgspec.Struct, array_like=True, tag="want"):
    """That everything before `offset` is there and more is wanted."""

    ship: bytes
    offset: Natural


class Piece(msgspec.Struct, array_like=True, tag="piece"):
    """Some bytes."""

    ship: bytes
    offset: Natural
    data: bytes


class Done(msgspec.Struct, array_like=True, tag="done"):
    """That all is there and whole."""

    ship: bytes


class Failed(msgspec.Struct, array_like=True, tag="failed"):
    """That this snapshot cannot be taken."""

    ship: bytes
    reason: str


Word = Offer | Want | Piece | Done | Failed
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Word]] = msgspec.msgpack.Decoder(Word)


def encode_word(word: Word) -> bytes:
    """The bytes of one word about a snapshot."""
    return _encoder.encode(word)


def decode_word(data: bytes) -> Word:
    """Inverse of `encode_word`. Raises `LinkBroken`."""
    try:
        return _decoder.decode(data)
    except UNDECODABLE as error:
        raise LinkBroken(f"A peer sent something else than a part of a snapshot: {error}.") from error


def ship_of(snapshot: Snapshot) -> bytes:
    """The name of a snapshot's shipment: the same for each attempt to send the same snapshot."""
    about = _encoder.encode((snapshot.index, snapshot.raft_term, snapshot.conf, snapshot.data))
    return blake2b(about, digest_size=SHIP_BYTES).digest()


@dataclass(slots=True)
class _Shipment:
    ship: bytes
    message: Message
    source: Source
    acked: int = 0
    sent: int = 0
    begun_s: float = 0.0


class Shipper:
    """The sending side towards one member: one snapshot at a time, the newest one asked for.

    `write` puts a word on the link; `report(delivered)` is called exactly once for each `ship`. `wait_s()` tells how
    long to wait before more is sent, `sent(size)` hears of what is; `later(delay, call)` calls after a wait.
    """

    def __init__(
        self,
        shelf: Shelf,
        write: Callable[[bytes], object],
        report: Callable[[bool], None],
        *,
        piece_bytes: int = PIECE_BYTES,
        give_up_s: float = 60.0,
        wait_s: Callable[[], float] = float,
        sent: Callable[[int], object] = float,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._shelf = shelf
        self._write = write
        self._report = report
        self._piece_bytes = piece_bytes
        self._give_up_s = give_up_s
        self._wait_s = wait_s
        self._sent = sent
        self._later = later
        self._is_paused = False
        self._now: _Shipment | None = None
        self._is_linked = False
        self._heard_s = 0.0

    @property
    def progress(self) -> tuple[int, int] | None:
        """(bytes that arrived, bytes in all) of the snapshot under way."""
        return (self._now.acked, self._now.source.size) if self._now else None

    def ship(self, message: Message, now_s: float) -> None:
        """Send the snapshot of a message, instead of one that is under way."""
        self._end(False)
        assert message.snapshot is not None
        try:
            source = self._shelf.open(message.snapshot)
        except (RewindError, OSError) as error:
            _log.warning("a snapshot for member %x cannot be read: %s", message.to, error)
            self._report(False)
            return
        self._now = _Shipment(ship_of(message.snapshot), message, source)
        self._heard_s = now_s
        if self._is_linked:
            self._offer()

    def _offer(self) -> None:
        assert self._now is not None
        self._now.sent = self._now.acked
        self._write(encode_word(Offer(self._now.ship, self._now.message, self._now.source.size)))

    def link_up(self) -> None:
        """There is a link (again): go on where the last one broke."""
        self._is_linked = True
        if self._now is not None:
            self._offer()

    def link_down(self) -> None:
        """The link broke: wait for the next one."""
        self._is_linked = False

    def tick(self, now_s: float) -> None:
        """Give up when nothing was heard for too long."""
        if self._now is not None and now_s - self._heard_s > self._give_up_s:
            self._end(False)

    def take(self, word: Word, now_s: float) -> None:
        """What the receiver says."""
        shipment = self._now
        if shipment is None or isinstance(word, Offer | Piece) or word.ship != shipment.ship:
            return
        self._heard_s = now_s
        if isinstance(word, Want):
            if not shipment.acked <= word.offset <= shipment.source.size:
                raise LinkBroken(f"A peer wants a snapshot from offset {word.offset} of {shipment.source.size} on.")
            shipment.acked = word.offset
            shipment.sent = max(shipment.sent, word.offset)
            self._fill_window()
        elif isinstance(word, Failed):
            _log.warning("member %x does not take a snapshot: %s", shipment.message.to, word.reason[:500])
            self._end(False)
        else:
            self._end(True)

    def _fill_window(self) -> None:
        shipment = self._now
        if shipment is None or not self._is_linked or self._is_paused:
            return
        size, window = shipment.source.size, WINDOW_PIECES * self._piece_bytes
        while shipment.sent < size and shipment.sent < shipment.acked + window:
            wait_s = self._wait_s()
            if wait_s > 0 and self._later is not None:
                self._is_paused = True
                self._later(wait_s, self._go_on)
                return
            try:
                data = shipment.source.read(shipment.sent, min(self._piece_bytes, size - shipment.sent))
            except OSError as error:
                _log.warning("a snapshot for member %x cannot be read: %s", shipment.message.to, error)
                data = b""
            if not data:
                self._end(False)
                return
            self._write(encode_word(Piece(shipment.ship, shipment.sent, data)))
            shipment.sent += len(data)
            self._sent(len(data))

    def _go_on(self) -> None:
        self._is_paused = False
        self._fill_window()

    def _end(self, delivered: bool) -> None:
        shipment, self._now = self._now, None
        if shipment is not None:
            shipment.source.close()
            self._report(delivered)


class Receiver:
    """The receiving side from one member. `deliver` hands the core's message on once the snapshot is whole."""

    def __init__(
        self, shelf: Shelf, write: Callable[[bytes], object], deliver: Callable[[Message], None], max_bytes: int
    ) -> None:
        self._shelf = shelf
        self._write = write
        self._deliver = deliver
        self._max_bytes = max_bytes
        self._offer: Offer | None = None
        self._sink: Sink | None = None

    def take(self, word: Word) -> None:
        """What the sender says. Raises `LinkBroken` where it makes no sense."""
        if isinstance(word, Offer):
            self._begin(word)
        elif isinstance(word, Piece):
            self._add(word)

    def _begin(self, offer: Offer) -> None:
        snapshot = offer.message.snapshot
        if offer.message.kind is not Kind.SNAPSHOT or snapshot is None or offer.ship != ship_of(snapshot):
            raise LinkBroken("A peer offers a snapshot under a wrong name.")
        self.close()
        if offer.size > self._max_bytes:
            reason = f"it has {offer.size} bytes; the limit is {self._max_bytes}"
            self._write(encode_word(Failed(offer.ship, reason)))
            return
        try:
            sink = self._shelf.receive(snapshot, offer.size)
        except (RewindError, OSError) as error:
            self._write(encode_word(Failed(offer.ship, str(error))))
            return
        self._offer, self._sink = offer, sink
        self._go_on(offer, sink)

    def _add(self, piece: Piece) -> None:
        offer, sink = self._offer, self._sink
        if offer is None or sink is None or piece.ship != offer.ship:
            return  # of an attempt that was given up
        if piece.offset != sink.offset or sink.offset + len(piece.data) > offer.size or not piece.data:
            raise LinkBroken("A peer sends a piece of a snapshot that does not follow the one before.")
        try:
            sink.write(piece.data)
        except (RewindError, OSError) as error:
            self._write(encode_word(Failed(offer.ship, str(error))))
            self.close()
            return
        self._go_on(offer, sink)

    def _go_on(self, offer: Offer, sink: Sink) -> None:
        if sink.offset < offer.size:
            self._write(encode_word(Want(offer.ship, sink.offset)))
            return
        self._sink = None

        def done(error: Exception | None) -> None:
            if error is None:
                self._deliver(offer.message)
                self._write(encode_word(Done(offer.ship)))
            else:
                self._write(encode_word(Failed(offer.ship, str(error))))

        sink.finish(done)

    def close(self) -> None:
        """The link broke, or something else is offered."""
        sink, self._sink, self._offer = self._sink, None, None
        if sink is not None:
            sink.close()


def is_shipped(message: Message) -> bool:
    """Whether a message needs a shipment before it."""
    return message.kind is Kind.SNAPSHOT and message.snapshot is not None
