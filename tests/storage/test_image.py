"""Images of a running server, and folders filled from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model.effect import Kind
from model.errors import Corrupt
from storage.bulk import BulkLoad
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine
from tests.storage.storage_ledger import NEW_DATABASE, SMALL, Ledger, index_function, new_index, new_table, put


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(Machine(RocksEngine(tmp_path / "db", SMALL), index_function))
    made.add(NEW_DATABASE, new_table(1), new_table(2), new_table(4), new_index(1, 3, "n"))
    made.build()
    made.add(*(put(1, b"%05d" % n, id=n, n=n % 9) for n in range(3000)))
    made.add(put(4, b"a", id="a", text="x" * 5000), put(4, b"b", id="b", text="y" * 5000))
    made.add((Kind.PUT_SYSTEM, "users", "admin", {"password": False}))
    return made


@pytest.fixture
def image(ledger: Ledger, tmp_path: Path) -> Image:
    ledger.machine.checkpoint(tmp_path / "copy")
    return Image(tmp_path / "copy")


def load(image: Image, folder: Path, tables: list[int]) -> RocksEngine:
    loading = BulkLoad(folder, SMALL)
    for table_id in tables:
        for block in image.blocks(table_id, block_bytes=20_000):
            loading.add(*block)
    loading.finish(image.catalog, image.applied_index)
    return RocksEngine(folder, SMALL)


def test_blocks_are_the_tables_in_order(ledger: Ledger, image: Image) -> None:
    ledger.add(put(1, b"later", id="later"))
    blocks = list(image.blocks(1, block_bytes=10_000))
    assert len(blocks) > 3
    rows = [row for block in blocks for row in zip(block.keys, block.rows, strict=True)]
    assert rows == [row for row in ledger.machine.store.scan(1) if row[0] != b"later"]
    assert image.applied_index == ledger.machine.applied_index - 1
    assert [image.count(table) for table in (1, 2, 4, 99)] == [3000, 0, 2, 0]
    assert image.catalog.databases == ledger.machine.catalog.databases
    assert [block.table_id for block in image.all_blocks()] == [1, 4]
    resumed = next(image.blocks(1, low=rows[100][0]))
    assert resumed.keys[0] == rows[100][0]


def test_another_process_reads_while_this_one_writes(ledger: Ledger, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    index = ledger.machine.checkpoint(copy)
    code = "from storage.image import Image; from pathlib import Path; import sys; image = Image(Path(sys.argv[1]))\n"
    code += "sys.stdout.write(f'{image.applied_index} {sum(len(block.rows) for block in image.all_blocks())}')"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(copy)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    for number in range(200):
        ledger.add(put(1, b"%05d" % number, id=number, n="changed"))
    ledger.machine.flush()
    assert child.communicate()[0] == f"{index} 3002"


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        Image(tmp_path / "nothing")


@pytest.mark.parametrize("tables", [[1, 2, 4], [4, 2, 1]])
def test_a_folder_filled_in_bulk_is_the_same_state(
    ledger: Ledger, image: Image, tmp_path: Path, tables: list[int]
) -> None:
    machine = Machine(load(image, tmp_path / "new", tables), index_function)
    store, old = machine.store, ledger.machine.store
    assert machine.applied_index == ledger.machine.applied_index
    assert store.state_hash() == old.state_hash()
    assert not store.index_ready(3)
    while machine.build_step():
        pass
    assert list(store.scan_index(3)) == list(old.scan_index(3))
    assert not list(tmp_path.glob("*.loading"))


def test_a_folder_is_there_only_when_it_is_whole(image: Image, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    loading = BulkLoad(folder, SMALL)
    loading.add(1, [b"a"], [b"{}"])
    assert not folder.exists()
    loading.cancel()
    assert not list(tmp_path.glob("new*"))
    load(image, folder, [])
    with pytest.raises(Corrupt):
        BulkLoad(folder, SMALL)


def test_disorder_is_refused(tmp_path: Path) -> None:
    loading = BulkLoad(tmp_path / "new", SMALL)
    loading.add(1, [b"b", b"d"], [b"1", b"2"])
    with pytest.raises(Corrupt, match="key order"):
        loading.add(1, [b"c"], [b"3"])
    with pytest.raises(Corrupt, match="key order"):
        loading.add(1, [b"f", b"e"], [b"3", b"4"])
    loading.add(2, [b"a"], [b"5"])
    with pytest.raises(Corrupt, match="one go"):
        loading.add(1, [b"x"], [b"6"])


def test_a_machine_goes_on_with_another_engine(ledger: Ledger, image: Image, tmp_path: Path) -> None:
    machine, store, catalog = ledger.machine, ledger.machine.store, ledger.machine.catalog
    before, revision = store.state_hash(), catalog.revision
    ledger.add((Kind.DROP_TABLE, 1), new_table(7), put(7, b"k", id=1))
    engine = load(image, tmp_path / "new", [1, 2, 4])
    machine.switch(engine).close()
    assert machine.store is store and machine.catalog is catalog and catalog.revision > revision
    assert store.state_hash() == before and store.count(1) == 3000 and store.count(7) == 0
    assert machine.applied_index == image.applied_index and machine.indexes_waiting == [3]
    ledger.add(put(1, b"new", id="new", n=1))
    ledger.build()
    assert store.count(1) == 3001 and store.index_ready(3)
    view = store.view()
    assert view.count(1) == 3001 and view.applied_index == machine.applied_index
