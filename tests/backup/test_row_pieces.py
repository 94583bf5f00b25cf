"""Pieces for a running server: the rows of that moment, as the vault has them packed where that can be."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backup import row_pieces
from backup.handover import MOST_AHEAD, file_of, hand_over
from backup.plan import Stop, plan_restore
from backup.restore import plan_from
from backup.restore_tables import choose, source_of, survey
from backup.row_pieces import PIECE_BYTES, Piece, packed_blocks, pieces_of
from backup.sealing import Keyring, new_key, open_sealed
from backup.selection import TableName
from backup.shelf import look
from backup.timeline import parse_moment
from backup.vault import Vault
from model.effect import PUT_ROW, Kind
from model.errors import UnfitArchive
from model.keys import primary_key_bytes
from model.packed_rows import pack_plain, unpack_rows
from model.packed_rows import rows_in as rows_in_plain
from tests.backup.past_ledger import History, random_history


def no_progress(what: str, done: int, total: int) -> None:
    """Nobody looks."""


def rows_in(pieces: list[Piece]) -> dict[int, dict[bytes, bytes]]:
    found: dict[int, dict[bytes, bytes]] = {}
    for piece in pieces:
        keys, rows = unpack_rows(piece.packed)
        assert rows_in_plain(piece.plain) == (keys, rows)
        assert (len(rows), sum(map(len, rows))) == (piece.rows, piece.row_bytes)
        part = dict(zip(keys, rows, strict=True))
        assert len(part) == len(keys) and not part.keys() & found.get(piece.table_id, {}).keys()
        found.setdefault(piece.table_id, {}).update(part)
    return found


@pytest.mark.parametrize("seed", range(30, 34))
@pytest.mark.parametrize("are_own", [False, True])
def test_pieces_equal_the_model(tmp_path: Path, seed: int, are_own: bool) -> None:
    vault = Vault(f"file://{tmp_path}/vault")
    history = random_history(tmp_path, vault, seed, entries=300)
    shelf = look(vault)
    starts = [image.log_index for image in shelf.images]
    passed_on = rebuilt = 0
    for index in sorted({*starts, *(start + 2 for start in starts), *range(min(starts), history.last_index, 7)}):
        state = history.states[index]
        if not state.tables:
            continue
        source = source_of(vault, plan_restore(shelf.images, shelf.slices, Stop(index=index)))
        surveyed = survey(source)
        tables = choose(surveyed, [])
        total, pieces = pieces_of(
            source, surveyed, tables, tmp_path / f"at{index}", partial(packed_blocks, vault, are_own), no_progress
        )
        found = rows_in(list(pieces))
        assert found == {table_id: table.rows for table_id, table in state.tables.items() if table.rows}
        assert total == sum(map(len, found.values()))
        rebuilt += len(surveyed.touched.keys() & found.keys())
        passed_on += len(found.keys() - surveyed.touched.keys())
    assert passed_on > 1 and rebuilt > 10
    history.close()


def image_of(folder: Path, vault: Vault, rows: dict[bytes, bytes]) -> History:
    history = History(folder, random.Random(1))
    history.write((int(Kind.CREATE_DATABASE), "d", "shop"))
    history.write((int(Kind.CREATE_TABLE), 1, "t1", "d", "orders", "id", {}))
    for key, row in rows.items():
        history.write((PUT_ROW, 1, key, row))
    history.image(vault)
    return history


def pieces_in(folder: Path, vault: Vault, are_own: bool = False) -> list[Piece]:
    source = source_of(vault, plan_from(vault, parse_moment("latest", 0)).plan)
    surveyed = survey(source)
    tables = choose(surveyed, [TableName("shop", "orders")])
    return list(pieces_of(source, surveyed, tables, folder, partial(packed_blocks, vault, are_own), no_progress)[1])


@pytest.mark.parametrize(("keys", "level"), [([], 2), ([new_key()], 2), ([], 0)])
def test_a_block_is_passed_on_as_it_is_packed(tmp_path: Path, keys: list[bytes], level: int) -> None:
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring(keys), level=level)
    rows = {primary_key_bytes(at): b'{"id":%d}' % at for at in range(50)}
    history = image_of(tmp_path, vault, rows)
    [piece] = pieces_in(tmp_path / "scratch", vault)
    assert pieces_in(tmp_path / "scratch", vault, are_own=True) == [piece]
    [block] = look(vault).images[0].tables[0].blocks
    body, is_compressed = open_sealed(block.name, vault.get_stored(block.name), vault.keyring)
    assert is_compressed == bool(level) == (piece.packed == body)
    assert rows_in([piece]) == {1: rows}
    assert not (tmp_path / "scratch").exists()
    history.close()


def test_a_block_of_large_rows_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(row_pieces, "LARGEST_PIECE_BYTES", 2000)
    vault = Vault(f"file://{tmp_path}/vault")
    sizes = [10, 300, 1500, 10, 600, 600, 10]
    rows = {primary_key_bytes(at): b'{"id":%d,"x":"%s"}' % (at, b"x" * size) for at, size in enumerate(sizes)}
    history = image_of(tmp_path, vault, rows)
    pieces = pieces_in(tmp_path / "scratch", vault)
    assert pieces_in(tmp_path / "scratch", vault, are_own=True) == pieces
    assert [piece.rows for piece in pieces] == [2, 1, 2, 2]
    assert rows_in(pieces) == {1: rows}
    history.close()


def test_blocks_out_of_order_or_missing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backup.capture_tables.BLOCK_BYTES", 8000)
    vault = Vault(f"file://{tmp_path}/vault")
    rows = {primary_key_bytes(at): b'{"id":%d}' % at for at in range(1200)}
    history = image_of(tmp_path, vault, {})
    for key, row in rows.items():
        history.write((PUT_ROW, 1, key, row))
    history.image(vault)
    [image] = [image for image in look(vault).images if image.rows]
    [table] = image.tables
    assert len(table.blocks) == 3, "of some 15 KB of rows"
    source = source_of(vault, plan_restore([image], (), Stop(index=image.log_index)))
    surveyed = survey(source)
    chosen = choose(surveyed, [])
    one, two, three = table.blocks
    for blocks, why in (((one, three, two), "order"), ((one, one, three), "order"), ((one, two), "does not come back")):
        forged = replace(image, tables=(replace(table, blocks=blocks),))
        source = source_of(vault, plan_restore([forged], (), Stop(index=image.log_index)))
        with pytest.raises(UnfitArchive, match=why):
            list(
                pieces_of(source, surveyed, chosen, tmp_path / "s", partial(packed_blocks, vault, False), no_progress)[
                    1
                ]
            )
    history.close()


@pytest.mark.parametrize("keys", [[], [new_key()]])
@pytest.mark.parametrize("are_own", [False, True])
def test_any_flipped_byte_of_a_block_is_found(tmp_path: Path, keys: list[bytes], are_own: bool) -> None:
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring(keys))
    rows = {primary_key_bytes(at): b'{"id":%d}' % at for at in range(50)}
    history = image_of(tmp_path, vault, rows)
    [block] = look(vault).images[0].tables[0].blocks
    file = tmp_path / "vault" / block.name
    whole = file.read_bytes()
    for at in [*range(0, len(whole), 9), len(whole) - 1]:
        file.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        with pytest.raises(UnfitArchive, match="damaged"):
            pieces_in(tmp_path / "scratch", vault, are_own)
    file.write_bytes(whole)
    assert rows_in(pieces_in(tmp_path / "scratch", vault, are_own)) == {1: rows}
    history.close()


class Server:
    """The other end of the line: takes a piece whenever it is asked for an order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[dict[str, Any]] = []
        self.taken: list[bytes] = []
        self.most_waiting = 0

    def tell(self, event: str, **fields: object) -> None:
        self.told.append({"event": event, **fields})
        self.most_waiting = max(self.most_waiting, len(self.told) - len(self.taken))

    def newest_order(self, timeout_s: float) -> dict[str, int] | None:
        if len(self.told) % 2 and len(self.taken) % 3 == 0:
            self.take()
            return None  # nothing came in time
        self.take()
        return {"taken": len(self.taken)}

    def take(self) -> None:
        event = self.told[len(self.taken)]
        size = event["packed"] + event["plain"]
        self.taken.append(file_of(self.folder, event["number"]).read_bytes()[:size])


def test_the_server_is_given_no_more_than_it_can_take(tmp_path: Path) -> None:
    """Files are used again, also by pieces that are shorter than those before."""
    plain = [b"%d" % at * (70 - at) for at in range(60)]
    server = Server(tmp_path / "scratch")
    pieces = [Piece(1 + at % 2, pack_plain(part), part, 1, 2) for at, part in enumerate(plain)]
    sums = hand_over(server, tmp_path / "scratch", pieces)
    while len(server.taken) < len(server.told):
        server.take()
    assert server.taken == [piece.packed + piece.plain for piece in pieces]
    assert sums == {1: (30, 60), 2: (30, 60)}
    assert 1 < server.most_waiting <= MOST_AHEAD
    assert len(list((tmp_path / "scratch").iterdir())) == MOST_AHEAD
    assert MOST_AHEAD * 2 * PIECE_BYTES <= 64 << 20
    sizes = {"packed": len(pieces[3].packed), "plain": len(plain[3])}
    assert server.told[3] == {"event": "piece", "number": 3, "table_id": 2, "bytes": 2, **sizes}
