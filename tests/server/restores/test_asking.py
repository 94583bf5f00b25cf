"""What may be asked of `rethinkdb.restores`, under which names tables come back, and what is refused."""

from __future__ import annotations

import pytest

from backup.selection import TableName
from model.catalog import Catalog
from model.effect import Kind
from model.errors import BadSetting, ReqlOpFailedError, UnfitArchive
from server.restores.asking import (
    Target,
    check_definitions,
    check_free,
    restore_fields,
    table_options,
    targets_of,
)

NOW_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
FUNCTION = [69, [[2, [1]], [170, [[10, [1]], "b"]]]]


def asked(**fields):
    return restore_fields(fields, ["main", "far"], NOW_MS)


def test_what_is_asked_means_the_same_later() -> None:
    assert asked(to="-10m")["to"] == "2026-03-01T11:50:00.000Z"
    assert asked(to="2026-03-01 13:00 Europe/Berlin")["to"] == "2026-03-01T12:00:00.000Z"
    time = {"$reql_type$": "TIME", "epoch_time": NOW_MS / 1000 + 0.5, "timezone": "+01:00"}
    assert asked(to=time)["to"] == "2026-03-01T12:00:00.500Z"
    assert asked(to="latest")["to"] == "latest"
    undrop = asked(undrop="shop.orders")
    assert (undrop["to"], undrop["tables"], undrop["databases"]) == ("before-drop:shop.orders", ["shop.orders"], [])
    assert asked(undrop="shop")["databases"] == ["shop"]
    assert asked(to="latest", database="shop", table="a.b", vault="far")["tables"] == ["a.b"]
    assert asked(to="latest", table="a.b", key=5)["keys"] == [5]
    assert asked(to="latest", table="a.b", keys=["x", 1])["keys"] == ["x", 1]


def test_other_vaults_by_url_hold_no_secrets() -> None:
    row = asked(to="latest", vault="s3://bucket/backups")
    assert row["vault"]["url"] == "s3://bucket/backups"
    row = asked(to="latest", vault={"url": "file:///b", "key_file": "/etc/key"})
    assert (row["vault"]["url"], row["vault"]["key_file"]) == ("file:///b", "/etc/key")
    with pytest.raises(BadSetting, match="password"):
        asked(to="latest", vault="sftp://me:secret@host/b")
    with pytest.raises(BadSetting, match="looks like a secret"):
        asked(to="latest", vault={"url": "s3://b", "options": {"secret": "x"}})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "`to` is the moment"),
        ({"to": 5}, "`to` is the moment"),
        ({"to": "2026-03-01 12:00"}, "no time zone"),
        ({"to": "latest", "undrop": "a.b"}, "beside it"),
        ({"undrop": "a.b", "table": "a.c"}, "beside it"),
        ({"to": "latest", "vault": "gone"}, "does not exist"),
        ({"to": "latest", "vault": 5}, "does not exist"),
        ({"to": "latest", "tables": ["shop"]}, "DATABASE.TABLE"),
        ({"to": "latest", "databases": ["a.b"]}, "DATABASE"),
        ({"to": "latest", "table": "../etc.passwd"}, "Invalid db or db.table name"),
        ({"to": "latest", "database": "rethinkdb"}, "special"),
        ({"to": "latest", "as": ["a"]}, "`as` is an object"),
        ({"to": "latest", "as": {"a": "b.c"}}, "a database for a database"),
        ({"to": "latest", "key": 1}, "of one table"),
        ({"to": "latest", "tables": ["a.b", "a.c"], "key": 1}, "of one table"),
        ({"to": "latest", "table": "a.b", "keys": []}, "1 to 10000"),
        ({"to": "latest", "replace": 1}, "true or false"),
        ({"to": "latest", "tabel": "a.b"}, "no field `tabel`"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, why) -> None:
    with pytest.raises((BadSetting, ReqlOpFailedError), match=why):
        asked(**fields)


def source(name: str, **more):
    database, _, table = name.partition(".")
    plain = {"db": database, "table": table, "primary_key": "id", "indexes": [], "write_hook": None}
    return {**plain, "table_id": 1, "uuid": "u", "db_uuid": "d", "options": {}, **more}


def names(tables, **fields) -> list[str]:
    return [str(target.name) for target in targets_of(asked(to="latest", **fields), [source(name) for name in tables])]


def test_names_that_tables_come_back_under() -> None:
    both = ["shop.a", "shop.b"]
    assert names(both) == both
    assert names(both, **{"as": {"shop": "old"}}) == ["old.a", "old.b"]
    assert names(both, **{"as": {"shop.a": "x.y"}}) == ["x.y", "shop.b"]
    assert names(both, db_prefix="p_", table_suffix="_s") == ["p_shop.a_s", "p_shop.b_s"]
    assert names(both, db_suffix="2", **{"as": {"shop.a": "x.y"}}) == ["x.y", "shop2.b"]
    for wrong, why in (({"as": {"shop.a": "shop.b"}}, "both become"), ({"table_prefix": "$"}, "cannot be called")):
        with pytest.raises(BadSetting, match=why):
            names(both, **wrong)
    with pytest.raises(BadSetting, match="cannot be called rethinkdb"):
        names(["db.a"], db_prefix="rethink")


def test_names_that_are_taken() -> None:
    catalog = Catalog()
    catalog.apply((int(Kind.CREATE_DATABASE), "d", "shop"))
    catalog.apply((int(Kind.CREATE_TABLE), 1, "t", "d", "a", "id", {}))
    check_free(catalog, [Target(source("shop.b"), TableName("shop", "b")), Target({}, TableName("other", "a"))])
    with pytest.raises(BadSetting, match=r"shop\.a is there already"):
        check_free(catalog, [Target(source("shop.a"), TableName("shop", "a"))])


def test_settings_of_tables_are_taken_only_as_far_as_they_mean_something() -> None:
    assert table_options({"durability": "soft", "write_acks": "single", "shards": 4, "replicas": 9}) == {
        "durability": "soft",
        "write_acks": "single",
        "shards": 4,
    }
    for bad in ({}, {"durability": [], "write_acks": 7, "shards": "many"}, {"shards": 10**9}, {"shards": True}):
        assert table_options(bad) == {"durability": "hard", "write_acks": "majority", "shards": 1}


def test_functions_are_compiled_before_a_server_applies_them() -> None:
    fit = {"name": "b", "definition": {"function": FUNCTION, "multi": False, "geo": False}}
    check_definitions([source("shop.a", indexes=[fit], write_hook={"function": FUNCTION})])
    deep: list = ["x"]
    for _ in range(100_000):
        deep = [2, [deep]]
    for function in ([69], [9999, []], "x", None, [69, [[2, [1]], [170, [[10, [7]], "b"]]]], {"a": 1}, deep):
        bad = {"name": "b", "definition": {"function": function}}
        with pytest.raises(UnfitArchive, match=r"index `b` of shop\.a"):
            check_definitions([source("shop.a", indexes=[bad])])
        with pytest.raises(UnfitArchive, match=r"write hook of shop\.a"):
            check_definitions([source("shop.a", write_hook={"function": function})])
    for definition in ({}, [], None, {"function": FUNCTION, "multi": "yes"}):
        with pytest.raises(UnfitArchive):
            check_definitions([source("shop.a", indexes=[{"name": "b", "definition": definition}])])
    for name in ("../etc.passwd", "shop.a b", "shop.", "shop.a.b"):
        with pytest.raises(UnfitArchive, match="cannot be the name"):
            check_definitions([source(name)])
    with pytest.raises(UnfitArchive, match="primary key"):
        check_definitions([source("shop.a", primary_key="")])
