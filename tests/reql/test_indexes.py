"""Secondary indexes as queries see them, where RewindDB's answers are not RethinkDB's (docs/differences.md)."""

from rethinkdb import r


def test_a_renamed_index_is_found_at_once(run, table):
    table("t", [{"id": 1, "a": 5}, {"id": 2, "a": 6}])
    run(r.table("t").index_create("a"))
    run(r.table("t").index_wait())
    assert run(r.table("t").index_rename("a", "b")) == {"renamed": 1}
    assert [row["id"] for row in run(r.table("t").get_all(5, index="b"))] == [1]
    assert run(r.table("t").index_list()) == ["b"]
