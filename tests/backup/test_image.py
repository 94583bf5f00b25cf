"""Images and the log bring every moment back, row for row (invariants 6 and 7)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backup.capture import Order, capture
from backup.manifest import LogSlice, SliceName, encode_slice
from backup.plan import EndsEarly, LogGap, NoBaseImage, Stop, plan_restore
from backup.rebuild import rebuild
from backup.sealing import Keyring, new_key
from backup.shelf import look
from backup.vault import Vault
from model.effect import DELETE_ROW, PUT_ROW, Effect, Kind, encode
from model.errors import UnfitArchive
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings


class Server:
    """A machine with its log, from which images are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine(RocksEngine(folder / "rows", RocksSettings()))
        self.log: list[tuple[int, int, int, bytes]] = []
        self.hashes: dict[int, str] = {}

    def write(self, *effects: Effect) -> None:
        index = len(self.log) + 1
        payload = encode(list(effects), index * 1000)
        self.log.append((index, 1, 0, payload))
        self.machine.apply([(index, payload)])
        self.hashes[index] = self.machine.store.state_hash()

    def image(self, vault: Vault, name: str, *selection: str) -> None:
        place = self.folder / f"checkpoint-{name}"
        index = self.machine.checkpoint(place)
        with Image(place) as image:
            capture(image, vault, Order(name, "c1", 1, index * 1000, "test", selection), lambda *_: None)

    def ship(self, vault: Vault, first: int, last: int) -> None:
        part = SliceName(first, last, first * 1000, last * 1000)
        vault.put(part.name, encode_slice(LogSlice("c1", self.log[first - 1 : last])))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    server = Server(tmp_path)
    dice = random.Random(7)
    server.write((int(Kind.CREATE_DATABASE), "d1", "shop"))
    for table_id in (1, 2):
        server.write((int(Kind.CREATE_TABLE), table_id, f"t{table_id}", "d1", f"table{table_id}", "id", {}))
    for at in range(60):
        key = b"N%04d" % dice.randrange(30)
        table_id = dice.choice((1, 2))
        if dice.random() < 0.3:
            server.write((DELETE_ROW, table_id, key))
        else:
            server.write((PUT_ROW, table_id, key, b'{"at":%d}' % at))
    return server


def restored_hash(vault: Vault, stop: Stop, folder: Path) -> tuple[int, str]:
    shelf = look(vault)
    rebuilt = rebuild(vault, plan_restore(shelf.images, shelf.slices, stop, shelf.marks), folder, lambda *_: None)
    machine = Machine(RocksEngine(folder, RocksSettings()))
    try:
        return rebuilt.log_index, machine.store.state_hash()
    finally:
        machine.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_every_moment_after_an_image_comes_back(server: Server, tmp_path: Path, encrypted: bool) -> None:
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]) if encrypted else None)
    server.image(vault, "full")
    at = server.machine.applied_index
    for value in range(40):
        server.write((PUT_ROW, 1, b"N%04d" % (value % 7), b'{"later":%d}' % value))
    for first in range(at + 1, at + 41, 8):
        server.ship(vault, first, first + 7)
    for index in range(at, at + 41, 5):
        assert restored_hash(vault, Stop(index=index), tmp_path / f"i{index}") == (index, server.hashes[index])
    time_ms = (at + 17) * 1000 + 500
    assert restored_hash(vault, Stop(time_ms=time_ms), tmp_path / "time") == (at + 17, server.hashes[at + 17])
    newest = len(server.log)
    assert restored_hash(vault, Stop(newest=True), tmp_path / "newest") == (newest, server.hashes[newest])


def test_what_cannot_be_reached_is_said_before_anything_is_written(server: Server, tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    with pytest.raises(NoBaseImage):
        restored_hash(vault, Stop(newest=True), tmp_path / "none")
    server.image(vault, "full")
    at = server.machine.applied_index
    for value in range(20):
        server.write((PUT_ROW, 1, b"N1", b'{"later":%d}' % value))
    server.ship(vault, at + 1, at + 5)
    server.ship(vault, at + 11, at + 15)
    with pytest.raises(LogGap, match=f"{at + 6} to {at + 10}"):
        restored_hash(vault, Stop(index=at + 12), tmp_path / "gap")
    with pytest.raises(NoBaseImage):
        restored_hash(vault, Stop(index=at - 1), tmp_path / "before")
    with pytest.raises(LogGap):
        restored_hash(vault, Stop(newest=True), tmp_path / "newest")
    server.ship(vault, at + 6, at + 10)
    with pytest.raises(EndsEarly):
        restored_hash(vault, Stop(index=at + 20), tmp_path / "beyond")
    assert not list(tmp_path.glob("*.rebuilding"))


def test_damage_anywhere_is_found(server: Server, tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    server.image(vault, "full")
    dice = random.Random(3)
    files = [path for path in (tmp_path / "vault").rglob("*") if path.is_file() and path.name != "vault.json"]
    for path in files:
        whole = path.read_bytes()
        for place in dice.sample(range(len(whole)), min(40, len(whole))):
            path.write_bytes(whole[:place] + bytes((whole[place] ^ 1 << dice.randrange(8),)) + whole[place + 1 :])
            with pytest.raises((UnfitArchive, NoBaseImage)):
                restored_hash(vault, Stop(newest=True), tmp_path / "damaged")
            assert not (tmp_path / "damaged").exists()
        path.write_bytes(whole)
    assert restored_hash(vault, Stop(newest=True), tmp_path / "good")[0] == server.machine.applied_index


def test_an_image_of_some_tables_holds_just_them(server: Server, tmp_path: Path) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    server.image(vault, "part", "shop.table2")
    [manifest] = look(vault).images
    assert [table.name for table in manifest.tables] == ["table2"]
    assert manifest.rows == server.machine.store.count(2)
    with pytest.raises(UnfitArchive, match="does not exist"):
        server.image(vault, "none", "shop.nothing")
    assert len(look(vault).images) == 1
