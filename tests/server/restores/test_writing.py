"""Restored tables appear all at once and as they were; what fails on the way leaves the server as it was."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from backup.selection import TableName
from model.effect import PUT_ROW, PUT_ROWS, Kind, encode
from model.errors import BadSetting, NotLeader, Overloaded, RewindError, UnfitArchive
from model.keys import primary_key_bytes
from model.packed_rows import pack_rows
from proxy.answers import WaitTimeout
from proxy.reql.evaluator import ReqlEvaluator  # noqa: F401  (fills the registry before index functions are compiled)
from proxy.reql.index_functions import index_function
from server.restores.arrival import Arrived
from server.restores.asking import Target
from server.restores.writing import TableRestore, drop_effects, put_documents, scratch_databases
from storage.documents import copy_catalog
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

SETTINGS = RocksSettings(cache_bytes=8 << 20, memtable_bytes=1 << 20)
FUNCTION = [69, [[2, [1]], [170, [[10, [1]], "b"]]]]
UUID = "11111111-2222-4333-8444-555555555555"
OLD_DB = "99999999-2222-4333-8444-555555555555"


class DirectData:
    """The Data port over a machine, without a log; `fail_at` counts down to a commit that does not happen."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(RocksEngine(folder, SETTINGS), index_function)
        self.commits = self.waited = 0
        self.kinds: set[int] = set()  # of effects
        self.fail_at: int | None = None
        self.index_ready = self.machine.store.index_ready

    @property
    def catalog(self):
        return self.machine.catalog

    def commit(self, effects, durability, made=None):
        self.commits += 1
        if self.commits == self.fail_at:
            raise NotLeader("another server leads")
        self.kinds.update(effect[0] for effect in effects)
        index = self.machine.applied_index + 1
        payload = encode(list(effects), index)
        if made is not None:
            self.machine.foresee(index, payload, (index, made))
        self.machine.apply([(index, payload)])

    def commit_later(self, effects, made=None):
        """Done at once; what went wrong is told to who waits for it, as a log tells it."""
        error = None
        try:
            self.commit(effects, "hard", made)
        except NotLeader as failure:
            error = failure

        def wait():
            self.waited += 1
            if error is not None:
                raise error

        return wait

    def breathe(self):
        """Nobody else wants a turn."""

    def change_catalog(self, change):
        effects, result = change(copy_catalog(self.catalog), count(self.catalog.next_id).__next__)
        if effects:
            self.commit(effects, "hard")
        return result

    def wait_for(self, begin, timeout_s=None):
        self.machine.build_step(1.0)
        raise WaitTimeout

    def rows(self, name: TableName):
        table = self.catalog.databases[name.database].tables[name.table]
        return dict(self.machine.store.scan(table.table_id))


class Job:
    def __init__(self) -> None:
        self.cancelled = ""
        self.phases: list[str] = []

    def update(self, **fields) -> None:
        self.phases.append(fields["phase"])


def some_rows(number: int) -> dict[bytes, bytes]:
    return {primary_key_bytes(at): b'{"b":%d,"id":%d}' % (at % 5, at) for at in range(number)}


@pytest.fixture
def data(tmp_path: Path):
    data = DirectData(tmp_path / "rows")
    data.commit([(int(Kind.CREATE_DATABASE), "d1", "shop")], "hard")
    yield data
    data.machine.close()


@pytest.fixture(params=["packed", "row by row"])
def may_pack(request: pytest.FixtureRequest) -> bool:
    return request.param == "packed"


PIECE_ROWS = 600


def some_pieces() -> list[Arrived]:
    """Tables 7 and 9 of another time."""
    pieces = []
    for table_id, number in ((7, 3000), (9, 10)):
        keys, rows = zip(*some_rows(number).items(), strict=True)
        for at in range(0, number, PIECE_ROWS):
            part = list(keys[at : at + PIECE_ROWS]), list(rows[at : at + PIECE_ROWS])
            pieces.append(Arrived(table_id, pack_rows(*part), *part, sum(map(len, part[1]))))
    return pieces


class Restoring(TableRestore):
    """With the pieces of those tables that are targets."""

    def __init__(self, data, targets, may_pack, replace=False, job=None, on_rows=lambda *_: None, fail_at=None) -> None:
        wanted = [target.source["table_id"] for target in targets]
        pieces = iter([piece for piece in some_pieces() if piece.table_id in wanted])
        taken = count(1)

        def take() -> Arrived | None:
            if next(taken) == fail_at:
                raise UnfitArchive("a block is damaged")
            return next(pieces, None)

        super().__init__(data, data, targets, take, may_pack, replace, job or Job(), on_rows)


def target(table_id: int, name: str, to: str | None = None) -> Target:
    database, table = name.split(".")
    index = {"name": "b", "definition": {"function": FUNCTION, "multi": False, "geo": False}}
    source = {
        "table_id": table_id,
        "uuid": UUID[:-1] + str(table_id),
        "db": database,
        "db_uuid": OLD_DB,
        "table": table,
        "primary_key": "id",
        "options": {"durability": "soft", "replicas": 5},
        "write_hook": {"function": FUNCTION},
        "indexes": [index],
    }
    return Target(source, TableName(*(to or name).split(".")))


def restore(data: DirectData, may_pack: bool, *targets: Target, **options):
    told = []
    restoring = Restoring(data, targets, may_pack, on_rows=lambda *done: told.append(done), **options)
    return restoring.run(), told


def test_tables_come_back_as_they_were(data: DirectData, may_pack: bool) -> None:
    (rows, size), told = restore(data, may_pack, target(7, "shop.orders"), target(9, "gone.notes"))
    assert rows == 3010 and told[-1] == (rows, size)
    assert data.waited == (6 if may_pack else 16)  # each entry's end
    assert (PUT_ROWS in data.kinds, PUT_ROW in data.kinds) == (may_pack, not may_pack)
    assert data.rows(TableName("shop", "orders")) == some_rows(3000)
    assert data.rows(TableName("gone", "notes")) == some_rows(10)
    orders = data.catalog.databases["shop"].tables["orders"]
    assert (orders.uuid, orders.database) == (UUID[:-1] + "7", "d1")
    assert orders.options == {"durability": "soft", "write_acks": "majority", "shards": 1}
    assert orders.write_hook == {"function": FUNCTION}
    assert data.index_ready(orders.indexes["b"].index_id)
    assert data.catalog.databases["gone"].uuid == OLD_DB
    assert scratch_databases(data.catalog) == []


def test_rows_are_not_unpacked_where_they_are_at_hand(data: DirectData, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(packed: bytes) -> None:
        raise AssertionError

    monkeypatch.setattr("model.effect.unpack_rows", unpack)
    restore(data, True, target(7, "shop.orders"))
    assert data.rows(TableName("shop", "orders")) == some_rows(3000)


def test_nothing_is_seen_before_the_last_entry(data: DirectData, may_pack: bool) -> None:
    restoring = Restoring(data, [target(7, "shop.orders")], may_pack)
    seen = []
    whole = data.commit

    def commit(effects, durability, made=None):
        seen.append(sorted(data.catalog.databases["shop"].tables))
        whole(effects, durability, made)

    data.commit = commit
    restoring.run()
    assert len(seen) > 5 and set(map(tuple, seen)) == {()}
    assert sorted(data.catalog.databases["shop"].tables) == ["orders"]


def test_a_failure_at_any_commit_leaves_the_server_as_it_was(data: DirectData, may_pack: bool, tmp_path: Path) -> None:
    before = data.catalog.databases["shop"], sorted(data.catalog.databases), sorted(data.catalog.tables)
    tables = [target(7, "shop.orders"), target(9, "gone.notes")]
    data.commits = 0
    probe = DirectData(tmp_path / "probe")
    restore(probe, may_pack, *tables)
    total = probe.commits
    probe.machine.close()
    assert total > 6
    for at in (1, 2, 4, total - 1, total):
        data.commits, data.fail_at = 0, at
        with pytest.raises(NotLeader):
            restore(data, may_pack, *tables)
        assert (data.catalog.databases["shop"], sorted(data.catalog.databases), sorted(data.catalog.tables)) == before
        assert data.machine.store.count(7) == 0
    data.fail_at = None
    for at in (1, 3, 7):
        with pytest.raises(UnfitArchive, match="damaged"):
            restore(data, may_pack, *tables, fail_at=at)
        assert (data.catalog.databases["shop"], sorted(data.catalog.databases), sorted(data.catalog.tables)) == before
    restore(data, may_pack, *tables)
    assert data.rows(TableName("shop", "orders")) == some_rows(3000)


def test_a_log_that_is_full_is_waited_for(data: DirectData, may_pack: bool) -> None:
    whole, refused = data.commit_later, []

    def commit_later(effects, made):
        if len(refused) < 3:
            refused.append(effects)
            raise Overloaded("too much waits for the disk")
        return whole(effects, made)

    data.commit_later = commit_later
    (rows, _), _ = restore(data, may_pack, target(7, "shop.orders"))
    assert rows == 3000 and len(refused) == 3
    assert data.rows(TableName("shop", "orders")) == some_rows(3000)


@pytest.mark.parametrize(("bytes_allowed", "most"), [(1, 1), (30_000, 3), (1 << 30, 4)])
def test_no_more_is_under_way_than_the_log_may_hold(
    data: DirectData, may_pack: bool, monkeypatch: pytest.MonkeyPatch, bytes_allowed: int, most: int
) -> None:
    """Four entries, and not many bytes of rows; one entry may have more."""
    monkeypatch.setattr("server.restores.writing.MOST_BYTES_UNDER_WAY", bytes_allowed)
    seen = []
    under_way = 0
    whole = data.commit_later

    def commit_later(effects, made):
        nonlocal under_way
        wait = whole(effects, made)
        under_way += 1
        seen.append(under_way)

        def waited():
            nonlocal under_way
            under_way -= 1
            wait()

        return waited

    data.commit_later = commit_later
    restore(data, may_pack, target(7, "shop.orders"))
    assert max(seen) == (most if may_pack or most != 3 else 4)  # single rows come in entries of 250
    assert under_way == 0


def test_what_a_crash_leaves_is_known_and_dropped(data: DirectData, may_pack: bool) -> None:
    def crash(*done) -> None:
        data.change_catalog = None
        raise KeyboardInterrupt

    change_catalog = data.change_catalog
    restoring = Restoring(data, [target(7, "shop.orders")], may_pack, on_rows=crash)
    with pytest.raises((KeyboardInterrupt, TypeError)):
        restoring.run()
    data.change_catalog = change_catalog
    [left] = scratch_databases(data.catalog)
    assert left.uuid == restoring.scratch_uuid
    data.commit(drop_effects(left), "hard")
    assert sorted(data.catalog.databases) == ["shop"] and not data.catalog.tables


def test_a_cancelled_restore_ends_soon_and_leaves_nothing(data: DirectData, may_pack: bool) -> None:
    job = Job()

    def on_rows(rows: int, size: int) -> None:
        job.cancelled = "It was cancelled by admin."

    restoring = Restoring(data, [target(7, "shop.orders")], may_pack, job=job, on_rows=on_rows)
    with pytest.raises(RewindError, match="cancelled by admin"):
        restoring.run()
    assert sorted(data.catalog.databases) == ["shop"] and not data.catalog.tables


def test_names_that_are_taken_are_replaced_only_when_asked(data: DirectData, may_pack: bool) -> None:
    live = "22222222-2222-4333-8444-555555555555"
    granted = {"tables": {live: {"read": True}, "other": {"read": True}}, "global": {"connect": True}}
    data.commit([(int(Kind.CREATE_TABLE), 1, live, "d1", "orders", "id", {})], "hard")
    data.commit([(PUT_ROW, 1, primary_key_bytes("mine"), b'{"id":"mine"}')], "hard")
    data.commit([(int(Kind.PUT_SYSTEM), "users", "eve", {"permissions": granted})], "hard")
    with pytest.raises(BadSetting, match=r"shop\.orders is there already"):
        restore(data, may_pack, target(7, "shop.orders"))
    assert data.rows(TableName("shop", "orders")) == {primary_key_bytes("mine"): b'{"id":"mine"}'}
    restore(data, may_pack, target(7, "shop.orders"), replace=True)
    assert data.rows(TableName("shop", "orders")) == some_rows(3000)
    new = data.catalog.databases["shop"].tables["orders"].uuid
    grants = data.catalog.documents("users")["eve"]["permissions"]
    assert grants["tables"] == {new: {"read": True}, "other": {"read": True}}
    assert grants["global"] == {"connect": True}
    assert live not in data.catalog.tables_by_uuid


def test_a_copy_under_another_name_has_a_uuid_of_its_own(data: DirectData, may_pack: bool) -> None:
    restore(data, may_pack, target(9, "shop.notes", "shop.copy"))
    assert data.catalog.databases["shop"].tables["copy"].uuid != UUID[:-1] + "9"


def test_single_documents(data: DirectData) -> None:
    data.commit([(int(Kind.CREATE_TABLE), 1, "t", "d1", "orders", "id", {})], "hard")
    put_documents(data, target(7, "shop.orders"), [(primary_key_bytes(5), b'{"id":5}')])
    assert data.rows(TableName("shop", "orders")) == {primary_key_bytes(5): b'{"id":5}'}
    put_documents(data, target(7, "shop.orders"), [])
    with pytest.raises(BadSetting, match="is not there"):
        put_documents(data, target(7, "shop.gone"), [(primary_key_bytes(5), b'{"id":5}')])
    data.commit([(int(Kind.CREATE_TABLE), 2, "u", "d1", "named", "name", {})], "hard")
    with pytest.raises(BadSetting, match="primary key"):
        put_documents(data, target(7, "shop.named"), [(primary_key_bytes(5), b'{"id":5}')])
