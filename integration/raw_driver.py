"""Drivers in their barest form: thousands of queries over few sockets, or thousands of sockets, in one thread.

One rule: nothing is decoded that a test does not look at, so that the client is not what is measured.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rethinkdb.ast import ReQLEncoder

HEADER = struct.Struct("<qI")
LOG_IN = struct.pack("<III", 0x400C2D20, 0, 0x7E6970C7)  # V0_4, no password, JSON
CONTINUE = b"[2]"
SERVER_INFO = b"[5]"


def encode(query: Any, **optargs: Any) -> bytes:
    """A START's body."""
    return ReQLEncoder().encode([1, query, optargs]).encode()


class RawDriver:
    """One socket. `heard` gives what has come by now; it blocks only while it logs in."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(LOG_IN)
        answer = b""
        while not answer.endswith(b"\0"):
            answer += self.socket.recv(100)
        if answer != b"SUCCESS\0":
            raise ConnectionError(answer)
        self._received = bytearray()

    def say(self, token: int, body: bytes) -> None:
        self.socket.sendall(HEADER.pack(token, len(body)) + body)

    def heard(self) -> Iterator[tuple[int, bytes]]:
        """(token, body) of the responses that are complete after one more read of the socket."""
        received = self._received
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed a connection")
        received += data
        at = 0
        try:
            while len(received) - at >= HEADER.size:
                token, size = HEADER.unpack_from(received, at)
                end = at + HEADER.size + size
                if len(received) < end:
                    break
                body = bytes(received[at + HEADER.size : end])
                at = end
                yield token, body
        finally:  # whoever has heard enough leaves the rest for the next time
            del received[:at]

    def ask(self, body: bytes, token: int = -1) -> bytes:
        """The response to one query; for drivers of which nothing else is expected."""
        self.say(token, body)
        while True:
            for found, response in self.heard():
                if found == token:
                    return response

    def close(self) -> None:
        self.socket.close()


class Crowd:
    """Many drivers, and a loop that gives what they hear to a function."""

    def __init__(self, port: int, count: int) -> None:
        self.drivers: list[RawDriver] = []
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            driver = RawDriver(port)
            self.drivers.append(driver)
            self._selector.register(driver.socket, selectors.EVENT_READ, driver)

    def listen(
        self, heed: Callable[[RawDriver, int, bytes], None], is_over: Callable[[], bool], deadline_s: float
    ) -> float:
        """Hears until something is over; the seconds that it took. Raises TimeoutError after `deadline_s`."""
        begun = time.monotonic()
        while not is_over():
            if time.monotonic() - begun > deadline_s:
                raise TimeoutError("not all was heard in time")
            for key, _ in self._selector.select(0.5):
                for token, body in key.data.heard():
                    heed(key.data, token, body)
        return time.monotonic() - begun

    def close(self) -> None:
        self._selector.close()
        for driver in self.drivers:
            driver.close()


def resident_bytes(pid: int) -> int:
    """The memory that a process really takes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
