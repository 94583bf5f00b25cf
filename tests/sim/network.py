"""A network that loses, repeats, delays and reorders, and that can be cut in one direction only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consensus.messages import Message, decode_message, encode_message
from tests.sim.world import World


@dataclass(slots=True)
class Weather:
    """How bad the network is at the moment. Delays are in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    delay_min: float = 0.0005
    delay_max: float = 0.005
    late: float = 0.0
    """The share of messages that take up to `late_max` instead."""
    late_max: float = 1.0


class Network:
    """Delivers messages as bytes: what arrives is what the codec makes of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.weather = Weather()
        self.cut: set[tuple[int, int]] = set()
        """(from, to) pairs between which nothing arrives."""
        self.deliver: Callable[[int, Message], None] = lambda _to, _message: None
        self.was_lost: Callable[[Message], None] = lambda _message: None
        self.sent = self.lost = 0

    def send(self, message: Message) -> None:
        """Put a message on its way, or lose it."""
        self.sent += 1
        weather, world = self.weather, self._world
        if (message.sender, message.to) in self.cut or world.chance(weather.loss):
            self.lost += 1
            self.was_lost(message)
            return
        data = encode_message(message)
        for _ in range(2 if world.chance(weather.repeat) else 1):
            if world.chance(weather.late):
                delay = world.dice.uniform(0, weather.late_max)
            else:
                delay = world.dice.uniform(weather.delay_min, weather.delay_max)
            world.after(delay, self._arrive, message.sender, message.to, data)

    def _arrive(self, sender: int, to: int, data: bytes) -> None:
        message = decode_message(data)
        if (sender, to) in self.cut:
            self.lost += 1
            self.was_lost(message)
        else:
            self.deliver(to, message)

    def split(self, first: Iterable[int], second: Iterable[int], one_way: bool = False) -> None:
        """Let nothing pass between two sides; with `one_way`, only from the second to the first."""
        for one in first:
            for other in second:
                self.cut.add((one, other))
                if not one_way:
                    self.cut.add((other, one))

    def heal(self) -> None:
        """All can reach all again."""
        self.cut.clear()
