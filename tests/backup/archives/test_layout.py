"""Descriptions of tables in archives of every age, places of members, what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.archives.layout import (
    Contents,
    IndexInfo,
    Manifest,
    Place,
    TableInfo,
    TableSum,
    encode,
    info_bytes,
    parse_contents,
    parse_info,
    parse_manifest,
    place_of,
)
from backup.selection import TableName
from model.errors import UnfitArchive
from model.function_blob import INDEX_PREFIX, FunctionBlob, encode_index_function, encode_write_hook, field_function

TABLE = TableName("shop", "orders")


def binary(data: bytes) -> dict[str, str]:
    return {"$reql_type$": "BINARY", "data": base64.b64encode(data).decode()}


FUNCTION = binary(encode_index_function(field_function("city")))
HOOK = binary(encode_write_hook(FunctionBlob(arg_ids=(1, 2, 3), body=[10, [3]])))

# The .info of each age of RethinkDB's tools: the whole table.info() of then, and what was added to it.
AGES: dict[str, dict[str, Any]] = {
    "1.7, before indexes were kept": {
        "db": {"name": "shop", "type": "DB"},
        "indexes": ["city"],
        "name": "orders",
        "primary_key": "id",
        "type": "TABLE",
    },
    "1.16, with functions": {
        "db": {"id": "7f", "name": "shop", "type": "DB"},
        "doc_count_estimates": [3],
        "id": "9b",
        "indexes": [
            {"function": FUNCTION, "geo": False, "index": "city", "multi": False, "outdated": False, "ready": True}
        ],
        "name": "orders",
        "primary_key": "id",
        "type": "TABLE",
    },
    "2.4, with a hook": {
        "db": {"id": "7f", "name": "shop", "type": "DB"},
        "doc_count_estimates": [3],
        "id": "9b",
        "indexes": [
            {
                "function": FUNCTION,
                "geo": False,
                "index": "city",
                "multi": False,
                "outdated": False,
                "query": "indexCreate('city', function(_var19) { return _var19.getField(\"city\"); })",
                "ready": True,
            }
        ],
        "name": "orders",
        "primary_key": "id",
        "type": "TABLE",
        "write_hook": {"function": HOOK, "query": "setWriteHook(function(var1, var2, var3) { return var3; })"},
    },
    "2.4, without a hook": {"indexes": [], "primary_key": "id", "write_hook": None},
    "nothing at all": {},
}


def test_every_age_is_read() -> None:
    read = {age: parse_info(json.dumps(raw).encode() + b"\n", TABLE) for age, raw in AGES.items()}
    whole = (IndexInfo("city", FUNCTION),)
    assert read == {
        "1.7, before indexes were kept": TableInfo("id", (IndexInfo("city"),)),
        "1.16, with functions": TableInfo("id", whole),
        "2.4, with a hook": TableInfo("id", whole, HOOK),
        "2.4, without a hook": TableInfo("id"),
        "nothing at all": TableInfo(),
    }
    for info in read.values():
        info.check(TABLE)


def test_an_index_that_cannot_be_restored_says_why() -> None:
    assert IndexInfo("city", FUNCTION).problem() is None
    assert IndexInfo("city").problem() == "the archive holds its name, but not its function"
    old = IndexInfo("city", binary(INDEX_PREFIX + bytes([6, 4, 4, 4, 0])))
    assert "RethinkDB 2.1" in str(old.problem())
    TableInfo("id", (old,)).check(TABLE)


def test_what_we_write_is_what_we_read() -> None:
    data = info_bytes(
        AGES["1.16, with functions"],
        AGES["1.16, with functions"]["indexes"],
        {"function": HOOK, "query": ""},
        {"durability": "soft"},
    )
    assert parse_info(data, TABLE) == TableInfo("id", (IndexInfo("city", FUNCTION),), HOOK, {"durability": "soft"})
    assert data.endswith(b"}\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        {"primary_key": 5},
        {"indexes": {"a": 1}},
        {"indexes": [5]},
        {"indexes": [{"function": FUNCTION}]},
        {"indexes": [{"index": "a", "function": "text"}]},
        {"indexes": [{"index": "a", "function": {"$reql_type$": "TIME"}}]},
        {"indexes": [{"index": "a", "function": {"$reql_type$": "BINARY", "data": 5}}]},
        {"indexes": [{"index": "a", "function": {**FUNCTION, "more": 1}}]},
        {"indexes": ["a", {"index": "a", "function": FUNCTION}]},
        {"write_hook": [1]},
        {"write_hook": {"function": 1}},
    ],
)
def test_malformed_descriptions_are_refused(raw: Any) -> None:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    with pytest.raises(UnfitArchive):
        parse_info(data, TABLE)


@pytest.mark.parametrize(
    "info",
    [
        TableInfo("id", (IndexInfo("a", binary(b"garbage")),)),
        TableInfo("id", (IndexInfo("a", binary(INDEX_PREFIX + b"\x09")),)),
        TableInfo("id", (IndexInfo("a", {"$reql_type$": "BINARY", "data": "é"}),)),
        TableInfo("id", (IndexInfo("a", {"$reql_type$": "BINARY", "data": "A"}),)),
        TableInfo("id", hook=FUNCTION),
        TableInfo("id", hook=binary(b"garbage")),
    ],
)
def test_bad_blobs_never_reach_a_server(info: TableInfo) -> None:
    with pytest.raises(UnfitArchive, match=r"shop\.orders"):
        info.check(TABLE)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("top/shop/orders.json", Place(".json", "top", TABLE)),
        ("top/shop/orders.csv", Place(".csv", "top", TABLE)),
        ("top/shop/orders.info", Place("info", "top", TABLE)),
        ("top/contents.rewinddb", Place("contents", "top")),
        ("top/manifest.rewinddb", Place("manifest", "top")),
        ("rethinkdb_dump_2026-01-02T03:04:05/shop/o-r_d9.json", Place(
            ".json", "rethinkdb_dump_2026-01-02T03:04:05", TableName("shop", "o-r_d9")
        )),
        ("README", None),
        ("top/shop/orders.txt", None),
        ("../../etc/passwd", None),
        ("top/shop/contents.rewinddb", None),
        ("top/shop", None),
    ],
)  # fmt: skip
def test_places(path: str, place: Place | None) -> None:
    assert place_of(path) == place


@pytest.mark.parametrize(
    "path",
    [
        "orders.json",
        "shop/orders.json",
        "a/top/shop/orders.json",
        "/top/shop/orders.json",
        "/shop/orders.json",
        "top/../orders.json",
        "../shop/orders.json",
        "top//orders.json",
        "./shop/orders.json",
        "top/sh op/orders.json",
        "top/shop/or.ders.json",
        "top/shop/.json",
        "top/shop/órdenes.json",
        "top/shop/orders\n.json",
        "top/rethinkdb/users.json",
        "top/shop/../../../x.info",
    ],
)
def test_tricks_with_paths_are_refused(path: str) -> None:
    with pytest.raises(UnfitArchive):
        place_of(path)


@given(st.text(max_size=30))
def test_any_path_has_a_place_or_is_refused(path: str) -> None:
    try:
        place = place_of(path)
    except UnfitArchive:
        return
    assert place is None or place.table is None or "/" not in place.table.database + str(place.table.table)


def test_contents_and_manifest_come_back() -> None:
    contents = Contents("2026-01-02T03:04:05Z", "rethinkdb 2.4.4", True, {"shop.orders": 3})
    assert parse_contents(encode(contents)) == contents
    manifest = Manifest({"shop.orders": TableSum(3, 100, "ab")}, [{"id": "admin"}], [], "2026")
    assert parse_manifest(encode(manifest)) == manifest
    assert parse_manifest(encode(Manifest({}))) == Manifest({})


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": "1"},
        {"format": True},
        {"tables": []},
        {"tables": {"a.b": 5}},
        {"tables": {"a.b": {"rows": "3", "bytes": 1, "sha256": ""}}},
        {"tables": {"a.b": {"rows": True, "bytes": 1, "sha256": ""}}},
        {"users": 5},
        {"users": [5]},
        {"permissions": {}},
        {"finished": 5},
    ],
)
def test_malformed_manifests_are_refused(change: dict[str, Any]) -> None:
    raw = json.loads(encode(Manifest({})))
    with pytest.raises(UnfitArchive):
        parse_manifest(json.dumps({**raw, **change}).encode())


@pytest.mark.parametrize(
    "change", [{"rows": []}, {"rows": {"a.b": "1"}}, {"view": 1}, {"created": None}, {"format": 9}]
)
def test_malformed_contents_are_refused(change: dict[str, Any]) -> None:
    raw = json.loads(encode(Contents("", "", False, {})))
    with pytest.raises(UnfitArchive):
        parse_contents(json.dumps({**raw, **change}).encode())
