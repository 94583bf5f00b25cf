"""A limit tells the source how much to read, and never changes what is read."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from rethinkdb import r

ROWS = [{"id": at, "k": at % 3, "m": at % 7} for at in range(900)]
T = r.table("t")
T_ODD = r.table("odd")
SOURCES = {
    "a table": T.order_by(index="id"),
    "a table, backwards": T.order_by(index=r.desc("id")),
    "a range": T.between(100, 800).order_by(index="id"),
    "an index": T.order_by(index="k"),
    "an index, backwards": T.between(1, 2, index="k").order_by(index=r.desc("k")),
    "a key of an index": T.get_all(1, index="k"),
    "keys of an index": T.get_all(2, 0, 2, index="k"),
    "keys": T.get_all(*range(0, 900, 2)),
    "rows that are left": T.order_by(index="id").filter(lambda row: row["m"] == 3),
    "rows under a key that are left": T.get_all(1, index="k").filter({"m": 3}),
}


@pytest.fixture
def t(run: Any, table: Any) -> None:
    table("t", ROWS)
    run(T.index_create("k"))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_the_first_rows_are_the_beginning_of_all_rows(run: Any, t: None, source: Any) -> None:
    whole = run(source)
    for count in (0, 1, 2, 31, 32, 33, 100, 256, 257, 600, 5000):
        assert run(source.limit(count)) == whole[:count], count
    assert run(source.skip(40).limit(30)) == whole[40:70]
    assert run(source[5:9].limit(100)) == whole[5:9]
    assert run(source.limit(300).limit(20)) == whole[:20]
    assert run(source.limit(50).filter(lambda row: row["m"] > 3)) == [row for row in whole[:50] if row["m"] > 3]


def test_no_more_than_the_limit_is_read(world: Any, run: Any, t: None) -> None:
    read: list[int] = []
    store_get_many = world.machine.engine.get_many
    world.machine.engine.get_many = lambda keys: read.append(len(keys)) or store_get_many(keys)
    assert len(run(T.get_all(1, index="k").limit(1))) == 1
    assert read == [1]


def test_the_rows_under_many_keys_come_in_one_batch_and_in_order(run: Any, t: None) -> None:
    keys = [*range(-40, 3), *range(3, 200)]
    assert len(run(T.get_all(*keys, index="k"))) == len(ROWS)
    assert [row["k"] for row in run(T.get_all(*keys, index="k").limit(601))] == [0] * 300 + [1] * 300 + [2]
    assert run(T.get_all(*range(3, 200), index="k")) == []


def test_a_stream_that_has_come_to_its_end_says_so_at_once(world: Any, t: None) -> None:
    for term in (T.get_all(1, index="k"), T.between(1, 2, index="k"), T.get_all(1, 2, 3), T.limit(5), T.between(0, 9)):
        found = world.start(term)
        assert (found.kind, found.cursor) == ("sequence", None), str(term)
    found = world.start(T.between(0, 9).filter({"m": 3}))
    assert (found.kind, len(found.items)) == ("sequence", 1)
    expanded = world.start(T.between(0, 9).concat_map(lambda row: r.range(5)), max_batch_rows=20)
    assert (expanded.kind, len(expanded.items)) == ("partial", 5)


@pytest.mark.parametrize("primary_key", ["id", "schlüssel"])
def test_a_scan_goes_on_behind_keys_of_any_kind(run: Any, table: Any, primary_key: str) -> None:
    table("odd", [], primary_key)
    times = [{"$reql_type$": "TIME", "epoch_time": at + 0.5, "timezone": "+02:00"} for at in range(-40, 40)]
    binaries = [{"$reql_type$": "BINARY", "data": base64.b64encode(bytes([at, 0, 1])).decode()} for at in range(80)]
    numbers = [*range(-40, 40), -0.0, 1e300, -1e300, 2**53 + 1, *((at + 0.5) / 97 for at in range(80))]
    keys = [*numbers, *times, *binaries, True, False, *([at, ["b", at]] for at in range(80))]
    keys += [f"{at}\x01é" for at in range(80)]
    keys.remove(0)  # -0.0 is the same
    assert run(T_ODD.insert([{primary_key: key} for key in keys], conflict="error"))["inserted"] == len(keys)
    found = run(T_ODD.order_by(index=primary_key))
    assert len(found) == len({orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in found}) == len(keys)
    assert run(T_ODD) == found
    assert run(T_ODD.order_by(index=r.desc(primary_key))) == found[::-1]
