"""Which tables are meant, and what they are called afterwards."""

from __future__ import annotations

import pytest

from backup.selection import Renames, Selection, TableName, parse_name
from model.errors import BadSetting, ToolFailed

PRESENT = [TableName("b", "y"), TableName("a", "x"), TableName("a", "y")]


def test_names() -> None:
    assert parse_name("a") == ("a", None)
    assert parse_name("a-b_1.T9") == ("a-b_1", "T9")
    assert str(TableName("a")) == "a"
    assert str(TableName("a", "b")) == "a.b"


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".b", "a.b.c", "a b", "a/b", "ä", "rethinkdb", "rethinkdb.users", "a\n"]
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(BadSetting):
        parse_name(text)


def test_choosing() -> None:
    assert Selection.parse([]).choose(PRESENT, ["a", "b"]) == [("a", "x"), ("a", "y"), ("b", "y")]
    assert Selection.parse(["a"]).choose(PRESENT, ["a", "b"]) == [("a", "x"), ("a", "y")]
    assert Selection.parse(["a.y", "b"]).choose(PRESENT, ["a", "b"]) == [("a", "y"), ("b", "y")]
    assert Selection.parse(["c"]).choose(PRESENT, ["c"]) == []
    assert Selection.parse([]).is_everything
    assert not Selection.parse(["a"]).is_everything


def test_what_is_not_there() -> None:
    with pytest.raises(ToolFailed, match="Database 'c' not found"):
        Selection.parse(["c"]).choose(PRESENT, ["a", "b"])
    with pytest.raises(ToolFailed, match=r"Table not found: 'b\.x'"):
        Selection.parse(["b.x"]).choose(PRESENT, ["a", "b"])


def test_renames() -> None:
    renames = Renames.parse(["a=c", "a.x=d.z"])
    assert [renames.table(name) for name in PRESENT] == [("b", "y"), ("d", "z"), ("c", "y")]
    assert renames.database("a") == "c"
    assert renames.database("b") == "b"
    renames.check_distinct(PRESENT)


@pytest.mark.parametrize(
    "texts", [["a"], ["a=b.c"], ["a.b=c"], ["a=b", "a=c"], ["a.x=b.x", "a.x=b.z"], ["a=rethinkdb"], ["=b"]]
)
def test_renames_that_make_no_sense(texts: list[str]) -> None:
    with pytest.raises(BadSetting):
        Renames.parse(texts)


def test_two_tables_under_one_name() -> None:
    with pytest.raises(BadSetting, match=r"would both become b\.y"):
        Renames.parse(["a=b"]).check_distinct(PRESENT)
