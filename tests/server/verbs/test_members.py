"""What `rewinddb status` says of rows of the table `members`."""

from server.verbs.members import _problems, _table


def row(member_id, **more):
    return {
        "id": member_id,
        "name": f"s{member_id}",
        "address": f"host:{member_id}",
        "role": "voter",
        "wanted": "voter",
        "is_leader": False,
        "health": "ok",
        "log": {"last": 7, "committed": 7, "applied": 6},
        "lag_entries": 1,
        "version": "0.1.0",
        **more,
    }


def test_nothing_is_wrong_with_a_group_that_is_well():
    rows = [row(1, is_leader=True), row(2), row(3)]
    assert list(_problems(rows, True, rows[0])) == []
    lines = list(_table(rows))
    assert [line.split()[:4] for line in lines[1:]] == [
        ["1", "s1", "host:1", "leader"],
        ["2", "s2", "host:2", "voter"],
        ["3", "s3", "host:3", "voter"],
    ]


def test_a_lost_member_is_named_and_what_that_means():
    rows = [row(1, is_leader=True), row(2), row(3, health="unreachable", log=None, lag_entries=None)]
    lost, left = _problems(rows, True, rows[0])
    assert lost == "Member 3 (s3): unreachable."
    assert left.startswith("2 of 3 voters are there")
    assert list(_table(rows))[3].split() == [
        "3",
        "s3",
        "host:3",
        "voter",
        "unreachable",
        "-",
        "-",
        "-",
        "-",
        "-",
        "0.1.0",
    ]


def test_a_server_that_is_cut_off_says_how_old_its_answers_are():
    rows = [row(1, health="unreachable"), row(2, leader_heard_ms_ago=12_340), row(3, health="unreachable")]
    problems = list(_problems(rows, False, rows[1]))
    assert problems[0].startswith("No member leads")
    assert problems[1] == "Member 2 (s2) heard of a leader 12.3 s ago: so old are its answers."
