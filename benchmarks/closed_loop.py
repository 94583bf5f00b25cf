"""Asks a server as fast as it answers, from a few connections, and tells what that cost the server.

One rule: queries are ready bytes before the clock starts, and answers are only looked at as far as is needed to know
whose they are and whether they are errors, so that the load costs little beside the server.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from rethinkdb import r
from rethinkdb.net import Query, pQuery

_HEADER: Final = struct.Struct("<QI")
_HELLO: Final = struct.pack("<III", 0x400C2D20, 0, 0x7E6970C7)  # V0_4, an empty key, JSON
_WELCOME: Final = b"SUCCESS\0"
_CONTINUE: Final = b"[2]"
_PARTIAL: Final = b'{"t":3'
_ERROR: Final = b'{"t":1'  # followed by a digit: 16, 17, 18
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def encode(term: Any, **options: Any) -> bytes:
    """The JSON text of a query as the official driver sends it."""
    text: bytes = Query(pQuery.START, 0, term, {"db": r.db("test"), **options}).serialize()[12:]
    return text


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system time, with its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run was: operations, seconds on the wall, the server's CPU seconds, and the slowest hundredth's time."""

    operations: int
    wall_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU time per operation."""
        return self.cpu_s / self.operations * 1e6

    @property
    def per_second(self) -> float:
        return self.operations / self.wall_s


class _Asker:
    """One connection: asks, takes the answer (of streams all of it), and asks again."""

    def __init__(self, port: int, bodies: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_HELLO)
        greeting = b""
        while len(greeting) < len(_WELCOME):
            greeting += self.socket.recv(64)
        if greeting != _WELCOME:
            raise RuntimeError(f"the server refuses: {greeting!r}")
        self._bodies = bodies
        self._token = 0
        self._got = b""
        self._asked_s = 0.0

    def ask(self) -> None:
        self._token += 1
        self._asked_s = time.perf_counter()
        self._send(next(self._bodies))

    def _send(self, body: bytes) -> None:
        self.socket.sendall(_HEADER.pack(self._token, len(body)) + body)

    def take(self) -> float | None:
        """Reads what has come; seconds from question to answer once it is whole. Raises RuntimeError for an error."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the server closed the connection")
        got = self._got = self._got + data if self._got else data
        if len(got) < 12 or len(got) < 12 + _HEADER.unpack_from(got)[1]:
            return None
        self._got = b""
        body = got[12:20]
        if body.startswith(_PARTIAL):
            self._send(_CONTINUE)
            return None
        if body.startswith(_ERROR) and body[6:7].isdigit():
            raise RuntimeError(got[12:500].decode(errors="replace"))
        return time.perf_counter() - self._asked_s


def run(
    port: int, pid: int, bodies: Sequence[bytes], connections: int, seconds: float, count: int | None = None
) -> Cost:
    """Asks `bodies` over and over for so long, or `count` of them once. Raises RuntimeError for an error as answer."""
    source = iter(bodies) if count is not None else cycle(bodies)
    askers = [_Asker(port, source) for _ in range(connections)]
    times: list[float] = []
    with selectors.DefaultSelector() as selector:
        cpu_s, began_s = cpu_seconds(pid), time.perf_counter()
        ends_s = began_s + seconds if count is None else float("inf")
        for asker in askers[: count or connections]:
            selector.register(asker.socket, selectors.EVENT_READ, asker)
            asker.ask()
        asked = running = len(selector.get_map())
        while running:
            for key, _ in selector.select():
                took_s = key.data.take()
                if took_s is None:
                    continue
                times.append(took_s)
                if time.perf_counter() < ends_s and (count is None or asked < count):
                    asked += 1
                    key.data.ask()
                else:
                    running -= 1
        cost = Cost(len(times), time.perf_counter() - began_s, cpu_seconds(pid) - cpu_s, *_middle_and_slow(times))
    for asker in askers:
        asker.socket.close()
    return cost


def _middle_and_slow(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return ordered[len(ordered) // 2] * 1000, ordered[len(ordered) * 99 // 100] * 1000
