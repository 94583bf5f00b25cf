"""This server as a member: who the others are, what is to be done about them, and who should lead.

One rule: every decision is taken by the leader from the replicated documents and from what it hears; a follower only
tells about itself. A server on its own is a cluster of one: nothing here is switched off for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from consensus.messages import ConfChange, ConfState
from consensus.node import Node
from model.catalog import Catalog
from model.effect import Effect
from model.errors import NotLeader, RewindError
from proxy.answers import ATOM, Answer, QueryContext
from proxy.fibers import FiberPool
from proxy.forward import Forwarder
from server.cluster.health import figures_of, health_of
from server.cluster.members import (
    FEATURES,
    JOINT_CHANGES,
    LEARNER,
    MEMBERS,
    Member,
    Reach,
    foreign_effects,
    has_to_step_aside,
    members_of,
    next_changes,
    role_of,
    shared_features,
    split_address,
    successor,
)
from server.cluster.ports import Links
from server.cluster.queries import update_member
from server.cluster.stalls import StallMeter
from server.cluster.vitals import FAREWELL, KIND_BYTES, MARK, VITALS, Hearsay, Vitals, encode_vitals
from server.loop_timers import LoopTimers

log = logging.getLogger("rewinddb.server")

EVERY_S: Final = 1.0
HAND_OVER_S: Final = 3.0
LOOK_S: Final = 0.02
GIVE_UP_S: Final = 2.0  # after a change of leader: what the old one has not answered by then is lost
STEP_ASIDE_EVERY_S: Final = 5.0
FAREWELL_S: Final = 1.0  # after a removal: so long the link stays, for the member to hear of it

WAS_REMOVED: Final = RewindError(
    "This server was removed from its cluster.",
    "It can come back only as a new member: with an empty data folder and an invitation.",
)


@dataclass(frozen=True, slots=True)
class Self:
    """What this server is, in the cluster. address: host:port that the others find it at."""

    cluster_id: str
    member_id: int
    server_id: str
    name: str
    address: str
    version: str
    peers: Mapping[int, str]  # where others were when this server joined


class Cluster:
    """One per server. `about()` is what system tables show of this server; `free_bytes()` is of the log's disk."""

    def __init__(
        self,
        me: Self,
        node: Node,
        catalog: Catalog,
        links: Links,
        forwarder: Forwarder,
        fibers: FiberPool,
        reactor: Any,
        timers: LoopTimers,
        about: Callable[[], dict[str, Any]],
        free_bytes: Callable[[], int],
        low_bytes: int,
        indexes_waiting: Callable[[], int],
        propose: Callable[[list[Effect]], Deferred[None]],
        on_removed: Callable[[RewindError], None],
    ) -> None:
        self.me = me
        self.cluster_id = me.cluster_id
        self.member_id = me.member_id
        self.stalls = StallMeter(timers)
        self._node = node
        self._catalog = catalog
        self._links = links
        self._forwarder = forwarder
        self.fibers = fibers
        self._reactor = reactor
        self._about = about
        self._free_bytes = free_bytes
        self._low_bytes = low_bytes
        self._indexes_waiting = indexes_waiting
        self._propose = propose
        self._on_removed = on_removed
        self._hearsay = Hearsay(reactor.seconds)
        self._hearers: dict[bytes, Callable[[int, bytes], None]] = {}
        self._chores = LoopingCall(self.every_second)
        self._chores.clock = reactor
        self._members: dict[int, Member] = {}
        self._members_of = -1  # the catalog's revision
        self._addresses: dict[int, str] = {}  # where members said that they are
        self._leader_before: int | None = None
        self._is_announcing = False
        self._pending_change = 0  # the log index of the last change proposed here
        self._stepped_aside_s = float("-inf")
        self._told_disk = False

    # -- what is known

    @property
    def members(self) -> dict[int, Member]:
        """All documents, as applied here."""
        if self._members_of != self._catalog.revision:
            self._members = members_of(self._catalog, self.cluster_id)
            self._members_of = self._catalog.revision
        return self._members

    @property
    def conf(self) -> ConfState:
        """Raft's configuration, as applied here."""
        return self._node.core.tracker.membership.conf_state()

    @property
    def leader_id(self) -> int | None:
        return self._node.leader_id

    @property
    def is_alone(self) -> bool:
        """Whether this server is all of its cluster."""
        conf = self.conf
        return conf.voters == (self.member_id,) and not conf.voters_outgoing

    def now_ms(self) -> int:
        """The wall clock."""
        return time.time_ns() // 1_000_000

    def can_use(self, feature: str) -> bool:
        """Whether all members have a feature, so that one of them may use it."""
        return feature in shared_features(self.members.values(), FEATURES)

    def active(self) -> list[int]:
        """The members that answer, this one among them; on the leader only."""
        return [self.member_id, *(member for member, reach in self._reach().items() if reach.is_active)]

    def _reach(self) -> dict[int, Reach]:
        core = self._node.core
        if not core.is_leader:
            return {}
        progress = core.tracker.progress
        return {member: Reach(progress[member].match, self._is_active(member)) for member in core.others}

    def _is_active(self, member: int) -> bool:
        """Whether a member runs and answers; Raft alone takes one that was just added for active."""
        progress = self._node.core.tracker.progress[member]
        return progress.match > 0 and self.vitals_of(member) is not None

    def admit(self, member_id: int, server_id: str) -> str:
        """Why a server is not linked to, or "" (the `Admit` port of consensus/links)."""
        member = self.members.get(member_id)
        if member is None:
            return ""  # it may be newer than what is applied here; it has to know the secret in any case
        if self._has_left(member):
            return (
                f"Member {member_id} was removed from the cluster. It can come back only as a new member: with an "
                "empty data folder and an invitation."
            )
        if member.server_id != server_id:
            return (
                f"Member {member_id} is another server. A server that lost its disk can come back only as a new "
                "member: with an empty data folder and an invitation."
            )
        return ""

    def _has_left(self, member: Member) -> bool:
        """Whether a member was removed, and Raft does not need it any more for its own removal."""
        return member.is_removed and not role_of(member.member_id, self.conf)

    def vitals(self) -> Vitals:
        """This member's own."""
        core, free = self._node.core, self._free_bytes()
        others = [member for member in core.others if self._links.is_linked(member)]
        return Vitals(
            self._node.applied_index,
            core.log.committed,
            core.last_index,
            round(self.stalls.longest_ms(), 1),
            free,
            free < self._low_bytes,
            self._indexes_waiting(),
            others,
            self._node.silent_ms,
            self.me.address,
        )

    def vitals_of(self, member_id: int) -> Vitals | None:
        """What a member last said; None if it is silent."""
        if member_id == self.member_id:
            return self.vitals()
        return self._hearsay.of(member_id) if self._links.is_linked(member_id) else None

    def row_about(self, member: Member) -> dict[str, Any]:
        """What the table `members` shows of a member's state."""
        member_id, core = member.member_id, self._node.core
        vitals = self.vitals_of(member_id)
        is_told_by_leader = core.is_leader and member_id != self.member_id
        progress = core.tracker.progress.get(member_id) if is_told_by_leader else None
        health = health_of(member, self.conf, vitals, progress, self._links.is_linked(member_id))
        shipped = self._links.snapshot_progress(member_id)
        return {"health": health, **figures_of(vitals, progress, core.log.committed, shipped)}

    def complain(self, member: int, error: Exception) -> None:
        """A member sent what cannot be read."""
        log.warning("member %d sent something that cannot be read: %s", member, error)

    # -- life

    def found_at(self, address: str) -> None:
        """Where the others find this server, once its port is known."""
        self.me = replace(self.me, address=address)

    def start(self) -> None:
        """Begins to look after the cluster."""
        self.connect()
        self.stalls.start()
        self._chores.start(EVERY_S, now=False)

    def stop(self) -> None:
        self.stalls.stop()
        if self._chores.running:
            self._chores.stop()

    def connect(self) -> None:
        """Links are to be there to all members that are known."""
        addresses = {member: address for member, address in self.me.peers.items() if member not in self.members}
        for member in self.members.values():
            if not self._has_left(member):
                addresses[member.member_id] = self._addresses.get(member.member_id, member.address)
        addresses.pop(self.member_id, None)
        split = {member: split_address(address) for member, address in addresses.items()}
        self._links.set_members({member: address for member, address in split.items() if address is not None})

    def catalog_changed(self, effect: Effect) -> None:
        """To be called for each change of the catalog."""
        if effect[1] == MEMBERS:
            self.connect()
            self._look_for_own_removal()

    def replaced(self) -> None:
        """The whole state was replaced by a snapshot."""
        self._members_of = -1
        self.connect()
        self._look_for_own_removal()

    def _look_for_own_removal(self) -> None:
        mine = self.members.get(self.member_id)
        if mine is not None and self._has_left(mine):
            self._on_removed(WAS_REMOVED)

    def conf_changed(self) -> None:
        """Raft uses another configuration from now on."""
        for member in self.members.values():
            if self._has_left(member):
                self._links.send_query(member.member_id, FAREWELL)
        self._reactor.callLater(FAREWELL_S, self.connect)
        self._look_for_own_removal()
        self._reactor.callLater(0, self.reconcile)

    def leadership_changed(self) -> None:
        """This member knows another leader, or none, or leads itself."""
        before, now = self._leader_before, self._node.leader_id
        if now is not None and now != before:
            self._leader_before = now
            log.info("member %d leads the cluster", now)
            if before is not None and before != self.member_id:
                self._reactor.callLater(GIVE_UP_S, self._give_up, before, self._forwarder.asked_so_far)
        if before == self.member_id and now != self.member_id:
            self._reactor.callLater(GIVE_UP_S, self._node.give_up_waiting, self._node.core.raft_term)

    def _give_up(self, leader: int, asked_so_far: int) -> None:
        if self._node.leader_id != leader:
            self._forwarder.give_up(leader, asked_so_far)

    # -- what others say

    def receive(self, member: int, payload: bytes) -> None:
        """Something beside Raft from a member. Raises msgspec.DecodeError for what cannot be read."""
        if payload.startswith(VITALS):
            self._moved_to(member, self._hearsay.take(member, payload).address)
        elif payload.startswith(FAREWELL):
            self._on_removed(WAS_REMOVED)
        elif not payload.startswith(MARK):
            self._forwarder.receive(member, payload)
        elif payload[:KIND_BYTES] in self._hearers:  # else from a newer version
            self._hearers[payload[:KIND_BYTES]](member, payload)

    def listen_for(self, kind: bytes, hear: Callable[[int, bytes], None]) -> None:
        """From now on `hear(member, message)` gets what begins with that mark; it may raise msgspec.DecodeError."""
        self._hearers[kind] = hear

    def send(self, member: int, message: bytes) -> bool:
        """Sends a message that begins with a mark, maybe in vain; False if there is no link to the member."""
        return self._links.send_query(member, message)

    def _moved_to(self, member: int, address: str) -> None:
        """A member says where it is; the links follow it before its document does."""
        if address and self._addresses.get(member) != address and split_address(address) is not None:
            self._addresses[member] = address
            self.connect()

    # -- every second

    def every_second(self) -> None:
        """Tells the others how this one is, and does what the leader has to do."""
        message = encode_vitals(self.vitals())
        for member in self._node.core.others:
            self._links.send_query(member, message)
        self._announce()
        self._mind_the_disk()
        self.reconcile()

    def reconcile(self) -> None:
        """The leader's next step from the configuration that is to the one that is wanted."""
        node, core = self._node, self._node.core
        if not node.can_serve or node.applied_index < self._pending_change:
            return
        members, conf = self.members, self.conf
        if has_to_step_aside(members, conf, self.member_id):
            self._step_aside("it is to vote no more")
        changes = next_changes(members, conf, self._reach(), core.last_index, self.member_id)
        if len(changes) > 1 and not self.can_use(JOINT_CHANGES):
            del changes[1:]
        if not changes:
            return
        try:
            self._pending_change, _ = node.propose_conf_change(ConfChange(tuple(changes)))
        except RewindError as error:
            log.info("the members cannot be changed now: %s", error)
            return
        for change in changes:
            log.info("member %d: %s", change.member_id, change.kind.name.lower().replace("_", " "))

    def _mind_the_disk(self) -> None:
        free = self._free_bytes()
        is_low = free < self._low_bytes
        if is_low and not self._told_disk:
            log.warning("the disk of this server is nearly full: %d bytes are free", free)
        self._told_disk = is_low
        if is_low and self._node.is_leader and not self.is_alone:
            self._step_aside("its disk is nearly full")

    def _step_aside(self, why: str) -> None:
        """Lets another member lead, if there is one that can."""
        now = self._reactor.seconds()
        if now - self._stepped_aside_s < STEP_ASIDE_EVERY_S:
            return
        self._stepped_aside_s = now
        heir = self._heir()
        if heir is None:
            log.warning("this member should not lead (%s), but no other one can", why)
        else:
            log.info("member %d is to lead instead of this one: %s", heir, why)
            self.transfer_to(heir)

    def _heir(self) -> int | None:
        reach = self._reach()
        poor, unready = [], []
        for member in reach:
            vitals = self.vitals_of(member)
            wanted = self.members[member].wanted if member in self.members else LEARNER
            if vitals is None or vitals.is_disk_low or wanted != "voter":
                poor.append(member)
            elif vitals.indexes_waiting:
                unready.append(member)
        best = successor(self.conf, reach, [*poor, *unready], self.member_id)
        return best if best is not None else successor(self.conf, reach, poor, self.member_id)

    def transfer_to(self, member_id: int) -> None:
        """Asks a member to lead."""
        self._node.transfer_leadership(member_id)

    def hand_over(self, timeout_s: float = HAND_OVER_S) -> Deferred[None]:
        """Lets another member lead before this one stops; fires when it does, or after the timeout."""
        done: Deferred[None] = Deferred()
        until = self._reactor.seconds() + timeout_s
        heir = self._heir() if self._node.is_leader and not self.is_alone else None
        if heir is None:
            done.callback(None)
            return done
        self.transfer_to(heir)

        def look() -> None:
            is_over = not self._node.is_leader and self._node.leader_id is not None
            if is_over or self._reactor.seconds() >= until:
                done.callback(None)
            else:
                self._reactor.callLater(LOOK_S, look)

        look()
        return done

    # -- this member's own document

    def _announce(self) -> None:
        """Has the document of this member say what it is now; the founder's is made here."""
        if self._is_announcing or self._node.leader_id is None:
            return
        mine = self.members.get(self.member_id)
        about = self._about()
        told: dict[str, Any] = {
            "address": self.me.address,
            "version": self.me.version,
            "features": list(FEATURES),
            "about": about,
        }
        if mine is None:
            if not (self._node.can_serve and self.is_alone):
                return
            first = Member(
                self.member_id,
                self.cluster_id,
                self.me.server_id,
                self.me.name,
                self.me.address,
                version=self.me.version,
                features=tuple(FEATURES),
                joined_ms=int(about.get("started", 0) * 1000),
                about=about,
            )
            self._run(lambda: self._propose([*foreign_effects(self._catalog, self.cluster_id), first.effect()]))
        elif mine.is_removed or told == {
            "address": mine.address,
            "version": mine.version,
            "features": list(mine.features),
            "about": mine.about,
        }:
            return
        else:
            self._run(lambda: self.fibers.errand(lambda: self.run_query(update_member(self.member_id, told))))

    def _run(self, begin: Callable[[], Deferred[Any]]) -> None:
        self._is_announcing = True

        def ended(result: Any) -> None:
            self._is_announcing = False
            if isinstance(getattr(result, "value", None), Exception):
                log.info("this member's own document could not be changed yet: %s", result.value)

        try:
            begin().addBoth(ended)
        except NotLeader:
            self._is_announcing = False

    def run_query(self, body: bytes) -> Any:
        """Runs a query of this server's own, on whichever member leads; inside a fiber. Raises ReqlError."""
        answer = self._forwarder.start(body, QueryContext("admin", ("127.0.0.1", 0), 0, self.fibers))
        assert isinstance(answer, Answer) and answer.kind == ATOM, answer
        result = orjson.loads(answer.items[0])
        if isinstance(result, dict) and result.get("errors"):
            raise RewindError(str(result.get("first_error")))
        return result
