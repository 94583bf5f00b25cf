"""A reactor in memory: its clock is moved by hand, its connections are pipes that can be slow, cut, or bent."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python import failure

Failure: Any = failure.Failure
Refused: Any = ConnectionRefusedError


class Pipe:
    """One end of a connection: a transport for the protocol on this side."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self.other: Pipe
        self.protocol: Any = None
        self.producer: Any = None
        self.is_open = True
        self.buffer = b""
        self.bend: Callable[[bytes], bytes] = lambda data: data
        """What happens to bytes on their way to the other side."""

    def write(self, data: bytes) -> None:
        if self.is_open:
            self.buffer += data
            if len(self.buffer) > self._wires.buffer_bytes and self.producer is not None:
                self.producer.pauseProducing()
            self._wires.callLater(0, self._pass_on)

    def _pass_on(self) -> None:
        if not self.buffer or self._wires.is_stuck or not self.other.is_open:
            return
        part, self.buffer = self.buffer[: self._wires.part_bytes], self.buffer[self._wires.part_bytes :]
        self.other.protocol.dataReceived(self.bend(part))
        if self.buffer:
            self._wires.callLater(0, self._pass_on)
        elif self.is_open and self.producer is not None:
            self.producer.resumeProducing()

    def setTcpNoDelay(self, _enabled: bool) -> None:
        pass

    def registerProducer(self, producer: Any, _streaming: bool) -> None:
        self.producer = producer

    def getPeer(self) -> SimpleNamespace:
        return SimpleNamespace(host="192.0.2.1")

    def loseConnection(self) -> None:
        """Close once all is written."""
        if self.is_open and self.buffer and not self._wires.is_stuck:
            self._wires.callLater(0, self.loseConnection)
        else:
            self._close(ConnectionDone())

    def abortConnection(self) -> None:
        self._close(ConnectionAborted())

    def _close(self, reason: Exception) -> None:
        for end in (self, self.other):
            if end.is_open:
                end.is_open = False
                end.protocol.connected = 0
                self._wires.callLater(0, end.protocol.connectionLost, Failure(reason))


class Wires(Clock):
    """What the links need of a reactor. `let_pass` lets everything happen that is due."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[int, Any] = {}
        self.pipes: list[tuple[Pipe, Pipe]] = []
        self.part_bytes = 1 << 16
        self.buffer_bytes = 1 << 16
        self.is_stuck = False

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> SimpleNamespace:
        self.ports[port] = factory
        return SimpleNamespace(
            getHost=lambda: SimpleNamespace(port=port), stopListening=lambda: self.ports.pop(port, None)
        )

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float) -> SimpleNamespace:
        self.callLater(0, self._connect, port, factory)
        return SimpleNamespace(disconnect=lambda: None)

    def _connect(self, port: int, factory: Any) -> None:
        if port not in self.ports:
            factory.clientConnectionFailed(None, Failure(Refused()))
            return
        caller, called = Pipe(self), Pipe(self)
        caller.other, called.other = called, caller
        self.pipes.append((caller, called))
        for pipe, maker in ((called, self.ports[port]), (caller, factory)):
            pipe.protocol = maker.buildProtocol(None)
        for pipe in (called, caller):
            pipe.protocol.makeConnection(pipe)

    def let_pass(self, seconds: float = 0.0, step: float = 0.05) -> None:
        """Let time pass."""
        self._turn()
        while seconds > 0:
            self.advance(min(step, seconds))
            seconds -= step
            self._turn()

    def _turn(self) -> None:
        for _ in range(10_000):
            calls: list[Any] = list(self.getDelayedCalls())
            if not any(call.getTime() <= self.seconds() for call in calls):
                return
            self.advance(0)
        raise AssertionError("the wires never come to rest")
