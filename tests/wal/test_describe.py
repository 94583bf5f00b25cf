"""What `log show` and `log verify` say about a log, whole, damaged, or being written."""

import json

import pytest

from model.effect import Kind, encode
from model.errors import Corrupt
from model.keys import primary_key_bytes
from wal import show
from wal.describe import describe, verify
from wal.reader import open_log
from wal.record import Kind as RecordKind
from wal.record import Record
from wal.writer import LogWriter

TIME_MS = 1_700_000_000_123


def batch(*effects):
    return encode(list(effects), TIME_MS)


ROW = b'{"id":"a","n":1}'
BATCHES = [
    b"",
    batch((Kind.CREATE_DATABASE, "db-uuid", "shop"), (Kind.CREATE_TABLE, 1, "t-uuid", "db-uuid", "orders", "id", {})),
    batch((Kind.PUT_ROW, 1, primary_key_bytes("a"), ROW), (Kind.DELETE_ROW, 1, primary_key_bytes([1, "b"]))),
    batch((Kind.ALTER_TABLE, 1, {"name": "sales"})),
    batch((Kind.PUT_ROW, 1, primary_key_bytes(7), ROW), (Kind.PUT_ROW, 9, b"Sx", ROW)),
    batch((Kind.PUT_SYSTEM, "users", "bob", {"password": "secret"})),
]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "log"
    writer = LogWriter(open_log(folder), segment_bytes=400)
    writer.append([Record(RecordKind.ENTRY, 1, 1, b"void")])
    writer.append([Record(RecordKind.TRUNCATE, 0, 0)])
    writer.append([Record(RecordKind.ENTRY, 2, index, payload) for index, payload in enumerate(BATCHES, 1)])
    writer.append([Record(RecordKind.CONF_ENTRY_V2, 2, len(BATCHES) + 1, b"\x90")])
    writer.append([Record(RecordKind.HARD_STATE, 2, 3, bytes(8))])
    writer.start()
    writer.close()
    return folder


def test_one_dict_per_effect_with_names_as_they_were(folder):
    told = list(describe(folder))
    assert [(line["index"], line["kind"], line["table"], line["key"], line["bytes"]) for line in told] == [
        (1, "leader", None, None, 0),
        (2, "create_database", None, None, 0),
        (2, "create_table", "shop.orders", None, 0),
        (3, "put_row", "shop.orders", "a", len(ROW)),
        (3, "delete_row", "shop.orders", [1, "b"], 0),
        (4, "alter_table", "shop.sales", None, 0),
        (5, "put_row", "shop.sales", 7, len(ROW)),
        (5, "put_row", 9, "0x5378", len(ROW)),
        (6, "put_system", None, "bob", 0),
        (7, "membership", None, None, 1),
    ]
    assert {line["time"] for line in told} == {None, "2023-11-14T22:13:20.123+00:00"}
    assert {line["raft_term"] for line in told} == {2}
    assert "secret" not in json.dumps(told)


def test_a_part_of_the_log_still_knows_the_names_from_before(folder):
    assert [(line["index"], line["table"]) for line in describe(folder, from_index=5, limit=1)] == [(5, "shop.sales")]
    assert len(list(describe(folder, limit=4))) == 4


def test_show_prints_a_line_per_effect_or_one_json_document(folder):
    lines = list(show.show(folder, as_json=False))
    assert len(lines) == 11
    assert lines[4].split()[:4] == ["3", "2", "2023-11-14T22:13:20.123+00:00", "put_row"]
    assert lines[4].endswith('shop.orders "a"')
    document = json.loads("\n".join(show.show(folder, as_json=True)))
    assert document == list(describe(folder))
    assert json.loads("\n".join(show.show(folder, as_json=True, from_index=100))) == []


def test_verify_says_that_a_log_is_whole(folder):
    report = verify(folder)
    assert (report["first_index"], report["last_index"], report["problems"]) == (1, 7, [])
    assert len(report["segments"]) > 1
    assert report["records"] == sum(segment["records"] for segment in report["segments"])
    is_whole, text = show.verify(folder, as_json=False)
    assert is_whole
    assert text.endswith("The log is whole.")
    assert json.loads(show.verify(folder, as_json=True)[1]) == report


def test_verify_names_damage_and_reading_refuses_it(folder):
    path = min(folder.glob("*.wal"))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    is_whole, text = show.verify(folder, as_json=False)
    assert not is_whole
    assert path.name in text
    assert "offset 0" in text
    with pytest.raises(Corrupt):
        list(describe(folder))
    assert path.read_bytes() == content


def test_verify_calls_a_torn_tail_by_its_name_and_leaves_it(folder):
    path = max(folder.glob("*.wal"))
    content = path.read_bytes().rstrip(b"\0")[:-3]
    path.write_bytes(content)
    is_whole, text = show.verify(folder, as_json=False)
    assert is_whole
    assert f"cut short ({path.name}, offset" in text
    assert path.read_bytes() == content


def test_verify_says_what_is_missing(folder, tmp_path):
    names = sorted(path.name for path in folder.glob("*.wal"))
    (folder / names[1]).unlink()
    is_whole, text = show.verify(folder, as_json=False)
    assert not is_whole
    assert "has no segment 00000002" in text
    is_whole, text = show.verify(tmp_path / "nothing", as_json=False)
    assert not is_whole


def test_an_open_log_can_be_shown_while_it_is_written(tmp_path):
    folder = tmp_path / "log"
    writer = LogWriter(open_log(folder), segment_bytes=3000)
    writer.start()
    for index in range(1, 40):
        writer.append([Record(RecordKind.ENTRY, 1, index, BATCHES[1])])
        if index % 10 == 0:
            told = [line["index"] for line in describe(folder)]
            assert told == sorted(told)
            assert verify(folder)["problems"] == []
    writer.close()
    assert max(line["index"] for line in describe(folder)) == 39
