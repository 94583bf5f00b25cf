"""The addresses that this machine has, as `server_status` tells them.

Monitors look for the address that they connected to among them. One rule: nothing is resolved, because a name server
that does not answer must not keep a server from starting.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "all"})
_ADDRESS_OF: Final = 0x8915  # SIOCGIFADDR of Linux
_LOOPBACK: Final = "127.0.0.1"


def reached_at(address: str) -> tuple[str, ...]:
    """The addresses under which a port bound to `address` can be reached from this machine or its networks."""
    if address == "localhost":
        return ("localhost", _LOOPBACK)
    if address not in _WILDCARDS:
        return (address,)
    return (socket.gethostname(), *dict.fromkeys((_LOOPBACK, *_interfaces())))


def _interfaces() -> list[str]:
    """The IPv4 address of each network interface that has one."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking.fileno(), _ADDRESS_OF, request)
            except OSError:
                continue  # an interface without an address
            found.append(socket.inet_ntoa(answer[20:24]))
    return found
