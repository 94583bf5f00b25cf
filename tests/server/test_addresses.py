"""Where a server can be reached, without asking any name server."""

from __future__ import annotations

import socket

import pytest

from server.addresses import reached_at


def test_a_port_that_is_bound_to_one_address_is_found_there() -> None:
    assert reached_at("10.1.2.3") == ("10.1.2.3",)
    assert reached_at("localhost") == ("localhost", "127.0.0.1")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", ""])
def test_a_port_that_is_bound_to_all_is_found_everywhere(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("nothing is to be resolved")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = reached_at(address)
    assert found[:2] == (socket.gethostname(), "127.0.0.1")
    assert len(set(found)) == len(found)
