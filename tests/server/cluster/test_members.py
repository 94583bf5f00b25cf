"""The leader's steps from the configuration there is to the one that is wanted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.confchange import restore
from consensus.messages import Change, ChangeKind, ConfState
from model.catalog import Catalog
from model.effect import Kind
from server.cluster.members import (
    CAUGHT_UP_ENTRIES,
    LEARNER,
    REMOVED,
    VOTER,
    WANTED,
    Member,
    Reach,
    foreign_effects,
    free_name,
    has_to_step_aside,
    members_of,
    next_changes,
    next_member_id,
    refusal_to_leave,
    renewed,
    role_of,
    shared_features,
    split_address,
    successor,
)


def member(member_id, wanted=VOTER, **more):
    return Member(member_id, "c", f"server-{member_id}", f"s{member_id}", f"host:{member_id}", wanted, **more)


def group(*members):
    return {one.member_id: one for one in members}


NEAR = Reach(10_000, True)
FAR = Reach(10_000 - CAUGHT_UP_ENTRIES - 1, True)
SILENT = Reach(10_000, False)


def test_a_new_member_learns_first_and_votes_once_it_is_near():
    members = group(member(1), member(2))
    conf = ConfState(voters=(1,))
    assert next_changes(members, conf, {}, 10_000, 1) == [Change(ChangeKind.ADD_LEARNER, 2)]
    conf = ConfState(voters=(1,), learners=(2,))
    assert next_changes(members, conf, {2: FAR}, 10_000, 1) == []
    assert next_changes(members, conf, {2: SILENT}, 10_000, 1) == []
    assert next_changes(members, conf, {2: NEAR}, 10_000, 1) == [Change(ChangeKind.ADD_VOTER, 2)]


def test_a_member_that_is_to_learn_only_never_votes():
    members = group(member(1), member(2, LEARNER))
    assert next_changes(members, ConfState(voters=(1,), learners=(2,)), {2: NEAR}, 10_000, 1) == []
    assert next_changes(members, ConfState(voters=(1, 2)), {2: NEAR}, 10_000, 1) == [Change(ChangeKind.ADD_LEARNER, 2)]


def test_one_leaves_and_one_comes_in_one_step():
    members = group(member(1), member(2), member(3, REMOVED), member(4))
    conf = ConfState(voters=(1, 2, 3), learners=(4,))
    changes = next_changes(members, conf, {2: NEAR, 4: NEAR}, 10_000, 1)
    assert changes == [Change(ChangeKind.REMOVE, 3), Change(ChangeKind.ADD_VOTER, 4)]


def test_the_leader_does_not_remove_itself_but_steps_aside():
    members = group(member(1, REMOVED), member(2), member(3))
    conf = ConfState(voters=(1, 2, 3))
    assert next_changes(members, conf, {2: NEAR, 3: NEAR}, 10_000, 1) == []
    assert has_to_step_aside(members, conf, 1)
    assert not has_to_step_aside(members, conf, 2)
    assert next_changes(members, conf, {1: NEAR, 3: NEAR}, 10_000, 2) == [Change(ChangeKind.REMOVE, 1)]


def test_nothing_is_changed_while_two_configurations_are_in_force():
    members = group(member(1), member(2))
    assert next_changes(members, ConfState(voters=(1,), voters_outgoing=(1, 3)), {}, 10_000, 1) == []


@given(
    st.dictionaries(st.integers(2, 7), st.sampled_from(WANTED), max_size=6),
    st.sets(st.integers(2, 7)),
    st.sets(st.integers(2, 7)),
)
def test_the_steps_end_where_everything_is_as_wanted(wanted, voters, learners):
    members = group(member(1), *(member(member_id, role) for member_id, role in wanted.items()))
    conf = ConfState(voters=tuple(sorted({1, *voters})), learners=tuple(sorted(learners - voters)))
    known = {*wanted, 1}
    for _ in range(4):
        changes = next_changes(members, conf, dict.fromkeys(range(1, 8), NEAR), 10_000, 1)
        if not changes:
            break
        conf = after(conf, changes)
    assert not changes
    for member_id in known:
        expected = {VOTER: VOTER, LEARNER: LEARNER, REMOVED: ""}[members[member_id].wanted]
        assert role_of(member_id, conf) == expected
    for member_id in (voters | learners) - known:
        assert role_of(member_id, conf)


def after(conf, changes):
    """The configuration after changes, as Raft's own rules make it."""
    from consensus.confchange import enter_joint, leave_joint, simple
    from consensus.tracker import Tracker

    tracker = Tracker(1, 1)
    tracker.membership, tracker.progress = restore(tracker, 1, conf)
    if len(changes) == 1:
        tracker.membership, tracker.progress = simple(tracker, 1, tuple(changes))
    else:
        tracker.membership, tracker.progress = enter_joint(tracker, 1, tuple(changes), True)
        tracker.membership, tracker.progress = leave_joint(tracker, 1)
    return tracker.membership.conf_state()


def test_ids_are_never_given_twice():
    members = group(member(1), member(2), member(3, REMOVED))
    assert next_member_id(members, ConfState(voters=(1, 2))) == 4
    assert next_member_id({}, ConfState(voters=(1,), learners=(6,))) == 7


def test_documents_come_back_as_they_went_and_those_of_another_cluster_do_not():
    catalog = Catalog()
    mine = member(2, features=("a",), version="1", joined_ms=5, about={"pid": 1})
    catalog.apply(mine.effect())
    catalog.apply(replace(member(1), cluster_id="other").effect())
    assert members_of(catalog, "c") == {2: mine}
    for effect in foreign_effects(catalog, "c"):
        catalog.apply(effect)
    assert set(catalog.documents("members")) == {"2"}


def test_a_member_has_the_name_that_server_config_gave_it():
    catalog = Catalog()
    for effect in (member(1).effect(), member(2).effect()):
        catalog.apply(effect)
    renamed = {"name": "gamma", "tags": ["default"], "cache_size_mb": "auto"}
    catalog.apply((int(Kind.PUT_SYSTEM), "servers", "server-2", renamed))
    assert [one.name for one in members_of(catalog, "c").values()] == ["s1", "gamma"]
    assert free_name("gamma", members_of(catalog, "c").values(), 3) == "gamma_3"


def test_fields_of_a_newer_version_are_passed_over():
    catalog = Catalog()
    kind, collection, key, document = member(2).effect()
    catalog.apply((kind, collection, key, {**document, "from the future": 1}))
    assert members_of(catalog, "c")[2] == member(2)


def test_nobody_leaves_whom_the_others_cannot_do_without():
    conf = ConfState(voters=(1, 2, 3))
    assert refusal_to_leave(member(3), conf, [1, 2]) == ""
    assert "only 1 can be reached, and 2 are needed" in refusal_to_leave(member(3), conf, [1, 3])
    assert "only member that votes" in refusal_to_leave(member(1), ConfState(voters=(1,)), [1])
    assert refusal_to_leave(member(4), ConfState(voters=(1, 2), learners=(4,)), [1]) == ""


def test_the_successor_is_heard_of_fit_and_far():
    conf = ConfState(voters=(1, 2, 3, 4), learners=(5,))
    reach = {2: Reach(10, True), 3: Reach(20, True), 4: Reach(90, False), 5: Reach(99, True)}
    assert successor(conf, reach, [], 1) == 3
    assert successor(conf, reach, [3], 1) == 2
    assert successor(conf, reach, [2, 3], 1) is None


def test_a_feature_counts_when_all_present_members_have_it():
    members = [member(1, features=("a", "b")), member(2, features=("b",)), member(3, REMOVED)]
    assert shared_features(members, ("a", "b", "c")) == {"b"}


def test_names_that_are_taken_get_the_id_behind_them():
    members = [member(1), member(2, REMOVED)]
    assert free_name("s1", members, 3) == "s1_3"
    assert free_name("s2", members, 3) == "s2"
    assert free_name("s1", members, 1) == "s1"


def test_a_start_renews_what_a_member_told_and_nothing_else():
    told = {"address": "new:1", "features": ["x"], "about": {"pid": 2}, "server_id": "stolen", "wanted": "removed"}
    fresh = renewed(member(2, version="1"), told)
    assert fresh == replace(member(2, version="1"), address="new:1", features=("x",), about={"pid": 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b:1", ("a.b", 1)),
        ("[::1]:29015", ("::1", 29015)),
        ("::1:5", None),
        ("a:0", None),
        ("a:65536", None),
        ("a", None),
        (":5", None),
        ("a:x", None),
    ],
)
def test_addresses(text, expected):
    assert split_address(text) == expected
