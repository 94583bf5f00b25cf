"""Where an image is taken, as the leader sees it: here, or on another member, step by step over the links.

One rule: a place that cannot, or is lost, says so with PlaceLost, and nothing it did counts: the next place begins
anew. Only this server itself is never lost: what fails here fails the backup.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from model.errors import RewindError
from server.images.messages import DONE, FAILED, READY, Asked, Order, Outcome, Report
from server.images.taking import LOOK_AGAIN_S, ImageTaker, Pace, Taking

log = logging.getLogger("rewinddb.backup")

ORDER_EVERY_S: Final = 1.0
LOST_S: Final = 12.0
"""Longer than `orders.PATIENCE_S`: a member that is only cut off has given up before another one begins."""

Progress = Callable[[int, int, int], None]
"""Called with (rows of all vaults together, rows and bytes of the one that is furthest)."""


class PlaceLost(RewindError):
    """This place takes no image; the message says why. Another one may."""


class Place(Protocol):
    """Used once, for one image; `end` is to be called whatever happens."""

    name: str

    async def prepare(self, asked: Asked) -> int:
        """Takes a checkpoint; the log index in it. Raises PlaceLost, or RewindError if that is the end of it."""

    async def take(self, image: str, time_ms: int, progress: Progress) -> list[Outcome]:
        """Has the image written; what came of it in each vault. Raises PlaceLost."""

    def cancel(self, why: str) -> None:
        """What is under way ends soon."""

    async def end(self) -> None: ...


class Here:
    """This server."""

    def __init__(self, name: str, taker: ImageTaker, on_label: Callable[[str, dict[str, object]], None]) -> None:
        """on_label(vault name, what its vault.json says): called for each vault that was entered."""
        self.name = name
        self._taker = taker
        self._on_label = on_label
        self._asked: Asked | None = None
        self._taking: Taking | None = None

    async def prepare(self, asked: Asked) -> int:
        self._asked = asked
        self._taking = self._taker.begin(asked)
        return await self._taking.checkpoint()

    async def take(self, image: str, time_ms: int, progress: Progress) -> list[Outcome]:
        taking, asked = self._taking, self._asked
        assert taking is not None and asked is not None
        outcomes = await taking.capture(
            image, time_ms, lambda taking: progress(sum(taking.rows), max(taking.rows), max(taking.bytes))
        )
        for vault, label in zip(asked.vaults, taking.labels, strict=True):
            if label is not None:
                self._on_label(vault.access["name"], label)
        return outcomes

    def cancel(self, why: str) -> None:
        if self._taking is not None:
            self._taking.cancel(why)

    async def end(self) -> None:
        if self._taking is not None:
            await self._taking.end()


class There:
    """Another member. send(order): to it, maybe in vain. `heard` is to be called with each report that it sends."""

    def __init__(self, name: str, send: Callable[[Order], object], pace: Pace, seconds: Callable[[], float]) -> None:
        self.name = name
        self.attempt = secrets.token_hex(8)
        self._send = send
        self._pace = pace
        self._seconds = seconds
        self._order = Order(self.attempt)
        self._sent_s = float("-inf")
        self._heard_s = 0.0
        self._report: Report | None = None
        self._cancelled = ""

    def heard(self, report: Report) -> None:
        """It says how far it is."""
        if report.attempt == self.attempt:
            self._report = report
            self._heard_s = self._seconds()

    async def prepare(self, asked: Asked) -> int:
        self._heard_s = self._seconds()  # it may have waited for its turn
        report = await self._until(Order(self.attempt, asked), (READY,), lambda report: None)
        return report.log_index

    async def take(self, image: str, time_ms: int, progress: Progress) -> list[Outcome]:
        def tell(report: Report) -> None:
            progress(report.rows_in_all, report.rows, report.bytes)

        report = await self._until(Order(self.attempt, image=image, time_ms=time_ms), (DONE,), tell)
        return list(report.outcomes)

    def cancel(self, why: str) -> None:
        self._cancelled = why
        self._send(Order(self.attempt, is_over=True))

    async def end(self) -> None:
        self._send(Order(self.attempt, is_over=True))

    async def _until(self, order: Order, states: tuple[str, ...], tell: Callable[[Report], None]) -> Report:
        """Sends an order again and again until the member reports one of the states."""
        self._sent_s = float("-inf")
        while True:
            if self._cancelled:
                raise RewindError(self._cancelled)
            report, now_s = self._report, self._seconds()
            if report is not None:
                if report.state == FAILED:
                    raise PlaceLost(report.error)
                if report.state in states:
                    return report
                tell(report)
            if now_s - self._heard_s > LOST_S:
                raise PlaceLost(f"nothing was heard of it for {LOST_S:.0f} seconds")
            if now_s - self._sent_s >= ORDER_EVERY_S:
                self._sent_s = now_s
                self._send(order)
            await self._pace.pause(LOOK_AGAIN_S)
