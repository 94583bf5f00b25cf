"""The links between servers as this server uses them: `consensus.peers` behind the door of the cluster port."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.ssl import CertificateOptions

from conf.settings import Tls
from consensus.links import Identity
from consensus.messages import Kind, Message
from consensus.node import Node
from consensus.peers import PeerLinks, _Called, is_of_the_past
from consensus.shipping import Shelf
from model.errors import BadSetting
from proxy.forward import Forwarder
from server.cluster.door import Answer, Door
from server.tls import certificate
from storage.machine import Machine

STUCK_S: Final = 0.2
"""What was written and is not committed after this long waits for more than a slow disk."""
FEW_QUERIES_PER_S: Final = 10.0
LOOK_S: Final = 1.0


class ClusterLinks(PeerLinks):
    """`PeerLinks` of a server that lets others join."""

    def listen_with_door(self, address: str, port: int, answer: Answer, reactor: Any) -> int:
        """Takes connections of members and of those who want to join; the port. Raises CannotListenError."""
        door = Door(_Called(self), answer, reactor)
        if self._tls is None:
            self._port = reactor.listenTCP(port, door, interface=address)
        else:
            self._port = reactor.listenSSL(port, door, self._tls, interface=address)
        return int(self._port.getHost().port)

    def is_linked(self, member: int) -> bool:
        """Whether something can be sent to a member now."""
        link = self._links.get(member)
        return link is not None and link.connection is not None

    def snapshot_progress(self, member: int) -> tuple[int, int] | None:
        """(bytes that arrived, bytes in all) of a snapshot that is being sent to a member."""
        link = self._links.get(member)
        return None if link is None else link.shipper.progress


class LinkedNode:
    """The node as links see it; tells the forwarder when a link is lost.

    queries: how many this server has been asked so far, by its own clients and by other servers.
    """

    def __init__(
        self, node: Node, machine: Machine, links: ClusterLinks, forwarder: Forwarder, queries: Callable[[], int]
    ) -> None:
        self._node = node
        self._machine = machine
        self._queries = queries
        self._asked = 0
        self._is_asked = False
        self._looked_s = self._committed_s = links.reactor.seconds()
        self._committed = 0
        self._links = links
        self._forwarder = forwarder
        self.report_snapshot = node.report_snapshot

    def receive(self, message: Message) -> None:
        """A message has come. While this server is being brought up, servers beside it on this machine go first."""
        if message.kind is Kind.APPEND:
            self._machine.courtesy = os.sched_yield if is_of_the_past(message) else None
        self._node.receive(message)

    def can_wait_for(self, member: int) -> bool:
        """Whether a member that is behind may take its time.

        Not where nobody is served anyway, nor where it is to lead, nor while what was written waits for a quorum: that
        member may be the one that is missing.
        """
        core, now_s = self._node.core, self._links.reactor.seconds()
        elapsed_s = now_s - self._looked_s
        if elapsed_s >= LOOK_S:
            asked = self._queries()
            self._is_asked = asked - self._asked >= FEW_QUERIES_PER_S * elapsed_s
            self._asked, self._looked_s = asked, now_s
        committed = core.log.committed
        if committed != self._committed or committed == core.last_index:
            self._committed, self._committed_s = committed, now_s
        is_stuck = now_s - self._committed_s > STUCK_S
        return self._is_asked and not is_stuck and core.transferee != member

    def report_unreachable(self, member: int) -> None:
        """What was last sent to a member may be lost."""
        self._node.report_unreachable(member)
        if not self._links.is_linked(member):
            self._forwarder.lost(member)


def make_links(
    cluster_id: str,
    member_id: int,
    server_id: str,
    secret: bytes,
    features: tuple[str, ...],
    *,
    reactor: Any,
    shelf: Shelf,
    tls: Tls,
    admit: Callable[[int, str], str],
    on_query: Callable[[int, bytes], None],
    soon: Callable[[Callable[[], None]], object],
) -> ClusterLinks:
    """The links of one server. Raises BadSetting for TLS files that cannot be used."""
    identity = Identity(cluster_id, member_id, server_id, secret, features)
    options = cluster_certificate(tls)
    return ClusterLinks(identity, reactor=reactor, shelf=shelf, tls=options, admit=admit, on_query=on_query, soon=soon)


def cluster_certificate(tls: Tls) -> CertificateOptions | None:
    """What both sides of a link show and ask for; None without TLS. Raises BadSetting."""
    if tls.is_on and not tls.ca_file:
        raise BadSetting(
            "cluster.tls.ca_file: found nothing; allowed: a file, since servers show each other certificates"
        )
    return certificate(tls.certificate_file, tls.key_file, tls.ca_file)
