"""Damage is found at every depth that can see it; drills, new images from old ones and copies tell the truth."""

import hashlib
import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from backup import capture_tables
from backup.access import access_from, enter
from backup.capture import Order, capture, read_block
from backup.copying import copy_vault
from backup.drill import drill
from backup.holds import hold
from backup.inventory import inventory
from backup.manifest import encode, image_name
from backup.plan import Stop, plan_restore
from backup.rebuild import rebuild
from backup.sealing import FIRST_VERSION, MAGIC, NO_KEY, Keyring, digest, new_key
from backup.shelf import look
from backup.synthesis import synthesise
from backup.vault import Vault, VaultUnavailable
from backup.verify import FILES, MANIFEST, ROWS, compare, is_in_part, verify
from model.effect import DELETE_ROW, PUT_ROW
from model.errors import BadSetting, DiskFull, RewindError, UnfitArchive
from model.packed_rows import plain_rows
from storage.image import Image
from storage.rows import HASH_MODULUS, row_digest, sum_of_digests
from tests.backup.faults import WRITES, Killed, at_operation, make_faulty
from tests.backup.past_ledger import CLUSTER, History


def nothing(*_):
    """Nobody wants to know how far it is."""


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def keyring(request):
    return Keyring([new_key()]) if request.param else Keyring()


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/vault"


@pytest.fixture
def history(tmp_path):
    history = History(tmp_path / "server", random.Random(11))
    history.write(*history.create_database())
    for _ in range(4):
        history.write(*history.create_table())
    return history


@pytest.fixture
def vault(url, history, keyring):
    """Three images and the log from before the first to after the last."""
    vault = Vault(url, keyring=keyring)
    vault.claim(CLUSTER, 1)
    for _ in range(3):
        history.steps(30)
        history.image(vault)
    history.steps(10)
    history.ship(vault)
    return vault


def problems(vault, depth, tmp_path, part=None):
    return verify(vault, depth, nothing, tmp_path / "scratch", part).problems


def test_a_good_vault_has_no_problem_and_leaves_nothing_behind(vault, tmp_path, history):
    for depth in (MANIFEST, FILES, ROWS):
        report = verify(vault, depth, nothing, tmp_path / "scratch")
        assert (report.problems, report.images) == ([], 3)
    result = drill(vault, tmp_path / "scratch", nothing)
    assert (result["problems"], result["log_index"]) == ([], history.last_index)
    assert result["rows"] == sum(len(table.rows) for table in history.model.tables.values())
    assert result["compared_with_log"]
    assert not list(tmp_path.glob("scratch*"))


def test_every_byte_counts(vault, tmp_path):
    """One bit in any object (sampled) is found; the manifests' and the blocks' sizes by the cheapest look."""
    dice = random.Random(2)
    files = [path for path in (tmp_path / "vault").rglob("*") if path.is_file() and path.name != "vault.json"]
    assert len(files) > 7
    log = sorted(path for path in files if "log" in path.parts)
    begin = look(vault).images[0].log_index
    needless = {path for path in log if int(path.name.split("-")[1], 16) <= begin} | {log[-1]}  # no hole without them
    for path in files:
        whole = path.read_bytes()
        for place in dice.sample(range(len(whole)), min(6, len(whole))):
            path.write_bytes(whole[:place] + bytes((whole[place] ^ 1 << dice.randrange(8),)) + whole[place + 1 :])
            assert problems(vault, FILES, tmp_path)
        path.write_bytes(whole[:-1])
        is_of_image = "images" in path.parts
        assert problems(vault, MANIFEST if is_of_image else FILES, tmp_path)
        path.unlink()
        if path.name == "00000000" or (not is_of_image and path not in needless):
            assert problems(vault, MANIFEST, tmp_path)
        path.write_bytes(whole)
    assert problems(vault, ROWS, tmp_path) == []


def test_objects_that_changed_places_are_found(vault, tmp_path):
    blocks = sorted(path for path in (tmp_path / "vault" / "images").rglob("0*") if path.is_file())
    first, second = blocks[0].read_bytes(), blocks[-1].read_bytes()
    blocks[0].write_bytes(second)
    blocks[-1].write_bytes(first)
    assert len(problems(vault, FILES, tmp_path)) >= 2


def test_a_lie_that_is_well_sealed_is_found_by_its_rows(vault, tmp_path, history):
    """A slice with other rows, sealed as it should be: only rebuilding can tell."""
    from backup.manifest import LogSlice, SliceName, encode_slice
    from model.effect import Kind, encode

    images = look(vault).images
    index = images[-1].log_index
    for piece in look(vault).slices:
        vault.delete(piece.name)
    table = next(iter(images[-1].tables))
    lie = encode([(int(Kind.PUT_ROW), table.table_id, b"N", b'{"id":"lie"}')], 1)
    log = [entry if entry[0] != index else (index, entry[1], 0, lie) for entry in history.log]
    piece = SliceName(1, len(log), 1000, len(log) * 1000)
    vault.put(piece.name, encode_slice(LogSlice(CLUSTER, log)))
    assert problems(vault, FILES, tmp_path) == []
    assert problems(vault, ROWS, tmp_path)
    assert drill(vault, tmp_path / "scratch", nothing)["problems"]


def test_parts_come_to_the_whole(vault, tmp_path):
    whole = verify(vault, FILES, nothing).objects
    assert sum(verify(vault, FILES, nothing, None, (part, 5)).objects for part in range(1, 6)) == whole
    assert [is_in_part("a", part, 3) for part in (1, 2, 3)].count(True) == 1


def test_a_hole_in_the_log_is_told(vault, tmp_path):
    pieces = look(vault).slices
    inside = pieces[len(pieces) // 2]
    vault.delete(inside.name)
    [problem] = problems(vault, MANIFEST, tmp_path)
    assert f"to {inside.last_index}: moments in between cannot be restored" in problem


def test_no_room_is_said_before_anything_is_written(vault, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(DiskFull, match="free"):
        drill(vault, tmp_path / "scratch", nothing)


@pytest.mark.parametrize("kind", ["kill", "killed", "before", "half", "full", "flip"])
def test_an_image_is_whole_or_not_listed(tmp_path, history, kind):
    """A fault at every operation of a capture: no success is told, no half image is listed, the next one works."""
    history.steps(25)
    place = tmp_path / "checkpoint"
    index = history.machine.checkpoint(place)
    url = f"file://{tmp_path}/vault"
    failures = 0
    for number in range(1, 200, 3):
        order = Order(f"i{number}", CLUSTER, 1, 1000, "test")
        names = ("cat_file",) if kind == "flip" else (*WRITES, "exists", "cat_file")
        vault = make_faulty(Vault(url), at_operation(number, kind, names))
        try:
            with Image(place) as image:
                capture(image, vault, order, nothing)
        except (Killed, RewindError):
            failures += 1
            listed = [image.image for image in look(Vault(url)).images]
            assert f"i{number}" not in listed or kind.startswith("kill")  # nobody was left to take it back
            continue
        break
    assert failures
    assert verify(Vault(url), ROWS, nothing, tmp_path / "scratch").problems == []
    assert look(Vault(url)).images[-1].log_index == index


def test_an_image_is_made_from_an_older_one_and_the_log(vault, tmp_path, history):
    made = synthesise(vault, tmp_path / "scratch", image_name, "test", nothing)
    assert made.log_index == history.last_index
    assert made.parent == "image-95"
    assert problems(vault, ROWS, tmp_path) == []
    alone = rebuild(vault, plan_restore([made], [], Stop(newest=True)), tmp_path / "back", nothing)
    with Image(tmp_path / "back") as image:
        for table_id, table in history.model.tables.items():
            found = {key: row for part in image.blocks(table_id) for key, row in zip(part.keys, part.rows, strict=True)}
            assert found == table.rows
    assert alone.entries == 0
    with pytest.raises(RewindError, match="newest moment"):
        synthesise(vault, tmp_path / "scratch", image_name, "test", nothing)


def test_a_copy_is_as_good(vault, tmp_path, keyring, history):
    copy_url = f"memory://{tmp_path}/copy"
    for number in (1, 2, 4):  # interrupted, again and again
        with pytest.raises((Killed, VaultUnavailable)):
            copy_vault(
                vault, make_faulty(Vault(copy_url, keyring=keyring), at_operation(number, "kill", WRITES)), nothing
            )
        assert verify(Vault(copy_url, keyring=keyring), FILES, nothing).problems == []
    target = Vault(copy_url, keyring=keyring)
    assert copy_vault(vault, target, nothing).objects > 0
    assert copy_vault(vault, target, nothing).objects == 0
    assert problems(target, ROWS, tmp_path) == []
    assert inventory(target)["ranges"] == inventory(vault)["ranges"]
    with pytest.raises(UnfitArchive, match="not a vault"):
        copy_vault(Vault(f"memory://{tmp_path}/empty"), target, nothing)


class Moving(Vault):
    """A vault in which marks, holds and images go away as soon as they are listed."""

    def names(self, folder):
        found = super().names(folder)
        if folder in ("marks", "holds"):
            for name, _ in found:
                self.delete(name)
        return found


def test_what_goes_away_during_a_copy_does_not_end_it(vault, tmp_path, keyring):
    vault.put("marks/0000000000000001-000000000001", b"")
    hold(vault, look(vault).images[0].image)
    target = Vault(f"memory://{tmp_path}/copy", keyring=keyring)
    copied = copy_vault(Moving(vault.url, keyring=keyring), target, nothing)
    assert copied.images == 3
    assert target.names("marks") == target.names("holds") == []
    assert problems(target, ROWS, tmp_path) == []


class Late(Vault):
    """A vault that does not list yet what its own shipping has just brought."""

    def names(self, folder):
        return [] if folder == "log" else super().names(folder)


def test_a_copy_and_the_shipping_of_its_target_do_not_mind_each_other(vault, tmp_path, keyring):
    target = Late(f"memory://{tmp_path}/copy", keyring=keyring, level=9)
    target.claim(CLUSTER, 1)
    first, second = (name for name, _ in vault.names("log")[:2])
    target.put(first, vault.get(first))
    assert copy_vault(vault, target, nothing).images == 3
    other = Late(f"memory://{tmp_path}/other", keyring=keyring)
    other.claim(CLUSTER, 1)
    other.put(first, vault.get(second))
    with pytest.raises(UnfitArchive, match="with other content"):
        copy_vault(vault, other, nothing)


def test_an_image_that_is_deleted_while_it_is_looked_at_is_not_there(vault):
    names = [image.image for image in look(vault).images]

    class Losing(Vault):
        def names(self, folder):
            found = super().names(folder)
            if folder == "images":
                self.delete(f"images/{names[1]}/manifest")
            return found

    assert [image.image for image in look(Losing(vault.url, keyring=vault.keyring)).images] == [names[0], names[2]]


def test_damage_is_not_copied(vault, tmp_path, keyring):
    piece = look(vault).slices[0]
    path = tmp_path / "vault" / piece.name
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(UnfitArchive):
        copy_vault(vault, Vault(f"memory://{tmp_path}/copy", keyring=keyring), nothing)


def test_a_vault_is_entered_by_its_own_cluster_only(url):
    vault = Vault(url)
    with pytest.raises(VaultUnavailable):
        enter(vault, "c1", True, 1)
    enter(vault, "c1", False, 1)
    enter(vault, "c1", True, 1)
    with pytest.raises(UnfitArchive):
        enter(vault, "c2", True, 1)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"name": "a"},
        {"name": "a b", "url": "file:///x"},
        {"name": "a", "url": "/x"},
        {"name": "a", "url": "s3://key:secret@bucket"},
        {"name": "a", "url": "file:///x", "level": 20},
        {"name": "a", "url": "file:///x", "level": True},
        {"name": "a", "url": "file:///x", "key_file": "a", "passphrase_file": "b"},
        {"name": "a", "url": "file:///x", "options": {"secret": "x"}},
        {"name": "a", "url": "file:///x", "options": {"key": "x"}},
        {"name": "a", "url": "file:///x", "environment": {"secret": 1}},
        {"name": "a", "url": 5},
    ],
)
def test_what_a_vault_may_be_is_checked(row):
    with pytest.raises(BadSetting):
        access_from(row)


def test_row_hashes_do_not_depend_on_order():
    rows = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert sum(row_digest(*row) for row in rows) == sum(row_digest(*row) for row in reversed(rows))


def test_an_image_of_the_first_format_is_read_and_verified(vault, tmp_path, history, keyring):
    """Objects with the first kind of hash at their end, and one hash over all rows of a table, none over blocks."""
    newest = look(vault).images[-1]
    tables = []
    for table in newest.tables:
        blocks, total = [], 0
        for block in table.blocks:
            total += sum_of_digests(*read_block(vault, block))
            stored = of_the_first_format(vault, block.name)
            blocks.append(replace(block, sha256=digest(stored), stored_bytes=len(stored), content_hash=""))
        tables.append(replace(table, row_hash=f"{total % HASH_MODULUS:064x}", blocks=tuple(blocks)))
    name = f"images/{newest.image}/manifest"
    vault.delete(name)
    vault.put(name, encode(replace(newest, tables=tuple(tables))))
    stored = of_the_first_format(vault, name)
    assert all(problems(vault, depth, tmp_path) == [] for depth in (MANIFEST, FILES, ROWS))
    assert drill(vault, tmp_path / "scratch", nothing)["problems"] == []
    for at in (4, 20, len(stored) - 1):
        (tmp_path / "vault" / name).write_bytes(stored[:at] + bytes((stored[at] ^ 2,)) + stored[at + 1 :])
        assert problems(vault, MANIFEST, tmp_path)
    (tmp_path / "vault" / name).unlink()
    vault.put(name, encode(replace(newest, tables=tuple(replace(table, row_hash="1" * 64) for table in tables))))
    assert [text for text in problems(vault, ROWS, tmp_path) if "other contents" in text]


def of_the_first_format(vault, name):
    """Seals an object anew as the first version did, in its place; as it is stored then."""
    content = vault.get(name)
    body, head = content, MAGIC + bytes((FIRST_VERSION, 0)) + NO_KEY
    if vault.keyring.encrypts:
        id, key = vault.keyring.current()
        head, nonce = MAGIC + bytes((FIRST_VERSION, 2)) + id, bytes(12)
        body = nonce + ChaCha20Poly1305(key).encrypt(nonce, content, head + name.encode())
    end = hashlib.blake2b(name.encode() + head + body, digest_size=16, person=b"rewind object").digest()
    vault.delete(name)
    vault.put_stored(name, head + body + end)
    return head + body + end


def test_blocks_of_other_rows_than_were_packed_are_found(vault, tmp_path):
    """Everything is sealed as it should be, but one row is not what it was when its block was made."""
    newest = look(vault).images[-1]
    table = max(newest.tables, key=lambda table: table.rows)
    [block] = table.blocks
    keys, rows = read_block(vault, block)
    vault.delete(block.name)
    sha256, size = vault.put(block.name, plain_rows(keys, [*rows[:-1], rows[-1].replace(b"}", b" }")]))
    block = replace(block, sha256=sha256, stored_bytes=size)
    tables = tuple(replace(table, blocks=(block,)) if other is table else other for other in newest.tables)
    name = f"images/{newest.image}/manifest"
    vault.delete(name)
    vault.put(name, encode(replace(newest, tables=tables)))
    with pytest.raises(UnfitArchive, match="does not unpack to what was packed into it"):
        read_block(vault, block)
    assert [text for text in problems(vault, FILES, tmp_path) if block.name in text]
    with pytest.raises(UnfitArchive, match="does not unpack"):
        rebuild(
            vault, plan_restore([look(vault).images[-1]], [], Stop(index=newest.log_index)), tmp_path / "r", nothing
        )


def test_rebuilt_rows_are_compared_block_by_block(tmp_path, history, monkeypatch):
    """However the rows of a rebuilt folder are read: a row too few, too many or other than it was is told."""
    monkeypatch.setattr(capture_tables, "BLOCK_BYTES", 100)
    vault = Vault(f"memory://{tmp_path}/compared")
    history.steps(60)
    history.image(vault)
    [image] = look(vault).images
    history.machine.checkpoint(tmp_path / "same")
    with Image(tmp_path / "same") as found:
        assert list(compare(found, image)) == []
    table = max(image.tables, key=lambda table: table.rows)
    assert len(table.blocks) > 2
    first, last = read_block(vault, table.blocks[0]), read_block(vault, table.blocks[-1])
    for at, effect in enumerate(
        (
            (DELETE_ROW, table.table_id, first[0][0]),
            (PUT_ROW, table.table_id, first[0][0], b'{"id":0}'),
            (PUT_ROW, table.table_id, first[0][0], first[1][0]),
            (PUT_ROW, table.table_id, last[0][-1] + b"\xff", b'{"id":0}'),
        )
    ):
        history.write(effect)
        history.machine.checkpoint(tmp_path / f"other{at}")
        with Image(tmp_path / f"other{at}") as found:
            differences = [text for text in compare(found, image) if "log index" not in text]
        assert bool(differences) == (at != 2), (at, differences)
