"""Who belongs to the cluster: documents in the replicated state, and what is to be done until Raft agrees with them.

One rule: the documents say what is wanted, Raft's configuration says what is; the leader brings the second to the
first, one step at a time, and goes on after any crash or change of leader where the last step ended. A document is
never deleted, so that a member id never comes back: whoever lost its disk comes as a new member.

Everything here is pure. Collections of the catalog:

    members       member id → who it is, what it is wanted to be, what it told about itself at its last start
    invitations   invitation id → a key derived from its secret, when it ends, who used it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from consensus.messages import Change, ChangeKind, ConfState
from model.catalog import Catalog
from model.effect import Effect, Kind
from server.system.site import SERVERS

MEMBERS: Final = "members"
INVITATIONS: Final = "invitations"

VOTER: Final = "voter"
LEARNER: Final = "learner"
REMOVED: Final = "removed"
WANTED: Final = (VOTER, LEARNER, REMOVED)

CAUGHT_UP_ENTRIES: Final = 1000  # a learner this near to the leader's log may vote

FEATURES: Final[dict[str, str]] = {
    "checkpoint snapshots": "0.1.0",
    "joint changes": "0.1.0",
    "images by followers": "0.1.0",
    "packed rows": "0.1.0",
}
"""What members can do that others may not: name -> the version it came with. Used only when all members have it."""

CHECKPOINT_SNAPSHOTS: Final = "checkpoint snapshots"
JOINT_CHANGES: Final = "joint changes"
IMAGES_BY_FOLLOWERS: Final = "images by followers"
PACKED_ROWS: Final = "packed rows"


@dataclass(frozen=True, slots=True)
class Member:
    """One member, past or present. address: host:port for other servers. about: what system tables show of it."""

    member_id: int
    cluster_id: str
    server_id: str
    name: str
    address: str
    wanted: str = VOTER
    version: str = ""
    features: tuple[str, ...] = ()
    joined_ms: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_removed(self) -> bool:
        return self.wanted == REMOVED

    def effect(self) -> Effect:
        """What makes this document the one that counts."""
        document = {**asdict(self), "features": list(self.features), "about": dict(self.about)}
        return (int(Kind.PUT_SYSTEM), MEMBERS, str(self.member_id), document)


def members_of(catalog: Catalog, cluster_id: str) -> dict[int, Member]:
    """All members that a cluster ever had, by id, under the names that they have now (`server_config` changes them).

    Documents of another cluster, in restored data, do not count.
    """
    found = {}
    servers = catalog.documents(SERVERS)
    for key, document in catalog.documents(MEMBERS).items():
        if document.get("cluster_id") == cluster_id:
            known = {name: value for name, value in document.items() if name in _FIELDS}
            known["name"] = servers.get(known["server_id"], known).get("name", known["name"])
            found[int(key)] = Member(**{**known, "features": tuple(document.get("features", ()))})
    return found


_FIELDS: Final = frozenset(Member.__dataclass_fields__)


def foreign_effects(catalog: Catalog, cluster_id: str) -> list[Effect]:
    """What drops the documents of the cluster that restored data come from."""
    documents = catalog.documents(MEMBERS).items()
    foreign = [key for key, document in documents if document.get("cluster_id") != cluster_id]
    invitations = list(catalog.documents(INVITATIONS)) if foreign else []
    return [(int(Kind.DELETE_SYSTEM), MEMBERS, key) for key in foreign] + [
        (int(Kind.DELETE_SYSTEM), INVITATIONS, key) for key in invitations
    ]


def next_member_id(members: Mapping[int, Member], conf: ConfState) -> int:
    """An id that no member ever had."""
    return max([0, *members, *conf.voters, *conf.learners, *conf.voters_outgoing, *conf.learners_next]) + 1


def free_name(name: str, members: Iterable[Member], member_id: int) -> str:
    """The name, or one like it where another member has it."""
    taken = {member.name for member in members if not member.is_removed and member.member_id != member_id}
    return name if name not in taken else f"{name}_{member_id}"


def role_of(member_id: int, conf: ConfState) -> str:
    """voter, learner, or "" for none of them."""
    if member_id in conf.voters or member_id in conf.voters_outgoing:
        return VOTER
    return LEARNER if member_id in (*conf.learners, *conf.learners_next) else ""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the leader knows of another member's log: how far it is, and whether it was heard of lately."""

    match: int
    is_active: bool


def next_changes(
    members: Mapping[int, Member], conf: ConfState, reach: Mapping[int, Reach], last_index: int, me: int
) -> list[Change]:
    """What the leader `me` is to change next in Raft's configuration; nothing while a change is under way.

    Its own removal or demotion is not among it: it hands over the lead first, then the next leader does it.
    """
    if conf.voters_outgoing:
        return []
    changes = []
    for member in sorted(members.values(), key=lambda member: member.member_id):
        member_id = member.member_id
        change = _change_of(member, role_of(member_id, conf), reach.get(member_id), last_index)
        if change is not None and (member_id != me or change is ChangeKind.ADD_VOTER):
            changes.append(Change(change, member_id))
    return changes


def _change_of(member: Member, role: str, reach: Reach | None, last_index: int) -> ChangeKind | None:
    if member.is_removed:
        return ChangeKind.REMOVE if role else None
    if not role or (role == VOTER and member.wanted == LEARNER):
        return ChangeKind.ADD_LEARNER
    if role == member.wanted:
        return None
    is_near = reach is not None and reach.is_active and reach.match + CAUGHT_UP_ENTRIES >= last_index
    return ChangeKind.ADD_VOTER if is_near else None


def has_to_step_aside(members: Mapping[int, Member], conf: ConfState, me: int) -> bool:
    """Whether the leader is to be removed or to vote no more, so that another one has to lead."""
    mine = members.get(me)
    return mine is not None and mine.wanted != VOTER and me in conf.voters


def refusal_to_leave(member: Member, conf: ConfState, active: Iterable[int]) -> str:
    """Why a member may not leave the voters now, or "": the others must be able to go on without it.

    active: the members that answer, the leader among them.
    """
    if member.member_id not in conf.voters:
        return ""
    left = [voter for voter in conf.voters if voter != member.member_id]
    if not left:
        return "It is the only member that votes: without it the data are gone."
    alive = sum(voter in set(active) for voter in left)
    needed = len(left) // 2 + 1
    if alive < needed:
        return (
            f"Of the {len(left)} members that would still vote, only {alive} can be reached, and {needed} are needed. "
            "Bring others back first, or add new ones."
        )
    return ""


def successor(conf: ConfState, reach: Mapping[int, Reach], unfit: Iterable[int], me: int) -> int | None:
    """The voter that should lead instead of `me`: of those that are heard of, the one with the longest log."""
    bad = {me, *unfit}
    fit = [voter for voter in conf.voters if voter not in bad and voter in reach and reach[voter].is_active]
    return max(fit, key=lambda voter: (reach[voter].match, -voter), default=None)


def shared_features(members: Iterable[Member], own: Iterable[str]) -> frozenset[str]:
    """What all present members can do, as they said at their last start."""
    shared = frozenset(own)
    for member in members:
        if not member.is_removed:
            shared &= frozenset(member.features)
    return shared


def renewed(member: Member, told: Mapping[str, Any]) -> Member:
    """The document after the member's start: what it told about itself over what was known."""
    fresh = {name: told[name] for name in ("address", "version", "about") if name in told}
    return replace(member, **fresh, features=tuple(told.get("features", member.features)))


def split_address(address: str) -> tuple[str, int] | None:
    """(host, port) of `host:port` or `[host]:port`; None if it is neither."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return host, int(port)


def ordered(members: Mapping[int, Member]) -> Sequence[Member]:
    """The present members, the oldest first."""
    return [members[member_id] for member_id in sorted(members) if not members[member_id].is_removed]
