"""The cluster port: most who come are members and go on to their link; who comes with a token is let in here.

One rule: the first four bytes decide, and whoever does not say them in time, or says more than a question may have,
is cut off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from model.errors import ReqlError, RewindError
from proxy.answers import WaitTimeout
from server.cluster.joining import HEAD, MAC_BYTES, MAGIC, MAX_BYTES, Asked, JoinRefused, Membership, refusal, why_not
from server.cluster.members import INVITATIONS
from server.cluster.membership import Cluster
from server.cluster.queries import insert_member

log = logging.getLogger("rewinddb.server")

PATIENCE_S: Final = 5.0
MAX_STRANGERS: Final = 64
LOOK_AGAIN_S: Final = 0.1
LOOKS: Final = 20  # an invitation may have been made a moment ago, and not have come here yet

Answer = Callable[[Asked], "Deferred[bytes]"]


class Timers(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any: ...


class Door(Factory):
    """In front of the factory for links. `answer` gives the answer to a question, never an error."""

    noisy = False

    def __init__(self, links: Factory, answer: Answer, reactor: Timers) -> None:
        self.links = links
        self.answer = answer
        self.reactor = reactor
        self.strangers = 0

    def buildProtocol(self, addr: Any) -> Visitor | None:
        """Somebody comes."""
        if self.strangers >= MAX_STRANGERS:
            return None
        return Visitor(self, addr)


class Visitor(TwistedProtocol):
    """One connection until it is known what it wants; from then on its link hears everything directly."""

    def __init__(self, door: Door, addr: Any) -> None:
        self._door = door
        self._addr = addr
        self._data = b""
        self._is_stranger = True
        self._is_asking = False
        self._link: Any = None
        self._socket: Any = None
        self._timer: Any = None

    def connectionMade(self) -> None:
        """Not a byte has come yet."""
        self._socket = self.transport
        self._door.strangers += 1
        self._timer = self._door.reactor.callLater(PATIENCE_S, self._cut)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        self._data += data
        if len(self._data) >= len(MAGIC):
            if self._data.startswith(MAGIC):
                self._take_question()
            else:
                self._pass_on()

    def _pass_on(self) -> None:
        self._known()
        link: Any = self._door.links.buildProtocol(self._addr)
        data, self._data = self._data, b""
        self._link = link
        link.factory = self._door.links
        link.makeConnection(self.transport)
        self.dataReceived = link.dataReceived  # type: ignore[method-assign]
        link.dataReceived(data)

    def _take_question(self) -> None:
        start = len(MAGIC) + HEAD.size
        if self._is_asking or len(self._data) < start:
            return
        length = HEAD.unpack_from(self._data, len(MAGIC))[0]
        if length > MAX_BYTES:
            self._cut()
            return
        end = start + length + MAC_BYTES
        if len(self._data) < end:
            return
        self._is_asking = True
        data = self._data
        try:
            asked = Asked(data[:start], data[start : start + length], data[start + length : end])
        except JoinRefused as error:
            self._tell(refusal(error.message))
            return
        self._known()
        self._door.answer(asked).addCallback(self._tell)

    def _tell(self, answer: bytes) -> None:
        if self._socket is not None:
            self._socket.write(answer)
            self._socket.loseConnection()

    def _known(self) -> None:
        if self._is_stranger:
            self._is_stranger = False
            self._door.strangers -= 1
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _cut(self) -> None:
        if self._socket is not None:
            self._socket.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._known()
        self._socket = None
        if self._link is not None:
            self._link.connectionLost(reason)


class Host:
    """Answers questions to join, by the documents as they are applied here and by the leader's word."""

    def __init__(
        self, cluster: Cluster, secret: bytes, invitations: Callable[[], dict[str, dict[str, Any]]], fibers: Any
    ) -> None:
        self._cluster = cluster
        self._secret = secret
        self._invitations = invitations
        self._fibers = fibers

    def answer(self, asked: Asked) -> Deferred[bytes]:
        """The bytes that go back."""

        def failed(failure: Failure) -> bytes:
            error = failure.value
            known = isinstance(error, ReqlError | RewindError)
            if not known:
                log.error("a server that wanted to join met an error", exc_info=error)
            reason = getattr(error, "message", "an error, see this member's log")
            log.warning("server %s may not join: %s", asked.ask.server_id[:64], reason)
            return refusal(reason)

        answered: Deferred[bytes] = self._fibers.errand(lambda: self._let_in(asked))
        return answered.addErrback(failed)

    def _let_in(self, asked: Asked) -> bytes:
        """Inside a fiber. Raises JoinRefused or what the leader said."""
        ask, cluster = asked.ask, self._cluster
        document = self._find(ask.invitation_id)
        reason = why_not(document, asked, cluster.cluster_id, cluster.now_ms())
        if reason or document is None:
            raise JoinRefused(reason)
        about = {"address": ask.address, "version": ask.program, "features": ask.features}
        told = {"invitation": ask.invitation_id, "server_id": ask.server_id, "name": ask.name, **about}
        row = cluster.run_query(insert_member(told))["changes"][0]["new_val"]
        addresses = {member.member_id: member.address for member in cluster.members.values() if not member.is_removed}
        addresses.pop(row["id"], None)
        addresses.setdefault(cluster.member_id, cluster.me.address)
        log.info("server %s joins as member %d", ask.server_id, row["id"])
        membership = Membership(row["id"], row["name"], self._secret, addresses)
        try:
            return asked.welcome(bytes.fromhex(document["key"]), membership)
        except ValueError:
            raise JoinRefused("the question holds no public key") from None

    def _find(self, invitation_id: str) -> dict[str, Any] | None:
        for _ in range(LOOKS):
            document = self._invitations().get(invitation_id)
            if document is not None:
                return document
            with suppress(WaitTimeout):
                self._fibers.wait_for(lambda done: None, LOOK_AGAIN_S)
        return None


def invitations_of(catalog: Any) -> Callable[[], dict[str, dict[str, Any]]]:
    """The invitations, as applied here."""
    return lambda: catalog.documents(INVITATIONS)
