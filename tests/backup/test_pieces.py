"""Pieces of tables: each key is in one of them, however they are cut and whoever reads them."""

from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from backup.pieces import Pieces, middle

KEYS = st.binary(max_size=12)


@given(KEYS, KEYS)
def test_a_middle_is_between(one, other):
    low, high = sorted((one, other))
    half = middle(low, high)
    assert half is None or low < half < high


def test_a_middle_is_about_half_way():
    assert middle(b"a00", b"a99") == b"a4\xb4\xb4" or b"a40" < middle(b"a00", b"a99") < b"a60"
    assert middle(b"k", b"k\0") is None
    assert middle(b"", b"\0") is None
    assert middle(b"", b"\x02") == b"\x01"


def read_all(pieces, keys, step):
    """What one reader does that reads `step` keys of a piece and gives back the rest: (piece, keys) of each."""
    parts = []
    while (piece := pieces.take()) is not None:
        mine = [key for key in keys if piece.low <= key < piece.high]
        parts.append((piece, mine[:step]))
        pieces.give_back(piece, mine[step - 1] + b"\0" if len(mine) > step else None)
    return parts


@given(st.sets(KEYS, min_size=1, max_size=60).map(sorted), st.integers(1, 20), st.integers(1, 4))
def test_every_key_is_read_once_and_parts_follow_each_other(keys, step, readers):
    parts = read_all(Pieces([(7, keys[0], keys[-1] + b"\0")], readers), keys, step)
    parts.sort(key=lambda part: part[0].low)
    assert [key for _, mine in parts for key in mine] == keys
    numbers = [piece.number for piece, _ in parts]
    assert len(set(numbers)) == len(numbers)


def test_several_readers_share_what_there_is():
    keys = [b"%04d" % number for number in range(2000)]
    pieces = Pieces([(1, keys[0], keys[-1] + b"\0"), (2, keys[0], keys[-1] + b"\0")], 3)
    found = [[], [], []]
    readers = [Thread(target=lambda own: own.extend(read_all(pieces, keys, 50)), args=(own,)) for own in found]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    for table_id in (1, 2):
        parts = [part for own in found for part in own if part[0].table_id == table_id]
        assert sorted(key for _, mine in parts for key in mine) == keys


def test_a_table_is_cut_at_once_for_all_readers():
    pieces = Pieces([(1, b"0", b"9")], 3)
    taken = [pieces.take() for _ in range(3)]
    assert sorted((piece.low, piece.high) for piece in taken)[0][0] == b"0"
    lows = sorted(piece.low for piece in taken)
    assert sorted(piece.high for piece in taken) == [*lows[1:], b"9"]


def test_who_waits_is_told_of_the_end():
    pieces = Pieces([(1, b"a", b"a\0")], 2)
    piece = pieces.take()
    told = []
    waiting = Thread(target=lambda: told.append(pieces.take()))
    waiting.start()
    pieces.give_back(piece, None)
    waiting.join()
    assert told == [None]
    pieces = Pieces([(1, b"a", b"b")], 1)
    pieces.take()
    waiting = Thread(target=lambda: told.append(pieces.take()))
    waiting.start()
    pieces.end()
    waiting.join()
    assert told == [None, None]
