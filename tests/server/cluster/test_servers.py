"""From what members say of themselves to the servers that system tables show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consensus.messages import ConfState
from model.catalog import Catalog
from model.effect import Kind
from server.cluster.members import LEARNER, REMOVED, Member
from server.cluster.plug import about
from server.cluster.servers import servers_of
from server.cluster.vitals import Vitals
from server.system import Site

SITE = Site("id-1", "one", "host1", "v", 7, ("a",), 1.0, 2.0, 3, 4, 5, ("10.0.0.1",))
OTHER = Site("id-2", "two", "host2", "v", 8, ("b",), 1.5, 2.5, 6, 7, 8, ("10.0.0.2",))


class View:
    """What member 1 knows."""

    member_id = 1
    leader_id = 2

    def __init__(self, members: Mapping[int, Member], conf: ConfState, heard: Mapping[int, Vitals]) -> None:
        self.members = members
        self.conf = conf
        self._heard = heard

    def vitals_of(self, member_id: int) -> Vitals | None:
        return self._heard.get(member_id)


def member(member_id: int, **more: Any) -> Member:
    return Member(member_id, "c", f"id-{member_id}", f"name{member_id}", f"10.0.0.{member_id}:29015", **more)


def test_all_that_is_known_of_each() -> None:
    members = {
        1: member(1),
        2: member(2, about=about(OTHER)),
        3: member(3, wanted=LEARNER),
        4: member(4, wanted=REMOVED),
        5: member(5),
    }
    view = View(
        members,
        ConfState(voters=(1, 2, 4), learners=(3,)),
        {1: Vitals(connected=[2]), 2: Vitals(connected=[1, 9])},
    )
    first, second, third = servers_of(view, SITE, Catalog())
    assert first.site == SITE
    assert (first.is_leader, first.is_voter, first.is_reached, first.reaches) == (False, True, True, {"id-2"})
    assert (second.site.hostname, second.site.driver_port, second.site.addresses) == ("host2", 6, ("10.0.0.2",))
    assert (second.name, second.is_leader, second.is_reached, second.reaches) == ("name2", True, True, {"id-1"})
    assert (third.name, third.is_voter, third.is_reached) == ("name3", False, False)
    assert third.site.addresses == ("10.0.0.3",)


def test_a_name_that_was_given_later_counts() -> None:
    catalog = Catalog()
    catalog.apply((Kind.PUT_SYSTEM, "servers", "id-1", {"name": "new", "tags": ["x"], "cache_size_mb": 5}))
    (server,) = servers_of(View({1: member(1)}, ConfState(voters=(1,)), {}), SITE, catalog)
    assert (server.name, server.site.name, server.tags, server.cache_size_mb) == ("new", "new", ("x",), 5)


def test_before_there_are_any_documents() -> None:
    (server,) = servers_of(View({}, ConfState(voters=(1,)), {}), SITE, Catalog())
    assert (server.server_id, server.is_leader) == ("id-1", True)
