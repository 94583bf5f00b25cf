"""The links between servers as this server uses them: `consensus.peers` behind the door of the cluster port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.ssl import CertificateOptions

from conf.settings import Tls
from consensus.links import Identity
from consensus.messages import Message
from consensus.node import Node
from consensus.peers import PeerLinks, _Called
from consensus.shipping import Shelf
from model.errors import BadSetting
from proxy.forward import Forwarder
from server.cluster.door import Answer, Door
from server.tls import certificate


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
    """The node as links see it; tells the forwarder when a link is lost."""

    def __init__(self, node: Node, links: ClusterLinks, forwarder: Forwarder) -> None:
        self._node = node
        self._links = links
        self._forwarder = forwarder
        self.receive: Callable[[Message], None] = node.receive
        self.report_snapshot = node.report_snapshot

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
) -> ClusterLinks:
    """The links of one server. Raises BadSetting for TLS files that cannot be used."""
    identity = Identity(cluster_id, member_id, server_id, secret, features)
    options = cluster_certificate(tls)
    return ClusterLinks(identity, reactor=reactor, shelf=shelf, tls=options, admit=admit, on_query=on_query)


def cluster_certificate(tls: Tls) -> CertificateOptions | None:
    """What both sides of a link show and ask for; None without TLS. Raises BadSetting."""
    if tls.is_on and not tls.ca_file:
        raise BadSetting(
            "cluster.tls.ca_file: found nothing; allowed: a file, since servers show each other certificates"
        )
    return certificate(tls.certificate_file, tls.key_file, tls.ca_file)
