"""What a member does that the leader has told to take an image.

One rule: it works as long as the leader of this moment goes on telling it to, and no longer: of an order that is not
repeated, or of another server than the leader, nothing stays, neither children nor a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import ensureDeferred

from model.errors import RewindError
from server.images.messages import (
    DONE,
    FAILED,
    PREPARING,
    READY,
    TAKING,
    Asked,
    Order,
    Outcome,
    Report,
    decode_order,
    encode_report,
)
from server.images.taking import LOOK_AGAIN_S, ImageTaker, Taking

log = logging.getLogger("rewinddb.backup")

PATIENCE_S: Final = 8.0
UNKNOWN_ATTEMPT: Final = "it was started anew, or had given the image up"


class ImageOrders:
    """All images that this server takes for a leader: mostly none or one. On the reactor's thread."""

    def __init__(
        self,
        taker: ImageTaker,
        send: Callable[[int, bytes], object],
        leader_id: Callable[[], int | None],
        seconds: Callable[[], float],
    ) -> None:
        """send(member, message): maybe in vain. leader_id: as known here."""
        self._taker = taker
        self._send = send
        self._leader_id = leader_id
        self._seconds = seconds
        self._served: dict[str, _Served] = {}

    def receive(self, member: int, message: bytes) -> None:
        """An order came. Raises msgspec.DecodeError."""
        order = decode_order(message)
        if member != self._leader_id():
            return  # it has lost the lead and will notice, or has it and will say so again
        served = self._served.get(order.attempt)
        if order.is_over:
            if served is not None:
                del self._served[order.attempt]
                served.give_up("The leader does not want it any more.")
            return
        if served is None:
            if order.asked is None:
                self._send(member, encode_report(Report(order.attempt, FAILED, error=UNKNOWN_ATTEMPT)))
                return
            for other in [*self._served]:  # of the same leader, which has lost its answer, or of the one before
                self._served.pop(other).give_up("The leader wants another one.")
            served = _Served(self._taker, member, order.attempt, order.asked, lambda: self._tell(order.attempt))
            self._served[order.attempt] = served
            served.begin()
        served.ordered_s = self._seconds()
        served.told(order)
        self._tell(order.attempt)

    def tick(self) -> None:
        """Each second: what nobody wants any more ends."""
        for attempt, served in [*self._served.items()]:
            if self._seconds() - served.ordered_s > PATIENCE_S or self._leader_id() not in (served.member, None):
                log.warning("an image for member %d is given up: it has not asked for it lately", served.member)
                del self._served[attempt]
                served.give_up("The leader was not heard of any more.")

    def stop(self) -> None:
        """The server stops."""
        for served in self._served.values():
            served.give_up("The server was stopped.")
        self._served.clear()

    def _tell(self, attempt: str) -> None:
        served = self._served.get(attempt)
        if served is not None:
            self._send(served.member, encode_report(served.report()))


class _Served:
    """One of them."""

    def __init__(self, taker: ImageTaker, member: int, attempt: str, asked: Asked, changed: Callable[[], None]) -> None:
        self.member = member  # that leads, and wants it
        self.ordered_s = 0.0
        self._taker = taker
        self._attempt = attempt
        self._changed = changed
        self._order: Order | None = None  # the one with the image's name
        self._state = PREPARING
        self._error = ""
        self._outcomes: list[Outcome] = []
        self._given_up = ""
        self._asked = asked
        self._taking: Taking | None = None

    def begin(self) -> None:
        ensureDeferred(self._work()).addErrback(self._lost)

    def told(self, order: Order) -> None:
        if order.image:
            self._order = order

    def give_up(self, why: str) -> None:
        self._given_up = why
        if self._taking is not None:
            self._taking.cancel(why)

    def report(self) -> Report:
        taking = self._taking
        if taking is None:
            return Report(self._attempt, self._state, error=self._error)
        rows_in_all, rows, size = sum(taking.rows), max(taking.rows), max(taking.bytes)
        return Report(
            self._attempt, self._state, taking.log_index, rows_in_all, rows, size, self._outcomes, self._error
        )

    async def _work(self) -> None:
        try:
            self._taking = taking = self._taker.begin(self._asked)
            try:
                await self._take(taking)
            finally:
                await taking.end()
        except RewindError as error:
            log.warning("no image could be taken for member %d: %s", self.member, error)
            self._state, self._error = FAILED, str(error)
        self._changed()

    async def _take(self, taking: Taking) -> None:
        await taking.entered()
        log_index = await taking.checkpoint()
        log.info("takes an image at log index %d for member %d", log_index, self.member)
        self._state = READY
        self._changed()
        while self._order is None:
            self._go_on()
            await self._taker.pace.pause(LOOK_AGAIN_S)
        self._go_on()
        self._state = TAKING
        outcomes = await taking.capture(self._order.image, self._order.time_ms, lambda taking: None)
        self._go_on()
        self._outcomes, self._state = outcomes, DONE

    def _go_on(self) -> None:
        if self._given_up:
            raise RewindError(self._given_up)

    def _lost(self, failure: Any) -> None:
        log.error("an image for member %d ended without a word: %s", self.member, failure.getTraceback())
        self._state, self._error = FAILED, str(failure.value)
        self._changed()
