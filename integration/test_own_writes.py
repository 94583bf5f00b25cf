"""A query that writes and then reads sees what it wrote, however durable that is to be."""

import pytest
from rethinkdb import r

TABLE = r.table("rows")


@pytest.fixture
def conn(start):
    with start().connect() as conn:
        r.table_create("rows").run(conn)
        TABLE.index_create("n").run(conn)
        TABLE.index_wait().run(conn)
        yield conn


@pytest.mark.parametrize("durability", ["hard", "soft"])
def test_a_query_sees_its_own_writes(conn, durability):
    options = {"durability": durability}
    rows = TABLE.order_by(index="id")
    for turn in range(20):
        assert TABLE.insert([{"id": at, "n": turn} for at in range(3)], **options).run(conn)["inserted"] == 3
        deleted = r.expr([1, 2]).for_each(lambda _: rows.delete(**options)).run(conn)
        assert (deleted["deleted"], deleted["skipped"]) == (3, 0)
        one, many = {"id": 0, "n": turn}, [{"id": 1, "n": turn}, {"id": 2, "n": turn}]
        seen = r.expr([
            TABLE.count(),
            TABLE.insert(one, **options)["inserted"],
            TABLE.count(),
            TABLE.insert(many, **options)["inserted"],
            rows["id"].coerce_to("array"),
            TABLE.get_all(turn, index="n").count(),
            TABLE.get(1).update({"n": -1}, **options)["replaced"],
            TABLE.get_all(-1, index="n")["id"].coerce_to("array"),
            rows.delete(**options)["deleted"],
            TABLE.count(),
        ])  # fmt: skip
        assert seen.run(conn) == [0, 1, 1, 2, [0, 1, 2], 3, 1, [1], 3, 0]
