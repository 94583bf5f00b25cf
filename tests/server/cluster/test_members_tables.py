"""The tables `members` and `invitations` in queries: what may be written, and what comes of it."""

from dataclasses import replace

import pytest
from rethinkdb import r

from consensus.messages import ConfState
from model.errors import ReqlPermissionError
from server.cluster.members import LEARNER, REMOVED, VOTER, Member, members_of, role_of
from server.cluster.members_tables import MAX_INVITATIONS, invitations_table, members_table
from tests.reql.conftest import SmallWorld

KEY = "ab" * 32


class Group:
    """A cluster that does at once what is wanted of it. Member 1 is asked and leads."""

    cluster_id = "c"
    member_id = 1

    def __init__(self, world):
        self.world = world
        self.conf = ConfState(voters=(1, 2, 3))
        self.leader_id = 1
        self.silent = set()
        self.is_stuck = False

    def active(self):
        return [member for member in (*self.conf.voters, *self.conf.learners) if member not in self.silent]

    def row_about(self, member):
        return {"health": "ok"}

    def transfer_to(self, member_id):
        self.leader_id = member_id

    def reconcile(self):
        if self.is_stuck:
            return
        voters, learners = [], []
        for member in members_of(self.world.machine.catalog, "c").values():
            if member.wanted != REMOVED:
                (voters if member.wanted == VOTER else learners).append(member.member_id)
        self.conf = ConfState(tuple(voters), tuple(learners))


@pytest.fixture
def world():
    world = SmallWorld()
    world.group = Group(world)
    world.system.add(members_table(world.group), invitations_table())
    for number in (1, 2, 3):
        world.apply(Member(number, "c", f"server-{number}", f"s{number}", f"h:{number}").effect())
    return world


MEMBERS = r.db("rethinkdb").table("members")
INVITATIONS = r.db("rethinkdb").table("invitations")


def member(world, number):
    return members_of(world.machine.catalog, "c")[number]


def test_all_members_are_shown_with_what_they_are(world):
    world.apply(replace(member(world, 3), wanted=LEARNER).effect())
    world.group.reconcile()
    rows = world.run(MEMBERS.order_by("id").pluck("id", "name", "role", "wanted", "is_leader"))
    assert [tuple(row.values()) for row in rows] == [
        (1, True, "s1", "voter", "voter"),
        (2, False, "s2", "voter", "voter"),
        (3, False, "s3", "learner", "learner"),
    ]
    assert world.run(r.db("rethinkdb").table_list().contains("members")) is False


def test_a_deleted_row_is_a_removed_member(world):
    assert world.run(MEMBERS.get(3).delete())["deleted"] == 1
    assert member(world, 3).is_removed
    assert not role_of(3, world.group.conf)
    assert world.run(MEMBERS.count()) == 2


def test_whom_the_others_need_cannot_be_removed(world):
    world.group.silent = {2}
    refused = world.run(MEMBERS.get(3).delete())
    assert "cannot be removed now" in refused["first_error"]
    assert not member(world, 3).is_removed
    assert world.run(MEMBERS.get(2).delete())["deleted"] == 1


def test_a_change_that_takes_long_is_said_to_go_on(world):
    world.group.is_stuck = True
    answer = world.run(MEMBERS.get(3).delete())
    assert "noted, but not carried out yet" in answer["first_error"]
    assert member(world, 3).is_removed


def test_a_learner_is_promoted_and_a_voter_stops_voting(world):
    assert world.run(MEMBERS.get(3).update({"wanted": "learner"}))["replaced"] == 1
    assert role_of(3, world.group.conf) == LEARNER
    assert world.run(MEMBERS.get(3).update({"wanted": "voter"}))["replaced"] == 1
    assert role_of(3, world.group.conf) == VOTER


def test_another_member_leads_when_it_is_asked_for(world):
    assert world.run(MEMBERS.get(2).update({"is_leader": True}))["errors"] == 0
    assert world.group.leader_id == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_leader": False, "wanted": "voter"}, "set `is_leader` of another one to true"),
        ({"wanted": "king"}, "delete its row"),
        ({"name": "x"}, "Only `wanted` and `is_leader`"),
        ({"address": "a:1", "wanted": "learner"}, "one by one"),
    ],
)
def test_other_changes_are_refused(world, change, reason):
    world.group.leader_id = 3 if "is_leader" in change else 1
    assert reason in world.run(MEMBERS.get(3).update(change))["first_error"]


def test_who_cannot_be_reached_or_does_not_vote_cannot_lead(world):
    world.group.silent = {2}
    assert "cannot be reached" in world.run(MEMBERS.get(2).update({"is_leader": True}))["first_error"]
    world.group.silent = set()
    world.run(MEMBERS.get(3).update({"wanted": "learner"}))
    assert "does not vote" in world.run(MEMBERS.get(3).update({"is_leader": True}))["first_error"]


def test_a_member_tells_where_it_is(world):
    told = {"address": "new:1", "version": "2", "features": ["f"], "about": {"pid": 1}}
    assert world.run(MEMBERS.get(2).update(told))["replaced"] == 1
    assert (member(world, 2).address, member(world, 2).features) == ("new:1", ("f",))


def invite(world, name="inv", **more):
    return world.run(INVITATIONS.insert({"id": name, "key": KEY, **more}))


JOINING = {"invitation": "inv", "server_id": "server-4", "name": "s1", "address": "h:4", "version": "1", "features": []}


def test_a_server_joins_once_with_an_invitation(world):
    assert "Members join with an invitation" in world.run(MEMBERS.insert(JOINING))["first_error"]
    assert invite(world)["inserted"] == 1
    answer = world.run(MEMBERS.insert(JOINING, return_changes=True))
    row = answer["changes"][0]["new_val"]
    assert (row["id"], row["name"], row["wanted"]) == (4, "s1_4", "voter")
    # The same server may ask again; another one may not.
    again = world.run(MEMBERS.insert(JOINING, return_changes=True))
    assert again["changes"][0]["new_val"]["id"] == 4
    other = world.run(MEMBERS.insert({**JOINING, "server_id": "server-5"}))
    assert "used by another server" in other["first_error"]
    assert world.run(INVITATIONS.get("inv")["used_by"]) == "server-4"


def test_a_removed_server_does_not_join_again(world):
    invite(world)
    world.run(MEMBERS.insert(JOINING))
    world.run(MEMBERS.get(4).delete())
    assert "was removed" in world.run(MEMBERS.insert(JOINING))["first_error"]
    invite(world, "other")
    world.run(MEMBERS.insert({**JOINING, "invitation": "other", "server_id": "server-6"}))
    assert member(world, 5).server_id == "server-6"


def test_an_invitation_for_a_learner_makes_one(world):
    invite(world, learner=True)
    world.run(MEMBERS.insert(JOINING))
    assert role_of(4, world.group.conf) == LEARNER


def test_the_key_of_an_invitation_is_never_shown(world):
    invite(world)
    assert KEY not in str(world.run(INVITATIONS))
    assert set(world.run(INVITATIONS.get("inv"))) == {"id", "ends", "learner", "used_by"}


@pytest.mark.parametrize(
    "wrong",
    [{"key": "short"}, {"key": 5}, {"hours": 0}, {"hours": 1e9}, {"hours": "x"}, {"learner": 1}, {"more": 1}],
)
def test_a_wrong_invitation_is_refused(world, wrong):
    assert invite(world, **wrong)["errors"] == 1


def test_there_are_not_too_many_invitations_and_ended_ones_go(world):
    for number in range(MAX_INVITATIONS):
        assert invite(world, f"i{number}", hours=1)["inserted"] == 1
    assert "invitations already" in invite(world, "more")["first_error"]
    world.now_s = lambda: 1_000_000.0 + 3601
    assert invite(world, "more")["inserted"] == 1
    assert world.run(INVITATIONS.count()) == 1
    assert world.run(INVITATIONS.get("more").delete())["deleted"] == 1


def test_only_admin_sees_members_and_invitations(world):
    world.user = "bob"
    world.apply((40, "users", "bob", {}))
    for table in (MEMBERS, INVITATIONS):
        with pytest.raises(ReqlPermissionError):
            world.run(table)
