"""Plugs images by any member into a server: whom the leader may ask, and how the two hear each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final
from weakref import WeakValueDictionary

from server.backups.service import BackupService, Pauses
from server.cluster.members import IMAGES_BY_FOLLOWERS, LEARNER, role_of
from server.cluster.membership import Cluster
from server.images.choice import Candidate, in_order
from server.images.messages import ORDER, REPORT, decode_report, encode_order
from server.images.orders import ImageOrders
from server.images.places import There

HEALTHY: Final = ("ok", "building indexes")  # of server.cluster.health


def plug_images(service: BackupService, cluster: Cluster, reactor: Any) -> ImageOrders:
    """From now on the leader asks others, and this server does what the leader asks.

    `tick` of what is returned is to be called each second, `stop` when the server stops.
    """
    pace = Pauses(reactor)
    asked: WeakValueDictionary[str, There] = WeakValueDictionary()  # by attempt: as long as somebody waits for it

    def others() -> list[There]:
        places = []
        for candidate in in_order(candidates(cluster)):
            place = _there(cluster, candidate, pace)
            asked[place.attempt] = place
            places.append(place)
        return places

    def heard(member: int, message: bytes) -> None:
        report = decode_report(message)
        place = asked.get(report.attempt)
        if place is not None:
            place.heard(report)

    orders = ImageOrders(service.taker, cluster.send, lambda: cluster.leader_id, time.monotonic)
    cluster.listen_for(ORDER, orders.receive)
    cluster.listen_for(REPORT, heard)
    service.images.plug(lambda: _name(cluster), others)
    return orders


def candidates(cluster: Cluster) -> Iterator[Candidate]:
    """The other members; on the leader."""
    for member_id, member in cluster.members.items():
        vitals = cluster.vitals_of(member_id)
        if member_id == cluster.member_id or member.is_removed or vitals is None:
            continue
        row = cluster.row_about(member)
        yield Candidate(
            member_id,
            member.name,
            row["health"] in HEALTHY and IMAGES_BY_FOLLOWERS in member.features,
            role_of(member_id, cluster.conf) == LEARNER,
            row["lag_entries"] + max(vitals.commit_index - vitals.applied_index, 0),
            vitals.is_disk_low,
            vitals.indexes_waiting,
        )


def _there(cluster: Cluster, candidate: Candidate, pace: Pauses) -> There:
    member_id = candidate.member_id
    return There(candidate.name, lambda order: cluster.send(member_id, encode_order(order)), pace, time.monotonic)


def _name(cluster: Cluster) -> str:
    mine = cluster.members.get(cluster.member_id)
    return cluster.me.name if mine is None else mine.name
