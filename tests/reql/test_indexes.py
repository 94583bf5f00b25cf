"""Secondary indexes as queries see them, where RewindDB's answers are not RethinkDB's (docs/differences.md)."""

import pytest
from rethinkdb import r


def test_a_renamed_index_is_found_at_once(run, table):
    table("t", [{"id": 1, "a": 5}, {"id": 2, "a": 6}])
    run(r.table("t").index_create("a"))
    run(r.table("t").index_wait())
    assert run(r.table("t").index_rename("a", "b")) == {"renamed": 1}
    assert [row["id"] for row in run(r.table("t").get_all(5, index="b"))] == [1]
    assert run(r.table("t").index_list()) == ["b"]


@pytest.mark.parametrize("takes_s", [0.01, 0.5, 30.0])
def test_who_waits_for_an_index_hears_of_it_soon_and_asks_seldom(world, table, monkeypatch, takes_s):
    table("t", [{"id": 1, "a": 5}])
    world.run(r.table("t").index_create("a"))
    monkeypatch.setattr(world.machine.store, "index_ready", lambda index_id: sum(pauses) >= takes_s)
    pauses = []
    monkeypatch.setattr(world, "pause", lambda env, seconds: pauses.append(seconds))
    world.run(r.table("t").index_wait())
    assert sum(pauses) - takes_s <= max(0.005, min(0.25 * takes_s, 0.25))
    assert len(pauses) <= 30 + takes_s * 5
