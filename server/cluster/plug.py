"""Plugs this server into its cluster: log, links, snapshots, forwarding, members.

One rule: the order matters and is kept here: the log knows what snapshot its rows came with, the links know who this
member is, and only then there is a node that takes part.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from conf.settings import Settings
from consensus.core import Config
from consensus.logstore import LogStore
from consensus.messages import ConfState
from consensus.node import Node
from model.effect import Effect
from model.errors import BadSetting, Corrupt, RewindError
from model.undecodable import UNDECODABLE
from proxy.answers import Evaluator
from proxy.fibers import FiberPool
from proxy.forward import Forwarder
from server import VERSION
from server.cluster.door import Host, invitations_of
from server.cluster.gate import Gate
from server.cluster.join import own_address
from server.cluster.links import ClusterLinks, LinkedNode, make_links
from server.cluster.members import FEATURES
from server.cluster.members_tables import invitations_table, members_table
from server.cluster.membership import Cluster, Self
from server.cluster.snapshot_files import installed_in
from server.cluster.snapshots import Snapshots
from server.folder import FIRST_MEMBER, DataFolder
from server.loop_timers import LoopTimers
from server.replica import Replica
from server.system import Site, SystemTable
from storage.engine import Engine
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings
from wal.syncs import Loop, kernel_syncs

TICKS: Final = 10  # in an election timeout
LEASE_SHARE: Final = 0.75  # of the election timeout; the rest is for clocks that differ and for LEASE_KEPT_S
MESSAGE_BYTES: Final = 256 << 10
WINDOW_BYTES: Final = 1 << 20
"""Entries under way to one member. All of it may be read and sent in one turn, in which the leader serves nobody: small
entries cost 20 ms a MiB. It still lets 100 MiB/s through where an answer takes 10 ms."""
LOW_DISK_SEGMENTS: Final = 4  # with less than so many files of the log free, another member should lead
LOOK_S: Final = 0.05


def open_log(folder: DataFolder, machine: Machine, segment_bytes: int, loop: Loop) -> LogStore:
    """The log of a data folder; that of a new one begins with the founder alone. Raises Corrupt."""
    store = LogStore(
        folder.log,
        machine.applied_index,
        installed=installed_in(folder.rows),
        segment_bytes=segment_bytes,
        syncs=kernel_syncs(folder.log, loop),
    )
    if not store.initial_state()[1].voters:
        if folder.identity.is_begun:
            store.close()
            raise Corrupt(
                f"The log of member {folder.identity.member_id} in {folder.log} is empty, but the member has taken "
                "part in its cluster: its disk or its log was lost.",
                "Remove this member from the cluster and let a server with an empty folder join; a server that was "
                "alone has to be restored from a backup.",
            )
        store.bootstrap(ConfState(voters=(FIRST_MEMBER,)))
    return store


def raft_config(settings: Settings, member_id: int) -> tuple[Config, float]:
    """(how this member takes part, seconds per tick)."""
    timeout_ms = settings.cluster.election_timeout_ms
    config = Config(
        member_id=member_id,
        election_ticks=TICKS,
        max_message_bytes=MESSAGE_BYTES,
        max_inflight_bytes=WINDOW_BYTES,
        max_uncommitted_bytes=settings.log.uncommitted_bytes,
        dice=random.SystemRandom().randrange,
        clock=_boot_us,
        lease=int(timeout_ms * 1000 * LEASE_SHARE),
    )
    return config, timeout_ms / 1000 / TICKS


def _boot_us() -> int:
    """Microseconds that go on while the process or the whole machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class ClusterPlug:
    """What a server has for its cluster. Made in two steps, since the node is made between them."""

    def __init__(
        self,
        settings: Settings,
        rocks: RocksSettings,
        folder: DataFolder,
        machine: Machine,
        store: LogStore,
        reactor: Any,
        timers: LoopTimers,
        on_switch: Callable[[], None],
    ) -> None:
        """rocks: how the storage engine is set up, also that of a snapshot. on_switch: called when a snapshot has
        taken the place of the whole state."""
        self._settings = settings
        self._folder = folder
        self._machine = machine
        self._reactor = reactor
        self._timers = timers
        self._on_switch = on_switch
        self._node: Node
        self.cluster: Cluster
        self.snapshots = Snapshots(
            machine,
            store,
            folder,
            lambda: self.cluster.conf,
            lambda path: RocksEngine(path, rocks),
            self._switch,
            reactor,
        )
        identity = folder.identity
        self.links: ClusterLinks = make_links(
            identity.cluster_id,
            identity.member_id,
            identity.server_id,
            bytes.fromhex(identity.cluster_secret),
            tuple(FEATURES),
            reactor=reactor,
            shelf=self.snapshots,
            tls=settings.cluster.tls,
            admit=lambda member, server: self.cluster.admit(member, server),
            on_query=self._query_came,
            soon=partial(timers.callLater, 0),
        )
        self.port = 0
        self._words = 0  # that other servers have sent so far, nearly all of them for clients

    def plug(
        self,
        node: Node,
        evaluator: Evaluator,
        replica: Replica,
        fibers: FiberPool,
        site: Callable[[], Site],
        propose: Callable[[list[Effect]], Deferred[None]],
        on_fatal: Callable[[Exception], None],
        queries: Callable[[], int],
    ) -> Forwarder:
        """The evaluator that drivers get: runs queries here or on the leader. Listens on the cluster port.

        queries: how many clients have sent so far.
        """
        self._node = node
        gate = Gate(evaluator, node, replica, fibers)
        identity = self._folder.identity
        forwarder = Forwarder(gate, Courier(self.links), identity.member_id, lambda: node.leader_id, fibers)
        self.links.member = LinkedNode(node, self._machine, self.links, forwarder, lambda: queries() + self._words)
        self.links.on_unheard = forwarder.lost
        me = Self(
            identity.cluster_id,
            identity.member_id,
            identity.server_id,
            site().name,
            "",
            VERSION,
            {int(member): address for member, address in identity.peers.items()},
        )
        self.cluster = Cluster(
            me,
            node,
            self._machine.catalog,
            self.links,
            forwarder,
            fibers,
            self._reactor,
            self._timers,
            lambda: about(site()),
            lambda: _free_bytes(self._folder.log),
            LOW_DISK_SEGMENTS * self._settings.log.segment_bytes,
            lambda: len(self._machine.indexes_waiting),
            propose,
            on_fatal,
        )
        node.on_conf_change = lambda change, conf: self._conf_changed()
        return forwarder

    def tables(self) -> Iterator[SystemTable]:
        """The system tables about the cluster."""
        yield members_table(self.cluster)
        yield invitations_table()

    # -- life

    def listen(self) -> int:
        """Opens the cluster port; the port. Raises RewindError."""
        cluster = self._settings.cluster
        secret = bytes.fromhex(self._folder.identity.cluster_secret)
        host = Host(self.cluster, secret, invitations_of(self._machine.catalog), self.cluster.fibers)
        try:
            self.port = self.links.listen_with_door(cluster.address, cluster.port, host.answer, self._reactor)
        except CannotListenError as error:
            reason = os.strerror(error.socketError.errno).lower() if error.socketError.errno else error.socketError
            raise RewindError(
                f"Cannot listen for other servers on {cluster.address} port {cluster.port}: {reason}.",
                "Choose another cluster.port or cluster.address, or stop what uses this one.",
            ) from error
        except ValueError as error:
            raise BadSetting(f"cluster.address: found {cluster.address!r}; allowed: an address: {error}") from error
        self.cluster.found_at(own_address(self._settings, self.port))
        return self.port

    def start(self) -> None:
        """Calls the other members, and begins to look after the cluster."""
        self.cluster.start()
        self.links.start()

    async def caught_up(self) -> None:
        """Returns once this server may be used: it leads alone, or it holds what the cluster holds.

        A member that had caught up before does not wait: it can tell how old what it has is.
        """
        while not self._is_usable():
            await self._rest(LOOK_S)
        if not self.cluster.is_alone and not self._folder.identity.is_begun:
            while not await self._read_index():
                await self._rest(LOOK_S)
        self._folder.begun()

    def _is_usable(self) -> bool:
        if self._node.failed is not None:
            raise self._node.failed
        if self.cluster.is_alone:
            return self._node.can_serve
        return "admin" in self._machine.catalog.documents("users")

    def _read_index(self) -> Deferred[bool]:
        done: Deferred[bool] = Deferred()
        self._node.read_index(lambda error: done.callback(error is None))
        return done

    def _rest(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, done.callback, None)
        return done

    def ready(self) -> None:
        """Drivers can connect: says so to the others."""
        self.cluster.every_second()

    def hand_over(self) -> Deferred[None]:
        """Another member leads before this one stops."""
        return self.cluster.hand_over()

    def stop(self) -> Any:
        """Ends all links; a Deferred, or None."""
        self.cluster.stop()
        return self.links.stop()

    # -- inside

    def _query_came(self, member: int, payload: bytes) -> None:
        self._words += 1
        try:
            self.cluster.receive(member, payload)
        except (*UNDECODABLE, IndexError, ValueError, TypeError) as error:
            self.cluster.complain(member, error)

    def _conf_changed(self) -> None:
        self.snapshots.conf_changed()
        self.cluster.conf_changed()

    def _switch(self, engine: Engine) -> Engine:
        old = self._machine.switch(engine)
        self._on_switch()
        self.snapshots.conf_changed()
        self.cluster.replaced()
        return old


class Courier:
    """The Courier port of forwarding, over the links.

    Each direction has a connection of its own: without the other one no answer could come back.
    """

    def __init__(self, links: ClusterLinks) -> None:
        self._links = links
        self.max_bytes = links.limits.frame_bytes

    def send(self, member: int, payload: bytes) -> bool:
        """Sends to a member; False if that cannot be now, or its answer could not come back."""
        return self._links.hears(member) and self._links.send_query(member, payload)


def about(site: Site) -> dict[str, Any]:
    """What system tables show of a server, on all servers."""
    return {
        "hostname": site.hostname,
        "version": site.version,
        "pid": site.pid,
        "argv": list(site.argv),
        "started": site.started,
        "cache_mb": site.cache_mb,
        "driver_port": site.driver_port,
        "cluster_port": site.cluster_port,
        "http_port": site.http_port,
        "addresses": list(site.addresses),
    }


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
