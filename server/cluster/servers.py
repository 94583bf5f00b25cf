"""The servers of the cluster as RethinkDB's system tables show them, from what members say of themselves.

One rule: who does not answer is still a server that tables are on, until it is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from consensus.messages import ConfState
from model.catalog import Catalog
from server.cluster.members import Member, role_of
from server.cluster.vitals import Vitals
from server.system.site import Server, Site, alone, configured

_TOLD: Final = frozenset(Site.__dataclass_fields__) - {"server_id", "name"}


class ClusterView(Protocol):
    """What is asked of `server.cluster.membership.Cluster`."""

    member_id: int

    @property
    def members(self) -> Mapping[int, Member]: ...
    @property
    def conf(self) -> ConfState: ...
    @property
    def leader_id(self) -> int | None: ...
    def vitals_of(self, member_id: int) -> Vitals | None: ...


def servers_of(cluster: ClusterView, site: Site, catalog: Catalog) -> list[Server]:
    """All servers that are members, by id. `site` is this one's, which may not have told the others yet."""
    members, conf = cluster.members, cluster.conf
    ids = {member_id: member.server_id for member_id, member in members.items()}
    found = []
    for member_id, member in members.items():
        role = role_of(member_id, conf)
        if not role or member.is_removed:
            continue
        is_own = member_id == cluster.member_id
        vitals = cluster.vitals_of(member_id)
        found.append(
            configured(
                site if is_own else _site_of(member),
                catalog,
                is_voter=role == "voter",
                is_leader=member_id == cluster.leader_id,
                is_reached=is_own or vitals is not None,
                reaches=frozenset(ids[other] for other in (vitals.connected if vitals else ()) if other in ids),
            )
        )
    return sorted(found, key=lambda server: server.server_id) or alone(site, catalog)


def _site_of(member: Member) -> Site:
    """The site of another server, from its document."""
    nothing: dict[str, Any] = dict.fromkeys(_TOLD, 0) | {"hostname": "", "version": member.version, "argv": ()}
    told = {name: value for name, value in member.about.items() if name in _TOLD}
    host = member.address.rpartition(":")[0].strip("[]")
    addresses = tuple(told.pop("addresses", ())) or (host,)
    argv = tuple(told.pop("argv", ()))
    fields = {**nothing, **told, "argv": argv, "addresses": addresses}
    return Site(server_id=member.server_id, name=member.name, **fields)
