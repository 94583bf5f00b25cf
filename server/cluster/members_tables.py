"""The system tables `members` and `invitations`: the cluster as people and commands see it and change it.

    members        delete a row: the member leaves; update `wanted`: "voter" or "learner"; `is_leader`: true: it leads
    invitations    insert {"id", "key", "hours", "learner"}: a server that has the secret of the key may join

One rule: a write returns when the cluster is as it asks for, or says why that takes longer; every write goes through
the log, so that any leader carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from consensus.messages import ConfState
from model.catalog import Catalog
from model.effect import Kind
from model.errors import ReqlOpFailedError
from model.pseudo_time import make_time
from server.cluster.joining import invitation_document
from server.cluster.members import (
    INVITATIONS,
    LEARNER,
    MEMBERS,
    REMOVED,
    VOTER,
    Member,
    free_name,
    members_of,
    next_member_id,
    refusal_to_leave,
    renewed,
    role_of,
    split_address,
)
from server.system import Change, Row, SystemTable

WAIT_S: Final = 20.0  # for a change to be carried out; it goes on behind that
STEP_S: Final = 0.05
MAX_HOURS: Final = 24 * 30
MAX_INVITATIONS: Final = 100
TOLD: Final = frozenset({"address", "version", "features", "about"})  # what a member says of itself
DECIDED: Final = frozenset({"wanted", "is_leader"})


class ClusterView(Protocol):
    """What the tables need of the cluster (`server.cluster.membership.Cluster`)."""

    cluster_id: str
    member_id: int

    @property
    def conf(self) -> ConfState: ...
    @property
    def leader_id(self) -> int | None: ...
    def active(self) -> list[int]:
        """The members that answer, as this leader knows."""

    def row_about(self, member: Member) -> Row:
        """What is known of a member's state."""

    def transfer_to(self, member_id: int) -> None:
        """Asks a member to lead."""

    def reconcile(self) -> None:
        """Takes the next step towards what is wanted, if this server leads."""


def members_table(cluster: ClusterView) -> SystemTable:
    """`members`: ours and not RethinkDB's, so it can be used, but is not listed."""

    def rows(env: Any, form: str) -> Iterator[Row]:
        for member in members_of(env.data.catalog, cluster.cluster_id).values():
            if not member.is_removed or role_of(member.member_id, cluster.conf):
                yield _member_row(cluster, member)

    def write(change: Change) -> Row | None:
        members = members_of(change.catalog, cluster.cluster_id)
        if change.old is None:
            return None if change.new is None else _add(cluster, change, members)
        member = members[change.old["id"]]
        if change.new is None:
            _remove(cluster, change, member)
            return None
        return _update(cluster, change, member)

    return SystemTable(MEMBERS, rows, write=write, changes_catalog=True, admin_only=True)


def _member_row(cluster: ClusterView, member: Member) -> Row:
    return {
        "id": member.member_id,
        "server_id": member.server_id,
        "cluster_id": member.cluster_id,
        "name": member.name,
        "address": member.address,
        "role": role_of(member.member_id, cluster.conf) or "joining",
        "wanted": member.wanted,
        "is_leader": member.member_id == cluster.leader_id,
        "version": member.version,
        "features": list(member.features),
        "joined": make_time(member.joined_ms / 1000),
        "about": dict(member.about),
        **cluster.row_about(member),
    }


def _add(cluster: ClusterView, change: Change, members: Mapping[int, Member]) -> Row | None:
    """A server that was invited, as the member that it asked lets it in."""
    given = change.new or {}
    document = change.catalog.documents(INVITATIONS).get(str(given.get("invitation")))
    if document is None:
        raise ReqlOpFailedError("Members join with an invitation: `rewinddb member invite` makes one.")
    server_id = str(given["server_id"])
    if document["used_by"] not in ("", server_id):
        raise ReqlOpFailedError("The invitation was used by another server.")
    known = next((member for member in members.values() if member.server_id == server_id), None)
    if known is not None and known.is_removed:
        raise ReqlOpFailedError(
            "This server was a member and was removed.  It can come back only with an empty data folder."
        )
    address = str(given["address"])
    if split_address(address) is None:
        raise ReqlOpFailedError(f"`{address}` is not an address as host:port.")
    member_id = known.member_id if known is not None else next_member_id(members, cluster.conf)
    member = known or Member(
        member_id,
        cluster.cluster_id,
        server_id,
        free_name(str(given["name"]), members.values(), member_id),
        address,
        LEARNER if document["learner"] else VOTER,
        joined_ms=int(change.env.world.now_s() * 1000),
    )
    member = renewed(member, given)
    used = {**document, "used_by": server_id}
    change.effects += [
        member.effect(),
        (int(Kind.PUT_SYSTEM), INVITATIONS, str(given["invitation"]), used),
    ]
    change.after = lambda: _tell_added(cluster, member)
    return {**given, "id": change.key}


def _tell_added(cluster: ClusterView, member: Member) -> Row:
    cluster.reconcile()
    return _member_row(cluster, member)


def _remove(cluster: ClusterView, change: Change, member: Member) -> None:
    reason = refusal_to_leave(member, cluster.conf, cluster.active())
    if reason:
        raise ReqlOpFailedError(f"Member {member.member_id} cannot be removed now.  {reason}")
    change.effects.append(replace(member, wanted=REMOVED).effect())
    change.after = lambda: _carry_out(
        cluster,
        change.env,
        lambda: not role_of(member.member_id, cluster.conf) or member.member_id == cluster.member_id,
        None,
    )


def _update(cluster: ClusterView, change: Change, member: Member) -> Row | None:
    old, new = change.old or {}, change.new or {}
    changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    if changed & TOLD:
        if changed - TOLD:
            raise ReqlOpFailedError("What a member tells of itself and what is wanted of it are changed one by one.")
        change.effects.append(renewed(member, {name: new.get(name) for name in changed}).effect())
        return new
    if changed - DECIDED:
        raise ReqlOpFailedError(
            "Only `wanted` and `is_leader` of a member can be changed, not "
            + ", ".join(f"`{name}`" for name in sorted(changed - DECIDED))
            + "."
        )
    wanted = new.get("wanted")
    if wanted not in (VOTER, LEARNER):
        raise ReqlOpFailedError('`wanted` is "voter" or "learner"; to remove a member, delete its row.')
    if wanted == LEARNER and "wanted" in changed:
        reason = refusal_to_leave(member, cluster.conf, cluster.active())
        if reason:
            raise ReqlOpFailedError(f"Member {member.member_id} cannot stop voting now.  {reason}")
    if "is_leader" in changed:
        if new["is_leader"] is not True:
            raise ReqlOpFailedError("To take the lead from a member, set `is_leader` of another one to true.")
        if role_of(member.member_id, cluster.conf) != VOTER or wanted != VOTER:
            raise ReqlOpFailedError(f"Member {member.member_id} does not vote, so it cannot lead.")
        if member.member_id not in cluster.active():
            raise ReqlOpFailedError(f"Member {member.member_id} cannot be reached at the moment.")
    if "wanted" in changed:
        change.effects.append(replace(member, wanted=wanted).effect())
    change.after = lambda: _see_to(cluster, change, member.member_id, wanted)
    return new


def _see_to(cluster: ClusterView, change: Change, member_id: int, wanted: str) -> Row | None:
    wants_lead = bool((change.new or {}).get("is_leader"))
    if wants_lead and cluster.leader_id != member_id:
        cluster.transfer_to(member_id)

    def is_done() -> bool:
        leads = cluster.leader_id == member_id or not wants_lead
        return leads and (role_of(member_id, cluster.conf) == wanted or cluster.leader_id != cluster.member_id)

    return _carry_out(cluster, change.env, is_done, change.new)


def _carry_out(cluster: ClusterView, env: Any, is_done: Callable[[], bool], row: Row | None) -> Row | None:
    """Waits until Raft's configuration is as wanted. Raises ReqlOpFailedError where that takes long."""
    cluster.reconcile()
    waited_s = 0.0
    while not is_done():
        if waited_s >= WAIT_S:
            raise ReqlOpFailedError(
                "The change is noted, but not carried out yet: the cluster goes on trying.  "
                "`rewinddb status` shows how far it is."
            )
        env.world.pause(env, STEP_S)
        waited_s += STEP_S
    return row


def invitations_table() -> SystemTable:
    """`invitations`: the key is never shown."""

    def rows(env: Any, form: str) -> Iterator[Row]:
        for invitation_id, document in env.data.catalog.documents(INVITATIONS).items():
            yield {
                "id": invitation_id,
                "ends": make_time(document["ends_ms"] / 1000),
                "learner": document["learner"],
                "used_by": document["used_by"] or None,
            }

    def write(change: Change) -> Row | None:
        if change.new is None:
            if change.old is not None:
                change.effects.append((int(Kind.DELETE_SYSTEM), INVITATIONS, change.key))
            return None
        if change.old is not None:
            raise ReqlOpFailedError("An invitation is made or deleted, not changed.")
        return _invite(change, change.new, change.catalog)

    return SystemTable(INVITATIONS, rows, write=write, changes_catalog=True, admin_only=True)


def _invite(change: Change, new: Row, catalog: Catalog) -> Row:
    unknown = set(new) - {"id", "key", "hours", "learner"}
    hours, learner = new.get("hours", 24), new.get("learner", False)
    try:
        key = bytes.fromhex(new["key"])
    except (KeyError, ValueError, TypeError):
        key = b""
    if unknown or len(key) != 32 or learner.__class__ is not bool or change.key.__class__ is not str:
        raise ReqlOpFailedError("An invitation has `id`, `key` (64 hexadecimal digits), `hours` and `learner`.")
    if hours.__class__ not in (int, float) or not 0 < hours <= MAX_HOURS:
        raise ReqlOpFailedError(f"An invitation holds for more than 0 and at most {MAX_HOURS} hours.")
    now_ms = int(change.env.world.now_s() * 1000)
    held = catalog.documents(INVITATIONS)
    ended = [name for name, document in held.items() if document["ends_ms"] < now_ms]
    if len(held) - len(ended) >= MAX_INVITATIONS:
        raise ReqlOpFailedError(f"There are {MAX_INVITATIONS} invitations already; delete some.")
    change.effects += [(int(Kind.DELETE_SYSTEM), INVITATIONS, name) for name in ended]
    document = invitation_document(key, now_ms + int(hours * 3_600_000), learner)
    change.effects.append((int(Kind.PUT_SYSTEM), INVITATIONS, change.key, document))
    return {"id": change.key, "ends": make_time(document["ends_ms"] / 1000), "learner": learner, "used_by": None}
