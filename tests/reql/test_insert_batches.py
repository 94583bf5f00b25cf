"""An insert of many documents does to each what an insert of it alone does."""

from __future__ import annotations

from typing import Any, Final

import pytest
from rethinkdb import r

from model.datum import loads
from proxy.answers import Promised
from proxy.reql.streams import SpentArray
from proxy.reql.terms import writes

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


class TestLargeArrays:
    """Their documents are given up as they are written; nobody may notice."""

    ROWS: Final = [{"id": at, "n": at % 7} for at in range(700)]

    def inserted(self, world: Any, query: Any) -> Any:
        answer = world.start(query, takes_promises=True)
        if type(answer) is Promised:
            answer.begin(lambda error, value=None: None)
            answer = answer.answer
        return loads(answer.items[0])

    def test_are_given_up_once_they_are_written(self, world: Any, table: Any, monkeypatch: Any) -> None:
        table("t", [])
        kept = []
        monkeypatch.setattr(writes, "SpentArray", lambda rows: kept.append(rows) or SpentArray(rows))
        assert self.inserted(world, r.table("t").insert(self.ROWS))["inserted"] == 700
        (rows,) = kept
        assert rows == [None] * 700
        assert world.run(r.table("t").order_by("id").coerce_to("array")) == self.ROWS

    @pytest.mark.parametrize("size", [255, 256, 257, 512, 513])
    def test_are_written_to_the_last_document(self, world: Any, table: Any, size: int) -> None:
        table("t", [])
        assert self.inserted(world, r.table("t").insert(self.ROWS[:size]))["inserted"] == size
        assert world.run(r.table("t").order_by("id").coerce_to("array")) == self.ROWS[:size]

    def test_can_be_inserted_again_and_again(self, world: Any, table: Any) -> None:
        table("t", [])
        query = r.table("t").insert(self.ROWS)
        assert self.inserted(world, query)["inserted"] == 700
        again = self.inserted(world, query)
        assert (again["errors"], again["inserted"]) == (700, 0)
        assert self.ROWS[0] == {"id": 0, "n": 0}
        assert self.inserted(world, r.table("t").insert(self.ROWS, conflict="replace"))["unchanged"] == 700

    def test_are_kept_where_the_insert_runs_more_than_once(self, world: Any, table: Any) -> None:
        table("t", [])
        many = r.expr([1, 2, 3]).for_each(lambda _: r.table("t").insert(self.ROWS, conflict="update"))
        total = self.inserted(world, many)
        assert (total["inserted"], total["unchanged"], total["errors"]) == (700, 1400, 0)
        twice = r.do(r.expr(self.ROWS), lambda rows: r.table("t").insert(rows, conflict="update")["unchanged"])
        assert self.inserted(world, twice) == 700
