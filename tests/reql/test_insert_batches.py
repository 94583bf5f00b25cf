"""An insert of many documents does to each what an insert of it alone does."""

from __future__ import annotations

from typing import Any

import pytest
from rethinkdb import r

DOCUMENTS: list[Any] = [
    {"id": 1, "a": "new"},
    {"id": 2, "a": "there already"},
    {"id": 1, "a": "twice in one insert"},
    {"id": None},
    {"a": "without a key"},
    {"id": "x" * 200},
    {"id": 3, "a": r.minval},
    {"id": 3, "a": "after an error"},
    {"id": r.now(), "time": True},
    {"id": [4, "a"], "list": [1, {"b": 2}]},
    {"id": 5.5},
    {"id": True},
]


@pytest.mark.parametrize("conflict", ["error", "replace", "update", None])
@pytest.mark.parametrize("return_changes", [False, True, "always"])
def test_many_come_to_what_each_comes_to(world: Any, table: Any, conflict: Any, return_changes: Any) -> None:
    options = {} if conflict is None else {"conflict": conflict}
    for name in ("one", "many"):
        table(name, [{"id": 2, "old": True}, {"id": 9}])
    single = [
        world.run(r.table("one").insert(document, return_changes=return_changes, **options)) for document in DOCUMENTS
    ]
    many = world.run(r.table("many").insert(DOCUMENTS, return_changes=return_changes, **options))
    for counter in ("deleted", "errors", "inserted", "replaced", "skipped", "unchanged"):
        assert many[counter] == sum(result[counter] for result in single), counter
    assert many["first_error"] in [result.get("first_error") for result in single]
    assert len(many.get("changes", [])) == sum(len(result.get("changes", [])) for result in single)
    rows = [[row for row in world.run(r.table(name)) if "without" not in str(row)] for name in ("one", "many")]
    assert rows[0] == rows[1]
    assert len(many["generated_keys"]) == 1


def test_more_than_one_commit_takes(run: Any, table: Any) -> None:
    table("t", [{"id": 1300, "old": True}])
    documents = [{"id": at % 1500} for at in range(2000)]
    result = run(r.table("t").insert(r.range(2000).map(lambda at: {"id": at % 1500}), conflict="error"))
    assert (result["inserted"], result["errors"]) == (1499, 501)
    assert run(r.table("t").insert(documents, conflict="update"))["unchanged"] == 2000
    assert run(r.table("t").get(1300)) == {"id": 1300, "old": True}


def test_a_write_hook_sees_every_document(run: Any, table: Any) -> None:
    table("t", [])
    run(r.table("t").set_write_hook(lambda context, old, new: new.merge({"hooked": True})))
    run(r.table("t").insert([{"id": at} for at in range(20)]))
    assert run(r.table("t").count(lambda row: row["hooked"])) == 20
