"""Whoever can write to a vault without a key can make its contents say anything: none of it does harm.

Everything here is sealed as it should be, so that hashes match; what is inside is wrong. It is refused with an error
of ours, in bounded time and memory, and leaves nothing behind.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec
import orjson
import pytest
import zstandard

from backup.history import find_rows
from backup.manifest import Block, ImageManifest, LogSlice, SliceName, TableImage, encode, encode_slice
from backup.plan import Stop, plan_restore
from backup.rebuild import rebuild
from backup.restore_jobs import bring_back
from backup.restore_tables import Source, Survey, choose, rebuild_tables, source_of, survey
from backup.row_pieces import packed_blocks, pieces_of
from backup.sealing import MAGIC, NO_KEY, VERSION, ZSTD, _hash, digest
from backup.shelf import is_stored_as, look
from backup.vault import Vault
from model.catalog import Table
from model.effect import PUT_ROW, PUT_ROWS, Kind
from model.effect import encode as encode_batch
from model.errors import RewindError, UnfitArchive
from model.keys import primary_key_bytes
from model.packed_rows import pack_rows

KEY = primary_key_bytes(1)
ROW = b'{"id":1}'
DATABASE = (int(Kind.CREATE_DATABASE), "d", "shop")
TABLE = (int(Kind.CREATE_TABLE), 1, "t", "d", "orders", "id", {})


def no_progress(what: str, done: int, total: int) -> None:
    """Nobody looks."""


class Forge:
    """A vault whose contents somebody made up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault(f"file://{folder}/vault")

    def block(self, name: str, content: bytes, rows: int = 1) -> Block:
        sha256, size = self.vault.put(name, content)
        return Block(name, rows, 10, size, sha256)

    def image(self, *tables: TableImage, catalog: tuple[Any, ...] = (DATABASE, TABLE), **more: Any) -> None:
        manifest = ImageManifest("i", "c1", 5, 1, 5000, 0, 0, "test", (), catalog, tables, **more)
        self.vault.put("images/i/manifest", encode(manifest))

    def table(self, *blocks: Block, **more: Any) -> TableImage:
        table = TableImage(1, "t", "shop", "orders", sum(block.rows for block in blocks), 10, "0" * 64, blocks)
        return replace(table, **more)

    def log(self, *payloads: bytes, first: int = 6, cluster: str = "c1") -> None:
        entries = [(index, 1, 0, payload) for index, payload in enumerate(payloads, first)]
        name = SliceName(first, first + len(payloads) - 1, first * 1000, first * 1000)
        self.vault.put(name.name, encode_slice(LogSlice(cluster, entries)))

    def refused(self, *ways: Callable[[], None]) -> None:
        """All ways to bring rows back refuse it, and leave nothing."""
        for way in ways or (self.whole, self.part, self.pieces):
            with pytest.raises(RewindError):
                way()
            assert {entry.name for entry in self.folder.iterdir()} <= {"vault"}

    def whole(self) -> None:
        shelf = look(self.vault)
        plan = plan_restore(shelf.images, shelf.slices, Stop(newest=True))
        rebuild(self.vault, plan, self.folder / "rows", no_progress)

    def part(self) -> None:
        source, surveyed, tables = self.chosen()
        rebuild_tables(source, surveyed, tables, self.folder / "rows", no_progress)

    def pieces(self) -> None:
        source, surveyed, tables = self.chosen()
        scratch = self.folder / "scratch"
        try:
            for _ in pieces_of(
                source, surveyed, tables, scratch, partial(packed_blocks, self.vault, False), no_progress
            )[1]:
                pass
        finally:
            rmtree(scratch, ignore_errors=True)

    def chosen(self) -> tuple[Source, Survey, list[Table]]:
        shelf = look(self.vault)
        source = source_of(self.vault, plan_restore(shelf.images, shelf.slices, Stop(newest=True)))
        surveyed = survey(source)
        tables = choose(surveyed, [])
        if not tables:
            raise UnfitArchive("There is no table in it.")
        return source, surveyed, tables


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


class Line:
    """A server that takes all that is handed over."""

    def __init__(self) -> None:
        self.pieces = 0

    def tell(self, event: str, **fields: Any) -> None:
        self.pieces += event == "piece"

    def newest_order(self, timeout_s: float) -> dict[str, int]:
        return {"taken": self.pieces}


def packed(keys: Any, rows: Any) -> bytes:
    return msgspec.msgpack.encode((keys, rows))


def test_the_forge_makes_what_is_taken(forge: Forge) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    forge.log(encode_batch([(PUT_ROW, 1, primary_key_bytes(2), b'{"id":2}')], 6000))
    forge.part()
    assert (forge.folder / "rows").exists()
    forge.pieces()


def test_the_forge_makes_blocks_that_are_passed_on(forge: Forge) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    forge.pieces()


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "images/../../x", "images//x", "", "images/i/t/..", "a\0b", "a" * 5000],
)
def test_names_that_lead_elsewhere(forge: Forge, name: str) -> None:
    (forge.folder.parent / "x").write_bytes(b"outside")
    forge.image(forge.table(Block(name, 1, 1, 1, digest(b"outside"))))
    forge.refused()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        packed([KEY, KEY], [ROW, ROW]),
        packed([primary_key_bytes(2), KEY], [b'{"id":2}', ROW]),
        packed([KEY], []),
        packed([1], [ROW]),
        packed([KEY], ["text"]),
        packed({}, {}),
        b"\x91" * 100_000,
    ],
)
def test_blocks_that_hold_no_rows(forge: Forge, content: bytes) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", content, 2)))
    forge.refused()


def sealed(name: str, body: bytes) -> bytes:
    stored = MAGIC + bytes((VERSION, ZSTD)) + NO_KEY + body
    return stored + _hash(VERSION, name, stored)


def test_objects_that_would_fill_the_memory(forge: Forge) -> None:
    claims_much = zstandard.ZstdCompressor().compress(b"x" * 100)
    frame = bytearray(claims_much)
    frame[4:6] = bytes((0b1110_0000,)) + struct.pack("<Q", 1 << 40)  # content size: 8 bytes, a terabyte
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    for number, body in enumerate((bytes(frame), silent, claims_much[:-4])):
        name = f"images/i/t/{number}"
        stored = sealed(name, body)
        forge.vault.put_stored(name, stored)
        with pytest.raises(UnfitArchive):
            forge.vault.get(name)
    forge.image(forge.table(Block("images/i/t/0", 1, 1, 1, digest(sealed("images/i/t/0", bytes(frame))))))
    forge.refused()


@pytest.mark.parametrize(
    "catalog",
    [
        ((int(Kind.CREATE_TABLE), 1),),
        (DATABASE, (int(Kind.CREATE_TABLE), "one", "t", "d", "orders", "id", {})),
        (DATABASE, (int(Kind.CREATE_TABLE), -1, "t", "d", "orders", "id", {})),
        (DATABASE, (int(Kind.CREATE_TABLE), 1 << 40, "t", "d", "orders", "id", {})),
        (DATABASE, (int(Kind.CREATE_TABLE), 1, "t", "d", "orders", "id", "options")),
        (DATABASE, TABLE, (int(Kind.CREATE_INDEX), 1, 2, "b", [1])),
        (DATABASE, TABLE, (99, 1)),
        (DATABASE, TABLE, ()),
        (DATABASE, TABLE, ("x",)),
        (DATABASE, (int(Kind.CREATE_DATABASE), ["d"], "shop")),
        (DATABASE, TABLE, (int(Kind.PUT_SYSTEM), "users", {}, {})),
    ],
)
def test_catalogs_that_cannot_be(forge: Forge, catalog: Any) -> None:
    forge.image(forge.table(), catalog=catalog)
    with pytest.raises(RewindError):
        forge.whole()
    assert {entry.name for entry in forge.folder.iterdir()} == {"vault"}


@pytest.mark.parametrize("table_id", [-1, 1 << 32, 1 << 70])
def test_numbers_of_tables_that_no_key_can_hold(forge: Forge, table_id: int) -> None:
    block = forge.block("images/i/t/0", packed([KEY], [ROW]))
    table = (int(Kind.CREATE_TABLE), table_id, "t", "d", "orders", "id", {})
    manifest = orjson.loads(encode(ImageManifest("i", "c1", 5, 1, 5, 0, 0, "", (), (DATABASE,), (forge.table(block),))))
    manifest["catalog"].append(list(table))
    manifest["tables"][0]["table_id"] = table_id
    forge.vault.put("images/i/manifest", msgspec.json.encode(manifest))
    forge.refused(forge.whole, forge.part)
    forge.pieces()  # a running server gives tables numbers of its own


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"{" * 10,
        b'{"image": "i"}',
        b"\xff\xfe",
        b'{"format": 1e400}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ],
)
def test_manifests_that_are_none(forge: Forge, text: bytes) -> None:
    forge.vault.put("images/i/manifest", text)
    assert [name for name, _ in look(forge.vault).damaged] == ["images/i/manifest"]
    forge.refused()


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode((99, 1, [])),
        msgspec.msgpack.encode((1, "then", [])),
        msgspec.msgpack.encode((1, 1, [(PUT_ROW, 1)])),
        msgspec.msgpack.encode((1, 1, [(PUT_ROW, [1], KEY, ROW)])),
        msgspec.msgpack.encode((1, 1, [()])),
        msgspec.msgpack.encode((1, 1, [("x", 1)])),
        msgspec.msgpack.encode((1, 1, [(int(Kind.ALTER_TABLE), 1, [1])])),
        msgspec.msgpack.encode((1, 1, [(int(Kind.RENAME_DATABASE), "d", [])])),
        msgspec.msgpack.encode((1, 1, [(int(Kind.CREATE_TABLE), 7, "u", "d", "n", "id", 5)])),
        msgspec.msgpack.encode((1, 1, [(200, 1)])),
        msgspec.msgpack.encode((1, 1, [(PUT_ROW, 1, KEY, "text")])),
        msgspec.msgpack.encode((1, 1, [(PUT_ROW, 1, "text", ROW)])),
        msgspec.msgpack.encode((2, 1, [])),
        msgspec.msgpack.encode((2, 1, [(PUT_ROW, 1, KEY, ROW)])),
        msgspec.msgpack.encode((2, 1, [(PUT_ROWS, 1)])),
        msgspec.msgpack.encode((2, 1, [(PUT_ROWS, 1, "text")])),
        msgspec.msgpack.encode((2, 1, [(PUT_ROWS, 1, b"none")])),
        msgspec.msgpack.encode((2, 1, [(PUT_ROWS, [1], pack_rows([KEY], [ROW]))])),
    ],
)
def test_entries_that_no_server_writes(forge: Forge, payload: bytes) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    forge.log(payload)
    forge.refused()


def test_packed_rows_in_the_log_are_looked_at_as_others_are(forge: Forge) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    forge.log(encode_batch([(PUT_ROWS, 1, pack_rows([KEY], [b'{"id":2}']))], 1))
    forge.refused(forge.part, forge.pieces)


def test_slices_that_are_not_what_their_names_say(forge: Forge) -> None:
    good = encode_batch([(PUT_ROW, 1, KEY, ROW)], 6000)
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    name = SliceName(6, 7, 6000, 7000)
    for wrong in (
        encode_slice(LogSlice("c1", [(6, 1, 0, good)])),
        encode_slice(LogSlice("c1", [(6, 1, 0, good), (8, 1, 0, good)])),
        encode_slice(LogSlice("c1", [(7, 1, 0, good), (6, 1, 0, good)])),
        encode_slice(LogSlice("other", [(6, 1, 0, good), (7, 1, 0, good)])),
        msgspec.msgpack.encode({"format": 9, "cluster_id": "c1", "entries": []}),
        b"\x91" * 100_000,
        b"",
    ):
        forge.vault.put(name.name, wrong)
        forge.refused()
        forge.vault.delete(name.name)


def test_search_in_blocks_that_lie_about_their_order_ends(tmp_path: Path) -> None:
    forge, dice = Forge(tmp_path), random.Random(2)
    blocks = []
    for at in range(64):
        keys = [primary_key_bytes(dice.randrange(1000)) for _ in range(dice.randrange(3))]
        blocks.append(forge.block(f"images/i/t/{at}", packed(keys, [b"{}"] * len(keys)), len(keys)))
    for number in range(50):
        find_rows(forge.vault, forge.table(*blocks), [primary_key_bytes(number)])


def test_only_the_manifest_that_was_written_vouches_for_its_rows(forge: Forge) -> None:
    """What a vault holds is this cluster's own by the hash in the cluster's log, not by its name."""
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [b"no JSON"]))))
    sha256 = digest(forge.vault.get_stored("images/i/manifest"))
    job = {"vault": {"name": "v", "url": forge.vault.url}, "to": "latest", "image": None, "names": [], "now_ms": 0}
    job["scratch"] = str(forge.folder / "scratch")
    for own_images in ({}, {"other": sha256}, {"i": digest(b"another")}):
        line = Line()
        with pytest.raises(UnfitArchive, match="holds a row that is none"):
            bring_back({**job, "own_images": own_images}, line)
        assert not line.pieces
    line = Line()
    bring_back({**job, "own_images": {"i": sha256}}, line)
    assert line.pieces == 1
    [manifest] = look(forge.vault).images
    assert is_stored_as(forge.vault, manifest, sha256)
    assert not is_stored_as(forge.vault, replace(manifest, log_index=6), sha256), "it was another when it was read"


def test_damaged_blocks_of_own_images_are_refused(forge: Forge) -> None:
    forge.image(forge.table(forge.block("images/i/t/0", packed([KEY], [ROW]))))
    own = {"i": digest(forge.vault.get_stored("images/i/manifest"))}
    job = {"vault": {"name": "v", "url": forge.vault.url}, "to": "latest", "image": None, "names": [], "now_ms": 0}
    file = forge.folder / "vault" / "images/i/t/0"
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        line = Line()
        with pytest.raises(UnfitArchive, match="damaged"):
            bring_back({**job, "own_images": own, "scratch": str(forge.folder / "scratch")}, line)
        assert not line.pieces
