"""The database that a connection names is looked for where a query leaves its own out, and nowhere else.

RethinkDB evaluates a query's `db` only when a term asks for it (db_term.cc), so that programs may connect with the name
of a database that they are about to create.
"""

import pytest
from rethinkdb import r

ABSENT = r.db("absent")
ROWS = [{"id": 1}, {"id": 2}]
ELSEWHERE = r.db("test").table("t")


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (ELSEWHERE.get(1), {"id": 1}),
        (ELSEWHERE.order_by(index="id"), ROWS),
        (ELSEWHERE.count(), 2),
        (ELSEWHERE.insert({"id": 3})["inserted"], 1),
        (ELSEWHERE.get(1).update({"a": 1})["replaced"], 1),
        (ELSEWHERE.eq_join("id", ELSEWHERE).count(), 2),
        (r.db("test").table(r.args(["t"])).count(), 2),
        (r.db("test").table_list(), ["t"]),
        (r.db("test").table_create("u")["tables_created"], 1),
        (r.db("test").table_drop("t")["tables_dropped"], 1),
        (r.db_create("absent")["dbs_created"], 1),
        (r.db_list(), ["rethinkdb", "test"]),
        (r.db("rethinkdb").table("db_config")["name"], ["test"]),
    ],
)
def test_a_default_database_that_is_not_there_is_no_matter_to_who_names_another(run, table, query, value):
    table("t", ROWS)
    assert run(query, db=ABSENT) == value


@pytest.mark.parametrize(
    "query",
    [
        r.table("t"),
        r.table("t").get(1),
        r.table("t").insert({}),
        r.table_list(),
        r.table_create("t"),
        r.table_drop("t"),
    ],
)
def test_who_leaves_the_database_out_hears_that_it_is_not_there(failure, query):
    kind, message, _ = failure(query, db=ABSENT)
    assert (kind, message) == ("ReqlOpFailedError", "Database `absent` does not exist.")


def test_the_default_database_is_found_once_it_is_there(run, table):
    table("t", ROWS)
    assert run(r.db_create("absent"), db=ABSENT)["dbs_created"] == 1
    assert run(r.table_create("mine"), db=ABSENT)["tables_created"] == 1
    assert run(r.table_list(), db=ABSENT) == ["mine"]
    assert run(r.table("mine").insert({"id": 1}), db=ABSENT)["inserted"] == 1
    assert run(r.table_list()) == ["t"]
